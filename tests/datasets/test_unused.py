"""What is in a data set and never used is named, and folders of good images are found by any usual name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import open_dataset
from datasets.base import DataError
from tests.support.broken import NOISE, check
from tests.support.trees import make_folder, make_mvtec, make_mvtec3d, make_visa, touch, write_image, write_visa_csv
from utils.data.check import check_source

NESTED = "warning: images in a folder within a folder of images are never used"
LINKED = "warning: linked folder at a place that the layout does not have is not followed, its images are never used"
BROKEN = "link that leads nowhere: images that it should lead to are not used"
ELSEWHERE = "warning: images outside train/good, test/<defect> and ground_truth/<defect> are never used"
OUTSIDE = "warning: images in a folder that is no category are never used"
ASK = "error: is this good or a defect? Rename it to good, or to what the defect is"


def details(root: Path) -> list[str]:
    return [p.details for p in check_source(open_dataset(root), workers=1, cache_dir=root.parent / "cache").problems]


def put(root: Path, *names: str) -> None:
    """Images that differ from all others."""
    for name in names:
        seed = int.from_bytes(name.encode(), "little") % 2**32
        write_image(root / name, np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8))


# Left out


@pytest.mark.parametrize(("make", "category", "inner"), [(make_mvtec, "bottle", ""), (make_folder, "widget", ""),
                                                         (make_mvtec3d, "bagel", "rgb/")])
def test_images_in_folders_of_images(tmp_path, make, category, inner):
    root = make(tmp_path / "data")
    masks = "test/crack/gt" if inner else "ground_truth/crack"
    places = [f"train/good/{inner}lot", f"test/crack/{inner}deep/er", f"test/good/{inner}x", f"{masks}/y"]
    put(root, *(f"{category}/{place}/{number}.png" for place in places for number in range(2)))
    order = [0, 3, 1, 2] if inner else [0, 1, 2, 3]  # by path
    assert check(root) == [f"{NESTED}: {category}/{places[index]}" for index in order]
    assert details(root)[0] == f"2 images; move them up into {root}/{category}/train/good/{inner}".rstrip("/")


def test_images_anywhere_else(tmp_path):
    root = make_folder(tmp_path / "data")
    put(root, "0.png", "widget/0.png", "widget/good/0.png", "widget/val/good/0.png", "widget/train/0.png",
        "widget/train/bad/0.png", "widget/train/bad/deep/0.png", "widget/test/0.png", "widget/ground_truth/0.png",
        "other/deep/0.png", "other/1.png")
    train = "warning: training images that are not in good/ are never used: widget/"
    assert check(root) == [
        *(train + name for name in ("train", "train/bad", "train/bad/deep")),
        *(f"{ELSEWHERE}: widget{name}" for name in ("", "/good", "/val/good")),
        "warning: test images that are in no folder of a defect are never used: widget/test",
        f"{ELSEWHERE}: widget/ground_truth",
        f"{OUTSIDE}: .",
        f"{OUTSIDE}: other",
    ]
    assert details(root)[-1] == "2 images; looked for <category>/train/good/*.png|jpg|..."


def test_what_a_published_data_set_has_beside_is_no_problem(tmp_path):
    root = make_mvtec3d(tmp_path / "data")
    put(root, *(f"bagel/{split}/good/xyz/000.tiff" for split in ("train", "test", "validation")))
    touch(make_mvtec(tmp_path / "mvtec"), "bottle/readme.txt", "bottle/license.txt", "license.txt")
    assert check(root) == check(tmp_path / "mvtec") == []


def test_linked_folders(tmp_path):
    root = make_folder(tmp_path / "data")
    put(tmp_path, "elsewhere/0.png", "more/0.png")
    for name, target in {"train/good/linked": "elsewhere", "test/dent": "more", "test/dent/loop": "data"}.items():
        (root / "widget" / name).symlink_to(tmp_path / target)
    unmasked = "warning: defect without a folder of masks: its category gets an image AUROC only: widget/test/dent"
    assert check(root) == [f"{LINKED}: widget/train/good/linked", unmasked, f"{LINKED}: widget/test/dent/loop"]
    assert [s.name for s in open_dataset(root).samples("widget", "test") if s.defect == "dent"] == ["dent/0"]


def test_links_to_folders_that_are_not_there(tmp_path):
    """As of a disk that is not mounted: a defect, more training images, or a whole category would be missing."""
    root = make_folder(tmp_path / "data")
    names = ["phones", "widget/test/dent", "widget/train/OK"]
    for name in names:
        (root / name).symlink_to(tmp_path / "unmounted")
    assert sorted(check(root)) == [f"warning: {BROKEN}: {name}" for name in names]
    assert details(root)[0] == f"it leads to {tmp_path}/unmounted"


def test_folders_that_may_not_be_looked_into(tmp_path, closed):
    root = make_folder(tmp_path / "data")
    touch(root, "widget/train/good/lot/x", "widget/test/crack/lot/x")
    closed(root / "widget/train/good/lot")
    assert check(root) == ["error: folder cannot be used: widget/train/good/lot"]
    closed(root / "widget/test/crack")
    assert check(root)[1:] == ["error: category cannot be used: widget"]
    assert "cannot look into the folder" in details(root)[1] and details(root)[1].endswith("crack: Permission denied")
    closed(root / "widget/train")
    with pytest.raises(DataError, match="cannot look into the folder .*widget/train: Permission denied"):
        open_dataset(root)


def test_files_of_other_kinds_among_images(tmp_path):
    root = make_folder(tmp_path / "data")
    names = ("a.heic", "b.HEIC", "c.json", "d.txt", "e.xyz", "Thumbs.db", ".hidden")
    touch(root, *(f"widget/train/good/{name}" for name in names), "widget/ground_truth/crack/Desktop.ini")
    Image.fromarray(NOISE).save(root / "widget/train/good/f", format="PNG")
    assert check(root) == [
        "warning: HEIC images are not read: convert to PNG or JPEG, e.g. with the Python package pillow-heif: "
        "widget/train/good",
        "warning: files that are no images are never used: widget/train/good",
        "warning: files of unknown kind are never used: widget/train/good",
        "warning: images whose names do not end as those of images are never used; rename them (.png, .jpg, ...): "
        "widget/train/good",
    ]
    assert details(root) == ["2 files: a.heic, b.HEIC", "2 files: c.json, d.txt", "1 file: e.xyz", "1 file: f"]


def test_a_split_without_images_says_where_some_are(tmp_path):
    root = make_folder(tmp_path / "data")
    (root / "widget/train/good").rename(root / "widget/train/lot")
    (root / "widget/train/good").mkdir()
    (root / "widget/train/lot").rename(root / "widget/train/good/lot")
    with pytest.raises(DataError, match=r"no training images in .*; .*train/good/lot \(3 images; move them up into"):
        open_dataset(root).samples("widget", "train")
    touch(root, "phones/train/good/a.heic")
    with pytest.raises(DataError, match="no training images in .*; HEIC images are not read: convert .*pillow-heif"):
        open_dataset(root).samples("phones", "train")


def test_images_that_a_list_does_not_name(tmp_path):
    root = make_visa(tmp_path / "data")
    put(root, "candle/Data/Images/Normal/9999.JPG", "candle/extra/0.png", "cashew/Data/Images/Normal/0.JPG")
    unlisted = "warning: images that 1cls.csv does not list are never used: candle/"
    assert check(root) == [f"{unlisted}Data/Images/Normal", f"{unlisted}extra", f"{OUTSIDE}: cashew"]


def test_jpeg_images_beside_others(tmp_path):
    root = make_folder(tmp_path / "data")
    for number in range(2):
        path = root / f"widget/train/good/00{number}.png"
        Image.open(path).save(path.with_suffix(".jfif"), format="JPEG")
        path.unlink()
    mixed = "warning: JPEG images beside others: what JPEG does to an image may pass for a defect"
    assert check(root) == [f"{mixed}: widget"]
    assert details(root) == ["2 .jfif, 6 .png"]
    assert len(open_dataset(root).samples("widget", "train")) == 3
    assert check(make_folder(tmp_path / "jpeg", suffix=".JPG")) == []


# Names of good


@pytest.mark.parametrize("make", [make_mvtec, make_folder, make_mvtec3d])
@pytest.mark.parametrize("name", ["Good", "OK", "defect-free"])
def test_usual_names_of_good_are_good_everywhere(tmp_path, make, name):
    root = make(tmp_path / "data", with_masks=True) if make is not make_mvtec3d else make(tmp_path / "data")
    [category] = root.iterdir()
    for split in ("train", "test"):
        (category / split / "good").rename(category / split / name)
    source = open_dataset(root)
    assert source.categories == (category.name,) and check(root) == []
    assert [s.name for s in source.samples(category.name, "train")] == ["good/000", "good/001", "good/002"]
    test = source.samples(category.name, "test")
    labels = {(sample.image_path.relative_to(category).parts[1], sample.defect, sample.label) for sample in test}
    assert labels == {("crack", "crack", 1), ("hole", "hole", 1), (name, "good", 0)}


def test_several_names_of_good_are_one(tmp_path):
    root = make_folder(tmp_path / "data", train=1, good=1)
    put(root, "widget/train/OK/7.png", "widget/test/normal/8.png")
    source = open_dataset(root)
    assert [s.name for s in source.samples("widget", "train")] == ["good/7", "good/000"]
    assert sorted(s.name for s in source.samples("widget", "test") if not s.label) == ["good/000", "good/8"]
    put(root, "widget/test/normal/000.png")
    with pytest.raises(DataError, match=r"share a name.*test/good/000.png \(good/000\); .*test/normal/000.png"):
        source.samples("widget", "test")


def test_names_that_may_mean_good_are_asked_about_in_one_error(tmp_path):
    root = make_folder(tmp_path / "data")
    put(root, "widget/train/good_2/0.png", "widget/train/clean/0.png", "widget/test/gut/1.png")
    put(root, "widget/test/golden/1.png", "widget/test/NG/1.png", "widget/ground_truth/NG/1.png")
    (root / "widget/test/perfect").mkdir()  # empty
    assert check(root) == [
        f"{ASK}: widget/train/clean, widget/train/good_2",
        f"{ASK}: widget/test/golden, widget/test/gut",
        "warning: mask of more than half of the image: is it inverted?: widget/ground_truth/NG/1.png",
    ]
    assert {s.defect for s in open_dataset(root).list_samples("widget", "test")[0]} == {"crack", "hole", "NG", "good"}


def test_training_images_in_a_folder_that_may_mean_good_only(tmp_path):
    root = make_folder(tmp_path / "data")
    (root / "widget/train/good").rename(root / "widget/train/gut")
    with pytest.raises(DataError, match="no training images in .*is this good or a defect.*: .*widget/train/gut"):
        open_dataset(root).samples("widget", "train")


def test_folders_in_another_case(tmp_path):
    root = make_folder(tmp_path / "data", ["widget", "gadget"])
    for name in ("train/GOOD", "Train", "test/Crack", "TEST"):
        path = root / "widget" / name
        path.with_name(path.name.lower()).rename(path)
    (root / "widget/ground_truth").rename(root / "widget/GroundTruth")
    source = open_dataset(root)
    assert source.categories == ("gadget", "widget") and check(root) == []
    assert len(source.samples("widget", "train")) == 3
    masks = {s.name: s.mask_path and s.mask_path.parent.name for s in source.samples("widget", "test")}
    assert masks == {"Crack/000": "crack", "Crack/001": "crack", "good/000": None, "good/001": None, "hole/000": "hole"}


@pytest.mark.parametrize("make", [make_mvtec, make_folder, make_mvtec3d])
def test_masks_of_good_images_must_be_blank(tmp_path, make):
    root = make(tmp_path / "data")
    [category] = root.iterdir()
    masks = category / ("test/good/gt" if make is make_mvtec3d else "ground_truth/OK")
    write_image(masks / "000.png", np.zeros((32, 32), np.uint8))
    assert check(root) == []
    write_image(masks / "001.png", np.eye(32, dtype=np.uint8))
    [problem] = check(root)
    assert problem.startswith("error: good image has a mask with anomalous pixels: ") and problem.endswith("/001.png")


def test_a_listed_mask_of_a_normal_image_must_be_blank(tmp_path):
    root = make_visa(tmp_path / "data", anomalies=0)
    image = "candle/Data/Images/Normal/0003.JPG"
    train = ("candle", "train", "normal", "candle/Data/Images/Normal/0000.JPG", "")
    write_visa_csv(root, [train, ("candle", "test", "normal", image, "m.png")])
    write_image(root / "m.png", np.eye(32, dtype=np.uint8))
    assert check(root)[0] == f"error: good image has a mask with anomalous pixels: {image}, m.png"


# Textures


def test_textures_in_linked_and_closed_folders(tmp_path, closed):
    from datasets.anomalies.textures import list_textures

    touch(tmp_path, "dtd/a/1.jpg", "more/2.JFIF")
    (tmp_path / "dtd/loop").symlink_to(tmp_path / "dtd")
    (tmp_path / "dtd/more").symlink_to(tmp_path / "more")
    assert list_textures(tmp_path / "dtd") == [tmp_path / "dtd/a/1.jpg", tmp_path / "dtd/more/2.JFIF"]
    closed(tmp_path / "dtd/a")
    with pytest.raises(DataError, match="cannot look into the folder .*dtd/a"):
        list_textures(tmp_path / "dtd")
