"""What the model is shown of an image: box and grey levels of a category, and the way back to the whole image."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.base import FROM_DISK
from datasets.files import evaluation_files, image_files, training_files
from datasets.foreground import foreground_mask, rule_for
from datasets.view import WHOLE, View
from models.aand import AAND
from utils.detection.prediction import Predictor

SIZE = 64
VIEW = View(top=0.25, bottom=0.75, left=0.125, right=1.0, black=20, white=120)


def stack(foregrounds: list[tuple[int, int, int, int]], values: tuple[int, ...] = (10, 200)) -> torch.Tensor:
    """Images (N, S, S, 4) whose values run through `values`, each with a foreground of top, bottom, left, right."""
    images = torch.zeros(len(foregrounds), SIZE, SIZE, 4, dtype=torch.uint8)
    images[..., :3] = torch.tensor(values)[torch.arange(SIZE * SIZE) % len(values)].view(SIZE, SIZE, 1)
    for image, (top, bottom, left, right) in zip(images, foregrounds, strict=True):
        image[top:bottom, left:right, 3] = 1
    return images


# Where the objects are


def test_the_box_holds_every_foreground_and_a_margin():
    view = View.of(stack([(20, 30, 40, 50), (10, 22, 44, 52)]), stretch=False)
    assert view == View(top=8 / 64, bottom=32 / 64, left=38 / 64, right=54 / 64)  # two pixels around


def test_the_box_ends_at_the_frame():
    assert View.of(stack([(1, 64, 0, 30)]), stretch=False) == View(top=0, bottom=1, left=0, right=0.5)


def test_without_any_foreground_all_is_shown():
    assert View.of(stack([(0, 0, 0, 0)] * 2), stretch=False) == WHOLE


def test_the_box_is_over_all_images_of_a_large_set():
    foregrounds = [(30, 34, 30, 34)] * 150
    foregrounds[149] = (2, 4, 30, 34)
    assert View.of(stack(foregrounds), stretch=False).top == 0


def test_what_is_not_asked_for_stays():
    images = stack([(20, 30, 40, 50)])
    assert View.of(images, crop=False, stretch=False) == WHOLE
    assert View.of(images, crop=False) == View(black=10, white=200)


# Grey levels


def test_one_value_in_two_hundred_may_be_black_and_white():
    def levels(values: list[int]) -> View:
        """Of an image that has each of them equally often."""
        size = len(values)
        image = torch.tensor(values, dtype=torch.uint8).repeat(size).view(1, size, size, 1)
        return View.of(image.repeat(1, 1, 1, 4), crop=False)

    assert levels([0, *[50] * 99, *[60] * 98, 90, 90]) == View(black=0, white=90)
    assert levels([0, *[50] * 250, *[60] * 248, 90]) == View(black=50, white=60)
    assert levels([0, *[50] * 498, 90]) == WHOLE  # a single value is left


def test_grey_levels_are_those_within_the_box():
    images = stack([(20, 40, 20, 40)], values=(30, 90))
    images[:, :10, :, :3] = 255  # a bright strip beside the object
    view = View.of(images)
    assert (view.black, view.white) == (30, 90)


def test_stretched_levels_are_linear_and_end_at_black_and_white():
    image = np.array([[[20, 70, 120]], [[0, 45, 255]]], np.uint8)
    shown = replace(VIEW, top=0.0, bottom=1.0, left=0.0).show(np.repeat(image, 2, axis=1), 2)
    assert shown[0, 0].tolist() == [0, 128, 255]  # (70 - 20) / 100 * 255 = 127.5, to even
    assert shown[1, 0].tolist() == [0, 64, 255]  # 63.75


# Showing and placing


def test_the_whole_view_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    expected = Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(WHOLE.show(image, SIZE), np.asarray(expected))
    maps = np.zeros((2, 4, 4), np.float32)
    assert WHOLE.place(maps) is maps


def test_the_box_is_cut_from_the_full_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    view = replace(VIEW, black=0.0, white=255.0)
    expected = Image.fromarray(image[10:30, 10:80]).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    inner = slice(8, -8)  # at its edges what lies beside it counts
    np.testing.assert_array_equal(view.show(image, SIZE)[inner, inner], np.asarray(expected)[inner, inner])
    mask = (image[..., 0] > 127).astype(np.uint8)
    expected = Image.fromarray(mask[10:30, 10:80]).resize((SIZE, SIZE), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(view.show_mask(mask, SIZE), np.asarray(expected))


def test_a_placed_map_lies_in_its_box_and_is_lowest_beside_it():
    maps = np.zeros((2, 64, 64), np.float32)
    maps[0, :, 32:], maps[0, :, :32], maps[1] = 3.0, -1.0, 5.0
    placed = VIEW.place(maps)
    assert placed.dtype == np.float32 and placed.shape == (2, 64, 64)
    np.testing.assert_array_equal(placed[0, 16:48, 8:36], -1)
    np.testing.assert_array_equal(placed[0, 16:48, 36:], 3)
    outside = np.ones((64, 64), bool)
    outside[16:48, 8:] = False
    assert (placed[0][outside] == -1).all() and (placed[1] == 5).all()


def test_a_defect_comes_back_to_where_it_was():
    image = np.zeros((96, 160, 3), np.uint8)
    image[40:52, 90:110] = 255
    shown = View(0.25, 0.75, 0.125, 1.0).show(image, SIZE)[..., 0].astype(np.float32)
    placed = View(0.25, 0.75, 0.125, 1.0).place(shown[None])[0] > 127
    expected = np.asarray(Image.fromarray(image[..., 0]).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) > 127
    assert (placed & expected).sum() / (placed | expected).sum() > 0.85


@pytest.mark.parametrize(
    "wrong",
    [
        dict(top=0.5, bottom=0.5), dict(left=-0.1), dict(right=1.1), dict(black=200, white=100), dict(white=256),
        dict(top="0"), dict(black=True), dict(top=float("nan")), dict(top=0.5, bottom=0.53), dict(left=1 - 1e-12),
        dict(white=10**400), dict(right=-(10**400)),
    ],
)
def test_a_view_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="of a view"):
        View(**wrong)


def test_the_smallest_view_is_a_pixel_at_least():
    """Half a pixel rounds to the even one: its edges at 1.5 and 2.5 pixels both to the second."""
    placed = View(top=1.5 / 32, bottom=2.5 / 32).place(np.arange(32 * 32, dtype=np.float32).reshape(1, 32, 32))
    assert np.flatnonzero((placed[0] > 0).any(axis=1)).tolist() == [2]


def test_a_view_is_read_back_and_anything_else_is_refused():
    assert View.from_dict(json.loads(json.dumps(asdict(VIEW)))) == VIEW
    for wrong in ([], {"top": 0}, {**asdict(VIEW), "more": 1}):
        with pytest.raises(ValueError, match="a view has top, bottom"):
            View.from_dict(wrong)


# In the data and the results


def test_files_are_decoded_as_the_view_shows_them(trained, tmp_path):
    path = sorted((trained.data / "bottle/train/good").iterdir())[0]
    image = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(image_files([path], VIEW).decode(path, 32, FROM_DISK)[0], VIEW.show(image, 32))
    content = training_files([path], "mvtec", "carpet", None, VIEW).decode(path, 32, FROM_DISK)[0]
    np.testing.assert_array_equal(content[..., :3], VIEW.show(image, 32))
    part = np.zeros((64, 64, 3), np.uint8)
    part[10:50, 20:44] = 200
    Image.fromarray(part).save(tmp_path / "part.png")
    path = tmp_path / "part.png"
    [foreground] = training_files([path], "mvtec", "pill", None, VIEW).decode(path, 32, FROM_DISK)
    found = foreground_mask(part, rule_for("mvtec", "pill"))
    assert found.any() and not found.all()
    np.testing.assert_array_equal(foreground[..., 3], VIEW.show_mask(found, 32))
    keys = {image_files([path], view).depends_on for view in (WHOLE, VIEW, replace(VIEW, black=21))}
    assert len(keys) == 3  # in a disk cache each has its own file
    images, masks = evaluation_files([], VIEW)
    assert images.depends_on == image_files([], VIEW).depends_on and masks.kind == "masks"


class Bright(AAND):
    """Its anomaly map is the image itself."""

    def __init__(self):
        torch.nn.Module.__init__(self)

    def normalise(self, images):
        return images.float()

    def forward(self, images):
        maps = images[:, :1]
        return maps, maps.amax(dim=(1, 2, 3))


def test_predictions_are_of_the_whole_image():
    images = torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)
    images[:, 32:] = 100
    prediction = Predictor.of(Bright(), SIZE, VIEW, batch_size=1).maps(images)
    np.testing.assert_array_equal(prediction.maps[0, 32:48, 8:], 100)
    assert prediction.maps[0, 48:].max() == prediction.maps[0, :, :8].max() == 0
    assert prediction.scores.tolist() == [100]


def test_the_weight_of_a_map_rises_at_the_edges_of_the_box_alone():
    assert View().weight((4, 4)) is None
    weight = View(top=0.25, bottom=1.0, left=0.0, right=0.5).weight((64, 128))
    assert weight.shape == (64, 128) and weight.dtype == np.float32
    assert not weight[:16].any() and not weight[:, 64:].any()  # outside the box
    fade = 64 * 0.75 / 16  # 3 rows
    np.testing.assert_allclose(weight[16:20, 10], [0.5 / fade, 1.5 / fade, 2.5 / fade, 1], rtol=1e-5)
    np.testing.assert_allclose(weight[40, 59:64], [1, 3.5 / 4, 2.5 / 4, 1.5 / 4, 0.5 / 4], rtol=1e-5)
    assert (weight[20:, :60] == 1).all()  # the image ends at the left and below: no fading there
