"""Training from Python: arrays, files and Pillow images in, a detector with thresholds out."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.support.trees import good_image, write_image
from train import fit
from utils.detection import load_detector
from utils.system.errors import UsageError
from utils.training.staging import staged

SMALL = {"image_size": 64, "epochs_stage1": 1, "epochs_stage2": 1, "batch_size": 4}


def photographs(count: int) -> list[np.ndarray]:
    return [good_image(np.random.default_rng(seed), 48) for seed in range(count)]


@pytest.mark.usefixtures("one_thread")
def test_images_of_all_kinds_become_a_detector(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = photographs(12)
    files = [write_image(tmp_path / f"day {index}/IMG_1.png", image) for index, image in enumerate(images[:4])]
    good = [*files[:2], *map(str, files[2:]), *map(Image.fromarray, images[4:8]), *images[8:]]
    detector = fit(good, output="run", category="caps", **SMALL, far=0.3)
    assert detector.category == "caps" and detector.thresholds.wanted_far == 0.3
    bad = images[0].copy()
    bad[10:30, 10:30] = 255
    found = detector.predict([images[0], bad])
    assert found[1].score > found[0].score and found[1].verdict in ("good", "look", "anomalous")
    again = load_detector("run").predict(bad)
    assert again.score == pytest.approx(found[1].score, abs=1e-5)
    assert not list(tmp_path.glob("aand-*"))


@pytest.mark.usefixtures("one_thread")
def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    detector = fit(photographs(8), **SMALL, recipe="published")
    assert detector.predict(photographs(1)[0]).p_value is not None
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_what_cannot_be_trained_on_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    wrong = [
        ([], "`good` holds no images"),
        ([tmp_path / "notes.txt"], "notes.txt is no image file"),
        ([tmp_path / "nowhere.png"], "nowhere.png is no image file"),
        ([np.zeros((4, 4, 3))], r"number 0 is float64 \(4, 4, 3\), not uint8"),
        ([np.zeros((4, 4, 4), np.uint8)], r"number 0 is uint8 \(4, 4, 4\)"),
        ([None], "number 0 is a NoneType"),
    ]
    for good, message in wrong:
        with pytest.raises(UsageError, match=message), staged(good, "caps"):
            pass
    for settings in ({"epochs": 3}, {"data_root": "x"}):
        with pytest.raises(UsageError, match="`settings`: .* cannot be set; see TrainConfig"):
            fit(photographs(2), **settings)
