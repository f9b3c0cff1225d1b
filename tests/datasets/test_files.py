"""From files to arrays: what is decoded of them, and which belong together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import open_dataset
from datasets.base import FROM_DISK, DataError, Sample, load_image, load_mask
from datasets.files import evaluation_files, image_files, spread_masks, texture_files, training_files
from datasets.foreground import fg_mask_path, foreground_mask, rule_for, stored_foregrounds
from tests.support.trees import make_mvtec, write_image

SIZE = 32


def training_paths(root):
    return [sample.image_path for sample in open_dataset(make_mvtec(root)).samples("bottle", "train")]


def test_images_and_textures_are_decoded_as_rgb(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    paths = [write_image(tmp_path / "a.png", pixels), write_image(tmp_path / "b.png", pixels)]
    expected = np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    images, textures = image_files(paths), texture_files(paths)
    assert images.paths == textures.paths == tuple(paths)
    assert (images.shape(SIZE), textures.shape(SIZE)) == ((2, SIZE, SIZE, 3), (2, 3, SIZE, SIZE))
    np.testing.assert_array_equal(images.decode(paths[0], SIZE, FROM_DISK), expected[None])
    planes = np.stack([expected[..., plane] for plane in range(3)])
    np.testing.assert_array_equal(textures.decode(paths[0], SIZE, FROM_DISK), planes)


def test_training_images_come_with_their_foregrounds(tmp_path):
    paths = training_paths(tmp_path / "data")
    stored = np.zeros((SIZE, SIZE), np.uint8)
    stored[3:9, 20:30] = 255
    place = write_image(fg_mask_path(tmp_path / "fg", "mvtec", "bottle", paths[1]), stored)
    files = training_files(paths, "mvtec", "bottle", tmp_path / "fg")
    assert files.shape(SIZE) == (len(files.paths), SIZE, SIZE, 4)
    assert files.other_paths == (place,)
    assert stored_foregrounds(paths, "mvtec", "bottle", tmp_path / "fg") == [place]
    assert stored_foregrounds(paths, "mvtec", "bottle", None) == []
    for index, path in enumerate(paths):
        made = foreground_mask(load_image(path), rule_for("mvtec", "bottle"))
        for size, pick in ((SIZE, slice(None)), (SIZE // 2, slice(1, None, 2))):  # nearest: each second pixel
            [content] = files.decode(path, size, FROM_DISK)
            assert content.dtype == np.uint8
            np.testing.assert_array_equal(content[..., :3], load_image(path, size))
            np.testing.assert_array_equal(content[..., 3], (stored // 255 if index == 1 else made)[pick, pick])
    without = training_files(paths, "mvtec", "bottle", None)
    made = foreground_mask(load_image(paths[1]), rule_for("mvtec", "bottle"))
    np.testing.assert_array_equal(without.decode(paths[1], SIZE, FROM_DISK)[0, ..., 3], made)
    assert without.depends_on != training_files(paths, "mvtec", "carpet", None).depends_on


def test_foregrounds_are_made_at_the_images_full_size(tmp_path):
    pixels = np.zeros((160, 160, 3), np.uint8)
    pixels[:, 80:] = 200
    path = write_image(tmp_path / "000.png", pixels)
    [content] = training_files([path], "mvtec", "pill", None).decode(path, 16, FROM_DISK)
    foreground = content[..., 3]  # grey above 50
    # 200 * Phi(x / 8) passes 50 at 5.4 before the edge: the 8th of 16 columns, sampled at pixel 75, has foreground
    assert foreground.sum(axis=0).tolist() == [0] * 7 + [16] * 9


def test_a_foreground_of_another_size_is_refused(tmp_path):
    paths = training_paths(tmp_path / "data")
    stored = write_image(fg_mask_path(tmp_path, "mvtec", "bottle", paths[0]), np.zeros((8, 8), np.uint8))
    files = training_files(paths, "mvtec", "bottle", tmp_path)
    with pytest.raises(DataError, match=f"{stored} has 8x8 pixels, its image {paths[0]} 32x32"):
        files.decode(paths[0], SIZE, FROM_DISK)


def test_masks_belong_to_their_samples(tmp_path):
    samples = open_dataset(make_mvtec(tmp_path)).samples("bottle", "test")
    samples = samples[::2] + samples[1::2]  # good and anomalous ones mixed
    images, masks = evaluation_files(samples)
    assert images.paths == tuple(sample.image_path for sample in samples)
    assert masks.paths == tuple(sample.mask_path for sample in samples if sample.label)
    assert masks.shape(SIZE) == (len(masks.paths), SIZE, SIZE)
    read = torch.stack([torch.from_numpy(masks.decode(path, SIZE, FROM_DISK).copy()) for path in masks.paths])
    spread = spread_masks(samples, read)
    assert (spread.dtype, spread.shape) == (torch.uint8, (len(samples), SIZE, SIZE))
    assert {sample.label for sample in samples} == {0, 1}
    for sample, mask in zip(samples, spread, strict=True):
        np.testing.assert_array_equal(mask, load_mask(sample.mask_path) if sample.label else np.zeros((SIZE, SIZE)))


def test_good_images_alone_have_empty_masks_and_none_is_read(tmp_path):
    mask = write_image(tmp_path / "mask.png", np.full((SIZE, SIZE), 255, np.uint8))
    good = [Sample(tmp_path / f"{n}.png", label=0, defect="good", mask_path=mask if n else None) for n in range(3)]
    _, masks = evaluation_files(good)  # MVTec 3D-AD has masks of good images, too
    assert masks.paths == ()
    spread = spread_masks(good, torch.zeros(0, SIZE, SIZE, dtype=torch.uint8))
    assert torch.equal(spread, torch.zeros(3, SIZE, SIZE, dtype=torch.uint8))


def test_no_masks_if_an_anomalous_image_has_none(tmp_path):
    samples = open_dataset(make_mvtec(tmp_path)).samples("bottle", "test")
    with_one = [*samples, Sample(samples[0].image_path, label=1, defect="dent")]
    images, masks = evaluation_files(with_one)
    assert (len(images.paths), len(masks.paths)) == (6, 3)
    assert spread_masks(with_one, torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)) is None
