"""The ten texture changes, each against values worked out by hand."""

from __future__ import annotations

import numpy as np

from datasets import synthesis
from tests.draws import Draws


def _noise(size):
    return np.random.default_rng(3).integers(0, 256, (size, size, 3), dtype=np.uint8)


def _pixels(*rgb):
    return np.array([rgb], np.uint8)  # (1, N, 3)


def test_gamma_by_hand():
    # 64/255 = 0.25098: squared 0.06299 -> 16.06; square root 0.50098 -> 127.75; power 1 unchanged
    changed = synthesis.gamma(_pixels((64, 64, 64), (255, 0, 3)), Draws(np.array([2.0, 0.5, 1.0])))
    np.testing.assert_array_equal(changed, _pixels((16, 128, 64), (255, 0, 3)))


def test_brightness_by_hand():
    # grey keeps its hue: 100 * 1.2 - 30 = 90; 250 * 1.2 - 30 = 270 -> 255; 10 * 1.2 - 30 < 0 -> 0
    texture = _pixels((100, 100, 100), (250, 250, 250), (10, 10, 10))
    changed = synthesis.brightness(texture, Draws(1.2, -30))
    np.testing.assert_array_equal(changed, _pixels((90, 90, 90), (255, 255, 255), (0, 0, 0)))


def test_sharpness_by_hand():
    # Pillow's smoothing kernel is (1 1 1, 1 5 1, 1 1 1) / 13: a lone 130 on black becomes 50
    texture = np.zeros((5, 5, 3), np.uint8)
    texture[2, 2] = 130
    assert synthesis.sharpness(texture, Draws(0.0))[2, 2, 0] == 50
    np.testing.assert_array_equal(synthesis.sharpness(texture, Draws(1.0)), texture)
    assert synthesis.sharpness(texture, Draws(1.5))[2, 2, 0] == 170  # 50 + 1.5 * (130 - 50)


def test_hue_saturation_by_hand():
    # a third of the circle is 85 of 255: red becomes green, within one step of 8-bit hue (6 * 255 / 256)
    turned = synthesis.hue_saturation(_pixels((255, 0, 0)), Draws(np.array([85.0, 0.0]))).astype(int)
    assert np.abs(turned - [0, 255, 0]).max() <= 6
    # saturation 255 - 51 = 204 = 80 %: the smallest channel rises to 20 % of 255
    paler = synthesis.hue_saturation(_pixels((255, 0, 0)), Draws(np.array([0.0, -51.0]))).astype(int)
    assert np.abs(paler - [255, 51, 51]).max() <= 1
    # the circle closes, and saturation stops at its end
    around = synthesis.hue_saturation(_pixels((255, 0, 0)), Draws(np.array([-85.0, 50.0]))).astype(int)
    assert np.abs(around - [0, 0, 255]).max() <= 6


def test_solarise_by_hand():
    texture = _pixels((0, 99, 100), (101, 200, 255))
    changed = synthesis.solarise(texture, Draws(100, 0.7))
    np.testing.assert_array_equal(changed, _pixels((0, 99, 155), (154, 55, 0)))
    np.testing.assert_array_equal(synthesis.solarise(texture, Draws(100, 0.3)), texture)


def test_posterise_by_hand():
    texture = _pixels((0, 127, 128), (200, 255, 63))
    np.testing.assert_array_equal(synthesis.posterise(texture, Draws(1)), _pixels((0, 0, 128), (128, 128, 0)))
    np.testing.assert_array_equal(synthesis.posterise(texture, Draws(2)), _pixels((0, 64, 128), (192, 192, 0)))
    np.testing.assert_array_equal(synthesis.posterise(texture, Draws(8)), texture)


def test_invert_by_hand():
    np.testing.assert_array_equal(synthesis.invert(_pixels((0, 1, 255)), None), _pixels((255, 254, 0)))


def test_autocontrast_by_hand():
    # 50..150 is stretched to 0..255: 100 -> 127; with 20 % cut off at either end of 5 pixels, 60..140 is
    texture = np.repeat(np.array([50, 60, 100, 140, 150], np.uint8)[None, :, None], 3, axis=2)
    np.testing.assert_array_equal(synthesis.autocontrast(texture, Draws(0))[0, :, 0], [0, 25, 127, 229, 255])
    np.testing.assert_array_equal(synthesis.autocontrast(texture, Draws(20))[0, :, 0], [0, 0, 127, 255, 255])


def test_equalise_by_hand():
    # 510 pixels, half 10 and half 20, the last bin left out: step 1, so 10 -> 0 and 20 -> 255
    texture = np.repeat(np.repeat(np.array([[10], [20]], np.uint8), 255, axis=1)[:, :, None], 3, axis=2)
    changed = synthesis.equalise(texture, None)
    np.testing.assert_array_equal(changed[:, 0, 0], [0, 255])


def test_rotate_by_hand():
    texture = np.zeros((65, 65, 3), np.uint8)
    texture[32, 52] = 200  # 20 to the right of the centre; 45 degrees counter-clockwise is 14.1 up and right
    rotated = synthesis.rotate(texture, Draws(45.0))[:, :, 0]
    assert np.unravel_index(rotated.argmax(), rotated.shape) == (18, 46)
    assert synthesis.rotate(texture + 255, Draws(45.0))[0, 0].max() == 0
    np.testing.assert_array_equal(synthesis.rotate(texture, Draws(0.0)), texture)


def test_changes_stay_within_their_ranges():
    asked = {}

    class Recorder:
        def __init__(self, name):
            self.name, self.rng = name, np.random.default_rng(0)

        def uniform(self, low, high, size=None):
            asked.setdefault(self.name, []).append((low, high))
            return self.rng.uniform(low, high, size)

        def integers(self, low, high):
            asked.setdefault(self.name, []).append((low, high - 1))
            return self.rng.integers(low, high)

        def random(self):
            return 0.9

    for change in synthesis.TEXTURE_CHANGES:
        changed = change(_noise(16), Recorder(change.__name__))
        assert changed.dtype == np.uint8
        assert changed.shape == (16, 16, 3)
    assert asked == {
        "gamma": [(0.5, 2.0)],
        "brightness": [(0.8, 1.2), (-30, 30)],
        "sharpness": [(0, 2)],
        "hue_saturation": [(-50, 50)],
        "solarise": [(32, 128)],
        "posterise": [(1, 8)],
        "autocontrast": [(0, 20)],
        "rotate": [(-45, 45)],
    }
    assert len(synthesis.TEXTURE_CHANGES) == 10


def test_three_different_changes_are_drawn(monkeypatch):
    called = []
    changes = tuple(lambda texture, rng, i=i: called.append(i) or texture for i in range(10))
    monkeypatch.setattr(synthesis, "TEXTURE_CHANGES", changes)
    rng = np.random.default_rng(0)
    for _ in range(300):
        synthesis.change_texture(_noise(8), rng)
    draws = np.array(called).reshape(300, 3)
    assert all(len(set(draw)) == 3 for draw in draws)
    assert np.bincount(called, minlength=10).min() > 60  # each is drawn 90 times on average
