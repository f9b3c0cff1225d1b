"""What a deployed model does before and behind the network, against Pillow and datasets/view.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datasets.view import WHOLE, View
from utils.export.model import PlacedMap, show_images

VIEWS = [WHOLE, View(0.1, 0.93, 0.2137, 0.81), View(0.3, 0.63, 0.2137, 0.51, black=12, white=201)]
TRIANGLE = (((0.1, 0.1), (0.9, 0.1), (0.5, 0.9)),)
SIZES = [(70, 90), (20, 33), (64, 64), (128, 128), (47, 301), (1, 5), (90, 70), (301, 47)]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", SIZES)
def test_images_are_shown_as_pillow_resizes_them(view, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = view.show(image, 64)
    pixels = show_images(torch.from_numpy(image)[None], view, 64)[0].permute(1, 2, 0).numpy()
    apart = np.abs(pixels - expected.astype(np.float32))
    assert apart.max() <= np.ceil(255 / (view.white - view.black))  # one level, before it is stretched
    assert (apart > 0).mean() <= 0.001


@pytest.mark.parametrize("view", [
    *VIEWS, View(0.3, 0.34, 0.0, 1.0), View(0.1, 0.9, rows=2, columns=3), View(columns=2, region=TRIANGLE),
])
@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_maps_are_placed_as_in_tests(view, size):
    maps = np.random.default_rng(0).random((2 * view.windows, *size), dtype=np.float32)
    placed = PlacedMap(view, size)(torch.from_numpy(maps)[:, None])[:, 0].numpy()
    np.testing.assert_allclose(placed, view.place(maps), atol=1e-6)


def test_windows_are_shown_as_in_tests():
    view = View(0.1, 0.93, 0.2137, 0.81, rows=2, columns=2)
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    for number, expected in enumerate(view.windows_of(image, (32, 64))):
        pixels = show_images(torch.from_numpy(image)[None], view, (32, 64), number)[0].permute(1, 2, 0).numpy()
        assert np.abs(pixels - expected.astype(np.float32)).max() <= 1


def test_every_image_of_a_batch_is_shown_alone():
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 50, 40, 3), dtype=np.uint8))
    alone = torch.cat([show_images(image[None], VIEWS[2], 32) for image in images])
    torch.testing.assert_close(show_images(images, VIEWS[2], 32), alone)
