"""Heat maps: the outline lies around the mask, colours follow the map on one scale, good images look calm."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.drawing import heat_maps as visualize
from utils.drawing.heat_maps import (
    HEAT_SHARE,
    LINE_COLOR,
    blend_heat,
    caption,
    draw_outline,
    map_limits,
    save_heat_map,
)

SIZE = 64


def make_image(value: int = 128) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), value, np.uint8)


def make_mask() -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[20:40, 10:30] = 1
    mask[26:34, 16:24] = 0  # a hole
    mask[50, 50] = 1  # a single pixel
    mask[60:, :8] = 1  # at the edge of the image
    return mask


def line_of(picture: np.ndarray) -> np.ndarray:
    return (picture == LINE_COLOR).all(axis=2)


def brightness(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)[..., 0].astype(int)


def test_blocks_of_rows_are_not_seen(monkeypatch):
    rng = np.random.default_rng(0)
    image, values = rng.integers(0, 256, (50, 30, 3), np.uint8), rng.normal(size=(50, 30)).astype(np.float32)
    whole = blend_heat(image, values, (-1, 2))
    monkeypatch.setattr(visualize, "BLOCK", 7 * 30)
    np.testing.assert_array_equal(blend_heat(image, values, (-1, 2)), whole)


def test_outline_lies_on_the_border_of_the_mask():
    mask = make_mask()
    line = line_of(draw_outline(make_image(), mask))
    near = cv2.dilate(mask, np.ones((3, 3), np.uint8)).astype(bool)
    allowed = near & (mask == 0)  # the pixels next to the mask
    allowed[-1, :8] = allowed[60:, 0] = True  # where the mask leaves the image, the line can only run inside
    allowed[25:35, 15:25] = True  # around a hole OpenCV draws on the mask's side
    assert not (line & ~allowed).any()
    assert line[19, 9:31].all()  # the whole upper side of the square
    assert line[19:41, 9].all()
    assert line[25:35, 15:25].any()
    assert not line[28:32, 18:22].any()
    assert line[49, 50]
    assert not line[50, 50]


@pytest.mark.parametrize("value", [0, 128, 255])
def test_outline_shows_on_any_background(value):
    drawn = draw_outline(make_image(value), make_mask())
    rows = brightness(drawn)[16:22, 20]  # across the upper side of the square
    assert rows.max() - rows.min() > 150


def test_outline_grows_with_the_image_and_leaves_its_input_alone():
    image, mask = np.zeros((1024, 1024, 3), np.uint8), np.zeros((1024, 1024), np.uint8)
    mask[400:600, 400:600] = 1
    drawn = draw_outline(image, mask)
    assert not image.any()
    assert 3 <= line_of(drawn)[:500, 500].sum() <= 5
    assert (draw_outline(image, mask * 0) == image).all()


def test_hot_is_brighter_than_cold_all_along():
    anomaly_map = np.tile(np.linspace(2.0, 3.0, SIZE), (SIZE, 1))
    row = brightness(blend_heat(make_image(), anomaly_map, (2.0, 3.0)))[0]
    assert (np.diff(row) >= -1).all()  # rounding
    assert row[-1] - row[0] > 100


def test_heat_is_red_to_yellow_whatever_the_colour_of_the_image():
    blue = np.zeros((SIZE, SIZE, 3), np.uint8)
    blue[..., 2] = 200
    red, _, blueness = blend_heat(blue, np.full((SIZE, SIZE), 0.7), (0.0, 1.0))[0, 0].astype(int)
    assert red - blueness > 80


def test_values_beyond_the_limits_are_clipped():
    anomaly_map = np.full((SIZE, SIZE), 2.0)
    anomaly_map[0, 0], anomaly_map[0, 1], anomaly_map[0, 2], anomaly_map[0, 3] = -100.0, 0.0, 1.0, 100.0
    heat = blend_heat(make_image(), anomaly_map, (0.0, 1.0))
    assert (heat[0, 0] == heat[0, 1]).all()
    assert (heat[0, 2] == heat[0, 3]).all()
    assert (heat[0, 1] != heat[0, 2]).any()


def test_calm_image_has_no_hot_colour_on_the_scale_of_its_category():
    rng = np.random.default_rng(0)
    maps = 0.4 + 0.05 * rng.random((10, SIZE, SIZE))  # good images
    maps[6:, 20:30, 20:30] += 0.8  # anomalous ones
    maps[9, 0, 0] = 50.0  # a freak value dims nothing
    low, high = map_limits(maps)
    assert 0.4 < low < 0.45
    assert 1.2 < high < 1.25
    calm, hot = (blend_heat(make_image(), maps[i], (low, high)) for i in (0, 7))
    cold = blend_heat(make_image(), np.zeros((SIZE, SIZE)), (0.0, 1.0))
    assert np.abs(brightness(calm) - brightness(cold)).max() < 15
    assert (brightness(hot) - brightness(cold))[20:30, 20:30].min() > 100


def test_maps_without_information_are_cold():
    maps = np.full((2, SIZE, SIZE), 0.3)
    limits = map_limits(maps)
    assert limits == (0.3, 0.3)
    cold = blend_heat(make_image(), np.zeros((SIZE, SIZE)), (0.0, 1.0))
    assert (blend_heat(make_image(), maps[0], limits) == cold).all()


@pytest.mark.parametrize("with_mask", [True, False])
def test_saved_picture_is_image_beside_heat_map(tmp_path, with_mask):
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    anomaly_map = np.linspace(0, 1, 48 * 64).reshape(48, 64)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 10:20] = 1
    path = tmp_path / "maps" / "bottle" / "000.png"
    save_heat_map(path, image, anomaly_map, mask if with_mask else None, (0.0, 1.0))
    picture = np.asarray(Image.open(path))
    heat_map = blend_heat(image, anomaly_map, (0.0, 1.0))
    assert (picture[:, :64] == image).all()
    assert (picture[:, 64:] == (draw_outline(heat_map, mask) if with_mask else heat_map)).all()
    assert line_of(picture).any() == with_mask


def test_wrong_calls_are_named(tmp_path):
    image, maps = make_image(), np.zeros((SIZE, SIZE))
    nan = maps.copy()
    nan[3, 3] = np.nan
    for call, message in (
        (lambda: blend_heat(image / 255, maps, (0, 1)), "image: expected uint8 .* got float64"),
        (lambda: blend_heat(image, maps[:5], (0, 1)), r"anomaly_map: .*\(64, 64\), got \(5, 64\)"),
        (lambda: blend_heat(image, nan, (0, 1)), "anomaly_map: 1 of 4096 values are NaN or infinite"),
        (lambda: blend_heat(image, maps, (1, 0)), r"limits .* got \(1, 0\)"),
        (lambda: draw_outline(image, maps[None]), r"mask: .* got \(1, 64, 64\)"),
        (lambda: map_limits(maps), r"anomaly_maps: expected shape \(N, H, W\)"),
        (lambda: map_limits(nan[None]), "anomaly_maps: 1 of 4096"),
        (lambda: save_heat_map(tmp_path / "a.jpg", image, maps, None, (0, 1)), "PNG"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_weight_lets_the_map_fade_into_the_cold_image():
    image = np.full((4, 4, 3), 100, np.uint8)
    weight = np.array([[0.0, 0.5, 1.0, 1.0]] * 4)
    hot = blend_heat(image, np.ones((4, 4)), (0.0, 1.0))
    faded = blend_heat(image, np.ones((4, 4)), (0.0, 1.0), weight)
    np.testing.assert_allclose(faded[:, 0], (1 - HEAT_SHARE) * image[:, 0], atol=0.5)
    np.testing.assert_array_equal(faded[:, 2:], hot[:, 2:])
    assert ((faded[:, 1] > faded[:, 0]) & (faded[:, 1] < hot[:, 1])).all()


def test_a_caption_fits_its_picture_or_is_left_out():
    for width in (320, 640, 3000):
        strip = caption(width, "anomalous   score 24.03   threshold 20", (3.263, 22.05))
        assert strip.shape[1:] == (width, 3) and 0 < len(strip) <= width / 10
        assert (strip.max(axis=(0, 2)) > 200).any()  # letters
        colours = strip[len(strip) // 2, width // 2 :].astype(int)
        assert (np.abs(colours[:, 0] - colours[:, 2]) > 100).any()  # and the scale
        assert not strip[:, -2:].any()
    assert caption(128, "anomalous   score 24.03   threshold 20", (3.263, 22.05)).shape == (0, 128, 3)


def test_a_heat_map_with_a_caption_is_higher(tmp_path):
    image, anomaly_map = np.zeros((100, 320, 3), np.uint8), np.zeros((100, 320))
    for text, more in (("", 0), ("good   score 1", len(caption(640, "good   score 1", (0.0, 1.0))))):
        save_heat_map(tmp_path / "x.png", image, anomaly_map, None, (0.0, 1.0), text=text)
        assert np.asarray(Image.open(tmp_path / "x.png")).shape == (100 + more, 640, 3)
    assert more > 5
