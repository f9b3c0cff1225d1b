"""Reading images and masks: every pixel format against values computed by hand, and files that cannot be read."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.base import DataError, Sample, load_image, load_mask, read_size
from tests.support.commands import ROOT
from tests.support.trees import write_image

ORIENTATION = 0x0112  # the EXIF tag


def grey(values: list[int]) -> np.ndarray:
    """The RGB image (1, W, 3) whose channels all hold `values`."""
    return np.repeat(np.array([values], np.uint8)[..., None], 3, axis=2)


def check_image(path: Path, expected: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = load_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


def check_mask(path: Path, expected: list[list[int]], size: int | None = None) -> None:
    mask = load_mask(path, size)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected)


def two_halves(path: Path, left: tuple, right: tuple, orientation: int | None = None) -> Path:
    """A picture, 32 wide and 16 high as stored, of two plain colours, with an EXIF orientation."""
    image = Image.new("RGB", (32, 16), left)
    image.paste(right, (16, 0, 32, 16))
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    options = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    image.save(path, exif=exif, **options)
    return path


def test_rgb_and_grey(tmp_path):
    pixels = np.array([[[1, 2, 3], [250, 128, 0]]], np.uint8)
    check_image(write_image(tmp_path / "rgb.png", pixels), pixels)
    check_image(write_image(tmp_path / "grey.png", np.array([[0, 128, 255]], np.uint8)), grey([0, 128, 255]))
    check_image(write_image(tmp_path / "bits.png", np.array([[False, True]])), grey([0, 255]))


def test_alpha_is_dropped(tmp_path):
    pixels = np.array([[[10, 20, 30, 0], [40, 50, 60, 255]]], np.uint8)
    check_image(write_image(tmp_path / "rgba.png", pixels), np.array([[[10, 20, 30], [40, 50, 60]]]))
    Image.fromarray(np.array([[[7, 0], [9, 255]]], np.uint8), "LA").save(tmp_path / "la.png")
    check_image(tmp_path / "la.png", grey([7, 9]))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_is_scaled(tmp_path, suffix):
    values = np.array([[0, 128, 129, 257, 65280, 65535]], np.uint16)  # 65280 / 257 = 254.007
    check_image(write_image(tmp_path / f"deep{suffix}", values), grey([0, 0, 1, 1, 254, 255]))


def test_32_bit_tiff_within_a_byte_is_kept(tmp_path):
    check_image(write_image(tmp_path / "int.tif", np.array([[0, 7, 255]], np.int32)), grey([0, 7, 255]))
    check_image(write_image(tmp_path / "float.tif", np.array([[0.4, 7.6, 255]], np.float32)), grey([0, 8, 255]))


@pytest.mark.parametrize("options", [{}, {"transparency": b"\x00\x80\xff"}], ids=["opaque", "transparent"])
def test_palette(tmp_path, options):
    image = Image.fromarray(np.array([[2, 0, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 200, 0, 1, 2, 3])
    image.save(tmp_path / "palette.png", **options)
    check_image(tmp_path / "palette.png", np.array([[[1, 2, 3], [255, 0, 0], [0, 200, 0]]]))


@pytest.mark.parametrize(
    ("orientation", "first", "last"),  # the pixels at the top left and at the bottom right
    [(None, 40, 220), (1, 40, 220), (3, 220, 40), (6, 40, 220), (8, 220, 40)],
)
def test_exif_orientation_is_applied(tmp_path, orientation, first, last):
    """Orientation 6 is shown turned 90 degrees clockwise, the left half on top; 8 the other way; 3 upside down."""
    image = load_image(two_halves(tmp_path / "a.jpg", (40,) * 3, (220,) * 3, orientation))
    assert image.shape == ((32, 16, 3) if orientation in (6, 8) else (16, 32, 3))
    assert np.abs(image[0, 0].astype(int) - first).max() <= 1
    assert np.abs(image[-1, -1].astype(int) - last).max() <= 1


def test_exif_orientation_of_a_mask(tmp_path):
    mask = load_mask(two_halves(tmp_path / "a.jpg", (0,) * 3, (255,) * 3, 6))
    np.testing.assert_array_equal(mask, np.repeat([0, 1], 16)[:, None] * np.ones((1, 16)))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [None, 1, 2, 3, 4, 5, 6, 7, 8])
def test_size_is_that_of_the_image_as_shown(tmp_path, suffix, orientation):
    path = two_halves(tmp_path / f"a{suffix}", (40,) * 3, (220,) * 3, orientation)
    assert read_size(path) == ((32, 16) if orientation in (5, 6, 7, 8) else (16, 32)) == load_image(path).shape[:2]


def test_image_is_resized_bicubically_to_a_square(tmp_path):
    step = np.tile(np.array([0, 0, 200, 200], np.uint8), (2, 1))  # (2, 4)
    image = load_image(write_image(tmp_path / "a.png", step), size=8)
    # Keys' kernel (a = -0.5) at distances 0.25, 0.75, 1.25, 1.75: 0.8671875, 0.2265625, -0.0703125, -0.0234375
    assert image.shape == (8, 8, 3)
    np.testing.assert_array_equal(image[:, 2:6, 0], np.tile([0, 41, 159, 214], (8, 1)))
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_mask_is_anything_above_zero(tmp_path):
    check_mask(write_image(tmp_path / "grey.png", np.array([[0, 1, 127, 255]], np.uint8)), [[0, 1, 1, 1]])
    check_mask(write_image(tmp_path / "deep.png", np.array([[0, 1, 65535]], np.uint16)), [[0, 1, 1]])
    check_mask(write_image(tmp_path / "bits.png", np.array([[False, True]])), [[0, 1]])
    colours = np.array([[[0, 0, 0], [0, 0, 1], [9, 0, 0]]], np.uint8)
    check_mask(write_image(tmp_path / "rgb.png", colours), [[0, 1, 1]])
    opaque = np.array([[[0, 0, 0, 255], [255, 255, 255, 255]]], np.uint8)
    check_mask(write_image(tmp_path / "rgba.png", opaque), [[0, 1]])
    image = Image.fromarray(np.array([[0, 1, 0]], np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 0, 128])
    image.save(tmp_path / "palette.png")
    check_mask(tmp_path / "palette.png", [[0, 1, 0]])


def test_lossy_mask_is_above_127(tmp_path):
    mask = load_mask(two_halves(tmp_path / "a.jpg", (110,) * 3, (145,) * 3))
    np.testing.assert_array_equal(mask, np.ones((16, 1)) * np.repeat([0, 1], 16))


def test_mask_is_resized_to_the_nearest(tmp_path):
    small = write_image(tmp_path / "up.png", np.array([[0, 9], [9, 0]], np.uint8))
    check_mask(small, [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]], 4)
    values = np.zeros((4, 4), np.uint8)
    values[1, 3] = values[0, 0] = 255  # the new pixels' centres are at 1 and 3
    check_mask(write_image(tmp_path / "down.png", values), [[0, 1], [0, 0]], 2)


def test_unreadable_files_are_named(tmp_path):
    whole = write_image(tmp_path / "whole.png", np.zeros((64, 64), np.uint8)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.png").mkdir()
    for name in ("cut.png", "text.png", "empty.jpg", "folder.png", "absent.png"):
        for load in (load_image, load_mask, read_size):
            with pytest.raises(DataError, match=f"cannot read image .*{name}"):
                load(tmp_path / name)


# Files of strangers


def png_that_claims(width: int, height: int) -> bytes:
    """A small PNG file whose header has another size."""
    stored = io.BytesIO()
    Image.new("L", (8, 8)).save(stored, "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + stored.getvalue()[24:29]
    return stored.getvalue()[:12] + header + struct.pack(">I", zlib.crc32(header)) + stored.getvalue()[33:]


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (2**31 - 1, 1), (9460, 9460)])
def test_an_image_that_claims_too_many_pixels(tmp_path, width, height):
    """Above 9459 x 9459 Pillow warns, above twice the pixels it refuses."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(width, height))
    tracemalloc.start()
    for load in (load_image, load_mask, read_size):
        with pytest.raises(DataError, match=f"cannot read image {path}: .*pixels"):
            load(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    path.write_bytes(png_that_claims(8, 8))
    assert read_size(path) == (8, 8)


def test_a_bomb_is_one_line(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_that_claims(9460, 9460))
    call = "from datasets.base import *\ntry: load_image(Path('bomb.png'))\nexcept DataError as error: print(error)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", call], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "cannot read image bomb.png: 9460 x 9460 pixels are more than 89,478,485\n"
    assert done.stderr == ""


@pytest.mark.parametrize(("mode", "suffix"), [("I;16", "png"), ("F", "tif"), ("RGBA", "png")])
def test_an_image_at_the_limit_takes_less_than_2_gb(tmp_path, mode, suffix):
    path = tmp_path / f"large.{suffix}"
    Image.new(mode, (9459, 9459)).save(path, **({"compress_level": 1} if suffix == "png" else {}))
    call = "import sys\nfrom datasets.base import *\nassert load_image(Path(sys.argv[1])).shape[0] == 9459\n"
    call += "from benchmarks.memory import process_peak\nprint(process_peak())"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", call, path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2e9


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.png", "a.webp"])
def test_only_the_first_of_several_frames_is_read(tmp_path, name):
    frames = [Image.new("RGB", (4, 4), (number,) * 3) for number in (200, 100, 0)]
    options = {"lossless": True} if name.endswith("webp") else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    path = (tmp_path / name).rename(tmp_path / "part.png")  # known by its content
    np.testing.assert_array_equal(load_image(path), np.full((4, 4, 3), 200))


def test_formats_that_can_run_programs_are_not_opened(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    path = (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match="no image that can be read"):
        load_image(path)


def test_a_float_image_with_nan_is_refused(tmp_path):
    values = np.zeros((4, 4), np.float32)
    values[1, 2] = np.nan
    with pytest.raises(DataError, match=r"a\.tif: it holds NaN"):
        load_image(write_image(tmp_path / "a.tif", values))


def test_every_16_bit_value_is_rounded_exactly(tmp_path):
    """65535 is 255 * 257, so that no value is half way between two."""
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    expected = (values.astype(np.int64) * 2 + 257) // (2 * 257)
    np.testing.assert_array_equal(load_image(write_image(tmp_path / "all.png", values))[..., 1], expected)


def test_sample_name():
    assert Sample(Path("x/broken/013.png"), 1, "broken").name == "broken/013"
