"""Checkpoints: what is saved is what is loaded, and every file that does not fit is refused by its name."""

from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.aand import build_model
from models.recipes import METHODS
from models.teacher import build_teacher
from tests.support.commands import decode, maps_of, run_test
from utils.detection.prediction import Predictor
from utils.runs.checkpoint import load_checkpoint, load_model, save_checkpoint
from utils.runs.folder import Run
from utils.system.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = {"method": "aand", "recipe": "published", "backbone": "efficientnet_lite0", "image_size": 32, "seed": 0}


class Unpicklable(nn.Linear):
    def get_extra_state(self):
        return lambda: None


@pytest.fixture
def saved(tmp_path) -> Path:
    save_checkpoint(tmp_path / "part.pt", {"part": nn.Linear(2, 3)}, SETTINGS, seconds=1.5)
    return tmp_path / "part.pt"


def refused(path: Path, reason: str = ""):
    """The error names the file and then the reason."""
    return pytest.raises(CheckpointError, match=f"(?s){re.escape(str(path))}.*{reason}")


# Save and load


@pytest.mark.parametrize("method", ["aand", "rd4ad"])
def test_maps_are_bitwise_the_same_after_save_and_load(tmp_path, trained, method):
    settings = SETTINGS | {"method": method}
    torch.manual_seed(3)
    model = build_model(build_teacher(settings["backbone"], "random"), METHODS[method]["published"])
    for module in model.modules():  # running statistics as training leaves them, not 0 and 1
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    save_checkpoint(Run(tmp_path).teacher, {"trunk": model.pretrained.trunk}, settings, seconds=0.0)
    for stage, parts in model.stage_parts().items():
        save_checkpoint(Run(tmp_path).category("tile").stage(stage), parts, settings, float(stage), "tile")
    files = Run(tmp_path).category("tile")
    loaded, seconds = load_model(files.run.teacher, files.stage, "tile", settings | {"recipe": "published"}, None)
    assert seconds == {"aand": 3.0, "rd4ad": 2.0}[method]
    assert not any(module.training for module in loaded.modules())

    images = decode(sorted((trained.data / "tile/test").rglob("*.png")), 32)
    predictors = (Predictor.of(m, 32, batch_size=2) for m in (model, loaded))
    (before, scores_before), (after, scores_after) = (predictor.maps(images) for predictor in predictors)
    assert np.ptp(before) > 0
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(scores_after, scores_before)


def test_categories_have_their_own_maps(trained):
    images = sorted((trained.data / "tile/test").rglob("*.png"))
    for run in (trained.aand, trained.rd4ad):
        assert not np.array_equal(maps_of(run, "tile", images), maps_of(run, "bottle", images))
        np.testing.assert_array_equal(maps_of(run, "tile", images), maps_of(run, "tile", images))


def test_a_file_holds_tensors_and_plain_values(saved):
    content = torch.load(saved, weights_only=True)
    assert content.keys() == {"settings", "seconds", "part"}
    assert content["settings"] == {
        "method": "aand", "backbone": "efficientnet_lite0", "image_size": 32, "category": None,
    }
    part = nn.Linear(2, 3)
    assert load_checkpoint(saved, {"part": part}, SETTINGS) == 1.5
    assert torch.equal(part.weight, content["part"]["weight"])
    assert list(saved.parent.iterdir()) == [saved]  # no temporary file is left


def test_a_failed_save_keeps_the_old_file(saved):
    before = saved.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint(saved, {"part": Unpicklable(2, 3)}, SETTINGS, seconds=2.0)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


# Files that do not fit


@pytest.mark.parametrize("changed", [{"method": "rd4ad"}, {"backbone": "resnet18"}, {"image_size": 64}])
def test_made_with_other_settings(saved, changed):
    [(key, value)] = changed.items()
    with refused(saved, f"made with {key}={SETTINGS[key]}, the run has {value}"):
        load_checkpoint(saved, {"part": nn.Linear(2, 3)}, SETTINGS | changed)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_truncated(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with refused(saved):
        load_checkpoint(saved, {"part": nn.Linear(2, 3)}, SETTINGS)


@pytest.mark.parametrize("content", [b"not a checkpoint", b"\x80\x02}q\x00.", b"\x80\x02\x95", b"PK\x03\x04"])
def test_not_a_checkpoint(saved, content):
    saved.write_bytes(content)
    with refused(saved):
        load_checkpoint(saved, {"part": nn.Linear(2, 3)}, SETTINGS)


@pytest.mark.parametrize("key", ["settings", "seconds", "part"])
def test_missing_key(saved, key):
    content = torch.load(saved, weights_only=True)
    del content[key]
    torch.save(content, saved)
    with refused(saved):
        load_checkpoint(saved, {"part": nn.Linear(2, 3)}, SETTINGS)


@pytest.mark.parametrize("value", [None, 3, [1], {"weight": 1}], ids=str)
@pytest.mark.parametrize("key", ["settings", "part"])
def test_wrong_kind_of_value(saved, key, value):
    torch.save(torch.load(saved, weights_only=True) | {key: value}, saved)
    with refused(saved):
        load_checkpoint(saved, {"part": nn.Linear(2, 3)}, SETTINGS)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_state_that_does_not_fit_strictly(saved, change):
    content = torch.load(saved, weights_only=True)
    if change == "missing":
        del content["part"]["bias"]
    else:
        content["part"]["bias" if change == "shape" else "more"] = torch.zeros(7)
    torch.save(content, saved)
    with refused(saved, "does not fit the model: part"):
        load_checkpoint(saved, {"part": nn.Linear(2, 3)}, SETTINGS)


@pytest.mark.parametrize("name", ["teacher.pt", "tile/stage1.pt", "tile/stage2.pt"])
def test_missing_file(trained, tmp_path, name):
    run = shutil.copytree(trained.aand, tmp_path / "run")
    path = run / "checkpoints" / name
    path.unlink()
    with refused(path, "train it with train.py"):
        Run(run).category("tile").load_model()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("weight", torch.zeros(2, 3), r"weight has shape \(2, 3\), the model needs \(3, 2\)"),
        ("weight", torch.zeros(3, 2, dtype=torch.int64), "weight holds int64, the model needs float32"),
        ("weight", torch.full((3, 2), torch.nan), "weight holds NaN or infinite values"),
        ("bias", torch.tensor([0.0, torch.inf, 0.0]), "bias holds NaN or infinite values"),
        ("bias", torch.tensor([0.0, 1e300, 0.0], dtype=torch.float64), "bias holds NaN or infinite values"),
        ("bias", [0.0, 0.0, 0.0], "bias is a list, not a tensor"),
        ("more", torch.zeros(1), "'more' is unexpected"),
        (3, torch.zeros(1), "'3' is unexpected"),
    ],
)
def test_differences_are_named(saved, name, value, reason):
    content = torch.load(saved, weights_only=True)
    content["part"][name] = value
    torch.save(content, saved)
    part = nn.Linear(2, 3)
    before = part.weight.clone()
    with refused(saved, f"does not fit the model: part: {reason}$"):
        load_checkpoint(saved, {"part": part}, SETTINGS)
    assert torch.equal(part.weight, before)


def test_only_the_first_of_many_differences_are_named(tmp_path):
    save_checkpoint(tmp_path / "part.pt", {"part": nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))}, SETTINGS, 0.0)
    with refused(tmp_path / "part.pt", r"weight is missing; bias is missing; '0\.weight' is unexpected; and 7 more$"):
        load_checkpoint(tmp_path / "part.pt", {"part": nn.Linear(1, 1)}, SETTINGS)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1, "1"])
def test_a_duration_that_is_none(saved, seconds):
    torch.save(torch.load(saved, weights_only=True) | {"seconds": seconds}, saved)
    with refused(saved, "no settings or seconds"):
        load_checkpoint(saved, {"part": nn.Linear(2, 3)}, SETTINGS)


@pytest.mark.parametrize("value", [torch.tensor([32, 32]), [32], 32.0, None])
def test_settings_of_another_kind(saved, value):
    content = torch.load(saved, weights_only=True)
    content["settings"]["image_size"] = value
    torch.save(content, saved)
    with refused(saved, "made with image_size=.*, the run has 32"):
        load_checkpoint(saved, {"part": nn.Linear(2, 3)}, SETTINGS)


def test_another_category(saved):
    save_checkpoint(saved, {"part": nn.Linear(2, 3)}, SETTINGS, 1.5, "tile")
    assert load_checkpoint(saved, {"part": nn.Linear(2, 3)}, SETTINGS, "tile") == 1.5
    for other in ("bottle", None):
        with refused(saved, f"made with category=tile, the run has {other}"):
            load_checkpoint(saved, {"part": nn.Linear(2, 3)}, SETTINGS, other)
    content = torch.load(saved, weights_only=True)
    del content["settings"]["category"]  # as files were before
    torch.save(content, saved)
    assert load_checkpoint(saved, {"part": nn.Linear(2, 3)}, SETTINGS, "bottle") == 1.5


def test_a_checkpoint_of_another_category_of_the_run(trained, tmp_path):
    run = shutil.copytree(trained.aand, tmp_path / "run")
    shutil.copy(Run(run).category("bottle").stage(2), Run(run).category("tile").stage(2))
    result = run_test(tmp_path, "--data_root", trained.data, "--run", run)
    assert result.status == 2
    [error] = result.errors
    assert error == f"error: {Run(run).category('tile').stage(2)} was made with category=bottle, the run has tile"


def test_program_names_the_broken_file(trained, tmp_path):
    run = shutil.copytree(trained.aand, tmp_path / "run")
    Run(run).category("tile").stage(1).write_bytes(b"PK\x03\x04")
    result = run_test(tmp_path, "--data_root", trained.data, "--run", run)
    assert result.status == 2
    assert len(result.errors) == 1
    assert str(Run(run).category("tile").stage(1)) in result.errors[0]
    assert not (run / "results.csv").exists()
