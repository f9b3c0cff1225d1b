"""Synthetic anomalies: golden Perlin noise and statistics, blending, redraws, and where the textures come from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from datasets import synthesis
from datasets.base import DataError, load_image
from tests.draws import Draws

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared" / "data"
IMAGENET_STD = np.array([0.229, 0.224, 0.225])


# ---------------------------------------------------------------------------------------------------------- the masks


@pytest.mark.parametrize("k, cells", list(enumerate([(1, 1), (4, 8), (32, 2), (16, 16)])))
def test_perlin_noise_matches_golden(k, cells):
    rows, columns = cells
    angles = 2 * np.pi * np.random.RandomState(100 + k).rand(rows + 1, columns + 1)
    noise = synthesis.perlin_noise((256, 256), cells, angles)
    assert noise.dtype == np.float32
    assert noise.shape == (256, 256)
    golden = np.load(GOLDEN / "perlin.npz")[f"noise_{rows}_{columns}"]
    np.testing.assert_allclose(noise[::9, ::9], golden, atol=1e-5)


def test_perlin_noise_by_hand():
    # All gradients point down the rows, so the noise depends on the row only; half-way in a cell (t = 0.5) both fade
    # weights are 0.5 and the offsets 0.5 and -0.5 cancel; at t = 0.25 fade is 0.103515625.
    noise = synthesis.perlin_noise((4, 6), (1, 2), np.zeros((2, 3)))
    quarter = math.sqrt(2) * ((1 - 0.103515625) * 0.25 + 0.103515625 * -0.75)
    np.testing.assert_allclose(noise, np.repeat([[0], [quarter], [0], [-quarter]], 6, axis=1), atol=1e-6)


def test_perlin_noise_refuses_angles_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(3, 5\)"):
        synthesis.perlin_noise((8, 8), (2, 4), np.zeros((2, 4)))


def test_perlin_mask_is_the_rotated_noise_above_a_half():
    angles = np.random.default_rng(1).uniform(0, 2 * np.pi, (3, 5))
    noise = synthesis.perlin_noise((64, 64), (2, 4), angles)
    upright = synthesis.perlin_mask(64, Draws(np.array([1, 2]), angles, 0.0))
    np.testing.assert_array_equal(upright, noise > 0.5)
    turned = synthesis.perlin_mask(64, Draws(np.array([1, 2]), angles, 90.0))
    assert (turned == np.rot90(noise > 0.5)).mean() > 0.999
    assert turned.dtype == np.uint8


def test_rotation_brings_in_zeros():
    rotated = synthesis._rotate(np.ones((64, 64), np.float32), 45)
    assert rotated[0, 0] == rotated[63, 63] == 0
    assert rotated[32, 32] == 1


def test_perlin_mask_draws_every_number_of_cells(monkeypatch):
    seen = set()
    monkeypatch.setattr(
        synthesis, "perlin_noise", lambda shape, cells, angles: seen.add(cells) or np.zeros(shape, np.float32)
    )
    rng = np.random.default_rng(0)
    for _ in range(400):
        synthesis.perlin_mask(32, rng)
    assert seen == {(2**i, 2**j) for i in range(6) for j in range(6)}


# ------------------------------------------------------------------------------------------------- the whole anomaly


def _draw_many(images, textures, count, seed=0):
    """Clean share, coverage of the anomalous masks, and mean change inside each mask in normalised units."""
    rng = np.random.default_rng(seed)
    size = images[0].shape[0]
    foreground = np.ones((size, size), np.uint8)
    coverages, changes = [], []
    for i in range(count):
        image, texture = images[i % len(images)], textures[rng.integers(len(textures))]
        painted, mask, label = synthesis.synthesise_anomaly(image, foreground, texture, rng)
        if label:
            coverages.append(mask.mean())
            change = np.abs(painted.astype(float) - image) / 255 / IMAGENET_STD
            changes.append(change[mask > 0].mean())
    return 1 - len(coverages) / count, np.array(coverages), np.array(changes)


def _assert_masks_match(clean_share, coverages, golden):
    assert clean_share == pytest.approx(golden["clean_share"], abs=0.03)
    assert np.median(coverages) == pytest.approx(golden["coverage_quantiles"]["50"], rel=0.15)
    for quantile in ("5", "25", "75", "95"):  # wider: the tails of 1,500 draws are noisy
        assert np.quantile(coverages, int(quantile) / 100) == pytest.approx(
            golden["coverage_quantiles"][quantile], rel=0.25
        )


@pytest.mark.skipif(not (SHARED / "dtd/images").is_dir(), reason="needs the real photographs")
def test_statistics_match_golden_on_real_images():
    images = [load_image(p, 256) for p in sorted((SHARED / "mvtec/bottle/train/good").iterdir())[:24]]
    textures = [load_image(p, 256) for p in synthesis.list_textures(SHARED / "dtd/images")]
    golden = json.loads((GOLDEN / "synthesis.json").read_text())
    clean_share, coverages, changes = _draw_many(images, textures, 1500)
    _assert_masks_match(clean_share, coverages, golden)
    expected = golden["change_inside_mask_normalised_units"]
    assert changes.mean() == pytest.approx(expected["mean"], rel=0.15)
    assert np.median(changes) == pytest.approx(expected["quantiles"]["50"], rel=0.15)


def test_mask_statistics_match_golden_on_any_images():
    images = [np.full((256, 256, 3), 128, np.uint8)]
    textures = [np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8)]
    clean_share, coverages, _ = _draw_many(images, textures, 1500)
    _assert_masks_match(clean_share, coverages, json.loads((GOLDEN / "synthesis.json").read_text()))


def _example(size=64):
    rng = np.random.default_rng(3)
    image, texture = rng.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    return image, np.ones((size, size), np.uint8), texture


def test_same_generator_same_anomaly():
    first, second = (synthesis.synthesise_anomaly(*_example(), np.random.default_rng(5)) for _ in range(2))
    assert first[2] == second[2] == 1
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    other = synthesis.synthesise_anomaly(*_example(), np.random.default_rng(6))
    assert (other[1] != first[1]).any()


def test_outputs_and_inputs():
    image, foreground, texture = _example()
    copies = image.copy(), texture.copy()
    foreground[:, 32:] = 0
    labels = []
    for seed in range(40):
        painted, mask, label = synthesis.synthesise_anomaly(image, foreground, texture, np.random.default_rng(seed))
        labels.append(label)
        assert painted.dtype == mask.dtype == np.uint8
        assert painted.shape == (64, 64, 3)
        assert mask.shape == (64, 64)
        assert set(np.unique(mask)) <= {0, 1}
        assert mask.any() == bool(label)
        assert not mask[:, 32:].any()
        np.testing.assert_array_equal(painted[mask == 0], image[mask == 0])
        painted[:] = 0  # must not reach the inputs
    assert set(labels) == {0, 1}
    np.testing.assert_array_equal(image, copies[0])
    np.testing.assert_array_equal(texture, copies[1])


def test_blend_by_hand():
    image = np.array([[[100, 0, 255], [7, 8, 9]]], np.uint8)
    texture = np.array([[[200, 50, 5], [99, 99, 99]]], np.uint8)
    blended = synthesis.blend(image, texture, np.array([[1, 0]], np.uint8), image_weight=0.2)
    np.testing.assert_array_equal(blended, [[[180, 40, 55], [7, 8, 9]]])


def test_image_weight_is_uniform_up_to_0_8(monkeypatch):
    # A white texture on black: inside the mask the value is 255 * (1 - weight).
    monkeypatch.setattr(synthesis, "change_texture", lambda texture, rng: texture)
    black, foreground, _ = _example()
    black[:] = 0
    rng = np.random.default_rng(0)
    values = [synthesis.synthesise_anomaly(black, foreground, black + 255, rng)[0].max() for _ in range(600)]
    weights = 1 - np.array([v for v in values if v > 0]) / 255
    assert weights.min() == pytest.approx(0, abs=0.02)
    assert weights.max() == pytest.approx(0.8, abs=0.02)
    assert weights.mean() == pytest.approx(0.4, abs=0.04)


def _count_masks(monkeypatch, masks):
    drawn = []
    monkeypatch.setattr(synthesis, "perlin_mask", lambda size, rng: drawn.append(size) or masks(len(drawn)))
    rng = np.random.default_rng(5)  # its first draw is an anomaly
    return drawn, synthesis.synthesise_anomaly(*_example(8), rng)


def test_small_masks_are_drawn_again(monkeypatch):
    def masks(nth):  # one pixel more each time: the fifth is the first with more than 4
        return (np.arange(64) < nth).reshape(8, 8).astype(np.uint8)

    drawn, (_, mask, label) = _count_masks(monkeypatch, masks)
    assert len(drawn) == 5
    assert mask.sum() == 5
    assert label == 1


def test_ten_redraws_without_a_mask_leave_the_image_clean(monkeypatch):
    four = (np.arange(64) < 4).reshape(8, 8).astype(np.uint8)
    drawn, (painted, mask, label) = _count_masks(monkeypatch, lambda nth: four)
    assert len(drawn) == 11
    assert label == 0
    assert not mask.any()
    np.testing.assert_array_equal(painted, _example(8)[0])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda i, f, t: (i, f, t[:32]), "one size"),
        (lambda i, f, t: (i, f[:32], t), "one size"),
        (lambda i, f, t: (i / 255, f, t), "uint8"),
    ],
)
def test_wrong_inputs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        synthesis.synthesise_anomaly(*change(*_example()), np.random.default_rng(0))


# ---------------------------------------------------------------------------------------------------- texture files


def _touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_list_textures_looks_below(tmp_path):
    wanted = [_touch(tmp_path / name) for name in ("a/1.jpg", "b/c/2.PNG", "z.tif")]
    for name in ("a/notes.txt", "a/.hidden.jpg"):
        _touch(tmp_path / name)
    assert synthesis.list_textures(tmp_path) == wanted


def test_list_textures_without_images(tmp_path):
    with pytest.raises(DataError, match="nowhere.*--aux_path"):
        synthesis.list_textures(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no texture image"):
        synthesis.list_textures(tmp_path)


def test_builtin_textures_are_photographs():
    paths = synthesis.list_textures("builtin")
    assert len(paths) >= 10
    assert all(load_image(path, 64).std() > 5 for path in paths)
    assert not {"brick", "grass", "gravel"} & {path.stem for path in paths}


@pytest.mark.parametrize("place", ["dtd/images", "DRAEM_dtd/dtd/images"])
def test_find_aux_path(tmp_path, place):
    root = tmp_path / "mvtec"
    root.mkdir()
    with pytest.raises(DataError, match="--aux_path builtin") as error:
        synthesis.find_aux_path(root)
    assert str(tmp_path / "dtd/images") in str(error.value)
    assert str(tmp_path / "DRAEM_dtd/dtd/images") in str(error.value)
    (tmp_path / place).mkdir(parents=True)
    assert synthesis.find_aux_path(root) == tmp_path / place


def test_find_aux_path_of_a_relative_and_a_linked_root(tmp_path, monkeypatch):
    (tmp_path / "disk/mvtec").mkdir(parents=True)
    (tmp_path / "disk/dtd/images").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk/mvtec")
    assert synthesis.find_aux_path(tmp_path / "link") == tmp_path / "disk/dtd/images"
    monkeypatch.chdir(tmp_path / "disk/mvtec")
    assert synthesis.find_aux_path(Path(".")) == tmp_path / "disk/dtd/images"
