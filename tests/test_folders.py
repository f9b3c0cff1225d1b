"""What lies in folders: images, other files, folders, links, and what cannot be looked into."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datasets.base import DataError
from datasets.folders import find_place, list_folders, list_images, look_into, walk


def test_list_images(tmp_path):
    for name in ("b.PNG", "a.jpeg", "c.tif", "notes.txt", ".hidden.png", "._a.png"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.PNG", "c.tif"]
    assert list_images(tmp_path / "absent") == []
    (tmp_path / "c.png").touch()
    with pytest.raises(DataError, match="same name up to the suffix"):
        list_images(tmp_path)


def test_list_folders(tmp_path):
    for name in ("b", "a", ".cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    assert [path.name for path in list_folders(tmp_path)] == ["a", "b"]
    assert list_folders(tmp_path / "absent") == []
