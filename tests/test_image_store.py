"""Files are decoded once, kept in memory or on disk: the same pixels everywhere, no half files, no second reading."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch

from datasets.base import DataError, load_image
from datasets.foreground import RULES, Rule, fg_mask_path
from datasets.loading import Files, image_files, mask_files, texture_files, training_files
from tests.commands import ROOT
from tests.trees import write_image
from utils import image_store
from utils.image_store import ImageStore

SIZE = 8
CACHES = ["ram", "disk", "none"]


def write_noise(folder: Path, count: int, seed: int = 0) -> list[Path]:
    rng = np.random.default_rng(seed)
    return [write_image(folder / f"{n}.png", rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)) for n in range(count)]


def expected(paths: list[Path], size: int = SIZE) -> torch.Tensor:
    return torch.from_numpy(np.stack([load_image(path, size) for path in paths]))


def counted(files: Files) -> tuple[Files, Counter]:
    """The files with a loader that counts how often each is decoded."""
    calls = Counter()

    def load(path: Path, size: int) -> np.ndarray:
        calls.update([path])
        return files.load(path, size)

    return replace(files, load=load), calls


def store(folder: Path, cache: str = "disk", size: int = SIZE) -> ImageStore:
    return ImageStore(size, workers=2, cache=cache, folder=folder / "cache")


def cache_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "cache").rglob("*") if path.is_file())


# Pixels


@pytest.mark.parametrize("cache", CACHES)
def test_every_cache_gives_the_same_pixels_in_the_order_of_the_paths(tmp_path, cache):
    paths = write_noise(tmp_path, 5)
    shown = [paths[3], paths[0], paths[4], paths[1], paths[2]]
    masks = [write_image(tmp_path / f"m{n}.png", np.eye(9, dtype=np.uint8) * n) for n in range(3)]
    groups = {"a": [image_files(shown), mask_files(masks)], "b": [texture_files(paths[:2]), image_files([])]}
    stacks = store(tmp_path, cache).open(groups)
    images, read_masks = stacks("a")
    textures, nothing = stacks("b")
    right = expected(shown)
    for index in (0, -1, slice(None), slice(1, 4), slice(None, None, 2), torch.tensor([4, 0, 0]), torch.tensor([[1]])):
        assert images[index].dtype == torch.uint8
        assert torch.equal(images[index], right[index])
    assert (len(images), images.shape, images.dtype) == (5, (5, SIZE, SIZE, 3), torch.uint8)
    assert read_masks[:].flatten(1).any(1).tolist() == [False, True, True]
    assert read_masks[:].unique().tolist() == [0, 1]
    assert torch.equal(textures[:], expected(paths[:2]).permute(0, 3, 1, 2))
    assert (len(nothing), nothing[:].shape) == (0, (0, SIZE, SIZE, 3))


def test_what_is_read_from_disk_can_be_written_to_without_changing_the_cache(tmp_path):
    paths = write_noise(tmp_path, 2)
    for _ in range(2):
        (images,) = store(tmp_path).open({0: [image_files(paths)]})(0)
        assert torch.equal(images, expected(paths))
        images.zero_()


# How often a file is decoded


def test_ram_decodes_every_file_once(tmp_path):
    paths = write_noise(tmp_path, 6)
    files, calls = counted(image_files(paths[:4]))
    unused, unused_calls = counted(mask_files(paths[4:]))
    stacks = store(tmp_path, "ram").open({0: [files]}, [unused])
    for _ in range(2):
        assert torch.equal(stacks(0)[0][:], expected(paths[:4]))
    assert calls == dict.fromkeys(paths[:4], 1)
    assert unused_calls == dict.fromkeys(paths[4:], 1)
    assert not (tmp_path / "cache").exists()


def test_disk_decodes_every_file_once_in_all_runs(tmp_path):
    paths = write_noise(tmp_path, 6)
    files, calls = counted(image_files(paths[:4]))
    unused, unused_calls = counted(mask_files(paths[4:]))
    for _ in range(2):
        stacks = store(tmp_path).open({0: [files]}, [unused])
        assert torch.equal(stacks(0)[0][:], expected(paths[:4]))
        assert calls == dict.fromkeys(paths[:4], 1)
        assert unused_calls == dict.fromkeys(paths[4:], 1)
    assert len(cache_files(tmp_path)) == 2


def test_none_decodes_anew_what_is_asked_for(tmp_path):
    paths = write_noise(tmp_path, 3)
    files, calls = counted(image_files(paths))
    (images,) = store(tmp_path, "none").open({0: [files]})(0)
    assert calls == dict.fromkeys(paths, 1)  # all are checked
    assert torch.equal(images[1:], expected(paths[1:]))
    assert torch.equal(images[2], expected(paths)[2])
    assert calls == {paths[0]: 1, paths[1]: 2, paths[2]: 3}
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("missing", [0, 1])  # bytes that the memory lacks
def test_files_larger_than_half_of_the_memory_are_read_in_their_turn(tmp_path, monkeypatch, capsys, missing):
    paths = write_noise(tmp_path, 5)
    one, calls = counted(image_files(paths[:3]))
    two, other_calls = counted(image_files(paths[3:]))
    needed = 5 * SIZE * SIZE * 3
    monkeypatch.setattr(image_store, "available_memory", lambda device: 2 * needed - missing)
    stacks = store(tmp_path, "ram").open({"one": [one], "two": [two]})
    assert calls == dict.fromkeys(paths[:3], 1)
    assert other_calls == dict.fromkeys(paths[3:], 1)
    (images,) = stacks("two")
    assert torch.equal(images, expected(paths[3:]))
    assert torch.equal(images[:1], expected(paths[3:4]))  # read once for the group, not at each access
    assert calls == dict.fromkeys(paths[:3], 1)
    assert other_calls == dict.fromkeys(paths[3:], 1 + missing)
    assert torch.equal(stacks("one")[0], expected(paths[:3]))
    assert ("--cache disk" in capsys.readouterr().out) == bool(missing)


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


@pytest.mark.parametrize("damage", ["empty", "header cut", "pixels cut", "rubbish", "other shape", "other type"])
def test_a_damaged_cache_file_is_named(tmp_path, damage):
    paths = write_noise(tmp_path, 3)
    store(tmp_path).open({0: [image_files(paths)]})
    (path,) = cache_files(tmp_path)
    whole = path.read_bytes()
    if damage.startswith("other"):
        array = np.load(path)
        np.save(path, array[:2] if damage == "other shape" else array.astype(np.int8))
    else:
        content = {"empty": b"", "header cut": whole[:40], "pixels cut": whole[:-1], "rubbish": b"?" * len(whole)}
        path.write_bytes(content[damage])
    with pytest.raises(DataError, match=f"the cache file {path} .*delete it"):
        store(tmp_path).open({0: [image_files(paths)]})
    path.unlink()
    (images,) = store(tmp_path).open({0: [image_files(paths)]})(0)
    assert torch.equal(images, expected(paths))


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

    def stop(path: Path, size: int) -> np.ndarray:
        if path == paths[2]:
            raise KeyboardInterrupt
        return load_image(path, size)

    with pytest.raises(KeyboardInterrupt):
        store(tmp_path).open({0: [texture_files(paths), replace(image_files(paths), load=stop)]})
    assert cache_files(tmp_path) == []


def test_two_that_read_at_the_same_time_end_with_one_file(tmp_path):
    paths = write_noise(tmp_path, 4)
    both = Barrier(2, timeout=30)

    def load(path: Path, size: int) -> np.ndarray:
        if path == paths[2]:
            both.wait()  # the other one has not finished its file either
        return load_image(path, size)

    def run(_: int) -> torch.Tensor:
        return store(tmp_path).open({0: [replace(image_files(paths), load=load)]})(0)[0]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, range(2)))
    assert all(torch.equal(images, expected(paths)) for images in results)
    assert len(cache_files(tmp_path)) == 1
    files, calls = counted(image_files(paths))
    assert torch.equal(store(tmp_path).open({0: [files]})(0)[0], expected(paths))
    assert not calls


# Memory


PEAK = """
import re, sys
from pathlib import Path
import psutil
from datasets.loading import image_files, mask_files
from utils.image_store import ImageStore

path, count, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
ImageStore(size, workers=2, cache="ram").open({0: [image_files([path] * 4)]})  # what is loaded at the first reading
before = psutil.Process().memory_info().rss
stacks = ImageStore(size, workers=2, cache="ram").open({0: [image_files([path] * count)]}, [mask_files([path] * count)])
peak = re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())  # getrusage's starts with the parent's
print(int(peak[1]) * 1024 - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of the peak differ")
def test_reading_needs_little_more_memory_than_the_stack(tmp_path):
    (path,) = write_noise(tmp_path, 1)
    count, size = 300, 448
    command = [sys.executable, "-c", PEAK, path, str(count), str(size)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    stack = count * size * size * 3
    assert stack < int(result.stdout) + 20e6  # or nothing was measured
    assert int(result.stdout) <= 1.1 * stack


def test_all_textures_of_dtd_need_little_memory():
    files = texture_files([Path("x.png")] * 5640)
    assert len(files.paths) * math.prod(files.shape(256)) == 5640 * 3 * 256 * 256 < 1.2e9
