"""NaN is no result: wherever a model's map or score is no finite number, the image has an error and is not good."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.base import DataError
from tests.support.commands import (
    ASIDE,
    OWN,
    TINY,
    run_calibrate,
    run_export,
    run_predict,
    run_report,
    run_test,
    run_train,
)
from tests.support.trees import good_image, write_image
from tests.support.untrained import make_run
from utils.detection.calibration import calibrate
from utils.detection.detector import Detector, find_regions
from utils.detection.prediction import Prediction, Predictor, check_shapes, require_finite
from utils.detection.thresholds import GIVEN, LargestPixels, Thresholds
from utils.runs.folder import Run
from utils.system.errors import CheckpointError, PredictionError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")
THRESHOLDS = Thresholds((1.0, 2.0), ((0, 2.0),), 16, GIVEN, 0.4)


def answers(*values: float, size: int = 4) -> Detector:
    """A detector whose scores are these, one an image, and whose maps hold them in a corner."""
    remaining = list(values)

    def compute(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = np.array([remaining.pop(0) for _ in pixels], np.float32)
        maps = np.zeros((len(pixels), size, size), np.float32)
        maps[:, 0, 0] = scores
        return maps, scores

    return Detector(compute, size, thresholds=THRESHOLDS)


def spoil(monkeypatch, place: int, value: float = np.nan) -> None:
    """Let the map of the image at a place, counted from 0 over all calls, hold a value that is no number."""
    seen, batch_maps = 0, Predictor.batch_maps

    def spoilt(self, images):
        nonlocal seen
        maps, scores = batch_maps(self, images)
        for index in range(len(maps)):
            if seen + index == place:
                maps[index, 0, 0] = value
        seen += len(maps)
        return Prediction(maps, scores)

    monkeypatch.setattr(Predictor, "batch_maps", spoilt)


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    rng = np.random.default_rng(4)
    return [write_image(tmp_path / f"photos/{number}.png", good_image(rng, 48)) for number in range(4)]


# Where it is judged


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_an_error_of_its_image(value):
    image = np.zeros((4, 4, 3), np.uint8)
    detector = answers(0.5, value, 9.0)
    first, second, third = detector.detect([detector.prepare(image)] * 3)
    assert (first.is_anomalous, third.is_anomalous) == (False, True)
    assert isinstance(second, PredictionError)
    with pytest.raises(PredictionError, match="NaN or infinite values"):
        answers(0.5, value).predict([image, image])
    with pytest.raises(PredictionError):
        detector.judge(np.zeros((4, 4), np.float32), value, (4, 4))
    spoilt = np.zeros((4, 4), np.float32)
    spoilt[3, 2] = value
    with pytest.raises(PredictionError):
        detector.judge(spoilt, 0.5, (4, 4))
    with pytest.raises(ValueError, match="no number"):
        THRESHOLDS.p_value(value)
    for arguments in ((spoilt, 1.0), (np.zeros((4, 4), np.float32), value)):
        with pytest.raises(ValueError, match="no regions"):
            find_regions(*arguments, (4, 4))
    with pytest.raises(ValueError, match="NaN or infinite"):
        LargestPixels().add(spoilt[None])
    with pytest.raises(UsageError, match="no finite number"):
        Detector(detector.compute, 4, threshold=value)


def test_without_thresholds_it_is_an_error_too():
    detector = Detector(answers(np.nan).compute, 4)
    with pytest.raises(PredictionError):
        detector.predict(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize(("maps", "scores"), [
    ((2, 4, 5), (2,)), ((2, 0, 0), (2,)), ((1, 4, 4), (2,)), ((2, 4, 4), (1,)), ((2, 4, 4), (2, 1)), ((4, 4), (2,)),
    ((), ()), ((2, 1, 4, 4), (2,)),
])
def test_answers_of_other_shapes_are_refused(maps, scores):
    check_shapes(np.zeros((2, 4, 4), np.float32), np.zeros(2, np.float32), 2)
    with pytest.raises(PredictionError, match="not with a map and a score for each of 2 images"):
        check_shapes(np.zeros(maps, np.float32), np.zeros(scores, np.float32), 2, (4, 4))
    with pytest.raises(PredictionError):
        check_shapes(np.zeros((2, 4, 4), int), np.zeros(2, np.float32), 2)
    with pytest.raises(PredictionError):
        Detector(lambda pixels: (np.zeros(maps), np.zeros(scores)), 4).predict([np.zeros((4, 4, 3), np.uint8)] * 2)


def test_images_without_a_result_are_named():
    maps, scores = np.zeros((8, 2, 2)), np.zeros(8)
    require_finite(maps, scores)
    maps[1, 0, 1], scores[3:] = np.nan, np.inf
    with pytest.raises(PredictionError, match=r"6 images: a, b\\n, number 5, number 6, number 7 and 1 more$"):
        require_finite(maps, scores, ["x", "a", "y", "b\n"])


# Models that make it of any image


@pytest.mark.parametrize("part", ["trunk", "amplification", "bottleneck", "decoder", "calibration"])
def test_a_model_that_makes_nan_is_refused_when_it_is_loaded(tmp_path, part, photos):
    run = make_run(tmp_path / "run", recipe="robust")
    stage = {"trunk": 0, "amplification": 1}.get(part, 2)
    path = Run(run).category("bottle").stage(stage) if stage else Run(run).teacher
    content = torch.load(path, weights_only=True)
    name, value = {"amplification": ("scale.0.weight", 3e38), "calibration": ("deviation", 0.0)}.get(
        part, ("running_var", -1.0)
    )
    next(tensor for key, tensor in content[part].items() if key.endswith(name)).fill_(value)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=re.escape(f"{path} makes NaN or infinite values of a plain image")):
        Run(run).category("bottle").load_model()
    result = run_predict(tmp_path, "run", *photos)
    assert result.status == 2 and str(path.relative_to(tmp_path)) in result.errors[0]
    result = run_export(tmp_path, "run", "--category", "bottle", "--format", "torchscript")
    assert result.status == 2 and not (run / "exported").exists()


# The programs


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_predict_goes_on_without_the_image(own, tmp_path, photos, monkeypatch, suffix):
    spoil(monkeypatch, 2)
    result = run_predict(tmp_path, own.run, *photos, "--output", f"out.{suffix}", "--batch_size", 3)
    assert result.status == 1
    assert result.errors == [f"error: no score for {photos[2]}: the model gives NaN or infinite values for it"]
    assert "3 images scored" in result.err and "1 could not be used" in result.err
    text = (tmp_path / f"out.{suffix}").read_text()
    if suffix == "jsonl":
        records = [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in text.splitlines()]
        assert [record["score"] is None for record in records] == [False, False, True, False]
        assert records[2]["error"].startswith(f"no score for {photos[2]}") and records[2]["anomalous"] is None
    else:
        assert "nan" not in text.lower().replace("nan or infinite", "") and "no score for" in text.splitlines()[3]


@pytest.mark.parametrize("program", [run_test, run_report])
def test_scoring_names_the_category_and_the_image(trained, tmp_path, monkeypatch, program):
    run = shutil.copytree(trained.rd4ad, tmp_path / "run", ignore=shutil.ignore_patterns("results*"))  # of other tests
    spoil(monkeypatch, 1)
    flags = ("--run", run) if program is run_test else (run,)
    result = program(tmp_path, *flags, "--data_root", trained.data, "--categories", "tile")
    assert result.status == 2 and len(result.errors) == 1
    assert "tile in " in result.errors[0] and str(trained.data / "tile/test/") in result.errors[0]
    assert "1 image: " in result.errors[0]
    assert not (run / "results.json").exists() and not (run / "report.html").exists()


def test_metrics_during_training_fail_their_category_alone(trained, tmp_path, monkeypatch):
    spoil(monkeypatch, 0, np.inf)
    options = ("--data_root", trained.data, *TINY, "--method", "rd4ad", "--eval_every", 2, "--output", "run")
    result = run_train(tmp_path, *options)
    assert result.status == 1
    assert "bottle failed: the model gives NaN or infinite values for 1 image: " in result.out
    assert str(trained.data / "bottle/test/crack/000.png") in result.out
    run = Run(tmp_path / "run")
    assert run.category("tile").stage(2).exists() and not run.category("bottle").stage(2).exists()


def test_no_thresholds_come_of_it(own, tmp_path, photos, monkeypatch):
    run = shutil.copytree(own.run, tmp_path / "run")
    before = Run(run).category("widget").thresholds.read_bytes()
    spoil(monkeypatch, 1)
    result = run_calibrate(tmp_path, run, "--images", photos[0].parent, "--far", 0.3)
    assert result.status == 2 and f"1 image: {photos[1]}" in result.errors[0]
    assert Run(run).category("widget").thresholds.read_bytes() == before
    with pytest.raises(PredictionError, match="1 image: number 2"):
        calibrate(answers(1.0, np.nan), [([], np.zeros((2, 4, 4, 3), np.uint8))], 0.3, GIVEN)
    spoil(monkeypatch, 0)
    result = run_train(tmp_path, "--data_root", own.data, *OWN, *ASIDE, "--method", "rd4ad", "--output", "new")
    failed = r"widget failed: .* 1 image: .*/widget/train/good/\d+\.png"
    assert result.status == 1 and re.search(failed, result.out)
    assert not Run(tmp_path / "new").category("widget").thresholds.exists()


def test_the_apps_table_says_that_it_is_not_scored(own, photos, monkeypatch):
    from utils.app.session import score_all, table_rows
    from utils.detection.detector import load_detector

    spoil(monkeypatch, 1)
    rows = table_rows(score_all(load_detector(own.run), {path.name: path for path in photos}, workers=1))
    assert [row[1] == "not scored" for row in rows] == [False, True, False, False]
    assert "1.png" in rows[1][4] and str(photos[1]) not in rows[1][4]


def test_an_unreadable_image_is_another_error(own, tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(DataError):
        answers(1.0).predict(tmp_path / "x.png")
