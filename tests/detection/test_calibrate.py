"""How a category gets its thresholds: by images kept out of training, or of a folder, by scripts/calibrate.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.base import DataError
from datasets.batches import CALIBRATION_SEED, hold_out
from tests.support.commands import ASIDE, OWN, run_calibrate, run_predict, run_train, same_weights, scores_of
from tests.support.trees import good_image, write_image
from utils.detection.calibration import digests_of
from utils.detection.thresholds import read_thresholds
from utils.runs.folder import Run
from utils.system.errors import RunError
from utils.system.signals import Interrupted

pytestmark = pytest.mark.usefixtures("one_thread")


def train_paths(data: Path) -> list[Path]:
    return sorted((data / "widget/train/good").iterdir())


def aside(data: Path) -> list[Path]:
    """The training images that --calibration 0.4 keeps out of training."""
    return hold_out(train_paths(data), 0.4, CALIBRATION_SEED)[1]


# Training


def test_thresholds_are_those_of_the_images_kept_aside(own):
    found = read_thresholds(own.run, "widget")
    np.testing.assert_allclose(found.scores, np.sort(scores_of(own.run, "widget", aside(own.data))), atol=1e-5)
    assert len(found.scores) == 4 and found.source == "held out" and found.far == 0.25
    assert found.image_threshold == found.scores[3]  # 5 * 0.25 = 1.25: one of five may be above
    assert f"widget: {found}" in (own.run / "log.txt").read_text()


def test_images_kept_aside_are_not_trained_on(own, tmp_path):
    """Neither the weights, nor what the model is shown, nor what is logged follow from them."""
    options = (*OWN, *ASIDE, "--recipe", "robust", "--output", "run")
    for name in ("first", "second"):
        data = shutil.copytree(own.data, tmp_path / name / "data")
        if name == "second":
            for number, path in enumerate(aside(data)):
                write_image(path, good_image(np.random.default_rng(99 + number), 96))
        assert run_train(tmp_path / name, "--data_root", data, *options).status == 0
    first, second = tmp_path / "first/run", tmp_path / "second/run"
    assert same_weights(first, second, "widget")
    for name in ("metrics.jsonl", "checkpoints/widget/view.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert read_thresholds(first, "widget").scores != read_thresholds(second, "widget").scores


@pytest.mark.parametrize("moment", ["before", "after the last stage", "while they are written"])
def test_a_run_that_goes_on_ends_with_the_same_thresholds(own, tmp_path, monkeypatch, moment):
    command = ("--data_root", own.data, *OWN, *ASIDE)

    def stop(*arguments) -> None:
        raise Interrupted(2)

    with monkeypatch.context() as patch:
        targets = {"before": "save_checkpoint", "after the last stage": "Category.set_thresholds"}
        target = targets.get(moment, "write_thresholds")
        patch.setattr(f"utils.training.category.{target}", stop)
        assert run_train(tmp_path, *command).status == 130
    [run] = (tmp_path / "runs").iterdir()
    assert not Run(run).category("widget").thresholds.exists()
    again = run_train(tmp_path, *command)
    assert again.status == 0 and f"going on with the unfinished runs/{run.name}" in again.err
    first, second = (Run(folder).category("widget").thresholds.read_bytes() for folder in (run, own.run))
    assert first == second
    assert same_weights(run, own.run, "widget")
    third = run_train(tmp_path, *command, "--output", run)
    assert "already trained, skipped" in third.out


def test_too_few_images_for_the_rate_are_said_before_training(own, tmp_path):
    result = run_train(tmp_path, "--data_root", own.data, *OWN, "--calibration", 0.2, "--output", "run")
    expected = "widget: --calibration 0.2: 2 good images allow no rate of false alarms below 0.333; 0.01 needs 99"
    assert expected in result.err and result.status == 0
    assert read_thresholds(tmp_path / "run", "widget").far == pytest.approx(1 / 3)


@pytest.mark.parametrize(("flag", "value"), [("--calibration", 1), ("--calibration", -0.1), ("--far", 0), ("--far", 1)])
def test_shares_that_are_none(own, tmp_path, flag, value):
    result = run_train(tmp_path, "--data_root", own.data, f"{flag}={value}")
    assert result.status == 2 and flag in result.errors[0]


# scripts/calibrate.py


@pytest.fixture
def plain(trained, tmp_path):
    """A run without thresholds, and 9 good images that it has not seen."""
    shutil.copytree(trained.aand, tmp_path / "run")
    for number in range(9):
        write_image(tmp_path / f"good/{number}.png", good_image(np.random.default_rng(100 + number), 32))
    return tmp_path


def test_thresholds_of_a_folder_and_of_another_rate(plain):
    before = run_predict(plain, "run", "good", "--category", "tile")
    advice = "no thresholds, scores only; set them with: python scripts/calibrate.py run --images DIR"
    assert before.status == 0 and advice in before.err
    assert all(line.startswith("- ") for line in before.out.splitlines())
    assert run_predict(plain, "run", "good", "--category", "tile", "--far", 0.1).status == 2
    result = run_calibrate(plain, "run", "--images", "good", "--categories", "tile", "--far", 0.2)
    found = read_thresholds(plain / "run", "tile")
    scores = sorted(float(line.split()[1]) for line in before.out.splitlines())
    assert result.status == 0 and found.source == "images given"
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    assert found.image_threshold == found.scores[7]  # 10 * 0.2: two of ten may be above
    moved = run_calibrate(plain, "run", "--far", 0.3)  # tile alone has any
    assert moved.status == 0 and f"tile in run: {found.at(0.3)}\n" == moved.out
    assert read_thresholds(plain / "run", "tile") == found.at(0.3)
    low = run_calibrate(plain, "run", "--far", 0.01)
    assert "warning: tile: 9 good images allow no rate of false alarms below 0.1; 0.01 needs 99" in low.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--images", "good"), "run has several categories; choose one of: bottle, tile"),
        (("--images", "good", "--categories", "tile", "bottle"), "--images are of one category"),
        (("--images", "good", "--categories", "cable"), "run has no trained cable"),
        (("--far", "0.1"), "run has no thresholds of bottle, tile; give good --images"),
        (("--images", "good", "bad.png", "--categories", "tile"), "1 of 10 images cannot be used"),
    ],
)
def test_calibrations_that_cannot_be(plain, arguments, message):
    (plain / "bad.png").write_bytes(b"nothing")
    result = run_calibrate(plain, "run", *arguments)
    assert result.status == 2 and message in result.errors[0]
    assert not list((plain / "run").rglob("thresholds.json"))


def test_images_of_the_training_are_refused(plain, trained):
    result = run_calibrate(plain, "run", "--categories", "tile", "--images", trained.data / "tile/train/good")
    assert result.status == 2 and "4 images of the training data" in result.errors[0]


def copies(folder: Path, paths: list[Path], suffix: str = ".png") -> Path:
    """The images in other files, under other names."""
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            (folder / f"copy{number}").mkdir(parents=True, exist_ok=True)
            image.save(folder / f"copy{number}/x{suffix}", compress_level=1)
    return folder


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_copies_of_training_images_are_refused(plain, trained, suffix):
    folder = copies(plain / "copies", sorted((trained.data / "tile/train/good").iterdir())[:2], suffix)
    result = run_calibrate(plain, "run", "--categories", "tile", "--images", folder, "good")
    named = f"--images: 2 images of the training data, e.g. {folder}/copy0/x{suffix}, {folder}/copy1/x{suffix}: "
    assert result.status == 2 and named in result.errors[0]
    assert not Run(plain / "run").category("tile").thresholds.exists()


def test_a_run_knows_its_training_images_when_they_are_gone(plain, trained):
    """And one from before does not: then the data are looked at, and where they are gone it is said."""
    folder = copies(plain / "copies", sorted((trained.data / "tile/train/good").iterdir()))
    config = json.loads((plain / "run/config.json").read_text())
    command = ("run", "--categories", "tile", "--images", folder)
    for root, kept, status in [("gone", True, 2), (trained.data, False, 2), ("gone", False, 0)]:
        (plain / "run/config.json").write_text(json.dumps(config | {"data_root": str(root)}))
        if not kept:
            Run(plain / "run").category("tile").training_images_file.unlink(missing_ok=True)
        result = run_calibrate(plain, *command)
        assert result.status == status, result.err
        assert ("4 images of the training data" in result.err) == (status == 2)
        assert ("warning: run does not say which images it was trained on" in result.err) == (status == 0)


def test_the_digests_are_those_of_the_images_that_training_saw(own, plain, trained):
    content = json.loads(Run(own.run).category("widget").training_images_file.read_text())
    expected = set(digests_of(train_paths(own.data), 1, own.cwd / "none").values())
    set_aside = set(digests_of(aside(own.data), 1, own.cwd / "none").values())
    assert len(expected) == 10 and len(set_aside) == 4
    assert content["digests"] == sorted(expected - set_aside)
    shutil.copytree(own.run, plain / "own")
    assert run_calibrate(plain, "own", "--images", *aside(own.data), "--far", 0.3).status == 0
    path = Run(plain / "run").category("tile").training_images_file
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"made_by": "another decoder"}))
    assert Run(plain / "run").category("tile").training_images is None
    for text in ("{", "[]", '{"digests": [3]}', '{"digests": "x"}', "{}"):
        path.write_text(text)
        with pytest.raises(RunError, match=r"training_images\.json cannot be read"):
            _ = Run(plain / "run").category("tile").training_images
    path.unlink()
    for digests in (["b", "a"], ["c", "a"]):
        Run(plain / "run").category("tile").keep_training_images(digests)
    assert Run(plain / "run").category("tile").training_images == {"a", "b", "c"}
    path.write_text(path.read_text().replace('"tile"', '"wood"'))
    with pytest.raises(RunError, match=r"training_images\.json cannot be read .*it is of the category 'wood'"):
        _ = Run(plain / "run").category("tile").training_images
    path.write_text(path.read_text().replace(' "category": "wood",\n', ""))  # as earlier versions wrote it
    assert Run(plain / "run").category("tile").training_images == {"a", "b", "c"}


def test_copies_among_the_images_count_once(plain):
    copies(plain / "good", [plain / "good/3.png"])
    result = run_calibrate(plain, "run", "--categories", "tile", "--images", "good", "--far", 0.3)
    assert result.status == 0
    assert "warning: 1 image left out, being copies of others: good/copy0/x.png equals good/3.png" in result.err
    assert len(read_thresholds(plain / "run", "tile").scores) == 9


def test_copies_of_an_image_stay_on_one_side():
    """Ten files of six images: a b c a d e f a b f. Of two images held out, the first file alone is used."""
    words = list("abcadefabf")
    train, held_out = hold_out(list(range(10)), 1 / 3, 5, words)
    assert len(held_out) == 2 and held_out == sorted(held_out)
    assert all(words.index(words[place]) == place for place in held_out)
    assert train == [place for place, word in enumerate(words) if word not in {words[p] for p in held_out}]
    chosen = np.random.default_rng(5).permutation(6)[:2]
    assert {words[place] for place in held_out} == {"abcdef"[place] for place in chosen}
    assert hold_out(list(range(10)), 0.3, 5, list("0123456789")) == hold_out(list(range(10)), 0.3, 5)
    with pytest.raises(DataError, match="1 training images are too few"):
        hold_out([1, 2, 3], 0.3, 5, ["a", "a", "a"])


def test_images_kept_aside_have_no_copy_in_training(own, tmp_path):
    data = shutil.copytree(own.data, tmp_path / "data")
    first = aside(data)[0]
    for number in range(3):
        shutil.copy(first, data / f"widget/train/good/copy{number}.png")
    result = run_train(tmp_path, "--data_root", data, *OWN, *ASIDE, "--method", "rd4ad", "--output", "run")
    assert result.status == 0
    seen = Run(tmp_path / "run").category("widget").training_images
    kept = read_thresholds(tmp_path / "run", "widget").scores
    assert len(kept) == 4 and len(seen) == 6  # ten images, in thirteen files
    digest = digests_of([first], 1, tmp_path / "none")[first]
    assert ("3 images left out, being copies of held out ones" in result.err) == (digest not in seen)


def test_every_seed_gets_thresholds_of_its_own(seeded, plain):
    shutil.copytree(seeded.run, plain / "seeded")
    assert run_calibrate(plain, "seeded", "--categories", "tile", "--images", "good", "--far", 0.2).status == 0
    first, second = (read_thresholds(plain / f"seeded/seed{seed}", "tile") for seed in (0, 1))
    assert first.scores != second.scores
