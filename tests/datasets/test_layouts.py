"""Which layout it is where names and lists could mean two, and the flag that decides."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from datasets import detect_layout, open_dataset
from datasets.base import DataError
from datasets.foreground import AUTOMATIC, rule_for
from tests.support.broken import check
from tests.support.commands import run_check
from tests.support.trees import (
    make_folder,
    make_mvtec,
    make_mvtec3d,
    make_visa,
    write_image,
    write_visa_csv,
    write_visa_meta,
)

UNMASKED = "warning: defect without a folder of masks: its category gets an image AUROC only"
LISTED = ("candle", "train", "normal", "candle/Data/Images/Normal/0000.JPG", "")


# Parts of one's own, named as those of MVTec AD


@pytest.mark.parametrize("names", [["screw"], ["screw", "bottle"], ["tire"], ["cookie", "rope"]])
def test_own_parts_without_masks(tmp_path, names):
    root = make_folder(tmp_path / "data", names, with_masks=False, defects={"scratch": 1})
    source = open_dataset(root)
    assert source.name == "folder" and set(source.categories) == set(names)
    assert sorted(check(root)) == sorted(f"{UNMASKED}: {name}/test/scratch" for name in names)
    assert rule_for(source.name, names[0]) == AUTOMATIC


def test_own_parts_with_other_names_of_good(tmp_path):
    root = make_folder(tmp_path, ["screw"], defects={"thread_top": 1})
    (root / "screw/test/good").rename(root / "screw/test/OK")
    source = open_dataset(root)
    assert source.name == "folder" and "--dataset mvtec" in source.note


def test_mvtec_that_lacks_masks_stays_mvtec(tmp_path):
    """Its own defects: as `folder` it would have no pixel metrics, and nobody would ask why."""
    defects = {"thread_top": 2, "scratch_neck": 1}
    root = make_mvtec(tmp_path, ["screw"], defects=defects)
    assert open_dataset(root).note == ""
    (root / "screw/ground_truth/thread_top/001_mask.png").unlink()
    with pytest.raises(DataError, match=r"image has no mask: .*001.png \(no 001_mask.png .*thread_top\)$"):
        open_dataset(root).samples("screw", "test")
    shutil.rmtree(root / "screw/ground_truth/scratch_neck")
    with pytest.raises(DataError, match="(?s)^2 errors .*parts of your own need no masks with --dataset folder"):
        open_dataset(root).samples("screw", "test")
    shutil.rmtree(root / "screw/ground_truth")
    assert detect_layout(root) == "mvtec"


def test_mvtec_with_another_defect_stays_mvtec(tmp_path):
    root = make_mvtec(tmp_path, ["screw"], defects={"thread_top": 1, "dent": 1})
    shutil.rmtree(root / "screw/ground_truth/dent")
    with pytest.raises(DataError, match="^1 error .*screw.*\nimage has no mask: .*dent.*--dataset folder"):
        open_dataset(root).samples("screw", "test")


def test_what_is_decided_by_names_alone_is_said(tmp_path):
    root = make_mvtec(tmp_path / "data", ["screw"], defects={"thread_top": 1, "dent": 1, "rust": 1})
    note = open_dataset(root).note
    assert "MVTec AD has no screw/dent and 1 more" in note and "--dataset folder" in note
    assert open_dataset(root, "folder").note == open_dataset(root, "mvtec").note == ""
    result = run_check(tmp_path, "--data_root", "data")
    assert result.status == 0 and "data (mvtec: screw): 0 errors and 1 warning" in result.out
    assert f"warning: the layout is not certain: data ({note})" in result.out


def test_own_parts_in_the_layout_of_mvtec_3d(tmp_path):
    root = make_mvtec3d(tmp_path / "own", ["lid"], defects={"dent": 1})
    shutil.rmtree(root / "lid/test/dent/gt")
    assert check(root) == [f"{UNMASKED}: lid/test/dent/rgb"]
    root = make_mvtec3d(tmp_path / "named", ["tire"], defects={"dent": 1})
    assert "MVTec 3D-AD has no tire/dent" in open_dataset(root).note
    shutil.rmtree(root / "tire/test/dent/gt")
    with pytest.raises(DataError, match="image has no mask: .*up out of rgb/ and --dataset folder"):
        open_dataset(root).samples("tire", "test")


# A list beside folders


@pytest.mark.parametrize("make", [make_mvtec, make_folder, make_mvtec3d])
@pytest.mark.parametrize("write", [write_visa_csv, write_visa_meta])
def test_a_list_without_its_images_beside_folders(tmp_path, make, write):
    expected = open_dataset(make(tmp_path))
    write(tmp_path, [LISTED])
    source = open_dataset(tmp_path)
    assert source == expected and "none of the images" in source.note and "--dataset visa" in source.note
    with pytest.raises(DataError, match="none is in .*; it looks like the layout .*: give `dataset` "):
        open_dataset(tmp_path, "visa")


def test_a_list_that_cannot_be_read_beside_folders(tmp_path):
    write_visa_csv(make_folder(tmp_path), [("candle", "train", "odd", "a.png", "")])
    source = open_dataset(tmp_path)
    assert source.name == "folder" and "label 'odd'" in source.note


@pytest.mark.parametrize("meta", [False, True])
def test_a_list_with_its_images_beside_folders_is_refused(tmp_path, meta):
    make_folder(make_visa(tmp_path, meta=meta), ["candle"])
    for look in (detect_layout, open_dataset):
        with pytest.raises(DataError, match="fits two layouts: .*; give `dataset` visa or `dataset` folder"):
            look(tmp_path)
    assert open_dataset(tmp_path, "visa").categories == open_dataset(tmp_path, "folder").categories == ("candle",)


def test_a_list_of_what_is_in_the_folders(tmp_path):
    make_folder(tmp_path, ["candle"])
    write_visa_csv(tmp_path, [("candle", "train", "normal", "candle/train/good/000.png", "")])
    source = open_dataset(tmp_path)
    assert source.name == "visa" and "--dataset folder" in source.note


# Errors name the flag


def test_errors_name_the_layouts_that_would_fit(tmp_path):
    with pytest.raises(DataError, match="it looks like the layout 'mvtec': give `dataset` mvtec or folder"):
        open_dataset(make_mvtec(tmp_path / "a"), "mvtec3d")
    make_folder(make_mvtec3d(tmp_path / "b"), ["widget"])
    with pytest.raises(DataError, match="unknown category 'widget'; .*of the layout 'folder': give `dataset` folder"):
        open_dataset(tmp_path / "b", categories=["widget"])
    assert "warning: images in a folder that is no category are never used: widget" in check(tmp_path / "b")


def test_images_without_any_layout(tmp_path):
    write_image(tmp_path / "part/0.png", np.zeros((4, 4), np.uint8))
    expected = "has images in part, and no folder's name says that they are good; name the folders .* after `good`"
    with pytest.raises(DataError, match=expected):
        open_dataset(tmp_path)


def test_good_images_alone_are_not_mvtec_whatever_they_are_named(tmp_path):
    """One's own screws need no test set: as of MVTec AD, its absence would be an error."""
    write_image(tmp_path / "screw/train/good/000.png", np.zeros((32, 32, 3), np.uint8))
    source = open_dataset(tmp_path)
    assert source.name == "folder" and source.samples("screw", "test") == []


def test_layout_is_mvtec_only_if_all_names_are(tmp_path):
    assert detect_layout(make_mvtec(tmp_path, ["bottle", "zipper"])) == "mvtec"
    assert detect_layout(make_folder(tmp_path, ["widget"])) == "folder"
    assert open_dataset(tmp_path).categories == ("bottle", "widget", "zipper")
    assert open_dataset(tmp_path, "mvtec", ["bottle"]).categories == ("bottle",)


def test_layout_with_jpeg_images(tmp_path):
    assert detect_layout(make_mvtec(tmp_path / "a", suffix=".jpg")) == "mvtec"
    assert detect_layout(make_folder(tmp_path / "b", suffix=".JPG")) == "folder"


def test_meta_json_means_visa_unless_it_belongs_to_other_folders(tmp_path):
    assert detect_layout(make_visa(tmp_path / "a", ["gadget"], meta=True)) == "visa"
    write_visa_meta(make_mvtec(tmp_path / "b"), [("bottle", "train", "normal", "bottle/train/good/000.png", "")])
    assert detect_layout(tmp_path / "b") == "mvtec"
    write_visa_meta(make_folder(tmp_path / "c"), [("candle", "train", "normal", "widget/train/good/000.png", "")])
    assert detect_layout(tmp_path / "c") == "visa"


def test_named_categories_that_are_missing_are_skipped_if_others_exist(tmp_path):
    source = open_dataset(make_mvtec(tmp_path, ["cable", "tile"]), categories=["tile", "wood", "bottle"])
    assert (source.categories, source.missing) == (("tile",), ("bottle", "wood"))
