"""The anomalies that judge a model without test labels: where they are, how their masks come about, what each does."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.unseen_anomalies import (
    KINDS,
    LARGE,
    MIN_PIXELS,
    OBVIOUS,
    SMALL,
    Place,
    Scene,
    draw_place,
    make_unseen_anomalies,
    mix,
    visible_change,
)

SIZE = 96


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Coloured waves with noise, uint8 (4, S, S, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    waves = [np.sin(2 * np.pi * (k * x + (k + 1) * y))[..., None] * np.array([60, 40, 20]) for k in range(4)]
    return (128 + np.stack(waves) + rng.normal(0, 3, (4, SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def textures() -> np.ndarray:
    """uint8 (3, 3, S, S): planes."""
    return np.random.default_rng(1).integers(0, 256, (3, 3, SIZE, SIZE), dtype=np.uint8)


@pytest.fixture(scope="module")
def everywhere() -> np.ndarray:
    return np.ones((4, SIZE, SIZE), np.uint8)


def disc(radius: float, centre: tuple[int, int] = (SIZE // 2, SIZE // 2)) -> Place:
    y, x = np.mgrid[:SIZE, :SIZE]
    inside = np.hypot(x - centre[0], y - centre[1]) <= radius
    return Place(inside[..., None].astype(np.float32), centre, radius)


def test_every_image_gets_each_kind_once(images, everywhere, textures):
    made, masks, kinds = make_unseen_anomalies(images, everywhere, textures, seed=0)
    assert made.shape == (4 * len(KINDS), SIZE, SIZE, 3) and made.dtype == np.uint8
    assert masks.shape == (4 * len(KINDS), SIZE, SIZE) and masks.dtype == np.uint8
    assert kinds == 4 * list(KINDS)
    assert len(KINDS) == 8


def test_masks_are_where_the_image_was_changed(images, everywhere, textures):
    made, masks, _ = make_unseen_anomalies(images, everywhere, textures, seed=0)
    assert set(np.unique(masks)) == {0, 1}
    for index, (changed, mask) in enumerate(zip(made, masks, strict=True)):
        np.testing.assert_array_equal(mask, visible_change(images[index // len(KINDS)], changed))
        assert MIN_PIXELS <= mask.sum() < 0.5 * mask.size


def test_the_seed_decides_all(images, everywhere, textures):
    first, again, other = (make_unseen_anomalies(images, everywhere, textures, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    known = {image.tobytes() for image in first[0]}
    assert not any(image.tobytes() in known for image in other[0])


def test_grey_images_get_grey_anomalies(images, everywhere, textures):
    grey = np.repeat(images[..., :1], 3, axis=-1)
    made, _, kinds = make_unseen_anomalies(grey, everywhere, textures, seed=0)
    assert {"texture", "smudge"} <= set(kinds)  # which would be coloured
    assert (made == made[..., :1]).all()
    coloured, _, _ = make_unseen_anomalies(images, everywhere, textures, seed=0)
    assert (coloured != coloured[..., :1]).any()


def test_what_cannot_be_seen_is_left_out(everywhere, textures):
    flat = np.full((4, SIZE, SIZE, 3), 100, np.uint8)  # a part of one cloned into another changes nothing
    _, _, kinds = make_unseen_anomalies(flat, everywhere, textures, seed=0)
    assert not {"paste", "warp"} & set(kinds)
    assert kinds.count("scratch") == 4


def test_without_images_there_are_no_anomalies(textures):
    made, masks, kinds = make_unseen_anomalies(
        np.zeros((0, SIZE, SIZE, 3), np.uint8), np.zeros((0, SIZE, SIZE), np.uint8), textures, seed=0
    )
    assert made.shape == (0, SIZE, SIZE, 3) and masks.shape == (0, SIZE, SIZE) and kinds == []


def test_obvious_ones_differ_much(images, everywhere, textures):
    made, masks, kinds = make_unseen_anomalies(images, everywhere, textures, seed=0, sort=OBVIOUS)
    assert len(made) >= 12 and set(kinds) == set(OBVIOUS.kinds)
    origins = [int(np.abs(images.astype(int) - one).mean(axis=(1, 2, 3)).argmin()) for one in made]
    for origin, changed, mask in zip(origins, made, masks, strict=True):
        assert np.abs(images[origin].astype(int) - changed).max(axis=2)[mask == 1].mean() >= OBVIOUS.contrast
    weaker, _, _ = make_unseen_anomalies(images, everywhere, textures, seed=0, sort=OBVIOUS._replace(contrast=0))
    assert any((one != other).any() for one, other in zip(made, weaker, strict=False))


# Places


def test_places_are_centred_in_the_foreground():
    foreground = np.zeros((SIZE, SIZE), np.uint8)
    foreground[20:30, 60:70] = 1
    for seed in range(50):
        x, y = draw_place(foreground, np.random.default_rng(seed)).centre
        assert foreground[y, x] == 1


def test_an_empty_foreground_means_anywhere():
    centres = {draw_place(np.zeros((SIZE, SIZE), np.uint8), np.random.default_rng(s)).centre for s in range(50)}
    assert len(centres) > 40


@pytest.mark.parametrize("limits", [SMALL.areas, LARGE.areas])
def test_areas_are_spread_evenly_in_the_logarithm(limits):
    foreground = np.ones((SIZE, SIZE), np.uint8)
    radii = np.array([draw_place(foreground, np.random.default_rng(seed), limits).radius for seed in range(400)])
    areas = np.pi * radii**2 / SIZE**2
    assert areas.min() >= limits[0] and areas.max() <= limits[1]
    middle = np.sqrt(limits[0] * limits[1])
    assert np.median(areas) == pytest.approx(middle, rel=0.35)  # of 400: a standard error of 0.11 in the logarithm


def test_a_regions_area_is_about_that_of_its_disc():
    foreground = np.zeros((256, 256), np.uint8)
    foreground[128, 128] = 1  # far from the border
    places = [draw_place(foreground, np.random.default_rng(seed)) for seed in range(100)]
    shares = [place.weight.sum() / (np.pi * place.radius**2) for place in places if place.radius > 8]
    assert 0.9 < np.mean(shares) < 1.4  # the outline's bulges and dents: 1 + half their mean square, at most 1.18
    assert all(place.weight.min() >= 0 and place.weight.max() <= 1 for place in places)


# Masks


def test_a_change_of_one_pixel_is_not_visible():
    before = np.full((SIZE, SIZE, 3), 100, np.uint8)
    after = before.copy()
    after[40, 40] = 150  # 50 levels, spread by a Gaussian of sigma 1.5: 3.5 at its peak
    assert visible_change(before, after).sum() == 0


def test_a_square_in_one_channel_is_visible():
    before = np.full((SIZE, SIZE, 3), 100, np.uint8)
    after = before.copy()
    after[30:50, 40:60, 1] = 116  # its outline halves that to 8, no more than what is visible
    expected = np.zeros((SIZE, SIZE), np.uint8)
    expected[30:50, 40:60] = 1
    found = visible_change(before, after)
    assert (found != expected).sum() <= 12  # rounded corners
    assert found[:30].sum() == found[50:].sum() == 0


# Kinds


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", ["texture", "paste", "smudge", "missing", "grain"])
def test_outside_the_place_nothing_changes(kind, images, textures):
    place = disc(15)
    for seed in range(10):
        scene = Scene(images[0].astype(np.float32), place, images[1], np.moveaxis(textures[0], 0, -1))
        changed = KINDS[kind](scene, rng(seed))
        outside = place.weight[..., 0] == 0
        np.testing.assert_allclose(changed[outside], images[0][outside], atol=1e-3)
        assert np.abs(changed - images[0]).max() > 5


def test_a_texture_shines_through_in_one_proportion(textures):
    image = np.zeros((SIZE, SIZE, 3), np.float32)
    texture = np.moveaxis(textures[0], 0, -1)
    changed = KINDS["texture"](Scene(image, disc(15), image, texture), rng())
    bright = (disc(15).weight > 0) & (texture > 50)
    shares = changed[bright] / texture[bright]
    assert np.ptp(shares) < 1e-3 and 0.2 <= shares[0] <= 1


def test_a_scratch_is_lighter_or_darker_by_one_amount():
    image = np.full((SIZE, SIZE, 3), 128, np.float32)
    signs = set()
    for seed in range(20):
        change = KINDS["scratch"](Scene(image, disc(15), image, image), rng(seed)) - image
        assert 20 <= np.abs(change).max() <= 100
        assert (change >= 0).all() or (change <= 0).all()
        assert 5 < (change != 0).any(axis=2).sum() < 0.1 * SIZE * SIZE  # thin
        signs.add(bool(change.max() > 0))
    assert signs == {True, False}


def test_a_missing_part_shows_the_border_or_what_is_around_it():
    image = np.full((SIZE, SIZE, 3), 200, np.float32)
    image[[0, -1]] = image[:, [0, -1]] = 10
    image[38:58, 38:58] = 90  # the part
    means = [
        KINDS["missing"](Scene(image, disc(16), image, image), rng(seed))[44:52, 44:52].mean().round()
        for seed in range(20)
    ]
    assert {abs(mean - 10) < 2 for mean in means} == {True, False}
    assert all(abs(mean - 10) < 2 or abs(mean - 200) < 5 for mean in means)


def test_a_warp_moves_pixels_near_its_centre_alone():
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    image = np.stack([x, y, 0 * x], axis=-1)  # each pixel holds its own place
    for seed in range(20):
        changed = KINDS["warp"](Scene(image, disc(6), image, image), rng(seed))
        moved = np.hypot(*(changed - image)[..., :2].transpose(2, 0, 1))
        far = np.hypot(x - SIZE // 2, y - SIZE // 2) > 40
        assert moved[far].max() < 0.2
        assert 1 < moved.max() < 15


def test_a_spot_is_lighter_or_darker_by_a_factor():
    image = np.full((SIZE, SIZE, 3), 100, np.float32)
    peaks = []
    for seed in range(30):
        change = KINDS["spot"](Scene(image, disc(15), image, image), rng(seed)) / 100
        peaks.append(change[SIZE // 2, SIZE // 2, 0])
        assert np.abs(change[:5] - 1).max() < 1e-3
    peaks = np.array(peaks)
    assert (peaks > 1.1).any() and (peaks < 0.9).any()
    assert np.exp(-0.6) - 1e-3 <= peaks.min() and peaks.max() <= np.exp(0.6) + 1e-3


def test_grain_smooths_or_roughens(images):
    rough = [
        np.diff(KINDS["grain"](Scene(images[0].astype(np.float32), disc(15), images[1], images[0]), rng(seed)), axis=1)[
            40:56, 40:56
        ].std()
        for seed in range(20)
    ]
    before = np.diff(images[0].astype(np.float32), axis=1)[40:56, 40:56].std()
    assert min(rough) < 0.8 * before and max(rough) > 1.2 * before


def test_mix_weighs_the_other():
    assert mix(np.float32(10), np.uint8(20), 0.25) == pytest.approx(12.5)
