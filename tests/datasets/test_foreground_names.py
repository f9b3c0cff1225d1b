"""Stored foreground masks under the names that data sets have in public: which folder is read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from datasets.base import DataError
from datasets.foreground import fg_mask_path, foreground_of, mask_folder, stored_foregrounds
from tests.support.trees import write_image

PUBLIC_NAMES = [
    ("visa", "VisA"), ("visa", "VISA"), ("mvtec", "MVTec"), ("mvtec", "MVTec-AD"), ("mvtec", "mvtec_anomaly_detection"),
    ("mvtec3d", "MVTec3D"), ("mvtec3d", "MVTec 3D-AD"), ("mvtec3d", "mvtec_3d_anomaly_detection"), ("folder", "Folder"),
]
IMAGE, PIXELS = Path("000.jpg"), np.full((10, 20, 3), 255, np.uint8)


@pytest.mark.parametrize(("dataset", "name"), PUBLIC_NAMES)
def test_masks_are_found_under_the_public_names(tmp_path, dataset, name):
    stored = np.zeros((10, 20), np.uint8)
    stored[2:5, 3:9] = 1
    path = write_image(tmp_path / name / "part/train/000.png", stored * 255)
    np.testing.assert_array_equal(foreground_of(IMAGE, dataset, "part", tmp_path, PIXELS), stored)
    assert stored_foregrounds([IMAGE, Path("001.jpg")], dataset, "part", tmp_path) == [path]


def test_our_own_masks_come_first_and_others_must_be_of_one_folder(tmp_path):
    """Of another data set or category nothing is taken."""
    whole = np.full((10, 20), 255, np.uint8)
    for name in ("VisA/candle", "MVTec/candle", "visa-2/candle", "visa/capsules"):
        write_image(tmp_path / name / "train/000.png", whole)
    assert mask_folder(tmp_path, "visa", "candle") == tmp_path / "VisA/candle/train"
    assert mask_folder(tmp_path, "visa", "pcb1") == tmp_path / "visa/pcb1/train"
    write_image(tmp_path / "VISA/candle/train/000.png", whole)
    with pytest.raises(DataError, match="masks of candle are in several folders: .*VISA.*VisA.*keep one"):
        foreground_of(IMAGE, "visa", "candle", tmp_path, PIXELS)
    write_image(fg_mask_path(tmp_path, "visa", "candle", IMAGE), whole * 0)
    assert not foreground_of(IMAGE, "visa", "candle", tmp_path, PIXELS).any()


@pytest.mark.parametrize("kind", ["pipe", "folder", "broken link"])
def test_what_is_no_mask_in_the_place_of_one_is_an_error(tmp_path, kind):
    path = tmp_path / "visa/part/train/000.png"
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    assert stored_foregrounds([IMAGE], "visa", "part", tmp_path) == [path]
    with pytest.raises(DataError, match=r"cannot read image .*000\.png"):
        foreground_of(IMAGE, "visa", "part", tmp_path, PIXELS)
