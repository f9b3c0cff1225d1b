"""Exported files on photographs, with a trained teacher: every decision is the run's own, scores within 1e-3.

MVTec AD's bottle where it lies beside the repository, otherwise crops of a photograph that scikit-image ships.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from scripts import make_demo_data as demo
from tests.support.commands import ROOT, run_export, run_train
from tests.support.trees import write_image
from utils.detection.detector import Detection, load_detector

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("one_thread")
BOTTLE = ROOT.parent / "shared/data/mvtec/bottle"
QUICK = ["--backbone", "efficientnet_lite0", "--weights", "bundled", "--image_size", 128, "--batch_size", 8,
         "--epochs_stage1", 1, "--epochs_stage2", 2, "--aux_path", "builtin", "--device", "cpu"]


@dataclass(frozen=True)
class Inspected:
    """A robust run, photographs of good and defective ones, and what the run says of them."""

    run: Path
    photographs: list[Path]
    threshold: float
    found: list[Detection]


def write_bricks(folder: Path) -> Path:
    """A category of the demo, without a data set around it."""
    content = demo.make_category(skimage.data.brick(), 256, 24, 8, 12, np.random.default_rng(0))
    for name, image in content:
        write_image(folder / name, image)
    return folder


@pytest.fixture(scope="module")
def inspected(tmp_path_factory) -> Inspected:
    folder = tmp_path_factory.mktemp("photographs")
    category = BOTTLE if BOTTLE.is_dir() else write_bricks(folder / "brick")
    train, test = sorted((category / "train/good").iterdir()), sorted((category / "test").rglob("*.*"))
    place = folder / "data/part/train/good"
    place.mkdir(parents=True)
    for path in train[:24]:
        shutil.copy(path, place / path.name)
    options = ("--recipe", "robust", "--calibration", 0.3, "--far", 0.13, "--output", "run")
    result = run_train(folder, "--data_root", folder / "data", *QUICK, *options)
    assert result.status == 0, result.err
    photographs = test[:: max(1, len(test) // 20)]
    detector = load_detector(folder / "run")
    scores = np.sort([one.score for one in detector.predict(photographs)])
    gap = 3 + int(np.diff(scores[3:-3]).argmax())  # so that both verdicts come, and none by rounding
    threshold = float(scores[gap : gap + 2].mean())
    found = replace(detector, threshold=threshold).predict(photographs)
    return Inspected(folder / "run", photographs, threshold, found)


@pytest.mark.parametrize(("kind", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_every_photograph_is_decided_alike(inspected, tmp_path, kind, suffix):
    path = tmp_path / f"part{suffix}"
    result = run_export(tmp_path, inspected.run, "--category", "part", "--format", kind, "--output", path)
    assert result.status == 0, result.err
    found = replace(load_detector(path), threshold=inspected.threshold).predict(inspected.photographs)
    np.testing.assert_allclose([one.score for one in found], [one.score for one in inspected.found], rtol=1e-3)
    decisions = [one.is_anomalous for one in found]
    assert decisions == [one.is_anomalous for one in inspected.found]
    assert {True, False} == set(decisions)
    assert [len(one.regions) for one in found] == [len(one.regions) for one in inspected.found]
