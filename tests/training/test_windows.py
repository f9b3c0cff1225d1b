"""Runs whose images are shown in windows, at an oblong size, within a region of interest: from training to files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from datasets.base import load_image
from tests.support.commands import TINY, run_export, run_predict, run_report, run_test, run_train
from tests.support.trees import write_image
from utils.data.facts import Facts
from utils.detection import load_detector
from utils.runs.folder import Run
from utils.training.config import TrainConfig
from utils.training.plan import advise_windows

SIZE = ("--image_size", 64, 96)
CORNER = {"box": [0.0, 0.0, 0.5, 0.5]}  # left, top, right, bottom
OPTIONS = ("--categories", "bottle", "--aux_path", "builtin", "--recipe", "robust", "--calibration", 0.4, "--far", 0.34,
           "--epochs_stage1", 1, "--epochs_stage2", 1)


@pytest.fixture(scope="module")
def windows(trained, tmp_path_factory):
    """A robust run of 1 x 2 windows of 64 x 96 pixels in the upper left quarter, scored."""
    folder = tmp_path_factory.mktemp("windows")
    (folder / "corner.json").write_text(json.dumps(CORNER))
    given = (*TINY, *OPTIONS, *SIZE, "--tiles", 1, 2, "--roi", folder / "corner.json", "--eval_every", 1)
    result = run_train(folder, "--data_root", trained.data, *given, "--output", folder / "run")
    assert result.status == 0, result.err
    result = run_test(folder, "--data_root", trained.data, "--run", folder / "run", "--save_maps")
    assert result.status == 0, result.err
    return folder


def test_settings_and_view_are_kept(windows):
    run = Run(windows / "run")
    assert run.settings.image_size == [64, 96] and run.config["tiles"] == [1, 2]
    view = run.category("bottle").view
    results = json.loads((windows / "run/results.json").read_text())
    assert "windows" in results["protocol"] and results["settings"]["roi"] == "corner.json"
    assert (view.rows, view.columns) == (1, 2) and view.bottom <= 0.5 and view.right <= 0.5
    assert view.region == (((0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.0, 0.5)),)


def test_logged_metrics_are_those_of_the_test(windows):
    results = json.loads((windows / "run/results.json").read_text())["categories"]["bottle"]
    last = json.loads((windows / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["image_auroc"] == pytest.approx(results["image_auroc"])
    assert last["pixel_auroc"] == pytest.approx(results["pixel_auroc"], abs=1e-3)


def test_maps_are_of_the_windows_together_and_lowest_beside_the_region(windows, trained):
    path = sorted((trained.data / "bottle/test").rglob("*.png"))[0]
    detection = load_detector(windows / "run", "bottle").predict(path)
    assert detection.model_map.shape == (64, 180)  # 96 * (2 - 1 / 8)
    beside = detection.model_map[32:, 90:]
    assert (beside == detection.model_map.min()).all()
    assert all(region.right <= detection.size[1] // 2 + 1 for region in detection.regions)
    [heat_map] = (windows / "run/maps/bottle").rglob(f"{path.parent.name}/{path.stem}.png")
    assert np.asarray(Image.open(heat_map)).shape == (64, 360, 3)


def test_what_lies_beside_changes_no_score(windows, trained):
    image = load_image(sorted((trained.data / "bottle/test").rglob("*.png"))[-1])
    other = 255 - image
    height, width = (side // 2 for side in image.shape[:2])
    other[:height, :width] = image[:height, :width]
    detector = load_detector(windows / "run", "bottle")
    first, second = detector.predict(image), detector.predict(other)  # alone: places in a batch round differently
    assert first.score == second.score
    np.testing.assert_array_equal(first.model_map, second.model_map)


def test_a_model_file_has_windows_and_region_inside(windows, trained):
    pytest.importorskip("onnxruntime")
    result = run_export(windows, "run", "--format", "onnx", "--output", "part.onnx")
    assert result.status == 0, result.err
    by_run, by_file = load_detector(windows / "run", "bottle"), load_detector(windows / "part.onnx")
    assert by_file.thresholds == by_run.thresholds
    for path in sorted((trained.data / "bottle/test").rglob("*.png"))[::3]:
        expected, found = by_run.predict(path), by_file.predict(path)
        assert found.score == pytest.approx(expected.score, rel=2e-3)
        np.testing.assert_allclose(found.model_map, expected.model_map, atol=2e-2 * expected.model_map.max())


def test_report_and_predictions_take_them(windows, trained):
    result = run_report(windows, "run", "--data_root", trained.data)
    assert result.status == 0, result.err
    page = (windows / "run/report.html").read_text()
    assert "<dd>64 x 96</dd>" in page and "<dd>1 x 2</dd>" in page and "corner.json" in page
    images = trained.data / "bottle/test"
    result = run_predict(windows, "run", images, "--output", "scores.csv", "--maps_raw", "raw", "--masks", "masks")
    assert result.status == 0, result.err


def test_a_run_does_not_go_on_with_another_region(windows, trained, tmp_path):
    run = shutil.copytree(windows / "run", tmp_path / "run")
    (run / "checkpoints/bottle/stage2.pt").unlink()
    (tmp_path / "corner.json").write_text(json.dumps({"box": [0.1, 0.0, 0.5, 0.5]}))
    before = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(before | {"roi": str(tmp_path / "corner.json")}))
    given = (*TINY, *OPTIONS, *SIZE, "--tiles", 1, 2, "--roi", tmp_path / "corner.json")
    result = run_train(tmp_path, "--data_root", trained.data, *given, "--output", run)
    assert result.status == 1 and "the --roi is not the one that the run was started with" in result.out


def test_epochs_go_by_the_windows(tmp_path):
    free = {"data_root": tmp_path, "epochs_stage1": None, "epochs_stage2": None}
    assert TrainConfig(**free).fit(50).epochs_stage1 == TrainConfig(**free, tiles=(1, 2)).fit(25).epochs_stage1 == 40
    assert TrainConfig(**free, tiles=4).fit(100).epochs_stage2 == 5


def test_windows_are_advised_for_large_photographs(tmp_path):
    """By the median of the photographs that can be read; half of their resolution, at most 6 windows in a row."""
    large = [Facts(1500, 2000), Facts(1500, 2000), Facts(100, 100), Facts(unreadable="why")]
    config = TrainConfig(data_root=tmp_path, image_size=256)
    assert advise_windows(large, config) == (
        "photographs of about 1500 x 2000 pixels are shown at 256, and details of less than 12 pixels may be lost; "
        "`tiles` 3 4 shows more, and takes about 12 times as long"
    )
    assert "`tiles` 6 6 " in advise_windows([Facts(9000, 9000)], config)
    oblong = replace(config, image_size=(256, 512))
    assert "at 256 x 512, and details of less than 8 pixels" in advise_windows(large, oblong)
    for images, given in (([Facts(700, 4000)], config), ([], config), (large, replace(config, tiles=(1, 2)))):
        assert advise_windows(images, given) == ""


def test_they_are_advised_for_photographs_of_ones_own_alone(trained, tmp_path):
    for number in range(4):
        write_image(tmp_path / f"data/widget/good/{number}.png", np.full((100, 120, 3), 40 * number, np.uint8))
    own = run_train(tmp_path, "--data_root", tmp_path / "data", *TINY, *OPTIONS[2:], "--output", tmp_path / "run")
    assert own.status == 0 and "photographs of about 100 x 120 pixels are shown at 32" in own.err, own.err


@pytest.mark.parametrize(("flags", "said"), [
    (("--image_size", 64, 64, 64), "one number, or two"), (("--tiles", 17), "17 is above 16"),
    (("--roi", "missing.png"), "region of interest missing.png"), (("--roi", "."), "bottle"),
    (("--image_size", 64, 65), "65 is not a multiple of 32"),
])
def test_wrong_flags_are_told_at_once(trained, tmp_path, flags, said):
    result = run_train(tmp_path, "--data_root", trained.data, *TINY, *OPTIONS, *flags, "--output", tmp_path / "run")
    assert result.status == 2 and said in result.err
    assert not (tmp_path / "run").exists()
