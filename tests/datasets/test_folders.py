"""What lies in folders: images, other files, folders, links, and what cannot be looked into."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.base import DataError
from datasets.folders import find_place, list_folders, list_images, look_into, walk
from tests.support.trees import touch


def walked(top: Path) -> dict[str, list[str] | str]:
    """What `walk` finds: the names of the images in each folder, or what is wrong with it."""
    found = {folder.relative_to(top).as_posix(): contents for folder, contents in walk(top)}
    return {
        name: str(contents) if isinstance(contents, DataError) else [path.name for path in contents.images]
        for name, contents in found.items()
    }


def test_list_images(tmp_path):
    touch(tmp_path, "b.PNG", "a.jpeg", "c.tif", "d.JFIF", "e.gif", "notes.txt", ".hidden.png", "._a.png", "Thumbs.db")
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.PNG", "c.tif", "d.JFIF", "e.gif"]
    assert list_images(tmp_path / "absent") == []
    (tmp_path / "c.png").touch()
    with pytest.raises(DataError, match="same name up to the suffix"):
        list_images(tmp_path)


def test_list_folders(tmp_path):
    for name in ("b", "a", ".cache", "lost+found", "__MACOSX"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    assert [path.name for path in list_folders(tmp_path)] == ["a", "b"]
    assert list_folders(tmp_path / "absent") == []


def test_contents_are_told_apart(tmp_path):
    touch(tmp_path, "a.png", "b.dat", "lot/x.png", "c.png/x.png", "desktop.ini")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "itself").symlink_to("itself")
    contents = [[path.name for path in part] for part in look_into(tmp_path)]
    assert contents == [["a.png", "c.png", "gone.png"], ["b.dat", "itself"], ["c.png", "lot"]]


def test_a_folder_that_may_not_be_looked_into_is_never_empty(tmp_path, closed):
    touch(tmp_path, "in/a.png", "in/secret/b.png")
    closed(tmp_path / "in/secret")
    for look in (look_into, list_images, list_folders):
        with pytest.raises(DataError, match="cannot look into the folder .*in/secret: Permission denied"):
            look(tmp_path / "in/secret")
    assert "Permission denied" in walked(tmp_path)["in/secret"]


def test_a_place_is_found_whatever_the_case_of_its_name(tmp_path):
    touch(tmp_path, "Ground-Truth/CRACK/a.png", "Train/x.png")
    assert find_place(tmp_path, "ground_truth", "crack") == tmp_path / "Ground-Truth/CRACK"
    assert find_place(tmp_path, "train", "good") == tmp_path / "Train/good"  # not there: as it is asked for
    touch(tmp_path, "TRAIN/x.png")
    with pytest.raises(DataError, match="TRAIN and .*Train could both be meant by train"):
        find_place(tmp_path, "train")
    touch(tmp_path, "train/x.png")
    assert find_place(tmp_path, "train") == tmp_path / "train"


def test_walks_follow_links_and_end(tmp_path):
    touch(tmp_path, "in/a.png", "in/lot/b.png", "elsewhere/c.png", "elsewhere/deep/d.png")
    links = {"in/again": "lot", "in/lot/up": "..", "in/self": ".", "in/linked": "../elsewhere",
             "elsewhere/back": "../in", "elsewhere/deep/loop": "../.."}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    found = walked(tmp_path / "in")
    assert {name: images for name, images in found.items() if images and isinstance(images, list)} == {
        ".": ["a.png"], "lot": ["b.png"], "linked": ["c.png"], "linked/deep": ["d.png"]
    }
    [refused] = [name for name, images in found.items() if isinstance(images, str)]
    assert refused == "linked/deep/loop" and "a link to a folder that it lies in" in found[refused]
