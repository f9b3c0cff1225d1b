"""From images to batches: which comes when, what is held out, and what is painted on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.base import DataError, Sample
from datasets.batches import SyntheticAnomalies, epoch_batches, epoch_seed, hold_out

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
