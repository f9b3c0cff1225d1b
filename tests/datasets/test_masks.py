"""Ground truth is read as it was drawn, whatever kind of file it is in, or named where that cannot be known."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from datasets.base import load_mask
from datasets.masks import lost_regions, shrink_mask
from tests.support.broken import check
from tests.support.raw_files import PHOTOMETRIC, write_png, write_tiff
from tests.support.trees import make_folder, make_mvtec3d, write_image

DRAWN = np.zeros((64, 64), np.uint8)
DRAWN[20:45, 11:30] = 1
WHITE = DRAWN * np.uint8(255)


def colours(level):
    return np.repeat(np.asarray(level, np.uint8)[..., None], 3, axis=2)


def check_mask(path, expected=DRAWN):
    np.testing.assert_array_equal(load_mask(path), expected)


@pytest.mark.parametrize("colour", [0, 255, 90])
def test_a_drawing_in_the_alpha_channel(tmp_path, colour):
    check_mask(write_image(tmp_path / "a.png", np.dstack([colours(np.full_like(WHITE, colour)), WHITE])))
    grey = np.stack([np.full_like(WHITE, colour), WHITE], axis=2)
    check_mask(write_png(tmp_path / "b.png", grey))


def test_a_black_drawing_on_a_transparent_white_ground(tmp_path):
    check_mask(write_image(tmp_path / "a.png", np.dstack([colours(255 - WHITE), WHITE])))


def test_an_alpha_channel_that_hides_part_of_the_ground_alone(tmp_path):
    """What is seen has two colours, so that these decide."""
    alpha = np.full_like(WHITE, 255)
    alpha[:, :5] = 0
    check_mask(write_image(tmp_path / "a.png", np.dstack([colours(WHITE), alpha])))


@pytest.mark.parametrize("alpha", [0, 255])
def test_an_alpha_channel_without_a_drawing(tmp_path, alpha):
    check_mask(write_image(tmp_path / "a.png", np.dstack([colours(WHITE), np.full_like(WHITE, alpha)])))


def palette_image(path, indices, palette):
    image = Image.fromarray(indices).convert("L")
    image.putpalette(palette)
    image.save(path)
    return path


def test_palettes(tmp_path):
    check_mask(palette_image(tmp_path / "a.png", DRAWN, [0, 0, 0, 200, 30, 30]))
    check_mask(palette_image(tmp_path / "b.png", 1 - DRAWN, [255, 255, 255, 0, 0, 0]))  # sorted by lightness
    check_mask(palette_image(tmp_path / "c.png", DRAWN, [68, 1, 84, 253, 231, 37]))  # a ground of colour
    check_mask(palette_image(tmp_path / "d.gif", DRAWN, [68, 1, 84, 253, 231, 37]))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp"])
@pytest.mark.parametrize("lossy", ["JPEG", "WEBP"])
def test_lossy_data_under_any_name(tmp_path, name, lossy):
    Image.fromarray(WHITE).save(tmp_path / name, format=lossy, quality=50)
    assert len(np.unique(np.asarray(Image.open(tmp_path / name).convert("L")))) > 16  # its ground is noisy
    assert np.abs(load_mask(tmp_path / name).astype(int) - DRAWN).sum() <= 8  # pixels at the edge may move


def test_a_png_made_of_a_jpeg(tmp_path):
    Image.fromarray(WHITE).save(tmp_path / "a.jpg", quality=50)
    noisy = np.asarray(Image.open(tmp_path / "a.jpg"))
    path = write_image(tmp_path / "b.png", noisy)
    np.testing.assert_array_equal(load_mask(path), noisy > 127)
    tiff = write_image(tmp_path / "c.tif", noisy.astype(np.uint16) * 257)
    np.testing.assert_array_equal(load_mask(tiff), noisy > 127)


def test_regions_that_are_numbered_stay_whole(tmp_path):
    numbered = np.zeros((8, 16), np.uint8)
    numbered[2] = np.arange(16)
    check_mask(write_image(tmp_path / "a.png", numbered), (numbered > 0).astype(np.uint8))
    many = np.arange(64, dtype=np.uint8).reshape(8, 8)  # more than a drawing has, but none is white
    check_mask(write_image(tmp_path / "b.png", many), (many > 0).astype(np.uint8))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
@pytest.mark.parametrize("regions", [5, 150])
def test_no_numbered_region_is_taken_for_noise(tmp_path, kind, regions):
    numbered = np.zeros((64, 96), kind)
    for number in range(regions):
        top, left = 5 * (number // 16), 6 * (number % 16)
        numbered[top : top + 4, left : left + 4] = number + 1
    numbered[60:] = np.array(255, kind)
    check_mask(write_image(tmp_path / "a.tif", numbered), (numbered > 0).astype(np.uint8))


def test_a_void_level_beside_the_first_numbers(tmp_path):
    numbered = np.zeros((64, 64), np.uint8)
    for number in range(1, 21):
        numbered[3 * number : 3 * number + 2] = number
    numbered[:, 60:] = 255
    check_mask(write_image(tmp_path / "a.png", numbered), (numbered > 0).astype(np.uint8))


def test_noise_of_few_levels(tmp_path):
    """A JPEG of high quality has few; those of a box can be counted on one hand."""
    box = np.zeros((64, 64), np.uint8)
    box[18:43, 21:46] = 255
    Image.fromarray(box).save(tmp_path / "a.jpg", quality=95)
    noisy = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert 2 < len(np.unique(noisy)) <= 16 and ((noisy > 0) & (box == 0)).any()
    check_mask(write_image(tmp_path / "b.png", noisy), (box > 0).astype(np.uint8))


def test_a_png_made_of_a_webp(tmp_path):
    Image.fromarray(colours(WHITE)).save(tmp_path / "a.webp", quality=50)
    noisy = np.asarray(Image.open(tmp_path / "a.webp"))
    assert len(np.unique(noisy)) > 2
    check_mask(write_image(tmp_path / "b.png", noisy))


def test_masks_of_16_bits_colour_and_white_that_is_zero(tmp_path):
    check_mask(write_png(tmp_path / "a.png", colours(DRAWN).astype(np.uint16)))  # of 65535: still anomalous
    check_mask(write_tiff(tmp_path / "b.tif", (1 - DRAWN.astype(np.uint16)) * 9, {PHOTOMETRIC: 0}))


# What cannot be known is named

MASK = "widget/ground_truth/crack/000_mask.png"


def test_masks_of_most_of_the_image_are_named(tmp_path):
    root = make_folder(tmp_path / "data")
    with Image.open(root / MASK) as mask:
        inverted = 255 - np.asarray(mask)
    write_image(root / MASK, inverted)
    assert check(root) == [f"warning: mask of more than half of the image: is it inverted?: {MASK}"]
    write_image(root / MASK, (inverted > 255).astype(np.uint8))
    assert check(root) == [f"warning: mask without a single anomalous pixel: {MASK}"]


def overwrite(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_grey_parts_that_do_not_count_are_named(tmp_path):
    """Two classes in a lossy file, or a thin faint line with soft edges: not anomalous, but said."""
    root = make_folder(tmp_path / "data")
    drawn = np.zeros((32, 32), np.uint8)
    drawn[4:12, 4:12], drawn[20:26, 20:26] = 255, 100
    overwrite(root / MASK, drawn, format="JPEG", quality=90)
    assert check(root) == [f"warning: mask has grey parts that do not count as anomalous: {MASK}"]
    assert load_mask(root / MASK).sum() == 64
    overwrite(root / MASK, drawn)
    assert check(root) == []


def test_masks_with_values_that_are_no_numbers_are_errors(tmp_path):
    root = make_folder(tmp_path / "data")
    drawn = np.zeros((32, 32), np.float32)
    drawn[4:12, 4:12], drawn[0, 0] = 1, np.nan
    overwrite(root / MASK, drawn, format="TIFF")
    assert check(root) == [f"error: mask cannot be read: {MASK}"]


@pytest.mark.parametrize("orientation", [3, 6])
def test_masks_that_may_be_turned_otherwise_than_their_image_are_named(tmp_path, orientation):
    root, image = make_folder(tmp_path / "data"), "widget/test/crack/000.png"
    exif = Image.Exif()
    exif[274] = orientation
    with Image.open(root / image) as picture:
        picture.save(root / image, exif=exif)
    said = [f"warning: mask and image are turned differently: are they alike?: {MASK}, {image}"]
    assert check(root) == said
    with Image.open(root / MASK) as mask:
        mask.save(root / MASK, exif=exif)
    assert check(root) == []


def test_a_mask_on_a_turned_image_whose_size_tells_is_right(tmp_path):
    root, image = make_folder(tmp_path / "data"), "widget/test/crack/000.png"
    exif = Image.Exif()
    exif[274] = 6
    wide = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(wide).save(root / image, exif=exif)
    overwrite(root / MASK, np.eye(30, 20, dtype=np.uint8) * 255)
    assert check(root) == []


def test_a_good_image_s_mask_that_cannot_be_read_is_named(tmp_path):
    root = make_mvtec3d(tmp_path / "data")
    mask = "bagel/test/good/gt/000.png"
    (root / mask).write_bytes(b"no image")
    assert check(root) == [f"warning: mask of a good image cannot be read: {mask}"]


def test_files_of_several_images_are_named(tmp_path):
    root, image = make_folder(tmp_path / "data"), "widget/train/good/000.png"
    for path in (image, MASK):
        with Image.open(root / path) as first:
            first.save(root / path, format="TIFF", save_all=True, append_images=[first.copy()])
    said = "warning: file of several images, of which the first is used: "
    assert check(root) == [said + image, said + MASK]


def test_masks_among_the_images_are_named(tmp_path):
    root = make_folder(tmp_path / "data")
    (root / MASK).rename(root / "widget/test/crack/000_mask.png")
    shutil.rmtree(root / "widget/ground_truth")
    write_image(root / "widget/train/good/777.png", WHITE[:32, :32])
    said = check(root)
    assert "error: mask is among the images: widget/test/crack/000_mask.png" in said
    assert "warning: image may be a mask: it is black and one other level: widget/train/good/777.png" in said
    assert not [line for line in said if line.startswith("error") and "000_mask" not in line]


# Regions that shrinking loses


def test_regions_without_a_pixel_are_counted():
    """Of 64 pixels in a row, the 16 taken are 2, 6, 10, ..."""
    mask = np.zeros((64, 64), np.uint8)
    mask[10, 10] = 1  # taken
    mask[20, 20] = 1  # not
    mask[31:34, 31:34] = 1  # not: 31..33 lie between 30 and 34
    mask[41:46, 41:46] = 1  # taken: 42 is
    for step in range(12):
        mask[48 + step, 8 + step + 1] = 1  # a thin scratch, never at a row and a column that are taken
    assert shrink_mask(mask, 16).sum() == 2
    assert lost_regions(mask, 16) == 3
    assert lost_regions(mask, 64) == 0
    assert lost_regions(np.zeros_like(mask), 16) == 0
