"""Decoded files on disk: what makes one stale, readings that fail, and readings at the same time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch

from datasets.base import DataError, Reader, load_image
from datasets.files import (
    image_files,
    mask_files,
    texture_files,
    training_files,
)
from datasets.foreground import RULES, Rule, fg_mask_path
from tests.support.commands import ROOT
from tests.support.stores import CACHES, SIZE, cache_files, counted, expected, store, write_noise
from tests.support.trees import write_image

# What a cache file stands for


@pytest.mark.parametrize("change", ["content", "time", "size", "rule", "order", "foreground"])
def test_whatever_changes_is_read_anew(tmp_path, monkeypatch, change):
    paths = write_noise(tmp_path, 2)
    foreground = write_image(fg_mask_path(tmp_path, "mvtec", "tile", paths[0]), np.full((9, 11), 255, np.uint8))
    store(tmp_path).open({0: [training_files(paths, "mvtec", "tile", tmp_path)]})
    status, (before,) = paths[0].stat(), cache_files(tmp_path)
    size = SIZE
    if change == "content":
        write_noise(tmp_path, 2, seed=1)
    elif change == "time":
        os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    elif change == "size":
        size = 16
    elif change == "rule":
        monkeypatch.setitem(RULES["mvtec"], "tile", Rule("above", 7))
    elif change == "order":
        paths.reverse()
    else:
        write_image(foreground, np.zeros((9, 11), np.uint8))
    files, calls = counted(training_files(paths, "mvtec", "tile", tmp_path))
    (images,) = store(tmp_path, size=size).open({0: [files]})(0)
    assert calls == dict.fromkeys(paths, 1)
    assert torch.equal(images[..., :3], expected(paths, size))
    assert len(cache_files(tmp_path)) == 2
    assert before in cache_files(tmp_path)
    assert images[paths.index(tmp_path / "0.png"), ..., 3].any() == (change != "foreground")


def test_a_new_foreground_is_seen(tmp_path):
    paths = write_noise(tmp_path, 2)
    store(tmp_path).open({0: [training_files(paths, "mvtec", "tile", tmp_path)]})
    write_image(fg_mask_path(tmp_path, "mvtec", "tile", paths[0]), np.zeros((9, 11), np.uint8))
    (images,) = store(tmp_path).open({0: [training_files(paths, "mvtec", "tile", tmp_path)]})(0)
    assert images[..., 3].flatten(1).any(1).tolist() == [False, True]


def test_other_kinds_and_sizes_have_files_of_their_own(tmp_path):
    paths = write_noise(tmp_path, 2)
    for size in (8, 16):
        store(tmp_path, size=size).open({0: [image_files(paths), texture_files(paths), mask_files(paths)]})
    names = [path.name for path in cache_files(tmp_path)]
    assert len(names) == 6
    kinds = {tuple(name.split("-")[:2]) for name in names}
    assert kinds == {(kind, size) for kind in ("images", "masks", "textures") for size in ("8px", "16px")}


def test_a_deleted_folder_is_made_anew(tmp_path):
    paths = write_noise(tmp_path, 2)
    for _ in range(2):
        (images,) = store(tmp_path).open({0: [image_files(paths)]})(0)
        assert torch.equal(images, expected(paths))
        shutil.rmtree(tmp_path / "cache")
        assert torch.equal(images, expected(paths))  # on Linux, what is mapped stays


DAMAGES = [
    "empty", "header cut", "pixels cut", "rubbish", "other shape", "other type", "half zero", "one bit", "header bit",
    "not sealed", "as numpy writes it",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_file_is_named_and_made_anew(tmp_path, capsys, damage):
    paths = write_noise(tmp_path, 3)
    store(tmp_path).open({0: [image_files(paths)]})
    (path,) = cache_files(tmp_path)
    whole = path.read_bytes()
    assert len(whole) == 128 + 3 * SIZE * SIZE * 3 + 14
    half = 128 + 288  # the header and half of the numbers
    if damage.startswith("other"):
        array = np.load(path)
        np.save(path, array[:2] if damage == "other shape" else array.astype(np.int8))
    else:
        path.write_bytes({
            "empty": b"", "header cut": whole[:40], "pixels cut": whole[:-1], "rubbish": b"?" * len(whole),
            "half zero": whole[:half] + bytes(288) + whole[-14:], "not sealed": whole[:-14] + bytes(14),
            "one bit": whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], "as numpy writes it": whole[:-14],
            "header bit": whole[:100] + b"!" + whole[101:],
        }[damage])
    capsys.readouterr()
    for times in (1, 0):
        files, calls = counted(image_files(paths))
        (images,) = store(tmp_path).open({0: [files]})(0)
        assert torch.equal(images, expected(paths))
        assert sum(calls.values()) == 3 * times  # read anew once
        lines = [line for line in capsys.readouterr().err.splitlines() if "is damaged" in line]
        assert len(lines) == times and all(f"the cache file {path} is damaged (" in line for line in lines)
    assert path.read_bytes() == whole


def test_the_checksum_by_hand(tmp_path):
    store(tmp_path).open({0: [image_files(write_noise(tmp_path, 2))]})
    (path,) = cache_files(tmp_path)
    content = path.read_bytes()
    assert content[-14:] == b"crc32 %08x" % zlib.crc32(path.name.encode() + content[:-14])
    assert np.load(path).shape == (2, SIZE, SIZE, 3)  # still a file of NumPy's


def test_cache_files_that_were_exchanged_are_made_anew(tmp_path, capsys):
    """Of the same shape, both whole: only the names tell that they are of other images."""
    paths = write_noise(tmp_path, 4)
    groups = {"a": [image_files(paths[:2])], "b": [image_files(paths[2:])]}
    store(tmp_path).open(groups)
    one, other = cache_files(tmp_path)
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    stacks = store(tmp_path).open(groups)
    assert torch.equal(torch.cat([stacks("a")[0], stacks("b")[0]]), expected(paths))
    assert capsys.readouterr().err.count("is damaged (its checksum is another)") == 2


def test_a_cache_that_is_deleted_while_it_is_used_is_made_anew(tmp_path):
    paths = write_noise(tmp_path, 4)
    stacks = store(tmp_path).open({"a": [image_files(paths[:2])], "b": [image_files(paths[2:])]})
    shutil.rmtree(tmp_path / "cache")
    assert torch.equal(stacks("b")[0], expected(paths[2:]))


def test_images_that_change_while_their_cache_is_used_are_not_missed(tmp_path):
    paths = write_noise(tmp_path, 2)
    before = expected(paths)
    stacks = store(tmp_path).open({0: [image_files(paths)]})
    paths[0].unlink()
    assert torch.equal(stacks(0)[0], before)


def test_many_groups_need_few_open_files(tmp_path):
    """350 categories of three kinds of files each, where a process may have 256 files open."""
    code = """
import resource, sys
from pathlib import Path
from datasets.files import image_files, mask_files, texture_files
from utils.data.image_store import ImageStore

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
folder = Path(sys.argv[1])
paths = [[folder / f"{n}.png"] for n in range(350)]
for _ in range(2):
    store = ImageStore(8, workers=2, cache="disk", folder=folder / "cache")
    groups = {n: [image_files(path), mask_files(path), texture_files(path)] for n, path in enumerate(paths)}
    stacks = store.open(groups)
    print(sum(int(stacks(n)[0].sum()) for n in groups))
"""
    paths = write_noise(tmp_path, 350)
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(int(expected(paths).long().sum()))] * 2


# Reading that fails, and reading at the same time


@pytest.mark.parametrize("cache", CACHES)
def test_all_broken_files_of_all_groups_are_listed_and_nothing_is_left(tmp_path, cache):
    paths = write_noise(tmp_path, 6)
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    paths[3].write_text("no image")
    broken = [paths[1], paths[3], tmp_path / "absent.png"]
    groups = {"a": [image_files(paths[:2])], "b": [image_files([*paths[2:4], tmp_path / "absent.png"])]}
    with pytest.raises(DataError, match="^3 of 7 files cannot be used:\n") as caught:
        store(tmp_path, cache).open(groups, [texture_files(paths[4:])])
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()[1:]] == [
        f"cannot read image {path}" for path in broken
    ]
    assert cache_files(tmp_path) == []
    with pytest.raises(DataError, match="^1 of 3 files"):
        store(tmp_path, cache).open({"a": [image_files([paths[0]])]}, [texture_files([paths[2], paths[3]])])
    assert cache_files(tmp_path) == []


def test_no_more_than_twenty_broken_files_are_shown(tmp_path):
    files = image_files([tmp_path / f"{n}.png" for n in range(25)])
    with pytest.raises(DataError, match="^25 of 25 files") as caught:
        store(tmp_path, "ram").open({0: [files]})
    assert len(str(caught.value).splitlines()) == 21


def test_an_interrupted_reading_leaves_nothing(tmp_path):
    paths = write_noise(tmp_path, 4)

    def stop(path: Path, size: int, reader: Reader) -> np.ndarray:
        if path == paths[2]:
            raise KeyboardInterrupt
        return load_image(path, size)

    with pytest.raises(KeyboardInterrupt):
        store(tmp_path).open({0: [texture_files(paths), replace(image_files(paths), decode=stop)]})
    assert cache_files(tmp_path) == []


def test_two_that_read_at_the_same_time_end_with_one_file(tmp_path):
    paths = write_noise(tmp_path, 4)
    both = Barrier(2, timeout=30)

    def load(path: Path, size: int, reader: Reader) -> np.ndarray:
        if path == paths[2]:
            both.wait()  # the other one has not finished its file either
        return load_image(path, size)

    def run(_: int) -> torch.Tensor:
        return store(tmp_path).open({0: [replace(image_files(paths), decode=load)]})(0)[0]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, range(2)))
    assert all(torch.equal(images, expected(paths)) for images in results)
    assert len(cache_files(tmp_path)) == 1
    files, calls = counted(image_files(paths))
    assert torch.equal(store(tmp_path).open({0: [files]})(0)[0], expected(paths))
    assert not calls
