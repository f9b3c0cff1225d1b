"""Every reader on generated trees: what it finds, how it pairs masks, and each way in which a data set can be wrong."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets import DATASETS, DataSource, detect_layout, open_dataset
from datasets.base import DataError, Sample, load_image, load_mask
from tests.support.trees import (
    make_folder,
    make_mvtec,
    make_mvtec3d,
    make_mvtec_ad2,
    make_mvtec_loco,
    make_visa,
    write_image,
    write_visa_csv,
)

MAKERS = {
    "mvtec": make_mvtec, "visa": make_visa, "mvtec3d": make_mvtec3d, "mvtec_ad2": make_mvtec_ad2,
    "mvtec_loco": make_mvtec_loco, "folder": make_folder,
}
CATEGORY = {
    "mvtec": "bottle", "visa": "candle", "mvtec3d": "bagel", "mvtec_ad2": "can", "mvtec_loco": "pushpins",
    "folder": "widget",
}
BLANK = np.zeros((4, 4), np.uint8)


def read(root: Path, name: str, category: str, split: str) -> list[Sample]:
    return DataSource(name, root, (), ()).samples(category, split)


def table(root: Path, name: str, category: str, split: str) -> list[tuple]:
    """A split as rows of image, label, defect and mask, with paths relative to the root."""

    def short(path: Path | None) -> str | None:
        return None if path is None else path.relative_to(root).as_posix()

    samples = read(root, name, category, split)
    return [(short(s.image_path), s.label, s.defect, short(s.mask_path)) for s in samples]


def fails(match: str):
    return pytest.raises(DataError, match=match)


# What is read


def test_mvtec(tmp_path):
    make_mvtec(tmp_path, train=2, good=1, defects={"hole": 1, "crack": 2})
    assert table(tmp_path, "mvtec", "bottle", "train") == [
        ("bottle/train/good/000.png", 0, "good", None),
        ("bottle/train/good/001.png", 0, "good", None),
    ]
    assert table(tmp_path, "mvtec", "bottle", "test") == [
        ("bottle/test/crack/000.png", 1, "crack", "bottle/ground_truth/crack/000_mask.png"),
        ("bottle/test/crack/001.png", 1, "crack", "bottle/ground_truth/crack/001_mask.png"),
        ("bottle/test/good/000.png", 0, "good", None),
        ("bottle/test/hole/000.png", 1, "hole", "bottle/ground_truth/hole/000_mask.png"),
    ]


def test_mvtec3d(tmp_path):
    make_mvtec3d(tmp_path, train=1, good=1, defects={"hole": 1})
    assert table(tmp_path, "mvtec3d", "bagel", "train") == [("bagel/train/good/rgb/000.png", 0, "good", None)]
    assert table(tmp_path, "mvtec3d", "bagel", "test") == [
        ("bagel/test/good/rgb/000.png", 0, "good", None),
        ("bagel/test/hole/rgb/000.png", 1, "hole", "bagel/test/hole/gt/000.png"),
    ]


@pytest.mark.parametrize("ending", ["", "_mask"])
def test_folder(tmp_path, ending):
    make_folder(tmp_path, train=1, good=1, defects={"dent": 1}, suffix=".jpg", mask_ending=ending)
    assert table(tmp_path, "folder", "widget", "train") == [("widget/train/good/000.jpg", 0, "good", None)]
    assert table(tmp_path, "folder", "widget", "test") == [
        ("widget/test/dent/000.jpg", 1, "dent", f"widget/ground_truth/dent/000{ending}.png"),
        ("widget/test/good/000.jpg", 0, "good", None),
    ]


def test_folder_may_lack_masks_defects_or_the_whole_test_folder(tmp_path):
    make_folder(tmp_path, good=1, defects={"crack": 1, "dent": 1})
    shutil.rmtree(tmp_path / "widget" / "ground_truth" / "crack")
    masks = {s.defect: s.mask_path is not None for s in read(tmp_path, "folder", "widget", "test")}
    assert masks == {"crack": False, "dent": True, "good": False}
    shutil.rmtree(tmp_path / "widget" / "ground_truth")
    for defect in ("crack", "dent"):
        shutil.rmtree(tmp_path / "widget" / "test" / defect)
    assert [s.defect for s in read(tmp_path, "folder", "widget", "test")] == ["good"]
    shutil.rmtree(tmp_path / "widget" / "test")
    assert read(tmp_path, "folder", "widget", "test") == []
    assert len(read(tmp_path, "folder", "widget", "train")) == 3


@pytest.mark.parametrize("name", MAKERS)
def test_every_sample_can_be_loaded_and_is_named_once(tmp_path, name):
    source = open_dataset(MAKERS[name](tmp_path, size=32))
    for split in ("train", "test"):
        samples = source.samples(CATEGORY[name], split)
        assert len({s.name for s in samples}) == len(samples) > 0
        for sample in samples:
            assert load_image(sample.image_path).shape == (32, 32, 3)
            assert (sample.mask_path is not None) == (sample.label == 1) == (sample.defect != "good")
            if sample.mask_path is not None:
                assert load_mask(sample.mask_path).sum() == 8 * 8  # the square that the tree generator draws


def test_masks_are_paired_by_name_not_by_order(tmp_path):
    """Sorted, 10.png comes before 9.png, but 10_mask.png not before 1_mask.png: pairing by order would be wrong."""
    make_mvtec(tmp_path, defects={})
    for stem in ("1", "10", "9", "a", "a_b"):
        write_image(tmp_path / "bottle" / "test" / "dent" / f"{stem}.png", BLANK)
        write_image(tmp_path / "bottle" / "ground_truth" / "dent" / f"{stem}_mask.png", BLANK)
    anomalous = [s for s in read(tmp_path, "mvtec", "bottle", "test") if s.label]
    assert len(anomalous) == 5
    assert all(s.mask_path.stem == f"{s.image_path.stem}_mask" for s in anomalous)
    orders = [sorted(paths) for paths in ([s.image_path for s in anomalous], [s.mask_path for s in anomalous])]
    assert any(mask.stem != f"{image.stem}_mask" for image, mask in zip(*orders, strict=True))


# Which layout it is


@pytest.mark.parametrize("name", MAKERS)
def test_layout_is_seen_whatever_the_path_is_called(tmp_path, name):
    for title in DATASETS:
        assert detect_layout(MAKERS[name](tmp_path / f"my_{title}_{name}")) == name


@pytest.mark.parametrize("name", MAKERS)
def test_categories_come_in_the_data_sets_order(tmp_path, name):
    numbers = {"mvtec": 15, "visa": 12, "mvtec3d": 10, "mvtec_ad2": 8, "mvtec_loco": 5, "folder": 0}
    assert len(DATASETS[name].CATEGORIES) == numbers[name]
    known = DATASETS[name].CATEGORIES or ("a", "b", "c")
    root = MAKERS[name](tmp_path, [known[2], known[0]])
    assert DATASETS[name].find_categories(root) == [known[0], known[2]]
    expected = tuple(c for c in DATASETS[name].CATEGORIES if c not in (known[0], known[2]))
    assert open_dataset(root) == DataSource(name, root, (known[0], known[2]), expected)
    assert open_dataset(str(root), name, [known[2], known[0]]).categories == (known[0], known[2])
    assert open_dataset(root, categories=[known[2]]) == DataSource(name, root, (known[2],), ())


# What can be wrong


def test_wrong_root(tmp_path):
    with fails(f"{tmp_path}/absent does not exist"):
        open_dataset(tmp_path / "absent")
    (tmp_path / "file.zip").touch()
    with fails("file.zip is a file"):
        open_dataset(tmp_path / "file.zip", "mvtec")
    looked_for = "looked for visa: meta.json or .*; mvtec3d: .*train/good/rgb.*; mvtec_ad2: .*; mvtec: .*; folder: "
    with fails(looked_for) as caught:
        open_dataset(tmp_path)
    assert "did you mean" not in str(caught.value)
    with fails("unknown data set 'coco'; use one of: auto, mvtec, visa, mvtec3d, mvtec_ad2, mvtec_loco, folder, own"):
        open_dataset(tmp_path, "coco")


@pytest.mark.parametrize("name", MAKERS)
def test_root_one_level_off_gets_a_hint(tmp_path, name):
    root = MAKERS[name](tmp_path / "data")
    (tmp_path / "other").mkdir()
    hint = f"did you mean {re.escape(str(root))}\\?"
    for wrong in (tmp_path, root / CATEGORY[name]):
        for layout in ("auto", name):
            with fails(hint):
                open_dataset(wrong, layout)


def test_wrong_layout_is_told(tmp_path):
    with fails("no category of the layout 'mvtec3d' .* it looks like the layout 'mvtec'"):
        open_dataset(make_mvtec(tmp_path / "a"), "mvtec3d")
    with fails("no category of the layout 'visa' .* it looks like the layout 'mvtec'"):
        open_dataset(tmp_path / "a", "visa")
    for name in ("mvtec", "folder"):
        with fails("it looks like the layout 'mvtec3d'"):
            open_dataset(make_mvtec3d(tmp_path / "b"), name)


@pytest.mark.parametrize("name", MAKERS)
def test_unknown_category_or_split(tmp_path, name):
    root = MAKERS[name](tmp_path)
    with fails(f"unknown category 'teapot'; .* has: {CATEGORY[name]}"):
        open_dataset(root, categories=[CATEGORY[name], "teapot"])
    with fails(f"no category 'teapot' in .*; there are: {CATEGORY[name]}"):
        open_dataset(root).samples("teapot", "train")
    with fails("unknown split 'val'; use one of: train, test"):
        open_dataset(root).samples(CATEGORY[name], "val")


def test_no_named_category_on_disk(tmp_path):
    with fails(r"none of the categories asked for \(wood, tile\) is on disk; .* has: bottle"):
        open_dataset(make_mvtec(tmp_path), categories=["wood", "tile"])


def test_empty_train_split(tmp_path):
    for name, images in (("mvtec", "train/good"), ("mvtec3d", "train/good/rgb"), ("folder", "train/good")):
        source = open_dataset(MAKERS[name](tmp_path / name))
        for path in (tmp_path / name / CATEGORY[name] / images).iterdir():
            path.unlink()
        assert open_dataset(tmp_path / name) == source  # still seen
        with fails(f"no training images in .*{CATEGORY[name]}/{images}"):
            source.samples(CATEGORY[name], "train")
    for make, kept, cut in ((make_mvtec, "bottle", "wood"), (make_mvtec3d, "bagel", "rope")):
        root = make(tmp_path / cut, [kept, cut])
        shutil.rmtree(root / cut / "train")
        with fails(f"no training images in .*{cut}/train/good"):
            open_dataset(root).samples(cut, "train")
    with fails("1cls.csv lists no train images for candle"):
        open_dataset(make_visa(tmp_path / "visa", train=0)).samples("candle", "train")


def test_empty_test_split(tmp_path):
    for name in ("mvtec", "mvtec3d"):
        source = open_dataset(MAKERS[name](tmp_path / name))
        for part in ("test", "ground_truth"):
            shutil.rmtree(tmp_path / name / CATEGORY[name] / part, ignore_errors=True)
        with fails(f"no test images in .*{CATEGORY[name]}; expected some in .*test/<defect>"):
            source.samples(CATEGORY[name], "test")
    make_folder(tmp_path / "folder", good=0, defects={})
    write_image(tmp_path / "folder" / "widget" / "test" / "000.png", BLANK)  # not in a folder of its kind
    with fails("no test images in .*widget; expected some in .*widget/test/<defect>"):
        read(tmp_path / "folder", "folder", "widget", "test")
    with fails("1cls.csv lists no test images for candle"):
        open_dataset(make_visa(tmp_path / "visa", good=0, anomalies=0)).samples("candle", "test")


MASKS = {"mvtec": "ground_truth/crack/{}_mask.png", "mvtec3d": "test/crack/gt/{}.png"}
MASKS["folder"] = MASKS["mvtec"]


@pytest.mark.parametrize("name", MASKS)
def test_image_without_its_mask(tmp_path, name):
    root = MAKERS[name](tmp_path, defects={"crack": 2})
    (root / CATEGORY[name] / MASKS[name].format("001")).unlink()
    expected = r"image has no mask: .*test/crack.*/001.png \(no 001_mask.png or 001.png in "
    with fails(f"^1 error in the test images of .*:\n{expected}"):
        open_dataset(root).samples(CATEGORY[name], "test")


@pytest.mark.parametrize("name", MASKS)
def test_mask_without_its_image(tmp_path, name):
    root = MAKERS[name](tmp_path, defects={"crack": 1})
    write_image(root / CATEGORY[name] / MASKS[name].format("007"), BLANK)
    with fails("^1 error in the test images of .*:\nmask has no image: .*007.*png$"):
        open_dataset(root).samples(CATEGORY[name], "test")


def test_masks_of_a_kind_that_has_no_images(tmp_path):
    for name in ("mvtec", "folder"):
        root = MAKERS[name](tmp_path / name)
        shutil.rmtree(root / CATEGORY[name] / "test" / "hole")
        with fails("mask has no image: .*ground_truth/hole/000_mask.png"):
            open_dataset(root).samples(CATEGORY[name], "test")


def test_mvtec_needs_masks_where_the_folder_layout_does_not(tmp_path):
    make_mvtec(tmp_path, defects={"crack": 1}, with_masks=False)
    with fails("image has no mask: .*test/crack/000.png"):
        read(tmp_path, "mvtec", "bottle", "test")
    assert [s.label for s in read(tmp_path, "folder", "bottle", "test")] == [1, 0, 0]


def test_masks_of_good_images_are_not_read(tmp_path):
    write_image(make_mvtec(tmp_path) / "bottle" / "ground_truth" / "good" / "999_mask.png", BLANK)
    assert all(s.mask_path is None for s in read(tmp_path, "mvtec", "bottle", "test") if s.label == 0)


def test_many_problems_are_counted(tmp_path):
    make_mvtec(tmp_path, defects={"crack": 22}, size=4)
    shutil.rmtree(tmp_path / "bottle" / "ground_truth")
    with fails("^22 errors in the test images of bottle in ") as caught:
        read(tmp_path, "mvtec", "bottle", "test")
    _, *lines, more = str(caught.value).splitlines()
    names = [f"crack/{number:03d}.png" for number in range(20)]
    assert all(name in line for name, line in zip(names, lines, strict=True))
    assert more == "... and 2 more"


def test_two_images_of_one_name(tmp_path):
    write_image(make_mvtec(tmp_path) / "bottle" / "train" / "good" / "000.bmp", BLANK)
    with fails("000.bmp and .*000.png have the same name"):
        read(tmp_path, "mvtec", "bottle", "train")
    for folder_name in ("a", "b"):
        write_image(tmp_path / "visa" / folder_name / "0.png", BLANK)
    rows = [("candle", "train", "normal", f"{folder_name}/0.png", "") for folder_name in ("a", "b")]
    write_visa_csv(tmp_path / "visa", rows)
    with fails(r"share a name.*\(2 in all\): .*a/0.png \(good/0\); .*b/0.png"):
        read(tmp_path / "visa", "visa", "candle", "train")
