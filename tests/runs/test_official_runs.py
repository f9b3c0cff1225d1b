"""Folders of the public code's checkpoints, given to test.py, predict.py and convert_checkpoint.py as they are."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.base import load_image
from models.official import build_official, load_official, to_official
from tests.support.commands import listing, run_convert, run_export, run_predict, run_test
from tests.support.trees import make_mvtec
from utils.detection.prediction import Predictor
from utils.runs.folder import Run, trained_categories
from utils.runs.given import run_to_score, stage_file
from utils.runs.settings import read_config
from utils.system.errors import RunError

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 64
AT_64 = ("--image_size", SIZE)


@dataclass(frozen=True)
class Official:
    """A data set of bottle and tile, and one model's two files, which are large, to be linked where they are needed."""

    data: Path
    stages: tuple[Path, Path]

    def link(self, folder: Path, categories: dict[str, tuple[int, ...]]) -> Path:
        """Make a folder as the public code leaves it, with these stages of these categories."""
        for category, stages in categories.items():
            for stage in stages:
                path = stage_file(folder, category, stage)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(self.stages[stage - 1])
        return folder

    def scores(self, images: list[Path]) -> np.ndarray:
        """Of images, by the model as it is read from the files."""
        model = load_official(*self.stages).optimize_for_inference()
        pixels = torch.from_numpy(np.stack([load_image(path, SIZE) for path in images]))
        return Predictor.of(model, SIZE).maps(pixels).maps.max(axis=(1, 2))


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    folder = tmp_path_factory.mktemp("official")
    torch.manual_seed(0)
    paths = folder / "stage1.pth", folder / "stage2.pth"
    for path, content in zip(paths, to_official(build_official()), strict=True):
        torch.save(content, path)
    yield Official(make_mvtec(folder / "data", ["bottle", "tile"]), paths)
    for path in paths:
        path.unlink()  # 700 MB


@pytest.fixture
def here(tmp_path):
    """A working folder, whose runs, 400 MB a category, do not stay."""
    yield tmp_path
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)


def both(*categories):
    return dict.fromkeys(categories, (1, 2))


def read_scores(run: Path) -> list[dict[str, str]]:
    with (run / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_categories_are_scored_in_one_call_and_converted_once(here, official):
    folder = official.link(here / "AAND", both("bottle", "tile", "candle"))
    before = listing(folder)
    call = ("--data_root", official.data, "--run", folder, *AT_64)
    result = run_test(here, *call)
    assert result.status == 0, result.err
    [run] = (here / "runs").iterdir()
    assert "checkpoints, but not in " in result.err and result.err.count("candle") == 1
    assert f"converted bottle, tile of {folder} to {run.relative_to(here)}, where results are written" in result.err
    assert "epoch that the public code kept" in result.out
    assert trained_categories(run) == ["bottle", "tile"]
    results = json.loads((run / "results.json").read_text())
    assert list(results["categories"]) == ["bottle", "tile"]
    assert results["protocol"]["epoch"] == "official checkpoint"
    assert str(here) not in json.dumps(results["settings"])
    assert results["seconds"]["tile"].keys() == {"testing"}
    rows = read_scores(run)
    expected = official.scores([official.data / row["path"] for row in rows])
    np.testing.assert_allclose([float(row["score"]) for row in rows], expected, rtol=1e-4)

    made = listing(run / "checkpoints")
    shutil.rmtree(here / "cache", ignore_errors=True)
    result = run_test(here, *call)
    assert result.status == 0 and "converted" not in result.err, result.err
    assert listing(run / "checkpoints") == made
    assert listing(folder) == before
    assert read_scores(run) == rows


def test_a_changed_file_is_converted_again_and_takes_thresholds_with_it(here, official):
    folder = official.link(here / "AAND", both("bottle"))
    call = ("--data_root", official.data, "--run", folder / "checkpoints_Stage2", *AT_64)
    assert run_test(here, *call).status == 0
    [run] = (here / "runs").iterdir()
    thresholds = Run(run).category("bottle").thresholds
    thresholds.write_text("of the earlier model")
    path = stage_file(folder, "bottle", 2)
    content = torch.load(path, mmap=True)
    name = "layer3.0.conv1.weight"
    content["decoder_ss"][name] = content["decoder_ss"][name] * 2
    path.unlink()
    torch.save(content, path)
    result = run_test(here, *call)
    assert result.status == 0 and "converted bottle of" in result.err, result.err
    assert not thresholds.exists()
    found = torch.load(Run(run).category("bottle").stage(2))["decoder"]["level1.0.conv1.weight"]
    assert torch.equal(found, content["decoder_ss"][name])
    path.unlink()


def test_files_in_the_working_folder_are_found_and_half_a_model_is_named(here, official, monkeypatch):
    official.link(here, {"bottle": (1, 2), "tile": (1,), "wood": (2,)})
    result = run_test(here, "--data_root", official.data, *AT_64)
    assert result.status == 0, result.err
    missing = ("checkpoints_Stage2/wres50_tile.pth", "checkpoints_Stage1/wres50_wood.pth")
    assert f"not used, since there is no {', '.join(missing)}\n" in result.err
    [run] = (here / "runs").iterdir()
    assert trained_categories(run) == ["bottle"]

    result = run_test(here, "--data_root", official.data, "--categories", "bottle", "tile", *AT_64)
    assert result.status == 2 and len(result.errors) == 1
    assert f"there is no {missing[0]}: a model needs both stages; with both stages there: bottle" in result.err
    result = run_predict(here, "checkpoints_Stage1", official.data / "tile/test/good/000.png", "--category", "tile")
    assert result.status == 2 and f"there is no {missing[0]}" in result.errors[0]
    monkeypatch.chdir(here)
    stage_file(Path(), "bottle", 1).unlink()
    with pytest.raises(RunError, match="wres50_bottle.*wres50_tile.*wres50_wood.*with both stages there: none"):
        run_to_score(None, official.data, None, None)


def test_predict_and_export_take_such_a_folder(here, official):
    folder = official.link(here / "AAND", both("bottle", "tile"))
    images = sorted((official.data / "bottle/test/crack").iterdir())
    result = run_predict(here, folder, *images, *AT_64)
    assert result.status == 2
    assert result.errors == [f"error: {folder} has several categories; choose one of: bottle, tile"]
    assert not (here / "runs").exists()
    options = (folder, *images, "--category", "bottle", *AT_64, "--output", "found.csv")
    result = run_predict(here, *options)
    assert result.status == 0, result.err
    [run] = (here / "runs").iterdir()
    assert f"set them with: python scripts/calibrate.py {run.relative_to(here)} --images DIR" in result.err
    assert trained_categories(run) == ["bottle"]
    with (here / "found.csv").open(newline="") as file:
        found = [float(row["score"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(found, official.scores(images), rtol=1e-4)

    result = run_test(here, "--data_root", official.data, "--run", folder, *AT_64, "--categories", "bottle")
    assert result.status == 0 and "converted" not in result.err, result.err
    assert read_config(run)["data_root"] == str(official.data.resolve())
    result = run_export(here, run, "--format", "pt2", "--output", "bottle.onnx")
    assert result.status == 2 and "must end in .pt2" in result.err


def test_convert_checkpoint_takes_all_categories_and_keeps_what_each_was_trained_with(here, official):
    """The public code's training may leave another teacher in each category's file."""
    folder = official.link(here / "AAND", both("bottle", "tile"))
    path = stage_file(folder, "tile", 1)
    content = torch.load(path, mmap=True)
    content["encoder_AT"]["bn1.running_mean"] = content["encoder_AT"]["bn1.running_mean"] + 1
    path.unlink()
    torch.save(content, path)
    run = here / "runs/official"
    call = ("from_official", "--checkpoints", folder, "--data_root", official.data, "--run", run)
    result = run_convert(here, *call, "--image_size", SIZE)
    assert result.status == 0, result.err
    assert result.out.splitlines() == [f"wrote bottle to {run}", f"wrote tile to {run}"]
    assert read_config(run)["dataset"] == "mvtec"
    assert Run(run).teacher.is_file() and not Run(run).category("bottle").teacher.exists()
    result = run_test(here, "--data_root", official.data, "--run", run)
    assert result.status == 0, result.err
    images = sorted((official.data / "tile/test/hole").iterdir())
    changed = Official(official.data, (path, official.stages[1])).scores(images)
    assert not np.allclose(changed, official.scores(images), rtol=1e-3)
    found = [float(row["score"]) for row in read_scores(run) if row["defect"] == "hole" and row["category"] == "tile"]
    np.testing.assert_allclose(found, changed, rtol=1e-4)
    path.unlink()


def test_convert_checkpoint_says_what_to_give(tmp_path, official):
    call = ("from_official", "--data_root", official.data, "--run", tmp_path / "run")
    for flags in ((), ("--stage1", "a"), ("--stage1", "a", "--stage2", "b"), ("--checkpoints", "x", "--stage1", "a")):
        result = run_convert(tmp_path, *call, *flags)
        assert result.status == 2
        assert result.errors == ["error: give --checkpoints, or all of --stage1, --stage2 and --category"]
    result = run_convert(tmp_path, *call, "--checkpoints", tmp_path)
    assert result.status == 2 and "there is no " in result.errors[0]
    assert os.path.join("checkpoints_Stage1", "wres50_<category>.pth") in result.errors[0]
    assert not (tmp_path / "run").exists()


def test_files_in_the_wrong_folder_are_named(here, official):
    paths = [stage_file(here, "bottle", stage) for stage in (1, 2)]
    for path in paths:
        path.parent.mkdir()
        path.symlink_to(official.stages[0])
    result = run_predict(here, ".", official.data / "bottle/test/good/000.png")
    names = " and ".join(str(path.relative_to(here)) for path in paths)
    assert result.status == 2
    [line] = result.errors
    assert line.startswith(f"error: {names}: no bn, decoder_ss in these checkpoints; stage 1 and stage 2 are both ")


def test_image_size_of_a_run_is_accepted_and_another_refused(trained, tmp_path):
    run = shutil.copytree(trained.rd4ad, tmp_path / "run")
    result = run_test(tmp_path, "--data_root", trained.data, "--run", run, "--image_size", 32)
    assert result.status == 0, result.err
    before = listing(run)
    image = trained.data / "tile/test/good/000.png"
    calls = (
        run_test(tmp_path, "--data_root", trained.data, "--run", run, "--image_size", 256),
        run_predict(tmp_path, run, image, "--category", "tile", "--image_size", 256),
    )
    for result in calls:
        assert result.status == 2
        [line] = result.errors
        assert line.startswith(f"error: --image_size 256: {run} was trained at 32 pixels")
    assert listing(run) == before
    assert run_predict(tmp_path, run, image, "--category", "tile", "--image_size", 32).status == 0
    result = run_predict(tmp_path, "part.onnx", image, "--image_size", 32)
    assert result.status == 2 and "the size is in part.onnx" in result.errors[0]
