"""From files to batches: which image comes when, what is drawn for it, and masks that belong to their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import open_dataset
from datasets.base import DataError, Sample, load_image, load_mask
from datasets.foreground import fg_mask_path, foreground_mask, rule_for
from datasets.loading import (
    EpochBatches,
    NormalImages,
    SyntheticAnomalies,
    check_readable,
    load_foregrounds,
    load_masks,
    load_stack,
    make_loader,
)
from tests.trees import make_folder, make_mvtec, write_image

SIZE = 32


def draws(batches: EpochBatches, epoch: int) -> list[list[int]]:
    batches.epoch = epoch
    epochs, indices = zip(*[zip(*batch, strict=True) for batch in batches], strict=True)
    assert {e for batch in epochs for e in batch} == {epoch}
    return [list(batch) for batch in indices]


def make_anomalies(count: int = 3, seed: int = 0) -> SyntheticAnomalies:
    """Black images, white textures: whatever is not black was painted. The foreground is the left half."""
    images = torch.zeros(count, SIZE, SIZE, 3, dtype=torch.uint8)
    foregrounds = torch.zeros(count, SIZE, SIZE, dtype=torch.uint8)
    foregrounds[:, :, : SIZE // 2] = 1
    noise = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    return SyntheticAnomalies(images, foregrounds, torch.from_numpy(noise), seed)


# Batches


@pytest.mark.parametrize(("count", "batch_size", "sizes"), [(10, 4, [4, 4, 2]), (9, 4, [4, 4, 1]), (3, 16, [3])])
def test_every_index_comes_once_an_epoch(count, batch_size, sizes):
    batches = EpochBatches(count, batch_size, seed=0)
    for epoch in range(1, 4):
        found = draws(batches, epoch)
        assert [len(batch) for batch in found] == sizes
        assert sorted(index for batch in found for index in batch) == list(range(count))
    assert len(batches) == len(sizes)


def test_the_order_follows_seed_and_epoch_alone():
    batches = EpochBatches(20, 4, seed=5)
    first = [draws(batches, epoch) for epoch in (1, 2, 3)]
    assert first[0] != first[1] != first[2] != first[0]
    np.random.seed(1)
    torch.manual_seed(1)
    assert draws(batches, 2) == draws(batches, 2) == first[1]  # whatever was drawn before and elsewhere
    assert draws(EpochBatches(20, 4, seed=5), 3) == first[2]
    assert draws(EpochBatches(20, 4, seed=6), 1) != first[0]
    assert sum(draws(EpochBatches(20, 5, seed=5), 1), []) == sum(first[0], [])  # a batch size only cuts the order


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_gives_the_epoch_that_was_set(workers):
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 2, 2, 3)
    loader = make_loader(NormalImages(images), batch_size=4, seed=0, workers=workers)
    batches = EpochBatches(6, 4, seed=0)
    for epoch in (1, 2, 1):
        loader.batch_sampler.epoch = epoch
        found = list(loader)
        assert [batch.shape for batch in found] == [(4, 3, 2, 2), (2, 3, 2, 2)]
        assert [batch[:, 0, 0, 0].tolist() for batch in found] == draws(batches, epoch)


def test_normal_images_are_as_they_were():
    images = torch.arange(2 * 2 * 2 * 3, dtype=torch.uint8).view(2, 2, 2, 3)
    dataset = NormalImages(images)
    assert len(dataset) == 2
    assert torch.equal(dataset[7, 1], images[1].permute(2, 0, 1))


# Synthetic anomalies


def test_the_same_draw_gives_the_same_item():
    anomalies = make_anomalies()
    np.random.seed(2)
    first = [anomalies[epoch, index] for epoch in (1, 2) for index in range(3)]
    again = [make_anomalies()[epoch, index] for epoch in (1, 2) for index in range(3)]
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert len({bytes(image.numpy()) for image, _, _ in first}) >= 4  # one in five is clean, the others all differ
    assert any(not torch.equal(anomalies[1, i][0], make_anomalies(seed=1)[1, i][0]) for i in range(3))


def test_workers_make_the_same_items():
    batches = []
    for workers in (0, 2):
        loader = make_loader(make_anomalies(5), batch_size=2, seed=0, workers=workers)
        loader.batch_sampler.epoch = 4
        batches.append(list(loader))
    for one, other in zip(*batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_anomalies_stay_inside_the_foreground():
    anomalies = make_anomalies()
    painted = 0
    for epoch in range(20):
        image, mask, foreground = anomalies[epoch, epoch % 3]
        assert (image.dtype, mask.dtype, foreground.dtype) == (torch.uint8,) * 3
        assert (image.shape, mask.shape, foreground.shape) == ((3, SIZE, SIZE), (1, SIZE, SIZE), (1, SIZE, SIZE))
        assert set(mask.unique().tolist()) <= {0, 1}
        assert not mask[:, :, SIZE // 2 :].any()
        assert not image[:, mask[0] == 0].any()
        assert torch.equal(foreground, anomalies.foregrounds[epoch % 3][None])
        painted += int(mask.any())
    assert 10 <= painted < 20
    assert not anomalies.images.any()  # the originals are as they were


# Foregrounds


def test_foregrounds_are_read_where_they_are_stored(tmp_path):
    paths = [s.image_path for s in open_dataset(make_mvtec(tmp_path / "data")).samples("bottle", "train")]
    stored = np.zeros((SIZE, SIZE), np.uint8)
    stored[3:9, 20:30] = 255
    write_image(fg_mask_path(tmp_path / "fg", "mvtec", "bottle", paths[1]), stored)
    found, made = load_foregrounds(paths, "mvtec", "bottle", tmp_path / "fg", SIZE, workers=2)
    assert made == 2
    assert (found.dtype, found.shape) == (torch.uint8, (3, SIZE, SIZE))
    np.testing.assert_array_equal(found[1], stored // 255)
    for index in (0, 2):
        expected = foreground_mask(load_image(paths[index]), rule_for("mvtec", "bottle"))
        np.testing.assert_array_equal(found[index], expected)
    half, _ = load_foregrounds(paths, "mvtec", "bottle", tmp_path / "fg", SIZE // 2, workers=1)
    assert set(half.unique().tolist()) == {0, 1}
    np.testing.assert_array_equal(half[1], stored[1::2, 1::2] // 255)


def test_a_foreground_of_another_size_is_refused(tmp_path):
    paths = [s.image_path for s in open_dataset(make_mvtec(tmp_path / "data")).samples("bottle", "train")]
    stored = write_image(fg_mask_path(tmp_path, "mvtec", "bottle", paths[0]), np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match=f"{stored} has 8x8 pixels, its image {paths[0]} 32x32"):
        load_foregrounds(paths, "mvtec", "bottle", tmp_path, SIZE, workers=1)


# Stacks and masks


def test_stacks_keep_the_order_of_the_paths(tmp_path):
    paths = [write_image(tmp_path / f"{n}.png", np.full((4, 6, 3), 10 * n, np.uint8)) for n in range(9)]
    stack = load_stack(paths[::-1], 8, workers=3)
    assert (stack.dtype, stack.shape) == (torch.uint8, (9, 8, 8, 3))
    assert stack[:, 0, 0, 0].tolist() == [80, 70, 60, 50, 40, 30, 20, 10, 0]
    with pytest.raises(DataError, match="absent.png"):
        load_stack([*paths, tmp_path / "absent.png"], 8, workers=3)


def test_masks_belong_to_their_samples(tmp_path):
    samples = open_dataset(make_mvtec(tmp_path)).samples("bottle", "test")
    masks = load_masks(samples, SIZE, workers=2)
    assert (masks.dtype, masks.shape) == (torch.uint8, (len(samples), SIZE, SIZE))
    for sample, mask in zip(samples, masks, strict=True):
        expected = load_mask(sample.mask_path) if sample.label else np.zeros((SIZE, SIZE))
        np.testing.assert_array_equal(mask, expected)
    assert not load_masks([s for s in samples if not s.label], SIZE, workers=1).any()


def test_no_masks_if_an_anomalous_image_has_none(tmp_path):
    samples = open_dataset(make_mvtec(tmp_path / "a")).samples("bottle", "test")
    maskless = Sample(samples[0].image_path, label=1, defect="dent")
    assert load_masks([*samples, maskless], SIZE, workers=1) is None
    samples = open_dataset(make_folder(tmp_path / "b", with_masks=False)).samples("widget", "test")
    assert load_masks(samples, SIZE, workers=1) is None


def test_check_readable_names_every_file_that_is_not(tmp_path):
    paths = [write_image(tmp_path / f"{n}.png", np.zeros((9, 9), np.uint8)) for n in range(4)]
    check_readable(paths, workers=2)
    paths[1].write_bytes(paths[1].read_bytes()[:40])
    Image.new("RGB", (5, 5)).save(tmp_path / "cut.jpg")
    broken_jpeg = tmp_path / "cut.jpg"
    broken_jpeg.write_bytes(broken_jpeg.read_bytes()[:-200])
    broken: list[Path] = [paths[1], broken_jpeg, tmp_path / "absent.png"]
    with pytest.raises(DataError, match="3 of 6 files cannot be used") as caught:
        check_readable([*paths, *broken[1:]], workers=2)
    assert all(str(path) in str(caught.value) for path in broken)
    assert str(paths[0]) not in str(caught.value)
