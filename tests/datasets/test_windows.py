"""Windows over an image: where they lie, what they show, and one map of theirs without seams."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from datasets.base import FROM_DISK
from datasets.files import image_files, mask_files, training_files
from datasets.sizes import height_width, in_words
from datasets.view import WHOLE, View
from datasets.windows import joined_side, joining_matrix, side_by_side, spans
from tests.support.trees import write_image
from utils.data.image_store import FileStack, ImageStore
from utils.detection.prediction import Predictor

GRID = View(rows=2, columns=3)
SIZE = (32, 64)


def test_a_size_is_a_square_or_height_and_width():
    assert height_width(32) == (32, 32) and height_width([32, 64]) == height_width((32, 64)) == (32, 64)
    assert in_words(32) == in_words((32, 32)) == "32" and in_words((32, 64)) == "32 x 64"
    with pytest.raises(ValueError):
        height_width((1, 2, 3))


def test_windows_lie_from_end_to_end_and_overlap_by_an_eighth():
    assert spans(1) == [(0, 1)]
    length = 1 / 1.875  # of two, an eighth in both
    np.testing.assert_allclose(spans(2), [(0, length), (1 - length, 1)])
    for count in range(2, 17):
        starts, ends = np.array(spans(count)).T
        assert starts[0] == 0 and ends[-1] == 1
        np.testing.assert_allclose(ends - starts, ends[0])
        np.testing.assert_allclose(ends[:-1] - starts[1:], ends[0] / 8)
    assert (joined_side(1, 256), joined_side(2, 256), joined_side(4, 256)) == (256, 480, 928)


@pytest.mark.parametrize(("count", "whole", "start", "end"), [
    (2, 60, 0, 60), (3, 85, 4, 71), (5, 144, 0, 144), (1, 32, 3, 20),
])
def test_the_weights_of_each_place_sum_to_one(count, whole, start, end):
    matrix = joining_matrix(count, 32, whole, start, end)
    expected = np.zeros(whole)
    expected[start:end] = 1
    np.testing.assert_allclose(matrix.sum(axis=1), expected, atol=1e-6)
    assert (matrix >= 0).all()


def test_maps_come_together_without_a_seam():
    """Windows cut from a smooth map give that map again; so do they from a line, to rounding."""
    height, width = GRID.map_size(SIZE)
    assert (height, width) == (60, 176)
    down, across = np.mgrid[:height, :width]
    whole = (3 * down + 2 * across).astype(np.float32)
    lengths = [1 / (count - (count - 1) / 8) for count in (2, 3)]
    windows = []
    for first, _ in spans(2):
        for start, _ in spans(3):
            rows = first * height + (np.arange(32) + 0.5) / 32 * lengths[0] * height - 0.5
            columns = start * width + (np.arange(64) + 0.5) / 64 * lengths[1] * width - 0.5
            windows.append(3 * rows[:, None] + 2 * columns[None])
    placed = GRID.place(np.array(windows, np.float32))
    assert placed.shape == (1, height, width)
    inner = np.s_[0, 1:-1, 1:-1]  # beyond the last pixel's centre nothing is known
    np.testing.assert_allclose(placed[inner], whole[inner[1:]], atol=1e-3)


def test_where_windows_overlap_one_fades_out_as_the_other_fades_in():
    maps = np.stack([np.zeros((32, 32)), np.ones((32, 32))]).astype(np.float32)
    placed = View(columns=2).place(maps)[0, 16]
    assert placed.shape == (60,) and (placed[:28] == 0).all() and (placed[32:] == 1).all()
    np.testing.assert_allclose(placed[28:32], [0.125, 0.375, 0.625, 0.875], atol=1e-6)


def test_maps_are_laid_row_by_row():
    maps = np.arange(12, dtype=np.float32).repeat(6).reshape(12, 2, 3)
    laid = side_by_side(maps, 2, 3)
    assert laid.shape == (2, 4, 9)
    np.testing.assert_array_equal(laid[1, ::2, ::3], [[6, 7, 8], [9, 10, 11]])


def test_each_window_shows_its_part_of_the_box():
    image = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    view = View(top=0.1, bottom=0.9, left=0.25, right=0.75, rows=2, columns=2)
    shown = view.windows_of(image, SIZE)
    assert shown.shape == (4, *SIZE, 3)
    for number in range(4):
        top, bottom, left, right = view.window_box(number)
        np.testing.assert_array_equal(shown[number], View(top, bottom, left, right).show(image, SIZE))
    assert view.window_box(0)[0] == 0.1 and view.window_box(3)[1::2] == pytest.approx((0.9, 0.75))
    np.testing.assert_array_equal(WHOLE.windows_of(image, 32), WHOLE.show(image, 32)[None])


def test_files_are_stacks_of_windows(tmp_path):
    rng = np.random.default_rng(1)
    paths = [write_image(tmp_path / f"{name}.png", rng.integers(0, 256, (80, 90, 3), dtype=np.uint8)) for name in "abc"]
    files = image_files(paths, GRID)
    assert files.shape(SIZE) == (18, *SIZE, 3)
    whole = ImageStore(SIZE, 2).open({0: [files]})(0)[0]
    expected = np.concatenate([files.decode(path, SIZE, FROM_DISK) for path in paths])
    np.testing.assert_array_equal(whole, expected)
    mapped = ImageStore(SIZE, 2, "disk", tmp_path / "cache").open({0: [files]})(0)[0]
    np.testing.assert_array_equal(mapped, expected)
    stack = FileStack(files, SIZE, 2)
    assert len(stack) == 18
    for index in (slice(5, 8), torch.tensor([17, 0, 6, 0]), torch.tensor([[3], [12]]), 7):
        np.testing.assert_array_equal(stack[index], expected[index])
    masks = mask_files(paths, GRID)
    assert masks.shape(SIZE) == (3, *GRID.map_size(SIZE))
    content = training_files(paths[:1], "folder", "a", None, GRID).decode(paths[0], SIZE, FROM_DISK)
    assert content.shape == (6, *SIZE, 4)


def test_predictions_are_of_the_windows_together():
    """Whatever the number of images at a time: one map of each image, and the highest score of its windows."""

    def compute(images):
        maps = images[..., 0].astype(np.float32)
        return maps, maps.max(axis=(1, 2))

    images = np.random.default_rng(2).integers(0, 256, (24, *SIZE, 3), dtype=np.uint8)
    predictions = [Predictor(compute, SIZE, GRID, batch_size).maps(images) for batch_size in (1, 4, 6, 7, 100)]
    for maps, scores in predictions:
        np.testing.assert_array_equal(scores, images[..., 0].reshape(4, -1).max(axis=1))
        np.testing.assert_allclose(maps, GRID.place(images[..., 0].astype(np.float32)), rtol=1e-5)
        assert maps.shape == (4, 60, 176)
    batches = list(Predictor(compute, SIZE, GRID, 13).in_batches(list("abcd"), images))
    assert [(paths, len(part)) for paths, part in batches] == [(["a", "b"], 12), (["c", "d"], 12)]


def test_views_with_windows_are_read_back():
    for view in (GRID, replace(GRID, top=0.25, region=(((0.1, 0.2), (0.9, 0.3), (0.5, 0.8)),))):
        assert View.from_dict(json.loads(json.dumps(asdict(view)))) == view
    assert len({view.word for view in (WHOLE, GRID, View(rows=3, columns=2), View(rows=2))}) == 4
    for wrong in (dict(rows=0), dict(columns=17), dict(rows=1.5), dict(rows=True)):
        with pytest.raises(ValueError):
            View(**wrong)
