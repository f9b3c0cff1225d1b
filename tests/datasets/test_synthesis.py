"""Synthetic anomalies: golden Perlin noise and statistics, blending, redraws, and that only the draws decide."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.anomalies import synthesis
from datasets.anomalies.synthesis import (
    ANOMALY_DRAWS,
    blend,
    draw_anomalies,
    synthesise_anomalies,
)
from datasets.anomalies.textures import list_textures
from datasets.base import load_image
from tests.support.draws import make_candidates, row

GOLDEN = Path(__file__).parents[1] / "support" / "golden"
SHARED = Path(__file__).parents[3] / "shared" / "data"
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


# ------------------------------------------------------------------------------------------------- the whole anomaly


def _draw_many(images, textures, count):
    """Clean share, coverage of the anomalous masks, and mean change inside each mask in normalised units."""
    generator, size = torch.Generator().manual_seed(0), images.shape[-1]
    coverages, changes = [], []
    for start in range(0, count, 20):
        batch = images[torch.arange(start, start + 20) % len(images)]
        foregrounds = torch.ones(20, size, size, dtype=torch.uint8)
        painted, masks = synthesise_anomalies(batch, foregrounds, textures, draw_anomalies(20, generator))
        for before, after, mask in zip(batch, painted, masks, strict=True):
            if mask.any():
                coverages.append(mask.float().mean().item())
                change = (after.float() - before.float()).abs() / 255 / IMAGENET_STD
                changes.append(change[mask.expand_as(change) > 0].mean().item())
    return 1 - len(coverages) / count, np.array(coverages), np.array(changes)


def _assert_masks_match(clean_share, coverages, golden):
    assert clean_share == pytest.approx(golden["clean_share"], abs=0.03)
    assert np.median(coverages) == pytest.approx(golden["coverage_quantiles"]["50"], rel=0.15)
    for quantile in ("5", "25", "75", "95"):  # wider: the tails of 1,500 draws are noisy
        assert np.quantile(coverages, int(quantile) / 100) == pytest.approx(
            golden["coverage_quantiles"][quantile], rel=0.25
        )


def planes(paths):
    return torch.from_numpy(np.stack([load_image(path, 256) for path in paths])).permute(0, 3, 1, 2).contiguous()


@pytest.mark.skipif(not (SHARED / "dtd/images").is_dir(), reason="needs the real photographs")
def test_statistics_match_golden_on_real_images():
    images = planes(sorted((SHARED / "mvtec/bottle/train/good").iterdir())[:24])
    golden = json.loads((GOLDEN / "synthesis.json").read_text())
    clean_share, coverages, changes = _draw_many(images, planes(list_textures(SHARED / "dtd/images")), 1500)
    _assert_masks_match(clean_share, coverages, golden)
    expected = golden["change_inside_mask_normalised_units"]
    assert changes.mean() == pytest.approx(expected["mean"], rel=0.15)
    for quantile in ("25", "50", "75"):
        assert np.quantile(changes, int(quantile) / 100) == pytest.approx(expected["quantiles"][quantile], rel=0.15)


def test_mask_statistics_match_golden_on_any_images():
    images = torch.full((20, 3, 256, 256), 128, dtype=torch.uint8)
    textures = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    clean_share, coverages, _ = _draw_many(images, textures, 1500)
    _assert_masks_match(clean_share, coverages, json.loads((GOLDEN / "synthesis.json").read_text()))


def make_batch(count=6, size=64):
    """Random images, foregrounds of ones, and three textures."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(0, 256, (count + 3, 3, size, size), dtype=torch.uint8, generator=generator)
    return values[:count], torch.ones(count, size, size, dtype=torch.uint8), values[count:]


def test_the_draws_alone_decide_whatever_the_batch():
    images, foregrounds, textures = make_batch(12)
    draws = draw_anomalies(12, torch.Generator().manual_seed(5))
    whole = synthesise_anomalies(images, foregrounds, textures, draws)
    again = synthesise_anomalies(images, foregrounds, textures, draws)
    for part in (0, 1):
        assert torch.equal(whole[part], again[part])
    for size in (1, 5):
        batches = [part.split(size) for part in (images, foregrounds, draws)]
        made = [synthesise_anomalies(i, f, textures, d) for i, f, d in zip(*batches, strict=True)]
        for part in (0, 1):
            assert torch.equal(whole[part], torch.cat([batch[part] for batch in made]))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(7))
    mixed = synthesise_anomalies(images[order], foregrounds[order], textures, draws[order])
    for part in (0, 1):
        assert torch.equal(mixed[part], whole[part][order])
    other = synthesise_anomalies(images, foregrounds, textures, draw_anomalies(12, torch.Generator().manual_seed(6)))
    assert not torch.equal(whole[1], other[1])


def test_a_batch_takes_the_generators_numbers_in_order():
    generator = torch.Generator().manual_seed(5)
    halves = torch.cat([draw_anomalies(5, generator), draw_anomalies(7, generator)])
    assert torch.equal(halves, draw_anomalies(12, torch.Generator().manual_seed(5)))


def test_whole_textures_give_the_same_as_chosen_pixels(monkeypatch):
    # On CUDA everything is made of whole images.
    images, foregrounds, textures = make_batch(40)
    draws = draw_anomalies(40, torch.Generator().manual_seed(2))
    chosen, masks = synthesise_anomalies(images, foregrounds, textures, draws)
    monkeypatch.setattr(synthesis, "selects_pixels", lambda device: False)
    whole, same_masks = synthesise_anomalies(images, foregrounds, textures, draws)
    assert torch.equal(masks, same_masks)
    assert torch.equal(chosen, whole)


def test_outputs_and_inputs():
    images, foregrounds, textures = make_batch(40)
    copies = images.clone(), textures.clone()
    foregrounds[:, :, 32:] = 0
    painted, masks = synthesise_anomalies(images, foregrounds, textures, draw_anomalies(40, torch.Generator()))
    assert (painted.dtype, painted.shape) == (torch.uint8, (40, 3, 64, 64))
    assert (masks.dtype, masks.shape) == (torch.uint8, (40, 1, 64, 64))
    assert set(masks.unique().tolist()) == {0, 1}
    assert not masks[..., 32:].any()
    outside = masks.expand_as(painted) == 0
    assert torch.equal(painted[outside], images[outside])
    changed = (painted != images).any(dim=1)
    assert changed[masks[:, 0] > 0].float().mean() > 0.9
    assert 1 < (masks.flatten(1).any(dim=1) == 0).sum() < 20  # one in five stays clean
    painted[:] = 0  # must not reach the inputs
    assert torch.equal(images, copies[0])
    assert torch.equal(textures, copies[1])


def test_images_of_any_memory_layout():
    images, foregrounds, textures = make_batch()
    draws = draw_anomalies(6, torch.Generator().manual_seed(1))
    expected = synthesise_anomalies(images, foregrounds, textures, draws)
    with_foregrounds = torch.cat([images, foregrounds[:, None]], dim=1)
    for layout in (images.contiguous(memory_format=torch.channels_last), with_foregrounds[:, :3]):
        assert torch.equal(synthesise_anomalies(layout, foregrounds, textures, draws)[0], expected[0])


def test_blend_by_hand():
    image = torch.tensor([100, 0, 255], dtype=torch.uint8)
    texture = torch.tensor([200, 50, 5], dtype=torch.uint8)
    assert blend(image, texture, torch.tensor(0.2)).tolist() == [180, 40, 55]
    assert blend(image, texture, torch.tensor([1.0, 0.0, 0.5])).tolist() == [100, 50, 130]


def test_image_weight_is_uniform_up_to_0_8():
    # A texture that stays white, on black: inside the mask it is 255 * (1 - weight).
    black, foregrounds = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.ones(1, 64, 64, dtype=torch.uint8)
    changes = ("posterise", "equalise", "autocontrast")  # of a white texture: white, but for posterise's dropped bits
    values = []
    for draw in (0.0, 0.25, 0.5, 0.99999):
        draws = row(weight=draw, first_changes=changes)
        values.append(synthesise_anomalies(black, foregrounds, black + 255, draws)[0].max().item())
    shades = np.array(values) / values[0]
    assert shades == pytest.approx([1, 0.8, 0.6, 0.2], abs=0.01)


def test_one_in_five_is_clean_and_the_texture_is_chosen_by_its_draw():
    images, foregrounds, _ = make_batch(1)
    assert not synthesise_anomalies(images, foregrounds, images, row(clean=0.1999))[1].any()
    assert synthesise_anomalies(images, foregrounds, images, row(clean=0.2001))[1].any()

    class Textures:
        """Notes which textures are asked for."""

        dtype, shape, asked = images.dtype, (3, *images.shape[1:]), []

        def __len__(self):
            return 3

        def __getitem__(self, positions):
            self.asked += positions.tolist()
            return images[torch.zeros_like(positions)]

    textures = Textures()
    for draw in (0.0, 0.34, 0.67, 0.99999):
        synthesise_anomalies(images, foregrounds, textures, row(texture=draw))
    assert textures.asked == [0, 1, 2, 2]


def test_ten_redraws_without_a_mask_leave_the_image_clean(monkeypatch):
    made = make_candidates(monkeypatch, lambda nth: 4)
    images, foregrounds, textures = make_batch(1, size=8)
    painted, masks = synthesise_anomalies(images, foregrounds, textures, row())
    assert len(made) == 11
    assert not masks.any()
    assert torch.equal(painted, images)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda i, f, t, d: (i, f, t[..., :32], d), r"textures \(T, 3, 64, 64\)"),
        (lambda i, f, t, d: (i, f, t[:0], d), "textures"),
        (lambda i, f, t, d: (i, f[:, :32], t, d), r"foregrounds \(N, H, W\)"),
        (lambda i, f, t, d: (i / 255, f, t, d), "uint8"),
        (lambda i, f, t, d: (i, f, t, d[:1]), f"draws \\(6, {ANOMALY_DRAWS}\\)"),
    ],
)
def test_wrong_inputs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        synthesise_anomalies(*change(*make_batch(), torch.zeros(6, ANOMALY_DRAWS)))
