"""Where the textures of synthetic anomalies come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.anomalies import textures
from datasets.base import DataError, load_image


def _touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_list_textures_looks_below(tmp_path):
    wanted = [_touch(tmp_path / name) for name in ("a/1.jpg", "b/c/2.PNG", "z.tif")]
    for name in ("a/notes.txt", "a/.hidden.jpg"):
        _touch(tmp_path / name)
    assert textures.list_textures(tmp_path) == wanted


def test_list_textures_without_images(tmp_path):
    with pytest.raises(DataError, match="nowhere.*`aux_path`"):
        textures.list_textures(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no texture image"):
        textures.list_textures(tmp_path)


def test_builtin_textures_are_photographs():
    paths = textures.list_textures("builtin")
    assert len(paths) >= 10
    assert all(load_image(path, 64).std() > 5 for path in paths)
    assert not {"brick", "grass", "gravel"} & {path.stem for path in paths}


@pytest.mark.parametrize("place", ["dtd/images", "DRAEM_dtd/dtd/images"])
def test_find_aux_path(tmp_path, place):
    root = tmp_path / "mvtec"
    root.mkdir()
    with pytest.raises(DataError, match="`aux_path` builtin") as error:
        textures.find_aux_path(root)
    assert str(tmp_path / "dtd/images") in str(error.value)
    assert str(tmp_path / "DRAEM_dtd/dtd/images") in str(error.value)
    (tmp_path / place).mkdir(parents=True)
    assert textures.find_aux_path(root) == tmp_path / place


def test_find_aux_path_of_a_relative_and_a_linked_root(tmp_path, monkeypatch):
    (tmp_path / "disk/mvtec").mkdir(parents=True)
    (tmp_path / "disk/dtd/images").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk/mvtec")
    assert textures.find_aux_path(tmp_path / "link") == tmp_path / "disk/dtd/images"
    (tmp_path / "disk/mvtec/dtd/images").mkdir(parents=True)  # inside the root is not beside it
    monkeypatch.chdir(tmp_path / "disk/mvtec")
    assert textures.find_aux_path(Path(".")) == tmp_path / "disk/dtd/images"
