"""What is chosen by the number of images, and the flags that one word stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets import open_dataset
from datasets.base import DataError
from models import WeightsError
from models.recipes import epochs_for
from scripts.sweep import plan_of
from tests.support.trees import make_folder, make_mvtec, touch
from train import make_parser
from utils.detection.rates import images_needed, suitable_rates
from utils.system.errors import as_flags
from utils.training.config import TrainConfig
from utils.training.plan import offering_preset


@pytest.mark.parametrize(("images", "epochs"), [(1, 60), (20, 60), (34, 59), (67, 30), (99, 21), (100, 20), (400, 20),
                                                (401, 19), (1000, 8), (1600, 5), (50_000, 5)])
def test_epochs_by_the_number_of_images(images, epochs):
    assert epochs_for(images) == epochs


@pytest.mark.parametrize(
    ("images", "calibration", "far"),
    [(1000, 0.2, 0.01), (297, 1 / 3, 0.01), (295, 0.2, 0.02), (147, 1 / 3, 0.02), (100, 0.2, 0.05), (57, 1 / 3, 0.05),
     (40, 9 / 40, 0.1), (27, 1 / 3, 0.1), (12, 1 / 3, 1 / 5), (1, 1 / 3, 1 / 2)],
)
def test_rates_by_the_number_of_images(images, calibration, far):
    assert suitable_rates(images, None, None) == pytest.approx((calibration, far))
    kept = round(calibration * images)
    assert images < 27 or kept >= images_needed(far)


def test_what_is_given_is_kept():
    assert suitable_rates(100, 0.0, 0.01) == (0.0, 0.01)
    assert suitable_rates(100, 0.5, None) == (0.5, 0.02)
    assert suitable_rates(1000, None, 0.005) == (0.2, 0.005)
    assert suitable_rates(400, None, 0.005) == (1 / 3, 0.005)  # more than a third is not kept out


def flags(*words: str) -> dict:
    return vars(make_parser().parse_args(["--data_root", "x", *words]))


def test_the_preset_sets_what_is_not_given():
    plain, preset = flags(), flags("--preset", "own")
    changed = {name: value for name, value in preset.items() if plain[name] != value}
    assert changed == {
        "preset": "own", "backbone": "efficientnet_lite0", "weights": "bundled", "aux_path": "builtin",
        "recipe": "robust", "calibration": None, "far": None, "look": None,
        "epochs_stage1": None, "epochs_stage2": None,
    }
    words = "--recipe published --preset own --far 0.02 --epochs_stage1 auto --epochs_stage2 120"
    given = flags(*words.split())
    assert (given["recipe"], given["far"], given["epochs_stage2"]) == ("published", 0.02, 120)
    assert given["epochs_stage1"] is None and given["backbone"] == "efficientnet_lite0"


def test_the_help_names_what_the_preset_stands_for():
    preset, parser = flags("--preset", "own"), make_parser()
    text = next(action.help for action in parser._actions if action.dest == "preset")
    for name, value in preset.items():
        if value != parser.get_default(name) and name not in ("preset", "data_root"):
            assert f"--{name} {'auto' if value is None else value}" in text


def test_settings_are_fitted_once():
    config = TrainConfig(Path("x"), calibration=None, far=None, epochs_stage1=None, epochs_stage2=7).fit(100)
    assert (config.epochs_stage1, config.epochs_stage2, config.calibration, config.far) == (20, 7, 0.2, 0.05)
    assert config.fit(1000) == config
    assert TrainConfig(Path("x")).fit(100) == TrainConfig(Path("x"))


@pytest.mark.parametrize("error", [DataError("no textures"), WeightsError("no weights")])
def test_photographs_of_ones_own_are_told_of_the_preset(tmp_path, error):
    touch(tmp_path / "mine", "fine/a.jpg", "bent/b.jpg")
    source = open_dataset(tmp_path / "mine", good=["fine"])
    with pytest.raises(type(error)) as caught, offering_preset(source):
        raise error
    offer = f"python train.py --data_root {tmp_path}/mine --preset own --dataset own --good fine"
    assert as_flags(str(caught.value)) == f"{error}; for photographs of your own, without any download: {offer}"
    with pytest.raises(type(error)) as caught, offering_preset(open_dataset(make_folder(tmp_path / "folder"))):
        raise error
    assert str(caught.value).endswith(f"--data_root {tmp_path}/folder --preset own")
    with pytest.raises(type(error)) as caught, offering_preset(open_dataset(make_mvtec(tmp_path / "mvtec"))):
        raise error
    assert str(caught.value) == str(error)


def test_a_sweep_plans_by_what_suits_each_category(tmp_path):
    from scripts.sweep import make_parser as sweep_parser

    root = make_folder(tmp_path / "folder")
    args, others = sweep_parser().parse_known_args(
        ["--data_root", str(root), "--methods", "aand", "--seeds", "0", "--store", "x", "--preset", "own"]
    )
    plan = plan_of(args, others)
    source = open_dataset(root)
    images = {category: len(source.samples(category, "train")) for category in source.categories}
    assert {task.category: task.image_epochs for task in plan.tasks} == {
        name: count * 2 * epochs_for(count) for name, count in images.items()
    }
