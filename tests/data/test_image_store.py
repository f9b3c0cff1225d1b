"""Files are decoded once, kept in memory or on disk: the same pixels everywhere, no half files, no second reading."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.files import image_files, mask_files, texture_files
from tests.support.commands import ROOT
from tests.support.stores import CACHES, SIZE, cache_files, counted, expected, store, write_noise
from tests.support.trees import write_image
from utils.data import image_store

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
    monkeypatch.setattr(image_store, "available_memory", lambda *_: 2 * needed - missing)
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


# Memory


PEAK = """
import re, sys
from pathlib import Path
import psutil
from datasets.files import image_files, mask_files
from utils.data.image_store import ImageStore

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
    assert math.prod(files.shape(256)) == 5640 * 3 * 256 * 256 < 1.2e9
