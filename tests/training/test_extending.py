"""Good photographs added to a trained category: what it learns of them, what is kept, and how they are taken away."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import ASIDE, OWN, run_calibrate, run_extend, run_predict, run_train
from tests.support.trees import good_image, write_image
from utils.detection import load_detector
from utils.detection.thresholds import read_thresholds
from utils.runs.folder import Run

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Trained:
    cwd: Path
    files: dict[str, bytes]  # of the category, as training left them

    @property
    def checkpoints(self) -> Path:
        return self.cwd / "run/checkpoints/caps"

    def now(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.checkpoints.iterdir() if path.is_file()}


def spotted(seed: int) -> np.ndarray:
    """A photograph that is good, although no image of the training has such a spot."""
    pixels = good_image(np.random.default_rng(seed), 64)
    pixels[20:30, 24:40] = (250, 30, 30)
    return pixels


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """recipes(*flags): a run of caps with 10 good photographs, trained with these flags once."""
    made: dict[tuple, Path] = {}

    def get(*flags: str) -> Path:
        if flags not in made:
            cwd = made[flags] = tmp_path_factory.mktemp("trained")
            for index in range(10):
                write_image(cwd / f"data/caps/ok/{index}.png", good_image(np.random.default_rng(index), 64))
            write_image(cwd / "data/caps/nok/0.png", np.full((64, 64, 3), 255, np.uint8))
            result = run_train(cwd, "--data_root", "data", *OWN, *ASIDE, *flags, "--good", "ok", "--output", "run")
            assert result.status == 0, result.err
            for index in range(4):
                write_image(cwd / f"checked/{index}.png", spotted(100 + index))
        return made[flags]

    return get


@pytest.fixture
def trained(recipes, tmp_path):
    """trained(*flags): a copy of such a run."""

    def get(*flags: str) -> Trained:
        cwd = tmp_path / "copy"
        shutil.copytree(recipes(*flags), cwd)
        config = json.loads((cwd / "run/config.json").read_text())
        (cwd / "run/config.json").write_text(json.dumps(config | {"data_root": str(cwd / "data")}))
        copy = Trained(cwd, {})
        copy.files.update(copy.now())
        return copy

    return get


def scores(cwd: Path) -> list[float]:
    detector = load_detector(cwd / "run")
    return [one.score for one in detector.predict([spotted(index) for index in (200, 201)])]


@pytest.mark.parametrize("flags", [("--recipe", "robust"), ("--method", "patchcore")])
def test_a_memory_learns_what_is_added(trained, flags):
    run = trained(*flags)
    before = scores(run.cwd)
    result = run_extend(run.cwd, "run", "--good", "checked")
    assert result.status == 0, result.err
    assert "caps: 4 good photographs added; threshold " in result.out
    assert all(now < then for now, then in zip(scores(run.cwd), before, strict=True))
    thresholds = read_thresholds(run.cwd / "run", "caps")
    assert len(thresholds.scores) == len(json.loads(run.files["thresholds.json"])["scores"])
    kept = run.checkpoints / "extended/1"
    names = [f"{index:04}-{index}.png" for index in range(4)]
    assert sorted(path.name for path in (kept / "images").iterdir()) == names
    record = json.loads((kept / "extension.json").read_text())
    assert record["photographs"] == [f"{index}.png" for index in range(4)]
    assert record["after"] == thresholds.image_threshold != record["threshold before"]
    assert {name: (kept / name).read_bytes() for name in ("stage2.pt", "thresholds.json")} == {
        name: run.files[name] for name in ("stage2.pt", "thresholds.json")
    }
    assert run_predict(run.cwd, "run", "checked").status == 0
    refused = run_calibrate(run.cwd, "run", "--images", "checked")
    assert refused.status == 2 and "4 images of the training data" in refused.err
    gone_on = run_train(run.cwd, "--resume", "run", "--data_root", "data")
    assert gone_on.status == 0 and "already trained, skipped" in gone_on.out
    assert run_extend(run.cwd, "run", "--undo").out.startswith("caps in run: 4 photographs taken away")
    assert run.now() == run.files and scores(run.cwd) == before


def test_what_was_added_before_is_learnt_too(trained):
    run = trained("--recipe", "robust")
    assert run_extend(run.cwd, "run", "--good", "checked/0.png", "checked/1.png").status == 0
    first = run.now()
    result = run_extend(run.cwd, "run", "--good", "checked/2.png", "checked/3.png")
    assert result.status == 0, result.err
    trained_on = len(json.loads(run.files["training_images.json"])["digests"])
    assert len(Run(run.cwd / "run").category("caps").training_images) == trained_on + 4
    remembered = set(Run(run.cwd / "run").category("caps").load_model()[0].memory.images.tolist())
    assert remembered <= set(range(trained_on + 4)) and max(remembered) >= trained_on
    assert run_extend(run.cwd, "run", "--undo").status == 0
    assert run.now() == first


def test_without_a_memory_they_count_for_the_threshold(trained):
    run = trained()
    before = scores(run.cwd)
    result = run_extend(run.cwd, "run", "--good", "checked")
    assert result.status == 0, result.err
    assert scores(run.cwd) == before and run.now()["stage2.pt"] == run.files["stage2.pt"]
    thresholds = read_thresholds(run.cwd / "run", "caps")
    assert len(thresholds.scores) == 4 + 4
    assert {"checked/0.png", "images/0000-0.png"} & {*thresholds.names}
    assert run_extend(run.cwd, "run", "--undo").status == 0 and run.now() == run.files


def test_what_cannot_be_added_changes_nothing(trained):
    run = trained("--recipe", "robust")
    (run.cwd / "bad.png").write_bytes(b"no image")
    calls = [
        (["--good", "data/caps/ok/3.png"], "1 photograph of the category's own data, or added before"),
        (["--good", "data/caps/nok/0.png"], "own data, or added before"),
        (["--good", "bad.png", "checked"], "1 photograph cannot be read: bad.png"),
        (["--good", "checked", "--undo"], "give either --good with photographs, or --undo"),
        ([], "give either --good with photographs, or --undo"),
        (["--undo"], "no photographs were added to caps"),
        (["--good", "checked", "--category", "lids"], "run has no trained lids"),
    ]
    for arguments, message in calls:
        result = run_extend(run.cwd, "run", *arguments)
        assert result.status == 2 and message in result.err, result.err
        assert run.now() == run.files and not (run.checkpoints / "extended").exists()
    (run.cwd / "data/caps/ok/3.png").unlink()
    result = run_extend(run.cwd, "run", "--good", "checked")
    assert result.status == 2 and "are not those that the run was trained on" in result.err
    assert run.now() == run.files


def test_thresholds_of_images_given_are_not_guessed(trained):
    run = trained("--recipe", "robust")
    others = [write_image(run.cwd / f"others/{index}.png", good_image(np.random.default_rng(50 + index), 64))
              for index in range(4)]
    assert run_calibrate(run.cwd, "run", "--images", "others", "--far", 0.25).status == 0, others
    result = run_extend(run.cwd, "run", "--good", "checked")
    assert result.status == 2 and "was set by images of which the run knows the scores alone" in result.err
    (run.checkpoints / "thresholds.json").unlink()
    result = run_extend(run.cwd, "run", "--good", "checked")
    assert result.status == 0 and "threshold" not in result.out
