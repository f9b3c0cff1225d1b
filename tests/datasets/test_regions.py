"""Regions of interest: read from every kind of file, drawn, and nothing beside them has an influence."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.base import DataError
from datasets.regions import bounds_of, canvas, find_region, read_region, region_mask
from datasets.view import View
from utils.export.model import cover

BOX = (((0.25, 0.5), (0.75, 0.5), (0.75, 1.0), (0.25, 1.0)),)  # x, y
TRIANGLE = (((0.1, 0.1), (0.9, 0.1), (0.5, 0.9)),)


def test_a_box_may_be_stated_drawn_or_painted(tmp_path):
    (tmp_path / "box.json").write_text(json.dumps({"box": [0.25, 0.5, 0.75, 1.0]}))
    assert read_region(tmp_path / "box.json") == BOX
    (tmp_path / "polygons.json").write_text(json.dumps({"polygons": BOX}))
    assert read_region(tmp_path / "polygons.json") == BOX
    shapes = [{"points": [[100, 100], [300, 200]], "shape_type": "rectangle"}]
    (tmp_path / "labelme.json").write_text(json.dumps({"shapes": shapes, "imageHeight": 200, "imageWidth": 400}))
    mask = np.zeros((200, 400), np.uint8)
    mask[100:, 100:300] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for name in ("labelme.json", "mask.png"):
        top, bottom, left, right = bounds_of(read_region(tmp_path / name))
        assert bottom == 1 and (top, left, right) == pytest.approx((0.5, 0.25, 0.75), abs=0.003)


def test_holes_stay_holes_and_many_points_become_fewer(tmp_path):
    down, across = np.mgrid[:300, :300]
    ring = (np.hypot(down - 150, across - 150) < 120) & (np.hypot(down - 150, across - 150) > 60)
    Image.fromarray(255 * ring.astype(np.uint8)).save(tmp_path / "ring.png")
    drawn = region_mask(read_region(tmp_path / "ring.png"), (300, 300))
    assert (drawn != ring).mean() < 0.01
    noise = np.random.default_rng(0).random((400, 400)) > 0.5
    Image.fromarray(255 * noise.astype(np.uint8)).save(tmp_path / "noise.png")
    assert sum(map(len, read_region(tmp_path / "noise.png"))) <= 2000


@pytest.mark.parametrize(("content", "reason"), [
    ({"box": [0.2, 0.5, 0.2, 1.0]}, "no area"), ({"box": [0.2, 0.5, 1.5, 1.0]}, "<= 1"), ({"polygons": []}, "polygons"),
    ({"polygons": [[[0, 0], [1, 1]]]}, "three points"), ({"box": [0, 0, 0.01, 1]}, "1/32"),
    ({"shapes": []}, "imageHeight"), ({"box": [0, 0, 1, 1], "other": 1}, "other"), ([], "Labelme"),
])
def test_files_that_are_no_region_are_named(tmp_path, content, reason):
    path = tmp_path / "region.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"region of interest .*region.json.*{reason}"):
        read_region(path)


def test_other_files_that_are_no_region_are_named(tmp_path):
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("none")
    for name in ("black.png", "text.png", "missing.png", "missing.json"):
        with pytest.raises(DataError, match=name):
            read_region(tmp_path / name)


def test_a_folder_has_a_file_for_each_category(tmp_path):
    for name in ("caps.png", "lids.png", "lids.json", "caps.txt"):
        (tmp_path / name).touch()
    assert find_region(tmp_path, "caps") == tmp_path / "caps.png"
    assert find_region(tmp_path / "caps.png", "lids") == tmp_path / "caps.png"
    for category in ("lids", "pins"):
        with pytest.raises(DataError, match=category):
            find_region(tmp_path, category)


def test_pixels_in_the_region_are_those_whose_centre_is():
    expected = np.zeros((8, 8), bool)
    expected[4:, 2:6] = True
    np.testing.assert_array_equal(region_mask(BOX, (8, 8)), expected)
    assert region_mask(BOX, (1, 3)).tolist() == [[False, True, False]]
    away = abs((np.arange(500) + 0.5) / 500 - 0.5)
    inside = region_mask(TRIANGLE, (1000, 500))[500]  # at a height of a half: 0.3 to 0.7, as fine as the canvas is
    assert inside[away < 0.198].all() and not inside[away > 0.202].any()


@pytest.mark.parametrize("region", [BOX, TRIANGLE])
@pytest.mark.parametrize("view", [View(), View(rows=2, columns=2), View(0.1, 0.95, 0.15, 0.85, black=10, white=240)])
@pytest.mark.parametrize("shape", [(40, 50), (300, 170)])
def test_what_lies_beside_has_no_influence(region, view, shape):
    """Every pixel beside the region is changed: the model sees the same, and maps are lowest there."""
    view = replace(view, region=region)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    beside = ~region_mask(region, shape)
    other = np.where(beside[..., None], 255 - image, image)
    assert beside.any() and not beside.all()
    np.testing.assert_array_equal(view.windows_of(image, 64), view.windows_of(other, 64))
    np.testing.assert_array_equal(view.show_mask(beside.astype(np.uint8), 64), 0)
    maps = np.random.default_rng(1).random((view.windows, 64, 64), dtype=np.float32)
    placed = view.place(maps)[0]
    assert (placed[~region_mask(region, placed.shape)] == maps.min()).all()
    np.testing.assert_array_equal(view.weight(placed.shape) > 0, region_mask(region, placed.shape))
    deployed = cover(torch.from_numpy(image)[None], torch.from_numpy(canvas(region).copy()), view.beside)
    np.testing.assert_array_equal(deployed[0], np.where(beside[..., None], view.beside, image))


def test_the_box_of_a_view_is_within_the_region():
    images = torch.zeros(3, 64, 64, 4, dtype=torch.uint8)
    images[..., :3], images[:, 32:, :, :3] = 200, 50
    view = View.of(images, crop=True, stretch=True, region=BOX, tiles=(1, 2))
    assert (view.top, view.bottom, view.left, view.right) == (0.5, 1.0, 0.25, 0.75)
    assert (view.rows, view.columns) == (1, 2) and (view.black, view.white) == (0, 255)  # of a single level
    images[:, 40:50, 20:60, 3] = 1  # objects, partly beside the region
    view = View.of(images, crop=True, stretch=False, region=BOX)
    assert (view.top, view.bottom, view.left, view.right) == (38 / 64, 52 / 64, 18 / 64, 0.75)
    assert View.whole(region=TRIANGLE) == View(0.1, 0.9, 0.1, 0.9, region=TRIANGLE)
