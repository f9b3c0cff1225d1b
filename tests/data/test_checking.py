"""The check of a data set: each kind of problem, in every layout where it can occur, and all of them at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import open_dataset
from datasets.base import load_image
from tests.support.broken import NOISE, check, cut, make_broken
from tests.support.trees import make_folder, make_mvtec, make_mvtec3d, make_visa, write_image
from utils.data.check import check_source


@dataclass(frozen=True)
class Layout:
    make: Callable[[Path], Path]
    train: str  # the first training image
    good: str  # a good test image
    image: str  # an anomalous one
    mask: str  # its mask


LAYOUTS = {
    "mvtec": Layout(
        make_mvtec, "bottle/train/good/000.png", "bottle/test/good/000.png", "bottle/test/crack/000.png",
        "bottle/ground_truth/crack/000_mask.png",
    ),
    "mvtec3d": Layout(
        make_mvtec3d, "bagel/train/good/rgb/000.png", "bagel/test/good/rgb/000.png", "bagel/test/crack/rgb/000.png",
        "bagel/test/crack/gt/000.png",
    ),
    "folder": Layout(
        make_folder, "widget/train/good/000.png", "widget/test/good/000.png", "widget/test/crack/000.png",
        "widget/ground_truth/crack/000_mask.png",
    ),
    "visa": Layout(
        make_visa, "candle/Data/Images/Normal/0000.JPG", "candle/Data/Images/Normal/0003.JPG",
        "candle/Data/Images/Anomaly/000.JPG", "candle/Data/Masks/Anomaly/000.png",
    ),
}
FOLDERS = [name for name in LAYOUTS if name != "visa"]


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


@pytest.fixture(params=FOLDERS)
def folders(request):
    return LAYOUTS[request.param]


def test_a_sound_data_set_has_no_problems(tmp_path, layout):
    assert check(layout.make(tmp_path / "data")) == []


def test_unreadable_files(tmp_path, layout):
    root = layout.make(tmp_path / "data")
    for name in (layout.train, layout.good, layout.image, layout.mask):
        (root / name).write_text("no image")
    assert sorted(check(root)) == sorted(
        [f"error: image cannot be read: {name}" for name in (layout.train, layout.good, layout.image)]
        + [f"error: mask cannot be read: {layout.mask}"]
    )


def test_mask_of_another_size(tmp_path, layout):
    root = layout.make(tmp_path / "data")
    write_image(root / layout.mask, np.eye(16, 32, dtype=np.uint8))
    assert check(root) == [f"error: mask and image differ in size: {layout.mask}, {layout.image}"]
    source = open_dataset(root)
    [problem] = check_source(source, workers=1, cache_dir=tmp_path).problems
    assert problem.details == "32x16 and 32x32 pixels"


def test_turned_images_have_the_size_that_is_seen(tmp_path):
    root = make_mvtec(tmp_path / "data", suffix=".jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(NOISE[:16]).save(root / "bottle/test/crack/000.jpg", exif=exif)
    write_image(root / "bottle/ground_truth/crack/000_mask.png", np.eye(32, 16, dtype=np.uint8))
    assert check(root) == []


def test_mask_without_an_anomalous_pixel(tmp_path, layout):
    root = layout.make(tmp_path / "data")
    write_image(root / layout.mask, np.zeros((32, 32), np.uint8))
    assert check(root) == [f"warning: mask without a single anomalous pixel: {layout.mask}"]


def test_image_and_mask_without_each_other(tmp_path, folders):
    root = folders.make(tmp_path / "data")
    mask = root / folders.mask
    mask.rename(mask.with_name("777_mask.png"))
    stray = folders.mask.replace(mask.name, "777_mask.png")
    assert check(root) == [f"error: image has no mask: {folders.image}", f"error: mask has no image: {stray}"]


def test_listed_files_that_are_not_there(tmp_path):
    layout = LAYOUTS["visa"]
    root = make_visa(tmp_path / "data")
    for name in (layout.train, layout.mask, "candle/Data/Images/Anomaly/001.JPG"):
        (root / name).unlink()
    assert check(root) == [
        f"error: listed image is not on disk: {layout.train}",
        f"error: listed mask is not on disk: {layout.mask}",
        "error: listed image is not on disk: candle/Data/Images/Anomaly/001.JPG",
    ]


def test_test_images_that_are_training_images_too(tmp_path, layout):
    """Renamed, in another format or with alpha: it is the decoded content that counts."""
    root = layout.make(tmp_path / "data")
    pixels = load_image(root / layout.train)
    for name in (layout.image, layout.good):  # PNG content whatever the suffix, and an alpha channel
        alpha = np.full((32, 32, 1), 255, np.uint8)
        Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(root / name, format="PNG")
    assert sorted(check(root)) == [
        f"error: anomalous test image is a training image too: {layout.image}, {layout.train}",
        f"warning: good test image is a training image too: {layout.good}, {layout.train}",
    ]
    assert [line.split(": ")[:2] for line in check(root, splits=["test"])] == [
        ["error", "test image is there twice, as good and as anomalous"]
    ]


def test_the_same_values_in_another_shape_are_no_copy(tmp_path):
    root = make_mvtec(tmp_path / "data", defects={})
    write_image(root / "bottle/train/good/000.png", np.zeros((8, 32, 3), np.uint8))
    write_image(root / "bottle/test/good/000.png", np.zeros((32, 8, 3), np.uint8))
    assert check(root) == []


def test_copies_are_looked_for_within_a_category(tmp_path):
    root = make_mvtec(tmp_path / "data", ["bottle", "tile"])
    shutil.copy(root / "bottle/train/good/000.png", root / "tile/test/crack/000.png")
    assert check(root) == []


def test_images_that_are_never_used(tmp_path, folders):
    root = folders.make(tmp_path / "data")
    category = folders.train.split("/")[0]
    write_image(root / folders.train.replace("/good/", "/broken/"), NOISE)
    for name in ("0.png", "1.png"):
        write_image(root / category / "test" / name, NOISE)
    assert check(root) == [
        "warning: training images that are not in good/ are never used: "
        + str(Path(folders.train.replace("/good/", "/broken/")).parent),
        f"warning: test images that are in no folder of a defect are never used: {category}/test",
    ]
    problems = check_source(open_dataset(root), workers=1, cache_dir=tmp_path).problems
    assert [problem.details for problem in problems] == ["1 image", "2 images"]


def test_anomalous_training_images_of_a_list_are_never_used(tmp_path):
    root = make_visa(tmp_path / "data")
    path = root / "split_csv/1cls.csv"
    path.write_text(path.read_text().replace("test,anomaly", "train,anomaly", 1))
    assert check(root) == ["warning: anomalous training images are never used: split_csv/1cls.csv"]


def test_defects_without_masks(tmp_path):
    root = make_folder(tmp_path / "data")
    shutil.rmtree(root / "widget/ground_truth/crack")
    assert check(root) == [
        "warning: defect without a folder of masks: its category gets an image AUROC only: widget/test/crack"
    ]


def test_categories_that_cannot_be_used(tmp_path):
    root = make_mvtec(tmp_path / "data", ["bottle", "cable", "tile"])
    shutil.rmtree(root / "bottle/train")
    write_image(root / "cable/test/crack/000.bmp", NOISE)
    cut(root / "tile/test/good/000.png")
    assert check(root) == [
        "error: category cannot be used: bottle",
        "error: category cannot be used: cable",
        "error: image cannot be read: tile/test/good/000.png",
    ]
    assert check(root, splits=["test"])[0] == "error: category cannot be used: cable"  # bottle can be tested
    problems = check_source(open_dataset(root), workers=1, cache_dir=tmp_path).problems
    assert f"no training images in {root / 'bottle/train/good'}" in problems[0].details
    assert "000.bmp and" in problems[1].details


# All at once


@pytest.mark.parametrize("workers", [1, 8])
def test_all_is_told_at_once_and_in_one_order(tmp_path, workers):
    expected = make_broken(tmp_path / "data")
    assert check(tmp_path / "data", workers=workers) == expected
    assert check(tmp_path / "data", workers=workers) == expected  # from the cache


def test_only_the_categories_asked_for(tmp_path):
    expected = make_broken(tmp_path / "data")
    assert check(tmp_path / "data", ["tile"]) == [line for line in expected if "tile/" in line]


def test_images_that_are_there_twice(tmp_path):
    """Known by what they show, whatever file holds it: re-encoded, renamed, with another palette."""
    root = make_folder(tmp_path / "data", good=3, defects={"crack": 2})
    train, good, crack = (f"widget/{name}" for name in ("train/good", "test/good", "test/crack"))
    Image.open(root / train / "001.png").save(root / train / "copy.tif")
    shutil.copy(root / good / "000.png", root / good / "zero.png")
    Image.open(root / crack / "000.png").convert("RGBA").save(root / crack / "001.png")
    Image.open(root / crack / "000.png").save(root / good / "002.png", compress_level=0)
    assert sorted(check(root)) == [
        f"error: test image is there twice, as good and as anomalous: {good}/002.png, {crack}/000.png",
        f"warning: test image is there twice: {crack}/001.png, {crack}/000.png",
        f"warning: test image is there twice: {good}/zero.png, {good}/000.png",
        f"warning: training image is there twice: {train}/copy.tif, {train}/001.png",
    ]
