"""A trained category as a library: files, Pillow images and arrays in, scores, maps and regions out."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from datasets.base import DataError
from datasets.view import View, enlarge
from tests.support.trees import good_image
from utils.detection.detector import Detector, Region, find_regions, load_detector
from utils.system.errors import RunError

pytestmark = pytest.mark.usefixtures("one_thread")
ORIENTATION = 0x0112  # the EXIF tag


def brightness(size: int, **options) -> Detector:
    """A detector whose map is the red channel."""

    def compute(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps = pixels[..., 0].astype(np.float32)
        return maps, maps.max(axis=(1, 2))

    return Detector(compute, size, **options)


@pytest.mark.parametrize("kind", ["rgb", "grey", "palette", "rgba", "deep", "turned", "turned tiff", "deep colours"])
def test_files_images_and_arrays_give_the_same(own, tmp_path, kind):
    detector = load_detector(own.run)
    pixels = np.ascontiguousarray(good_image(np.random.default_rng(3), 64)[:48])
    image, exif = Image.fromarray(pixels), Image.Exif()
    if kind in ("grey", "palette", "rgba"):
        image = image.convert({"grey": "L", "palette": "P", "rgba": "RGBA"}[kind])
    if kind == "deep":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    if "turned" in kind:
        exif[ORIENTATION] = 6
    path = tmp_path / ("x.tif" if kind == "turned tiff" else "x.png")
    image.save(path, exif=exif)
    [of_file] = detector.predict([str(path)])
    assert of_file.anomaly_map.shape == ((64, 48) if "turned" in kind else (48, 64))
    assert of_file.anomaly_map.dtype == np.float32
    with Image.open(path) as opened:
        candidates = [path, opened]
        if kind in ("rgb", "grey", "rgba", "deep"):
            candidates.append(np.asarray(image))
        if kind == "deep colours":
            candidates.append(pixels.astype(np.uint16) * 256 + 77)
        for candidate in candidates:
            found = detector.predict(candidate)
            assert found.score == pytest.approx(of_file.score, abs=1e-6)
            np.testing.assert_allclose(found.anomaly_map, of_file.anomaly_map, atol=1e-5)
        assert opened.getexif().get(ORIENTATION) == (6 if "turned" in kind else None)  # as it was


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8), np.zeros((4, 4), bool),
    ],
)
def test_arrays_that_are_no_images(array):
    with pytest.raises(DataError, match="cannot use the image: expected uint8 or uint16"):
        brightness(32).predict(array)


def test_many_images_in_batches():
    images = [np.full((5, 9, 3), value, np.uint8) for value in range(40)]
    detector = brightness(32, batch_size=7)
    assert [found.score for found in detector.predict(images)] == list(range(40))
    assert detector.predict([]) == []


def test_without_thresholds_there_are_scores_only():
    found = brightness(32).predict(np.full((5, 9), 7, np.uint8))
    assert (found.score, found.is_anomalous, found.p_value, found.regions) == (7, None, None, [])


def test_regions_are_in_the_images_own_pixels():
    """Bright squares in an image of 160 x 320, of which the model sees 32 x 32: a map's pixel is 5 high, 10 wide."""
    image = np.full((160, 320, 3), 20, np.uint8)
    image[50:75, 200:260] = 220  # rows 10..14, columns 20..25 of the map
    image[100:105, 10:20] = 120
    [first, second] = brightness(32, threshold=60).predict(image).regions
    assert (first.left, first.top, first.right, first.bottom) == pytest.approx((200, 50, 260, 75), abs=10)
    assert first.left <= 200 and first.top <= 50 and first.right >= 260 and first.bottom >= 75
    assert second.left <= 10 < 20 <= second.right and second.top <= 100 < 105 <= second.bottom
    assert first.score > second.score
    assert brightness(32, threshold=230).predict(image).regions == []


def test_regions_by_hand():
    model_map = np.zeros((4, 8), np.float32)
    model_map[0, 0], model_map[1, 1] = 2, 5  # 8-connected
    model_map[3, 7] = 9
    model_map[0, 4:6] = 1  # not above
    assert find_regions(model_map, 1.0, (6, 100)) == [
        Region(left=87, top=4, right=100, bottom=6, score=9, area=19),  # 12.5 x 1.5 pixels each
        Region(left=0, top=0, right=25, bottom=3, score=5, area=38),
    ]


def test_a_view_is_shown_and_its_maps_are_placed():
    """Of the lower right quarter; beside it maps have their lowest value."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32] = 255  # not shown
    image[48:, 48:] = 100
    found = brightness(32, view=View(top=0.5, left=0.5), threshold=50).predict(image)
    assert found.score == pytest.approx(100, abs=12)  # bicubic
    assert found.anomaly_map.shape == (64, 64) and found.anomaly_map[:32].max() < 5
    [region] = found.regions
    assert (region.left, region.top, region.right, region.bottom) == pytest.approx((48, 48, 64, 64), abs=2)


def test_the_map_is_enlarged_to_the_image(own):
    found = load_detector(own.run).predict(np.zeros((33, 70, 3), np.uint8))
    np.testing.assert_array_equal(found.anomaly_map, enlarge(found.model_map, (33, 70)))
    assert found.score == found.model_map.max()


def test_which_category_and_seed(trained, seeded):
    with pytest.raises(RunError, match="has several categories; choose one of: bottle, tile"):
        load_detector(trained.aand)
    image = good_image(np.random.default_rng(0), 32)
    scores = {seed: load_detector(seeded.run, "tile", seed).predict(image).score for seed in (None, 0, 1)}
    assert scores[None] == scores[0] != scores[1]
