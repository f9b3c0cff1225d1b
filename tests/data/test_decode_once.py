"""Every file is opened once: by the check where it is not known yet, otherwise for the training or the scoring."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from datasets import decoding
from datasets.base import load_image, load_mask, read_picture
from datasets.files import image_files
from datasets.foreground import fg_mask_path
from datasets.levels import Levels
from tests.support.commands import TINY, run_test, run_train
from tests.support.raw_files import write_png
from tests.support.stores import SIZE, expected, write_noise
from tests.support.trees import make_mvtec, write_image
from utils.data.decoded_files import DecodedFiles, key_of
from utils.data.image_store import ImageStore

FLAGS = ("--data_root", "data", *TINY, "--output", "run", "--fg_root", "fg", "--aux_path", "builtin")


@pytest.fixture
def opened(monkeypatch):
    """How often each file was opened."""
    counts, open_regular = Counter(), decoding.open_regular

    def count(path: Path):
        counts.update([Path(path).absolute()])
        return open_regular(path)

    monkeypatch.setattr(decoding, "open_regular", count)
    return counts


@pytest.fixture
def files(tmp_path):
    """All images and masks of a data set, and a stored foreground, by the split that they are of."""
    data = make_mvtec(tmp_path / "data", ["bottle"], train=4)
    first = sorted((data / "bottle/train/good").glob("*.png"))[0]
    stored = write_image(fg_mask_path(tmp_path / "fg", "mvtec", "bottle", first), load_image(first)[..., 0] // 2)
    paths = {path.absolute() for path in data.rglob("*.png")}
    return {
        "train": {path for path in paths if "train" in path.parts} | {stored.absolute()},
        "test": {path for path in paths if "train" not in path.parts},
    }


def of_data(opened: Counter, tmp_path: Path) -> dict[Path, int]:
    return {path: number for path, number in opened.items() if path.is_relative_to(tmp_path)}


@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("recipe", ["published", "robust"])
def test_training_and_scoring_open_every_file_once(tmp_path, files, opened, recipe, cache):
    run = (*FLAGS, "--recipe", recipe, "--cache", cache)
    assert run_train(tmp_path, *run, "--eval_every", 1).status == 0
    assert of_data(opened, tmp_path) == dict.fromkeys(files["train"] | files["test"], 1)
    textures = [number for path, number in opened.items() if not path.is_relative_to(tmp_path)]
    assert set(textures) <= {1}
    opened.clear()
    assert run_train(tmp_path, *run, "--seed", 1, "--output", "other").status == 0  # checks.json knows all files
    read_again = {} if cache == "disk" else dict.fromkeys(files["train"] | files["test"], 1)
    assert of_data(opened, tmp_path) == read_again
    opened.clear()
    (tmp_path / "cache/checks.json").unlink()
    assert run_test(tmp_path, "--data_root", "data", "--run", "run", "--cache", cache).status == 0
    assert of_data(opened, tmp_path) == dict.fromkeys(files["test"], 1)


def test_without_a_cache_files_are_opened_again_for_their_batches_alone(tmp_path, files, opened):
    assert run_train(tmp_path, *FLAGS, "--recipe", "robust", "--cache", "none").status == 0
    counts = of_data(opened, tmp_path)
    assert {path: counts[path] for path in files["test"]} == dict.fromkeys(files["test"], 1)
    assert min(counts[path] for path in files["train"]) > 1


def test_what_finds_no_room_is_opened_again(tmp_path, opened, capsys):
    paths = write_noise(tmp_path, 3)
    decoded = DecodedFiles(most=2 * 9 * 11 * 3)
    for path in paths:
        decoded.picture(path)
    assert decoded.size == decoded.most
    assert "others are opened again" in capsys.readouterr().err
    store = ImageStore(SIZE, workers=2, decoded=decoded)
    [images] = store.open({0: [image_files(paths)]})(0)
    assert [opened[path] for path in paths] == [1, 1, 2]
    assert decoded.size == 0
    opened.clear()
    assert (images == expected(paths)).all()


def test_a_file_that_changed_is_decoded_anew(tmp_path):
    [path] = write_noise(tmp_path, 1)
    decoded = DecodedFiles()
    decoded.picture(path)
    write_image(path, np.full((4, 5, 3), 7, np.uint8))
    assert decoded.picture(path).values.shape == (4, 5, 3)


def test_deep_images_wait_for_their_levels(tmp_path):
    values = np.arange(80, dtype=np.uint16).reshape(8, 10) * 50
    path = write_png(tmp_path / "deep.png", values)
    decoded = DecodedFiles()
    decoded.picture(path)
    for levels in (None, Levels(uint16=(0, 4095)), Levels(uint16=(0, 65535))):
        np.testing.assert_array_equal(decoded.image(path, levels), load_image(path, levels=levels))


def test_masks_and_images_of_one_file_are_kept_apart_and_given_back(tmp_path):
    path = write_image(tmp_path / "mask.png", np.eye(9, dtype=np.uint8) * 255)
    decoded = DecodedFiles()
    decoded.keep(key_of("image", path), read_picture(path))
    np.testing.assert_array_equal(decoded.mask(path), load_mask(path))
    assert decoded.size == 4 * 81
    decoded.drop("image")
    assert decoded.size == 81
    decoded.drop()
    assert decoded.size == 0
