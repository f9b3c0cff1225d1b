"""From files to batches: what is decoded of them, which image comes when, and what is drawn for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datasets import open_dataset
from datasets.base import DataError, Sample, load_image, load_mask
from datasets.foreground import fg_mask_path, foreground_mask, rule_for
from datasets.loading import (
    SyntheticAnomalies,
    epoch_batches,
    epoch_seed,
    evaluation_files,
    hold_out,
    image_files,
    spread_masks,
    stored_foregrounds,
    texture_files,
    training_files,
)
from tests.support.trees import make_mvtec, write_image

SIZE = 32


def indices(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    return [batch.tolist() for batch in epoch_batches(count, batch_size, seed, epoch)]


def left_half() -> Tensor:
    foreground = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    foreground[:, : SIZE // 2] = 1
    return foreground


def make_anomalies(count: int = 6, **options) -> SyntheticAnomalies:
    """Image i is grey i, textures are noise; the foreground is the left half."""
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].repeat(1, SIZE, SIZE, 4)
    images[..., 3] = left_half()
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, SIZE, SIZE), dtype=np.uint8)
    return SyntheticAnomalies(images, torch.from_numpy(noise), **({"batch_size": 4, "seed": 0} | options))


def whole_epoch(anomalies: SyntheticAnomalies, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.cat(parts) for parts in zip(*anomalies.epoch(epoch), strict=True))


def masks_by_image(images: Tensor, masks: Tensor, foregrounds: Tensor) -> dict[int, list]:
    return {int(image[0, 0, -1]): mask.tolist() for image, mask in zip(images, masks, strict=True)}


def same(ones: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


# Batches


@pytest.mark.parametrize(("count", "batch_size", "sizes"), [(10, 4, [4, 4, 2]), (9, 4, [4, 4, 1]), (3, 16, [3])])
def test_every_index_comes_once_an_epoch(count, batch_size, sizes):
    for epoch in range(1, 4):
        found = indices(count, batch_size, seed=0, epoch=epoch)
        assert [len(batch) for batch in found] == sizes
        assert sorted(sum(found, [])) == list(range(count))


def test_the_order_follows_seed_and_epoch_alone():
    first = [indices(20, 4, 5, epoch) for epoch in (1, 2, 3)]
    assert first[0] != first[1] != first[2] != first[0]
    np.random.seed(1)
    torch.manual_seed(1)
    assert indices(20, 4, 5, 2) == indices(20, 4, 5, 2) == first[1]  # whatever was drawn before and elsewhere
    assert indices(20, 4, 6, 1) != first[0]
    assert sum(indices(20, 5, 5, 1), []) == sum(first[0], [])  # a batch size only cuts the order


def test_epochs_and_seeds_have_seeds_of_their_own():
    seeds = [epoch_seed(seed, epoch) for seed in range(4) for epoch in range(50)]
    assert len(set(seeds)) == 200
    assert all(isinstance(value, int) and 0 <= value < 2**32 for value in seeds)
    assert epoch_seed(1, 2) != epoch_seed(2, 1)
    np.random.seed(1)
    assert [epoch_seed(seed, epoch) for seed in range(4) for epoch in range(50)] == seeds


# What is held out


def numbered(count: int) -> list[Sample]:
    return [Sample(Path(f"{number:03d}.png"), 0, "good") for number in range(count)]


@pytest.mark.parametrize(("count", "share", "held"), [(20, 0.1, 2), (26, 0.1, 3), (3, 0.1, 1), (2, 0.5, 1)])
def test_a_share_is_held_out_and_at_least_one(count, share, held):
    everything = numbered(count)
    train, held_out = hold_out(everything, share)
    assert len(held_out) == held
    assert sorted(train + held_out, key=everything.index) == everything
    assert train == sorted(train, key=everything.index) and held_out == sorted(held_out, key=everything.index)


def test_the_choice_is_drawn_and_always_the_same():
    held_out = hold_out(numbered(100), 0.1)[1]
    assert held_out == hold_out(numbered(100), 0.1)[1]
    assert held_out not in (numbered(100)[:10], numbered(100)[-10:], numbered(100)[::10])


@pytest.mark.parametrize(("count", "share"), [(1, 0.1), (2, 0.9)])
def test_some_must_be_left_to_train_on(count, share):
    with pytest.raises(DataError, match=f"{count} training images are too few"):
        hold_out(numbered(count), share)


# Synthetic anomalies


def test_the_same_epoch_gives_the_same_anomalies():
    anomalies = make_anomalies()
    first = [whole_epoch(anomalies, epoch) for epoch in (1, 2)]
    np.random.seed(2)
    torch.manual_seed(2)
    assert same(whole_epoch(anomalies, 2), first[1])
    assert same(whole_epoch(make_anomalies(), 1), first[0])
    for other in (first[1], whole_epoch(make_anomalies(seed=1), 1)):
        masks, others = (masks_by_image(*epoch) for epoch in (first[0], other))
        assert sorted(masks) == sorted(others) == list(range(6))
        assert sum(masks[image] != others[image] for image in masks) >= 3  # clean ones are the same
        assert not torch.equal(first[0][1], other[1])  # it is not just the images that come in another order


@pytest.mark.parametrize("batch_size", [1, 6, 16])
def test_how_many_are_made_at_once_changes_no_bit(batch_size):
    expected = list(make_anomalies().epoch(3))
    assert [len(batch[0]) for batch in expected] == [4, 2]
    found = make_anomalies(batch_size=batch_size)
    assert same(whole_epoch(found, 3), tuple(torch.cat(parts) for parts in zip(*expected, strict=True)))


def test_anomalies_stay_inside_the_foreground():
    anomalies = make_anomalies()
    before, painted = anomalies.images.clone(), 0
    for epoch in range(1, 6):
        order = torch.cat(list(epoch_batches(6, 4, 0, epoch)))
        images, masks, foregrounds = whole_epoch(anomalies, epoch)
        assert (images.dtype, masks.dtype, foregrounds.dtype) == (torch.uint8,) * 3
        assert (images.shape, masks.shape, foregrounds.shape) == ((6, 3, 32, 32), (6, 1, 32, 32), (6, 1, 32, 32))
        assert set(masks.unique().tolist()) <= {0, 1}
        assert torch.equal(foregrounds[:, 0], left_half().expand(6, -1, -1))
        assert not masks[..., SIZE // 2 :].any()
        untouched = order.to(torch.uint8)[:, None, None, None].expand_as(images)  # image i is grey i
        assert torch.equal(images.where(masks == 0, 0), untouched.where(masks == 0, 0))
        with_anomaly = masks.flatten(1).any(1)
        assert torch.equal((images != untouched).flatten(1).any(1), with_anomaly)
        painted += int(with_anomaly.sum())
    assert 15 <= painted < 30  # of 30; one in five stays clean, some masks have too few pixels
    assert torch.equal(anomalies.images, before)


# Files


def training_paths(root):
    return [sample.image_path for sample in open_dataset(make_mvtec(root)).samples("bottle", "train")]


def test_images_and_textures_are_decoded_as_rgb(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    paths = [write_image(tmp_path / "a.png", pixels), write_image(tmp_path / "b.png", pixels)]
    expected = np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    images, textures = image_files(paths), texture_files(paths)
    assert images.paths == textures.paths == tuple(paths)
    assert (images.shape(SIZE), textures.shape(SIZE)) == ((2, SIZE, SIZE, 3), (2, 3, SIZE, SIZE))
    np.testing.assert_array_equal(images.load(paths[0], SIZE), expected)
    np.testing.assert_array_equal(textures.load(paths[0], SIZE), np.stack([expected[..., plane] for plane in range(3)]))


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
            content = files.load(path, size)
            assert content.dtype == np.uint8
            np.testing.assert_array_equal(content[..., :3], load_image(path, size))
            np.testing.assert_array_equal(content[..., 3], (stored // 255 if index == 1 else made)[pick, pick])
    without = training_files(paths, "mvtec", "bottle", None)
    made = foreground_mask(load_image(paths[1]), rule_for("mvtec", "bottle"))
    np.testing.assert_array_equal(without.load(paths[1], SIZE)[..., 3], made)
    assert without.depends_on != training_files(paths, "mvtec", "carpet", None).depends_on


def test_foregrounds_are_made_at_the_images_full_size(tmp_path):
    pixels = np.zeros((160, 160, 3), np.uint8)
    pixels[:, 80:] = 200
    path = write_image(tmp_path / "000.png", pixels)
    foreground = training_files([path], "mvtec", "pill", None).load(path, 16)[..., 3]  # grey above 50
    # 200 * Phi(x / 8) passes 50 at 5.4 before the edge: the 8th of 16 columns, sampled at pixel 75, has foreground
    assert foreground.sum(axis=0).tolist() == [0] * 7 + [16] * 9


def test_a_foreground_of_another_size_is_refused(tmp_path):
    paths = training_paths(tmp_path / "data")
    stored = write_image(fg_mask_path(tmp_path, "mvtec", "bottle", paths[0]), np.zeros((8, 8), np.uint8))
    files = training_files(paths, "mvtec", "bottle", tmp_path)
    with pytest.raises(DataError, match=f"{stored} has 8x8 pixels, its image {paths[0]} 32x32"):
        files.load(paths[0], SIZE)


def test_masks_belong_to_their_samples(tmp_path):
    samples = open_dataset(make_mvtec(tmp_path)).samples("bottle", "test")
    samples = samples[::2] + samples[1::2]  # good and anomalous ones mixed
    images, masks = evaluation_files(samples)
    assert images.paths == tuple(sample.image_path for sample in samples)
    assert masks.paths == tuple(sample.mask_path for sample in samples if sample.label)
    assert masks.shape(SIZE) == (len(masks.paths), SIZE, SIZE)
    read = torch.stack([torch.from_numpy(masks.load(path, SIZE).copy()) for path in masks.paths])
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
