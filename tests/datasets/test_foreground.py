"""Foreground masks: the published table, each rule on small cases, and stored masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from datasets.base import DataError, load_image
from datasets.foreground import AUTOMATIC, RULES, Rule, fg_mask_path, foreground_mask, foreground_of, rule_for

SHARED = Path(__file__).parents[3] / "shared" / "data"

TABLE = {  # as published: (data set, rule): categories
    ("mvtec", Rule("above", 0)): "carpet grid leather tile wood transistor",
    ("mvtec", Rule("at_most", 150)): "capsule screw zipper",
    ("mvtec", Rule("above", 50)): "hazelnut metal_nut pill toothbrush",
    ("mvtec", Rule("disc", 0.45)): "cable bottle",
    ("visa", Rule("above", 150)): "candle cashew chewinggum fryum macaroni1 macaroni2 pcb1",
    ("visa", Rule("above", 100)): "pcb2 pcb3 pipe_fryum",
    ("visa", Rule("above", 50)): "pcb4",
    ("visa", Rule("at_most", 100)): "capsules",
    ("mvtec3d", Rule("above", 50)): "bagel cable_gland carrot cookie dowel peach potato rope",
    ("mvtec3d", Rule("box", 0.35)): "foam tire",
}


def _grey(height, width, value):
    return np.full((height, width, 3), value, np.uint8)


def _square(background, inside):
    """160x160 with a centred 80x80 square, its edges blurred by sigma 8 when a rule looks at them."""
    image = _grey(160, 160, background)
    image[40:120, 40:120] = inside
    return image


# ---------------------------------------------------------------------------------------------------------- the rules


def test_whole_table():
    expected = {(d, c): rule for (d, rule), names in TABLE.items() for c in names.split()}
    assert {(d, c): rule for d, rules in RULES.items() for c, rule in rules.items()} == expected
    assert len(expected) == 15 + 12 + 10


def test_rule_for():
    assert rule_for("mvtec", "bottle") == Rule("disc", 0.45)
    assert rule_for("mvtec3d", "tire") == Rule("box", 0.35)
    assert rule_for("mvtec", "candle") == rule_for("folder", "bottle") == rule_for("new", "thing") == AUTOMATIC


@pytest.mark.parametrize(
    "kind, threshold, grey, inside",
    [("above", 50, 50, 0), ("above", 50, 51, 1), ("at_most", 150, 150, 1), ("at_most", 150, 151, 0)]
    + [("above", 0, 0, 0), ("above", 0, 1, 1)],
)
def test_thresholds_on_flat_images(kind, threshold, grey, inside):
    mask = foreground_mask(_grey(20, 30, grey), Rule(kind, threshold))
    assert mask.dtype == np.uint8
    assert mask.shape == (20, 30)
    assert (mask == inside).all()


def test_thresholds_look_at_luma():
    # pure green weighs 0.587: 100 -> 59; pure blue 0.114: 255 -> 29
    assert foreground_mask(_grey(20, 20, 0) + np.uint8([0, 100, 0]), Rule("above", 50)).all()
    assert not foreground_mask(_grey(20, 20, 0) + np.uint8([0, 0, 255]), Rule("above", 50)).any()


def test_grey_is_smoothed_with_sigma_8():
    # A step from 0 to 200 becomes 200 * Phi(x / 8). It passes 31.7 = 200 * Phi(-1) one sigma before the edge.
    image = _grey(40, 120, 0)
    image[:, 60:] = 200
    first = foreground_mask(image, Rule("above", 31.7)).argmax(axis=1)
    assert set(first) == {52}  # pixel 52 lies 7.5 before the edge, pixel 51 lies 8.5
    speck = _grey(80, 80, 0)
    speck[40, 40] = 255  # 255 / (2 pi 64) < 1
    assert not foreground_mask(speck, Rule("above", 1)).any()


def test_disc_by_hand():
    mask = foreground_mask(_grey(10, 20, 77), Rule("disc", 0.45))  # centre (4.5, 9.5), radius 4.5
    # half-widths sqrt(4.5^2 - d^2) for row offsets d = 4.5, 3.5, 2.5, 1.5, 0.5: 0, 2.83, 3.74, 4.24, 4.47
    widths = [0, 6, 8, 8, 8, 8, 8, 8, 6, 0]
    assert mask.sum(axis=1).tolist() == widths
    assert mask.shape == (10, 20)
    np.testing.assert_array_equal(mask, mask[::-1, ::-1])


def test_disc_area_and_place():
    mask = foreground_mask(_grey(900, 900, 0), Rule("disc", 0.45))
    assert mask.sum() == pytest.approx(np.pi * 405**2, rel=1e-3)
    assert mask[450, 45] == mask[45, 450] == 1
    assert mask[450, 44] == mask[44, 450] == mask[150, 150] == 0


def test_box_by_hand():
    mask = foreground_mask(_grey(10, 20, 0), Rule("box", 0.35))  # half-sides 3.5 and 7 from (4.5, 9.5)
    expected = np.zeros((10, 20), np.uint8)
    expected[1:9, 3:17] = 1
    np.testing.assert_array_equal(mask, expected)


def test_unknown_rule():
    with pytest.raises(ValueError, match="'circle'.*disc"):
        foreground_mask(_grey(10, 10, 0), Rule("circle"))


# --------------------------------------------------------------------------------------------------- automatic rule


@pytest.mark.parametrize("background, inside", [(30, 200), (200, 30), (255, 0), (90, 120)])
def test_automatic_finds_the_object_whatever_its_polarity(background, inside):
    mask = foreground_mask(_square(background, inside), AUTOMATIC)
    truth = _square(0, 1)[:, :, 0]
    assert mask.dtype == np.uint8
    overlap = (mask & truth).sum() / (mask | truth).sum()
    assert overlap > 0.9
    assert not mask[:30].any()


def test_automatic_fills_what_the_object_encloses():
    image = _square(200, 30)
    image[60:100, 60:100] = 200  # as light as the background
    assert foreground_mask(image, AUTOMATIC)[80, 80] == 1


def _gradient():
    return np.repeat(np.linspace(0, 255, 200).astype(np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)


def _fine_noise():
    return np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)


def _faint():
    return _square(100, 106)


def _speck():
    image = _grey(400, 400, 0)
    image[190:220, 190:220] = 255
    return image


def _one_population():
    """Normally distributed values, brightest in the centre: smooth, dark at the border, and nothing to separate."""
    offset = np.arange(300) - 149.5
    rank = np.hypot(offset[:, None], offset).ravel().argsort().argsort() / 300**2  # 0 = centre, 1 = corners
    values = 128 + 30 * norm.isf(np.clip(rank, 1e-3, 1 - 1e-3))
    return values.astype(np.uint8).reshape(300, 300, 1).repeat(3, axis=2)


def _cut_by_the_border():
    image = _grey(160, 160, 20)
    image[:, 80:] = 220
    return image


@pytest.mark.parametrize("make", [_gradient, _fine_noise, _faint, _speck, _one_population, _cut_by_the_border])
def test_automatic_takes_everything_without_a_clear_object(make):
    assert foreground_mask(make(), AUTOMATIC).all()


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_automatic_takes_everything_of_a_flat_image(grey):
    assert foreground_mask(_grey(50, 50, grey), AUTOMATIC).all()


@pytest.mark.skipif(not (SHARED / "folder").is_dir(), reason="needs the real photographs")
@pytest.mark.parametrize(
    "folder, low, high, everything",
    [("folder/hazelnut_toy", 0.2, 0.4, 0), ("mvtec/bottle", 0.55, 0.65, 0), ("folder/magnetic_tile", 0.3, 1, 0.9)],
)
def test_automatic_on_real_images(folder, low, high, everything):
    paths = sorted((SHARED / folder / "train/good").iterdir())[:: 8 if everything else 4][:30]
    shares = np.array([foreground_mask(load_image(path), AUTOMATIC).mean() for path in paths])
    assert low < shares.min()
    assert shares.max() <= high
    assert (shares == 1).mean() >= everything


# ----------------------------------------------------------------------------------------------------- stored masks


def _save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def test_mask_path():
    path = fg_mask_path(Path("fg"), "mvtec3d", "tire", Path("data/tire/train/good/rgb/007.png"))
    assert path == Path("fg/mvtec3d/tire/train/007.png")


def test_stored_mask_is_read(tmp_path):
    image = tmp_path / "000.png"
    stored = np.zeros((10, 20), np.uint8)
    stored[2:5, 3:9] = 255
    _save(fg_mask_path(tmp_path / "fg", "mvtec", "bottle", image), stored)
    mask = foreground_of(image, "mvtec", "bottle", tmp_path / "fg", _grey(10, 20, 0))
    np.testing.assert_array_equal(mask, stored // 255)


@pytest.mark.parametrize("fg_root", [None, "fg"])
def test_missing_mask_is_made_of_the_image_that_is_given(tmp_path, fg_root):
    given = _grey(10, 20, 255)  # the file, if it were read, would have no foreground
    _save(tmp_path / "000.png", _grey(10, 20, 0))
    mask = foreground_of(tmp_path / "000.png", "visa", "candle", fg_root and tmp_path / fg_root, given)
    assert (mask.dtype, mask.shape) == (np.uint8, (10, 20))
    assert (mask == 1).all()
    absent = foreground_of(tmp_path / "absent.png", "mvtec3d", "tire", fg_root and tmp_path / fg_root, given)
    expected = np.zeros((10, 20), np.uint8)
    expected[1:9, 3:17] = 1  # the box by hand, above
    np.testing.assert_array_equal(absent, expected)


def test_mask_of_another_size_is_refused(tmp_path):
    image = tmp_path / "000.png"
    stored = _save(fg_mask_path(tmp_path, "mvtec", "bottle", image), np.ones((20, 10), np.uint8))
    with pytest.raises(DataError, match="10x20.*20x10.*scripts/fore_extractor.py") as error:
        foreground_of(image, "mvtec", "bottle", tmp_path, _grey(10, 20, 0))
    assert str(stored) in str(error.value)
    assert str(image) in str(error.value)


def test_sizes_are_compared_as_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: 20x10 on disk is shown as 10x20
    path = _save(tmp_path / "000.jpg", _grey(10, 20, 0), exif=exif)
    _save(fg_mask_path(tmp_path, "mvtec", "bottle", path), np.ones((20, 10), np.uint8))
    mask = foreground_of(path, "mvtec", "bottle", tmp_path, load_image(path))
    made = foreground_of(path, "mvtec", "bottle", None, load_image(path))
    assert mask.all()  # the stored one: a disc leaves the corners out
    assert not made.all()
    assert mask.shape == made.shape == (20, 10)


def test_unreadable_mask_is_named(tmp_path):
    stored = fg_mask_path(tmp_path, "mvtec", "bottle", tmp_path / "000.png")
    stored.parent.mkdir(parents=True)
    stored.write_text("not an image")
    with pytest.raises(DataError, match=str(stored)):
        foreground_of(tmp_path / "000.png", "mvtec", "bottle", tmp_path, _grey(10, 20, 0))
