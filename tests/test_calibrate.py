"""How a category gets its thresholds: by images kept out of training, or of a folder, by scripts/calibrate.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets.loading import CALIBRATION_SEED, hold_out
from tests.commands import ASIDE, OWN, run_calibrate, run_predict, run_train, same_weights, scores_of
from tests.trees import good_image, write_image
from utils.interruption import Interrupted
from utils.runs import thresholds_path
from utils.thresholds import read_thresholds

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


def test_images_kept_aside_are_not_trained_on_nor_held_out_for_anything_else(own, tmp_path):
    """Neither the weights, nor what the model is shown, nor the ratings of epochs follow from them."""
    options = (*OWN, *ASIDE, "--recipe", "robust", "--select", "synthetic", "--holdout", 0.4, "--output", "run")
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
        target = {"before": "save_checkpoint", "after the last stage": "set_thresholds"}.get(moment, "write_thresholds")
        patch.setattr(f"utils.training.{target}", stop)
        assert run_train(tmp_path, *command).status == 130
    [run] = (tmp_path / "runs").iterdir()
    assert not thresholds_path(run, "widget").exists()
    again = run_train(tmp_path, *command)
    assert again.status == 0 and f"going on with the unfinished runs/{run.name}" in again.err
    assert thresholds_path(run, "widget").read_bytes() == thresholds_path(own.run, "widget").read_bytes()
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


def test_every_seed_gets_thresholds_of_its_own(seeded, plain):
    shutil.copytree(seeded.run, plain / "seeded")
    assert run_calibrate(plain, "seeded", "--categories", "tile", "--images", "good", "--far", 0.2).status == 0
    first, second = (read_thresholds(plain / f"seeded/seed{seed}", "tile") for seed in (0, 1))
    assert first.scores != second.scores
