"""scripts/predict.py and load_detector on model files: the run's predictions, by onnxruntime and OpenVINO alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import ROOT, run_export, run_predict
from tests.support.trees import good_image, write_image
from utils.detection.detector import load_detector
from utils.system.errors import ModelFileError, RunError, UsageError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("one_thread")
# What a line's computer need not have; None in sys.modules makes an import fail:
WITHOUT_TORCH = """
import runpy, sys
for name in ("torch", "torchvision", "timm", "skimage", "sklearn", "onnx", "onnxscript", sys.argv.pop(1)):
    sys.modules[name] = None
program = sys.argv.pop(1)
sys.argv[0] = program
runpy.run_path(program, run_name="__main__")
"""


@pytest.fixture(scope="module")
def photos(own) -> Path:
    """Six images of three sizes, half of them with a square that good ones lack, and a broken one."""
    rng, folder = np.random.default_rng(3), own.cwd / "line_photos"
    for number, size in enumerate([64, 64, 48, 48, 90, 90]):
        pixels = good_image(rng, size).copy()
        if number % 2:
            pixels[size // 4 : size // 2, size // 4 : size // 2] = (255, 0, 255)
        write_image(folder / f"{number}.png", pixels[: size - size // 4])
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def records_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_file_predicts_what_its_run_predicts_where_there_is_no_torch(own, models, photos, kind):
    other = {"onnx": "openvino", "openvino": "onnxruntime"}[kind]
    command = [models[kind], photos, "--output", f"{kind}.jsonl", "--save_maps", f"{kind}_maps", "--workers", "2"]
    command += ["--report", f"{kind}.html"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, other, ROOT / "scripts/predict.py", *command],
        cwd=own.cwd, capture_output=True, text=True, timeout=300,
    )
    assert done.returncode == 1 and "6 images scored" in done.stderr and "1 could not be used" in done.stderr
    assert run_predict(own.cwd, own.run, photos, "--output", "of_run.jsonl", "--save_maps", "run_maps").status == 1
    found, expected = records_of(own.cwd / f"{kind}.jsonl"), records_of(own.cwd / "of_run.jsonl")
    assert len(found) == len(expected) == 7
    decisions = set()
    for one, right in zip(found, expected, strict=True):
        if right["error"]:
            assert one == right
            continue
        assert one["score"] == pytest.approx(right["score"], rel=1e-3)
        same = ("path", "anomalous", "p_value")
        assert [one[name] for name in same] == [right[name] for name in same]
        assert len(one["regions"]) == len(right["regions"])
        decisions.add(one["anomalous"])
        name = f"{Path(right['path']).name}.png"
        files = [Image.open(own.cwd / folder / name) for folder in (f"{kind}_maps", "run_maps")]
        pictures = [np.asarray(file.convert("RGB")).astype(int) for file in files]
        assert np.abs(pictures[0] - pictures[1]).mean() < 0.5
    assert decisions == {True, False}


def test_a_detector_of_a_file_is_one_of_a_run(own, models, photos):
    paths = sorted(photos.glob("[0-9].png"))
    detector, right = load_detector(models["onnx"]), load_detector(own.run)
    for found, expected in zip(detector.predict(paths), right.predict(paths), strict=True):
        np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-3)
        assert found.anomaly_map.shape == expected.size
    assert detector.thresholds == right.thresholds
    assert detector.at(0.4).image_threshold == right.at(0.4).image_threshold


def test_a_file_without_thresholds_scores_and_says_how_to_get_them(own, photos, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(own.run, run)
    (run / "checkpoints/widget/thresholds.json").unlink()
    path = tmp_path / "widget.onnx"
    assert run_export(tmp_path, run, "--category", "widget", "--format", "onnx", "--output", path).status == 0
    result = run_predict(tmp_path, path, photos / "0.png")
    assert result.status == 0 and result.out.startswith("-  ")
    assert "calibrate.py RUN --images DIR, and export it again" in result.err
    with pytest.raises(RunError, match="no thresholds to move"):
        load_detector(path).at(0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seed", 0), "--seed 0: .* holds one model"),
        (("--category", "bottle"), "--category bottle: .* holds widget"),
    ],
)
def test_what_a_file_cannot_do_is_said(own, models, photos, options, message):
    result = run_predict(own.cwd, models["onnx"], photos, *options)
    assert result.status == 2 and len(result.errors) == 1
    assert re.search(message, result.errors[0])


def test_a_device_or_a_file_that_cannot_be_used_is_named(models, tmp_path):
    with pytest.raises(UsageError, match="`device` cuda: .* is run on the CPU"):
        load_detector(models["onnx"], device="cuda")
    for name, message in (("gone.onnx", "there is no model file"), ("old.pt2", r"torch\.export\.load")):
        with pytest.raises(ModelFileError, match=message):
            load_detector(tmp_path / name)
