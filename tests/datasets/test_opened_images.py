"""Pillow images and arrays in memory mean what their files do, or are refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from datasets.base import DataError, as_rgb, load_image
from datasets.levels import Levels
from tests.support.raw_files import PHOTOMETRIC, pack_12_bits, write_png, write_tiff

TWELVE = np.tile(np.arange(64, dtype=np.uint16) * 40, (16, 1))  # 0..2520
COLOURS = np.dstack([TWELVE, TWELVE[:, ::-1], TWELVE // 2])
OF_12_BITS = Levels(uint16=(0, 4095))
FILES = {
    "colours.png": lambda path: write_png(path, COLOURS),
    "colours.tif": lambda path: write_tiff(path, COLOURS),
    "white is zero.tif": lambda path: write_tiff(path, TWELVE, {PHOTOMETRIC: 0}),
    "turned.tif": lambda path: write_tiff(path, TWELVE, {274: 6}),  # opened by name, Pillow garbles it
    "grey.png": lambda path: write_png(path, TWELVE),
    "twelve.tif": lambda path: write_tiff(path, TWELVE, {258: 12}, pack_12_bits(TWELVE)),
}


@pytest.mark.parametrize("name", FILES)
def test_an_opened_image_is_read_as_its_file(tmp_path, name):
    path = FILES[name](tmp_path / name)
    with Image.open(path) as image:
        np.testing.assert_array_equal(as_rgb(image, OF_12_BITS), load_image(path, levels=OF_12_BITS))
        image.load()  # as it was: it can still be decoded


def test_32_bits_and_significant_bits_of_an_opened_image(tmp_path):
    of_32_bits = write_tiff(tmp_path / "a.tif", TWELVE.astype(np.uint32) << 20)
    for path in (of_32_bits, write_png(tmp_path / "a.png", TWELVE // 8, 12)):
        with Image.open(path) as image:
            np.testing.assert_array_equal(as_rgb(image), load_image(path))


@pytest.mark.parametrize("name", ["white is zero.tif", "grey.png", "twelve.tif"])
def test_a_decoded_image_keeps_what_its_file_says(tmp_path, name):
    path = FILES[name](tmp_path / name)
    with Image.open(path) as image:
        image.load()
        np.testing.assert_array_equal(as_rgb(image, OF_12_BITS), load_image(path, levels=OF_12_BITS))


def test_colours_of_which_pillow_has_kept_the_upper_half_are_refused(tmp_path):
    with Image.open(FILES["colours.tif"](tmp_path / "a.tif")) as image:
        image.load()
        with pytest.raises(DataError, match="its colours of 16 bits cannot be read"):
            as_rgb(image, OF_12_BITS)


def test_the_alpha_of_an_array_is_no_pixel_value():
    with_alpha = np.dstack([COLOURS, np.full_like(TWELVE, 65535)])
    np.testing.assert_array_equal(as_rgb(with_alpha, OF_12_BITS), as_rgb(COLOURS, OF_12_BITS))
    assert as_rgb(with_alpha).max() == 157  # 2520 of 4095
