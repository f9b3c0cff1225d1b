"""What pixel values mean is decided once, by the training images, and holds for checking, training, scoring, predicting
and exports."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from datasets.base import load_image
from datasets.levels import Levels
from datasets.view import View
from scripts.fore_extractor import levels_of
from tests.support.broken import check
from tests.support.commands import OWN, run_calibrate, run_check, run_predict, run_test, run_train
from tests.support.raw_files import write_png
from tests.support.trees import good_image, make_folder, write_image
from utils.detection.detector import load_detector
from utils.runs.folder import Run

TRAIN, TEST = "widget/train/good", "widget/test/good"


def deepen(path, times: int = 16) -> None:
    """Make a picture one of more bits in a file of 16."""
    write_png(path, load_image(path).astype(np.uint16) * times)


def make_deep(root, times: int = 16):
    """A data set of 12 bits in 16."""
    make_folder(root, train=4)
    for path in (root / "widget").rglob("*.png"):
        if "ground_truth" not in path.parts:
            deepen(path, times)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a data set of 12 bits in 16; its brightest training values are below 4096."""
    folder = tmp_path_factory.mktemp("depths")
    make_deep(folder / "data")
    result = run_train(folder, "--data_root", "data", *OWN, "--output", "run")
    assert result.status == 0, result.err
    return folder


def test_the_check_says_which_depths_and_values_there_are(tmp_path):
    root = make_deep(tmp_path / "data")
    write_png(root / TRAIN / "000.png", np.full((32, 32), 5, np.uint16))
    lines = run_check(tmp_path, "--data_root", root).out.splitlines()
    assert lines[0].startswith("widget, train: 4 images of 16 bits, values 5..")
    assert lines[1].startswith("widget, test: 5 images of 16 bits, values ")
    assert lines[-2].startswith(f"warning: image ends far below white: has it another depth?: {root}/{TRAIN}/000.png")


def test_images_of_other_depths_are_named(tmp_path):
    root = make_folder(tmp_path / "data")
    deepen(root / TEST / "000.png")
    said = check(root)
    assert said == [f"error: pixel values cannot be understood: {TEST}/000.png"]  # 8 bits tell nothing of 12 in 16
    deepen(root / TRAIN / "001.png")
    assert check(root) == [
        f"warning: image of another depth than the training images: {TRAIN}/001.png",
        f"warning: image of another depth than the training images: {TEST}/000.png",
    ]


def test_values_beyond_the_training_images_are_errors(tmp_path):
    root = make_deep(tmp_path / "data")
    write_png(root / TEST / "001.png", np.full((32, 32), 60000, np.uint16))
    assert check(root) == [f"error: pixel values cannot be understood: {TEST}/001.png"]
    result = run_check(tmp_path, "--data_root", root, "--white_level", 65535)
    assert result.status == 0


def test_a_run_keeps_what_its_training_images_decided(trained):
    run = trained / "run"
    assert Run(run).category("widget").view == View(levels=Levels(uint16=(0, 4095)))
    detector = load_detector(run)
    shallow = (good_image(np.random.default_rng(9), 32), good_image(np.random.default_rng(8), 32))
    for number, pixels in enumerate(shallow):
        write_png(trained / f"{number}.png", pixels.astype(np.uint16) * 16)
        again = load_image(trained / f"{number}.png", levels=Levels(uint16=(0, 4095)))
        assert detector.predict(trained / f"{number}.png").score == detector.predict(again).score
        assert np.abs(again.astype(int) - pixels).max() <= 1  # 255 * 16 is 4080


def test_predictions_refuse_what_does_not_fit(trained):
    folder = trained / "photos"
    folder.mkdir()
    shutil.copy(trained / "data" / TEST / "000.png", folder / "a.png")
    write_png(folder / "b.png", np.full((32, 32), 4096, np.uint16))
    write_image(folder / "c.tif", np.full((32, 32), 0.5, np.float32))
    result = run_predict(trained, "run", "photos", "--output", "found.jsonl")
    rows = [json.loads(line) for line in (trained / "found.jsonl").read_text().splitlines()]
    assert result.status == 1
    assert [row["score"] is None for row in rows] == [False, True, True]
    assert "do not fit the training images" in rows[1]["error"]
    assert "neither it nor the training images tell which value is white" in rows[2]["error"]


def test_doubtful_images_are_scored_and_named(trained, tmp_path):
    """8 bits in a file of 16, where the training images had 12, and a file of two images."""
    dark = write_png(tmp_path / "dark.png", good_image(np.random.default_rng(9), 32).astype(np.uint16))
    grey = Image.fromarray(good_image(np.random.default_rng(8), 32)[..., 0])
    grey.save(tmp_path / "two.tif", save_all=True, append_images=[grey])
    result = run_predict(trained, "run", tmp_path)
    said = [line for line in result.err.splitlines() if line.startswith("warning")]
    assert result.status == 0 and len(said) == 2
    assert said[0].startswith(f"warning, 1 time: image ends far below white: has it another depth?: {dark} (16 bits, ")
    assert said[1] == f"warning, 1 time: file of several images, of which the first is used: {tmp_path / 'two.tif'}"
    run = shutil.copytree(trained / "run", tmp_path / "run")
    result = run_calibrate(tmp_path, run, "--images", dark, "--far", 0.5)
    assert "warning, 1 time: image ends far below white" in result.err


def test_scoring_reads_as_training_did(trained):
    result = run_test(trained, "--data_root", "data", "--run", "run")
    assert result.status == 0, result.err
    path = trained / "data" / TEST / "000.png"
    kept = path.read_bytes()
    write_png(path, np.full((32, 32), 9999, np.uint16))
    result = run_test(trained, "--data_root", "data", "--run", "run")
    path.write_bytes(kept)
    assert result.status == 2
    assert any("pixel values cannot be understood" in line for line in result.err.splitlines())


def test_a_white_level_that_is_given_counts(tmp_path):
    make_deep(tmp_path / "data")
    result = run_train(tmp_path, "--data_root", "data", *OWN, "--output", "run", "--white_level", 16383)
    assert result.status == 0, result.err
    assert Run(tmp_path / "run").category("widget").view.levels == Levels.up_to(16383)


def test_foregrounds_are_made_of_the_same_grey_levels(tmp_path):
    root = make_deep(tmp_path / "data")
    paths = sorted((root / TRAIN).iterdir())
    assert levels_of(paths, 2) == Levels(uint16=(0, 4095))
    assert levels_of([write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))], 1) == Levels()


def test_views_from_before_are_read_as_they_were_made(tmp_path, trained):
    """16-bit values ended at 65535 then; a run on pictures of 8 bits goes on with them."""
    run = shutil.copytree(trained / "run", tmp_path / "run")
    Run(run).category("widget").view_file.unlink()
    assert Run(run).category("widget").view == View(levels=Levels(uint16=(0, 65535)))
    content = {"top": 0, "bottom": 1, "left": 0, "right": 1, "black": 0, "white": 255}
    Run(run).category("widget").view_file.write_text(json.dumps(content))
    assert Run(run).category("widget").view == View(levels=Levels(uint16=(0, 65535)))
    Run(run).category("widget").keep_view(View(levels=Levels()))
    assert json.loads(Run(run).category("widget").view_file.read_text()) == content


def test_exports_carry_the_levels(trained):
    pytest.importorskip("onnxruntime")
    from tests.support.commands import run_export

    result = run_export(trained, "run", "--category", "widget", "--format", "onnx", "--output", "part.onnx")
    assert result.status == 0, result.err
    path, dark = trained / "data" / TEST / "001.png", trained / "dark.png"
    by_file, by_run = load_detector(trained / "part.onnx"), load_detector(trained / "run")
    assert by_file.predict(path).score == pytest.approx(by_run.predict(path).score, abs=1e-3)
    write_png(dark, np.full((32, 32), 4096, np.uint16))
    said = run_predict(trained, "part.onnx", "dark.png")
    assert said.status == 1 and "do not fit the training images" in said.err
