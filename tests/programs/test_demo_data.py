"""scripts/make_demo_data.py: exact masks, what is written, disjoint regions, determinism."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import open_dataset
from datasets.base import load_mask
from scripts import make_demo_data as demo

SCRIPT = Path(demo.__file__)
SMALL = ("--size", "64", "--train", "3", "--test_good", "2", "--test_defective", "6")


def _run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=120)


def _files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "data"
    result = _run("--output", root, *SMALL)
    assert result.returncode == 0, result.stderr
    return root


# ----------------------------------------------------------------------------------------------------------- defects


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("defect", demo.DEFECTS)
def test_mask_is_exactly_where_the_image_was_changed(defect, size):
    rng = np.random.default_rng(0)
    for _ in range(20):
        crop = rng.integers(60, 200, (size, size), dtype=np.uint8)
        before = crop.copy()
        image, mask = demo.damage(crop, defect, rng)
        np.testing.assert_array_equal(crop, before)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
        np.testing.assert_array_equal(mask > 0, image != crop)
        assert 0.001 < (mask > 0).mean() < 0.3


@pytest.mark.parametrize("defect", demo.DEFECTS)
def test_defects_can_be_seen(defect):
    rng = np.random.default_rng(1)
    crop = np.tile(np.uint8([[90, 90, 160, 160], [90, 90, 160, 160], [160, 160, 90, 90], [160, 160, 90, 90]]), (64, 64))
    for _ in range(20):
        image, mask = demo.damage(crop, defect, rng)
        assert np.abs(image.astype(int) - crop)[mask > 0].mean() > 20


def test_paint_that_matches_is_changed_by_one_level(monkeypatch):
    crop = np.full((8, 8), 100, np.uint8)
    opacity = np.zeros((8, 8))
    opacity[2:4, 2:4], opacity[6, 6] = 1.0, 0.1  # the second is too faint
    material = np.full((8, 8), 100.0)
    material[2, 2] = 300
    monkeypatch.setitem(demo.DEFECTS, "none", lambda crop, rng: (opacity, material))
    image, mask = demo.damage(crop, "none", None)
    assert image[2:4, 2:4].tolist() == [[255, 101], [101, 101]]
    assert (image != 100).sum() == (mask == 255).sum() == 4


def test_written_masks_are_exact():
    # The whole chain on a flat photograph, where the undamaged crop is one level: all that differs is the mask.
    photograph = np.full((512, 512), 120, np.uint8)
    written = dict(demo.make_category(photograph, 128, 1, 1, 8, np.random.default_rng(0)))
    pairs = 0
    for name, mask in written.items():
        if name.startswith("ground_truth"):
            image = written[name.replace("ground_truth", "test").replace("_mask", "")]
            level = np.bincount(image[mask == 0]).argmax()
            np.testing.assert_array_equal(mask > 0, image != level)
            pairs += 1
    assert pairs == 8


# ------------------------------------------------------------------------------------------------------ the data set


def test_train_and_test_come_from_disjoint_regions():
    photograph = np.full((512, 512), 50, np.uint8)
    photograph[:, demo.TRAIN_COLUMNS :] = 150  # brightness varies by 6 % only
    rng = np.random.default_rng(0)
    for name, image in demo.make_category(photograph, 64, 40, 40, 4, rng):
        if name.startswith("train"):
            assert image.max() <= 53
        elif name.startswith("test/good"):
            assert image.min() >= 141
    assert demo.CROP <= demo.TRAIN_COLUMNS
    assert demo.CROP <= 512 - demo.TRAIN_COLUMNS


def test_crops_differ_from_each_other():
    photograph = np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8)
    images = [image for _, image in demo.make_category(photograph, 64, 20, 1, 1, np.random.default_rng(0))][:20]
    assert len({image.tobytes() for image in images}) == 20


def test_what_is_written(small):
    source = open_dataset(small)
    assert source.name == "folder"
    assert source.categories == ("brick", "grass", "gravel")
    for category in source.categories:
        assert len(source.samples(category, "train")) == 3
        test = source.samples(category, "test")
        defects = [sample.defect for sample in test]
        counts = {defect: defects.count(defect) for defect in set(defects)}
        assert counts == {"good": 2, "scratch": 2, "blob": 2, "hole": 1, "patch": 1}
        for sample in test:
            assert Image.open(sample.image_path).size == (64, 64)
            if sample.label:
                assert sample.mask_path.name == f"{sample.image_path.stem}_mask.png"
                assert load_mask(sample.mask_path).any()
    assert len(_files(small)) == 3 * (3 + 2 + 6 + 6)


def test_default_counts():
    written = list(demo.make_category(np.zeros((512, 512), np.uint8), 32, 40, 12, 24, np.random.default_rng(0)))
    names = [name for name, _ in written]
    assert len(set(names)) == len(names) == 40 + 12 + 2 * 24
    for defect in demo.DEFECTS:
        assert [n for n in names if n.startswith(f"test/{defect}/")] == [f"test/{defect}/{i:03}.png" for i in range(6)]


def test_same_seed_same_files(small, tmp_path):
    assert _run("--output", tmp_path / "again", *SMALL).returncode == 0
    assert _files(tmp_path / "again") == _files(small)
    assert _run("--output", tmp_path / "again", *SMALL).returncode == 0  # over what it wrote itself
    assert _run("--output", tmp_path / "other", *SMALL, "--seed", "1").returncode == 0
    other = _files(tmp_path / "other")
    assert other.keys() == _files(small).keys()
    assert all(other[name] != content for name, content in _files(small).items() if "train" in name)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    result = _run("--output", tmp_path, *SMALL)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "mine.txt" in result.stderr
    assert list(_files(tmp_path)) == ["mine.txt"]


def test_wrong_counts_are_refused(tmp_path):
    result = _run("--output", tmp_path, "--train", "0")
    assert result.returncode == 2
    assert "--train: 0 is below 1" in result.stderr
