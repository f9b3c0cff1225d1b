"""Photographs in folders of any names: which are good, which are for the test, whose masks are whose."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets import DataSource, open_dataset
from datasets.base import DataError
from datasets.foreground import fg_mask_path
from datasets.own import TEST_SHARE
from tests.support.trees import touch


def numbered(folder: str, number: int) -> list[str]:
    return [f"{folder}/{index:03}.jpg".removeprefix("/") for index in range(number)]


def tree(root: Path, *names: str) -> Path:
    """A data root below `root` with empty files."""
    touch(root / "my parts", *names)
    return root / "my parts"


def named(source: DataSource, category: str, split: str) -> list[str]:
    return [sample.name for sample in source.samples(category, split)]


def test_folders_named_as_good_and_others(tmp_path):
    root = tree(tmp_path, *numbered("Normal", 40), "chip/a.jpg", "some dirt/lot 2/b.png", "some dirt/b.png")
    source = open_dataset(root)
    assert (source.name, source.categories) == ("own", ("my parts",))
    assert source.note.startswith("taken for good photographs: those in Normal, for others those in chip, some dirt, ")
    assert "one in 5 of the good ones is kept for the test" in source.note
    train, test = named(source, "my parts", "train"), named(source, "my parts", "test")
    good = [name for name in test if name.startswith("good/")]
    assert test[len(good) :] == ["chip/a", "some dirt/b", "some dirt/lot 2/b"]
    assert sorted(train + good) == [f"good/{index:03}" for index in range(40)]
    assert 3 <= len(good) <= 13 and TEST_SHARE == 5
    assert [sample.label for sample in source.samples("my parts", "test")] == [0] * len(good) + [1] * 3


def test_new_photographs_move_no_other_into_the_test(tmp_path):
    root = tree(tmp_path, *numbered("ok", 40), "nok/a.jpg")
    before = set(named(open_dataset(root), "my parts", "test"))
    touch(root, *numbered("ok", 90)[40:])
    after = set(named(open_dataset(root), "my parts", "test"))
    assert before < after and all(name >= "good/040" for name in after - before)


def test_a_flat_folder_is_one_category_of_good_photographs(tmp_path):
    root = tree(tmp_path, *numbered("", 3), "notes.txt")
    source = open_dataset(root)
    assert source.categories == ("my parts",) and "those in ." in source.note
    assert named(source, "my parts", "train") == ["good/000", "good/001", "good/002"]
    assert named(source, "my parts", "test") == []
    deep = tree(tmp_path / "elsewhere", *numbered("train/good", 2)) / "train/good"
    assert open_dataset(deep, "own").categories == ("my parts",)


def test_each_folder_with_good_ones_is_a_category(tmp_path):
    root = tree(tmp_path, "caps/ok/a.jpg", "caps/nok/b.jpg", "left/lids/OK/monday/c.jpg", "left/lids/OK/tuesday/c.jpg",
                "left/lids/bent/d.jpg", "others/e.jpg")
    source = open_dataset(root)
    assert source.categories == ("caps", "left-lids")
    assert sorted(named(source, "left-lids", "train") + named(source, "left-lids", "test")) == [
        "bent/d", "good/monday/c", "good/tuesday/c",
    ]
    [problem] = source.list_unused()
    assert problem.paths == (root / "others",) and str(problem).endswith("(1 image)")


def test_folders_for_training_and_for_the_test(tmp_path):
    root = tree(tmp_path, "Train/good/a.jpg", "test/good/b.jpg", "test/crack/c.jpg", "ground truth/crack/c_mask.png")
    source = open_dataset(root, "own")
    assert named(source, "my parts", "train") == ["good/a"]
    assert named(source, "my parts", "test") == ["good/b", "crack/c"]
    assert source.samples("my parts", "test")[1].mask_path == root / "ground truth/crack/c_mask.png"
    only = open_dataset(tree(tmp_path / "only", *numbered("train/good", 9), "test/crack/c.jpg"), "own")
    assert len(named(only, "my parts", "train")) == 9  # what is called train is trained on


def test_names_that_are_given(tmp_path):
    root = tree(tmp_path, "A/a.jpg", "B/b.jpg", "C/c.jpg", "D/B/d.jpg")
    source = open_dataset(root, good=["a", "D/B"], bad=["C"])
    parts = {name: named(source, name, "train") + named(source, name, "test") for name in source.categories}
    assert sorted(parts["my parts"]) == ["C/c", "good/a"] and parts["D"] == ["good/d"]
    assert [problem.paths for problem in source.list_unused()] == [(root / "B",)]
    assert source.note == ""
    everything = open_dataset(root, good=["A"])
    assert {sample.defect for sample in everything.samples("my parts", "test")} - {"good"} == {"B", "C", "D"}
    here = open_dataset(tree(tmp_path / "here", "a.jpg", "bad/b.jpg"), good=["."])
    assert sorted(named(here, "my parts", "train") + named(here, "my parts", "test")) == ["bad/b", "good/a"]


@pytest.mark.parametrize(
    ("files", "names", "message"),
    [
        (["a/x.jpg", "b/x.jpg"], {}, "images in a, b, and no folder's name says that they are good; name the folders"),
        (["clean/x.jpg", "b/x.jpg"], {}, "good; are those in clean good\\?; name the folders"),
        (["ok/x.jpg"], {"good": ["fine"]}, "`good` fine: .* has no such folder with images; there are: ok"),
        (["ok/x.jpg"], {"bad": ["nok"]}, "`bad` nok: .* has no such folder with images; there are: ok"),
        (["ok/x.jpg"], {"good": ["ok"], "name": "visa"}, "`good` and `bad` name folders of the layout 'own', not of"),
        (["test/ok/x.jpg", "test/nok/x.jpg"], {}, "no photographs of my parts in .* are left to train on"),
        (["ok/x.jpg", "ok/x.png"], {}, "have the same name up to the suffix"),
        (["notes.txt"], {}, "no known data set layout"),
    ],
)
def test_what_cannot_be_guessed_is_asked(tmp_path, files, names, message):
    root = tree(tmp_path, *files)
    with pytest.raises(DataError, match=message):
        open_dataset(root, **names).samples("my parts", "train")


def test_a_folder_that_may_be_of_good_ones_is_asked_about(tmp_path):
    root = tree(tmp_path, "ok/a.jpg", "clean/b.jpg", "chip/c.jpg")
    source = open_dataset(root)
    [problem] = source.list_unused()
    assert problem.severity == "error" and problem.paths == (root / "clean",)
    assert str(problem).startswith("is this good or a defect? Name it after `good` or `bad`: ")
    assert not open_dataset(root, bad=["clean", "chip"]).list_unused()


def test_masks_wherever_they_lie(tmp_path):
    root = tree(
        tmp_path, "ok/a.jpg", "chip/b.jpg", "chip/c.jpg", "chip/lot/d.jpg", "dirt/b.jpg", "hole/e.jpg",
        "hole/e_mask.png", "masks/chip/b.png", "masks/c_mask.png", "masks/chip/lot/d.png", "dirt/masks/b.png",
        "masks/ok/a.png",
    )
    source = open_dataset(root)
    samples, problems = source.list_samples("my parts", "test")
    masks = {sample.name: sample.mask_path.relative_to(root).as_posix() for sample in samples if sample.label}
    assert masks == {
        "chip/b": "masks/chip/b.png", "chip/c": "masks/c_mask.png", "chip/lot/d": "masks/chip/lot/d.png",
        "dirt/b": "dirt/masks/b.png", "hole/e": "hole/e_mask.png",
    }
    assert not problems
    test_good = open_dataset(tree(tmp_path / "t", "train/ok/x.jpg", "test/ok/a.jpg", "masks/ok/a.png"), "own")
    [sample] = test_good.samples("my parts", "test")
    assert sample.blank_mask.name == "a.png" and sample.mask_path is None


def test_masks_and_images_without_partner(tmp_path):
    root = tree(tmp_path, "ok/a.jpg", "chip/b.jpg", "chip/c.jpg", "dirt/d.jpg", "masks/chip/b.png", "masks/chip/z.png")
    samples, problems = open_dataset(root).list_samples("my parts", "test")
    assert [sample.name for sample in samples if sample.label] == ["chip/b", "dirt/d"]
    assert [(problem.message.split(":")[0], problem.paths[0].name) for problem in problems] == [
        ("image has no mask", "c.jpg"), ("defect without a folder of masks", "dirt"), ("mask has no image", "z.png"),
    ]


def test_a_data_set_beside_it_is_still_named(tmp_path):
    touch(tmp_path, "data/bottle/train/good/a.png", "data/bottle/test/crack/b.png")
    with pytest.raises(DataError, match="did you mean .*/data\\?"):
        open_dataset(tmp_path / "data/bottle")
    assert open_dataset(tmp_path / "data/bottle", "own").categories == ("bottle",)


def test_foreground_masks_of_images_of_one_name(tmp_path):
    paths = [fg_mask_path(tmp_path, "own", "caps", tmp_path / day / "IMG_1.jpg") for day in ("monday", "tuesday")]
    assert paths[0] != paths[1] and {path.parent for path in paths} == {tmp_path / "own/caps/train"}
    assert fg_mask_path(tmp_path, "folder", "caps", tmp_path / "IMG_1.jpg").name == "IMG_1.png"


def test_files_that_are_no_images_are_named(tmp_path):
    root = tree(tmp_path, "ok/a.jpg", "ok/b.heic", "ok/notes.txt", "chip/c.jpg", "chip/c.json", "chip/d.dat")
    source = open_dataset(root)
    said = [str(problem) for split in ("train", "test") for problem in source.list_samples("my parts", split)[1]]
    assert [line.partition(": ")[0] for line in said if "without a folder of masks" not in line] == [
        "HEIC images are not read",
        "files that are no images are never used", "files of unknown kind are never used",
    ]
