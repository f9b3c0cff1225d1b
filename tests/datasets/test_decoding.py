"""Files of every depth, tag and orientation, as the values that they hold; and what is no file of an image."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from datasets import decoding
from datasets.base import DataError, load_image, read_picture, read_size, resize
from datasets.levels import Levels, Range
from tests.support.commands import ROOT
from tests.support.raw_files import PHOTOMETRIC, pack_12_bits, write_png, write_tiff
from tests.support.trees import write_image

TWELVE = np.array([[0, 16, 2048, 4095], [1000, 3000, 7, 8]], np.uint16)
OF_TWELVE = np.array([[0, 1, 128, 255], [62, 187, 0, 0]])  # times 255 / 4095, rounded


def grey(values):
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=2)


def test_a_tiff_of_12_bits(tmp_path):
    path = write_tiff(tmp_path / "a.tif", TWELVE, {258: 12}, pack_12_bits(TWELVE))
    np.testing.assert_array_equal(load_image(path), grey(OF_TWELVE))
    assert read_picture(path).range == Range("uint16", 0, 4095, white=4095)
    dark = write_tiff(tmp_path / "b.tif", TWELVE // 16, {258: 12}, pack_12_bits(TWELVE // 16))
    assert load_image(dark).max() == 16  # 255 of 4095, whatever else the picture holds


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_12_bits_in_a_png_of_16(tmp_path, channels):
    values = TWELVE if channels == 1 else np.repeat(TWELVE[..., None], channels, axis=2)
    for significant in (None, 12):
        path = write_png(tmp_path / "a.png", values, significant)
        np.testing.assert_array_equal(load_image(path), grey(OF_TWELVE))
    assert read_picture(path).range == Range("uint16", 0, 4095, depth=12)
    np.testing.assert_array_equal(load_image(path, levels=Levels(uint16=(0, 65535)))[..., 0], np.rint(TWELVE / 257))


def test_the_significant_bits_of_alpha_are_not_those_of_the_picture(tmp_path):
    values = np.dstack([TWELVE // 16, TWELVE // 16, TWELVE // 16, np.full_like(TWELVE, 65535)])
    path = write_png(tmp_path / "a.png", values, bytes([12, 12, 12, 16]))
    assert read_picture(path).range == Range("uint16", 0, 255, depth=12)


@pytest.mark.parametrize("tag", [281, 341])  # MaxSampleValue, SMaxSampleValue
def test_the_highest_value_that_a_tiff_names(tmp_path, tag):
    dark = TWELVE // 16
    np.testing.assert_array_equal(
        load_image(write_tiff(tmp_path / "a.tif", dark, {tag: 4095}))[..., 0], np.rint(dark * 255 / 4095)
    )
    for named in (65535, 300):  # what most writers put there, and the highest value that happens to be in a file
        assert read_picture(write_tiff(tmp_path / "b.tif", dark, {tag: named})).range == Range("uint16", 0, 255)


def test_colours_of_16_bits_but_rgb_are_refused(tmp_path):
    """Pillow gives the upper 8 bits of CMYK: of 12 in 16 hardly anything."""
    path = write_tiff(tmp_path / "a.tif", np.dstack([TWELVE] * 4), {PHOTOMETRIC: 5})
    with pytest.raises(DataError, match=r"a\.tif: its colours of 16 bits cannot be read"):
        load_image(path)


def test_colours_of_16_bits_keep_them_all(tmp_path):
    values = (np.arange(5 * 7 * 3).reshape(5, 7, 3) * 624 + 7).astype(np.uint16)  # up to 64903
    for path in (write_png(tmp_path / "a.png", values), write_tiff(tmp_path / "a.tif", values)):
        stored, seen = read_picture(path)[1:3]
        np.testing.assert_array_equal(stored, values)
        assert seen == Range("uint16", 7, 64903)
        np.testing.assert_array_equal(load_image(path), np.rint(values / 257))


def test_grey_of_16_bits_with_alpha(tmp_path):
    values = np.stack([TWELVE, np.full_like(TWELVE, 65535)], axis=2)
    np.testing.assert_array_equal(load_image(write_png(tmp_path / "a.png", values)), grey(OF_TWELVE))


def test_colours_that_two_decoders_read_differently_are_refused(tmp_path, monkeypatch):
    path = write_png(tmp_path / "a.png", np.full((4, 4, 3), 5000, np.uint16))
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: np.full((4, 4, 3), 6000, np.uint16))
    with pytest.raises(DataError, match=r"a\.png: its colours of 16 bits cannot be read"):
        load_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_are_turned_like_others(tmp_path, orientation):
    values = (np.arange(6 * 4 * 3).reshape(6, 4, 3) * 800 + 3).astype(np.uint16)
    exif = Image.Exif()
    exif[274] = orientation
    reference = io.BytesIO()
    Image.fromarray(np.rint(values / 257).astype(np.uint8)).save(reference, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(reference)))
    tag = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 274, 3, 1, orientation, 0, 0)
    tiff = write_tiff(tmp_path / "a.tif", values, {274: orientation})
    for path in (tiff, write_png(tmp_path / "a.png", values, last=b"eXIf" + tag)):
        np.testing.assert_array_equal(load_image(path), expected)
        assert read_size(path) == expected.shape[:2]
    one = write_tiff(tmp_path / "g.tif", values[..., 0], {274: orientation})
    np.testing.assert_array_equal(load_image(one)[..., 0], expected[..., 0])


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_tiffs_in_which_white_is_zero(tmp_path, kind):
    values = np.array([[0, 128, 255]], kind)
    path = write_tiff(tmp_path / "a.tif", values, {PHOTOMETRIC: 0})
    np.testing.assert_array_equal(load_image(path), grey([[255, 127, 0]]))
    np.testing.assert_array_equal(load_image(write_tiff(tmp_path / "b.tif", values.astype(np.uint8), {PHOTOMETRIC: 0})),
                                  grey([[255, 127, 0]]))


def test_32_bit_integers_with_and_without_sign(tmp_path):
    large = np.array([[0, 2**31, 2**32 - 2]], np.uint32)
    path = write_tiff(tmp_path / "a.tif", large)
    assert read_picture(path).range == Range("int32", 0, 2**32 - 2)
    np.testing.assert_array_equal(load_image(path), grey([[0, 128, 255]]))
    signed = write_tiff(tmp_path / "b.tif", np.array([[-8, 0, 255]], np.int32))
    np.testing.assert_array_equal(load_image(signed), grey([[0, 8, 255]]))  # black is -8


def test_signed_8_bit_values_are_refused(tmp_path):
    path = write_tiff(tmp_path / "a.tif", np.array([[-1, 5]], np.int8))
    with pytest.raises(DataError, match=r"a\.tif: it has signed 8-bit values"):
        load_image(path)


def test_one_bright_pixel_changes_no_other(tmp_path):
    values = np.tile(np.arange(200, dtype=np.float32), (4, 1))
    plain = load_image(write_image(tmp_path / "a.tif", values))
    values[0, 0] = 257.5
    np.testing.assert_array_equal(load_image(write_image(tmp_path / "b.tif", values))[1:], plain[1:])


def test_images_in_memory_follow_the_levels_of_files(tmp_path):
    from datasets.base import as_rgb

    np.testing.assert_array_equal(as_rgb(TWELVE), grey(OF_TWELVE))
    np.testing.assert_array_equal(as_rgb(TWELVE, Levels(uint16=(0, 4095))), grey(OF_TWELVE))
    with pytest.raises(DataError, match="neither it nor the training images"):
        as_rgb(TWELVE, Levels())
    with Image.open(write_png(tmp_path / "a.png", TWELVE)) as image:
        np.testing.assert_array_equal(as_rgb(image, Levels(uint16=(0, 4095))), grey(OF_TWELVE))


@pytest.mark.parametrize(
    ("start", "said"),
    [(b"\0\0\0\x1cftypheic", "HEIC images are not read: convert to .* pillow-heif"),
     (b"\0\0\0\x1cftypavif", "AVIF images are not read"), (b"\0\0\0\x0cjP  ", "JPEG 2000 images are not read"),
     (b"xxxx", "no image that can be read")],
)
def test_other_formats_are_named(tmp_path, start, said):
    path = tmp_path / "a.jpg"  # as phones and their programs call them
    path.write_bytes(start + bytes(40))
    with pytest.raises(DataError, match=said):
        load_image(path)


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "device", "link to a device"])
def test_special_files_are_refused_at_once(tmp_path, kind):
    path = tmp_path / "a.png"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.symlink_to("/dev/zero")
    for read in (load_image, read_size):
        said = []
        reader = threading.Thread(target=lambda read=read, said=said: said.append(_error_of(read, path)), daemon=True)
        reader.start()
        reader.join(20)
        assert not reader.is_alive()
        assert said[0].startswith(f"cannot read image {path}: ")


def _error_of(read, path) -> str:
    with pytest.raises(DataError) as error:
        read(path)
    return str(error.value)


@pytest.mark.parametrize(
    "error", [KeyError("x"), MemoryError(), RecursionError("deep"), OverflowError("large"), ZeroDivisionError()]
)
def test_whatever_a_decoder_raises_is_an_error_of_that_image(tmp_path, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    path = write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    monkeypatch.setattr(Image.Image, "getexif", fail)
    with pytest.raises(DataError, match=r"cannot read image .*a\.png: \S"):
        load_image(path)


def test_an_image_is_turned_although_its_other_tags_are_damaged(tmp_path):
    """Pillow's own function writes all tags anew, and fails at those."""
    tags = struct.pack("<HHII", 0x010F, 5, 1, 200) + struct.pack("<HHIHH", 274, 3, 1, 6, 0)  # a rational as maker
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(200)
    Image.new("RGB", (12, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert load_image(tmp_path / "a.jpg").shape == (12, 8, 3)


@pytest.mark.parametrize("block", [1, 2, 2**20])  # with marks across their borders
def test_a_jpeg_of_very_many_scans_is_refused(tmp_path, monkeypatch, block):
    """Each goes over all pixels: 0.6 MB of them take minutes, 50 MB hours."""
    monkeypatch.setattr(decoding, "BLOCK", block)
    path, file = tmp_path / "a.jpg", io.BytesIO()
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(file, "JPEG", progressive=True)
    start, last = file.getvalue()[:-2].rsplit(b"\xff\xda", 1)  # without the mark of the end
    more = 100 - start.count(b"\xff\xda")
    path.write_bytes(start + (b"\xff\xda" + last) * more + b"\xff\xd9")
    assert (load_image(path) == 7).all()
    path.write_bytes(start + (b"\xff\xda" + last) * (more + 1) + b"\xff\xd9")
    with pytest.raises(DataError, match="a.jpg: it has more than 100 scans"):
        load_image(path)


def test_names_in_errors_can_be_printed(tmp_path):
    path = tmp_path / "a\n\x1b[2Jb.png"
    path.write_text("no image")
    with pytest.raises(DataError) as error:
        load_image(path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(("width", "height"), [(1, 5_000_000), (5_000_000, 1), (3, 1_500_000), (64, 250_000)])
@pytest.mark.parametrize("deep", [False, True])
def test_memory_is_bounded_by_the_number_of_pixels_whatever_the_shape(tmp_path, width, height, deep):
    """24 bytes a pixel, and 100 MB for all images of any size."""
    path = write_png(tmp_path / "a.png", np.zeros((height, width), np.uint16 if deep else np.uint8))
    call = (
        "import sys, resource\nfrom pathlib import Path\nfrom datasets.base import load_image\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\nassert load_image(Path(sys.argv[1]), 256).shape == (256, 256, 3)\nprint(peak() - before)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", call, path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 24 * width * height + 100e6


def test_either_order_of_the_passes_gives_the_picture(tmp_path):
    """Of a high and narrow picture the height is reduced first; a column of equal pixels shows no difference."""
    column = np.repeat(np.random.default_rng(0).integers(0, 256, (90_000, 1, 3), np.uint8), 2, axis=1)
    reduced = np.asarray(resize(Image.fromarray(column), 256))
    assert reduced.shape == (256, 256, 3)
    expected = np.asarray(Image.fromarray(column).resize((2, 256), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(reduced, np.repeat(expected[:, :1], 256, axis=1))


def test_the_header_tells_what_is_deep(tmp_path):
    deep = [write_png(tmp_path / "a.png", TWELVE), write_tiff(tmp_path / "a.tif", TWELVE),
            write_png(tmp_path / "c.png", np.zeros((2, 2, 3), np.uint16))]
    assert all(map(decoding.is_deep_file, deep))
    assert not decoding.is_deep_file(write_image(tmp_path / "b.png", np.zeros((2, 2, 3), np.uint8)))
