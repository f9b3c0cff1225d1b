"""Metrics of single data sets against values worked out by hand, slow references, and PRO where they must agree."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.saturation import Region
from tests.support.metric_references import find_regions, random_case, random_sizes, slow_spro
from utils.metrics import UndefinedMetric, aupro
from utils.metrics.extra import f1_above, spro

ROW = np.arange(16, 0, -1.0).reshape(1, 1, 16)  # a map whose scores fall from left to right


def region(pixels: list[int], share: float) -> Region:
    return Region(np.array(pixels, int), share)


def region_lists(masks) -> list[list[Region]]:
    """The 8-connected regions of each mask, each to be found whole."""
    lists = [[] for _ in masks]
    for found in find_regions(masks):
        image, width = found[0][0], np.shape(masks[found[0][0]])[1]
        lists[image].append(region([row * width + column for _, row, column in found], 1.0))
    return lists


def random_regions(seed: int, shapes: list[tuple[int, int]]) -> list[list[tuple[np.ndarray, float]]]:
    """Up to three masks an image, which overlap, each with a saturation threshold in pixels; image 0 is good."""
    rng = np.random.default_rng(seed)
    regions = [[]]
    for shape in shapes[1:]:
        masks = [rng.random(shape) < rng.uniform(0.1, 0.4) for _ in range(rng.integers(1, 4))]
        masks[0][0, 0] = True
        regions.append([(mask, rng.uniform(0.3, mask.sum())) for mask in masks if mask.any()])
    return regions


def test_spro_by_hand():
    # From the left: 1 false pixel of 10, the 4 pixels of a region that saturates at 2, 1 false pixel, 1 of the 2 pixels
    # of a region that saturates at 2, 1 false, the other one, 7 false. The sum of the two overlaps is 0 up to FPR 0.1,
    # then 1, from 0.2 on 3/2, from 0.3 on 2.
    regions = [[region([1, 2, 3, 4], 0.5), region([6, 8], 1.0)]]
    assert spro(regions, ROW, fpr_limit=0.1) == 0
    assert spro(regions, ROW, fpr_limit=0.2) == pytest.approx(0.1 * 0.5 / 0.2, abs=1e-15)
    assert spro(regions, ROW, fpr_limit=0.4) == pytest.approx((0.1 * 0.5 + 0.1 * 0.75 + 0.1) / 0.4, abs=1e-15)


def test_pixels_beyond_the_saturation_add_nothing():
    # The first 2 of 4 pixels are found at once. At FPR 0.5 the others change nothing: whole, they would.
    whole, half = ([[region([0, 1, 9, 10], share)]] for share in (1.0, 0.5))
    assert spro(half, ROW, fpr_limit=1.0) == 1
    assert spro(whole, ROW, fpr_limit=1.0) == pytest.approx(7 / 12 * 0.5 + 5 / 12, abs=1e-15)


def test_tied_scores_enter_together_up_to_the_saturation():
    # The 4 pixels of the region share their score with 3 of 12 false ones: a straight line from (0, 0) to (1/4, 1),
    # wherever the region saturates.
    maps = np.zeros((1, 1, 16))
    maps[..., :7] = 1
    for share in (0.3, 0.5, 1.0):
        assert spro([[region([0, 1, 2, 3], share)]], maps, fpr_limit=0.05) == pytest.approx(0.1, abs=1e-15)


def test_a_threshold_of_less_than_a_pixel_and_a_region_without_one():
    assert spro([[region([0, 15], 0.25)]], ROW) == 1
    assert spro([[region([0, 15], 0.25), region([], 0.5)]], ROW) == 1


def test_false_pixels_of_good_images_count():
    maps = np.concatenate([ROW, ROW + 9.5])  # 10 of the good image's pixels are above all others, of 31 false ones
    assert spro([[region([0], 1.0)], []], maps, fpr_limit=10 / 31) == 0
    assert spro([[region([0], 1.0)], []], maps, fpr_limit=20 / 31) == pytest.approx(0.5, abs=1e-15)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("num_values", [3, 30, 10_000])
def test_spro_equals_a_slow_reference(seed, num_values):
    _, maps = random_sizes(seed, num_values)
    regions = random_regions(seed, [image.shape for image in maps])
    given = [[Region(np.flatnonzero(mask), pixels / mask.sum()) for mask, pixels in some] for some in regions]
    for limit in (0.05, 0.3, 1.0):
        assert spro(given, maps, limit) == pytest.approx(slow_spro(regions, maps, limit), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("num_values", [3, 30, 10_000])
def test_spro_is_pro_where_regions_must_be_found_whole(seed, num_values):
    for masks, maps in (random_case(seed, num_values), random_sizes(seed, num_values)):
        for limit in (0.05, 0.3, 1.0):
            assert spro(region_lists(masks), maps, limit) == pytest.approx(aupro(masks, maps, limit), abs=1e-12)


def test_spro_is_at_most_1_in_spite_of_rounding():
    # All regions saturate before the first false pixel, and have one more pixel after the last.
    rng = np.random.default_rng(0)
    for count in range(1, 60):
        maps, pixels = 1 + rng.random(900), rng.choice(899, (count, 9), replace=False)
        maps[pixels] += 5
        maps[-1] = 0
        shares = rng.uniform(0.1, 0.8, count)
        regions = [Region(np.append(some, 899), share) for some, share in zip(pixels, shares, strict=True)]
        assert 1 - 1e-12 < spro([regions], maps.reshape(1, 30, 30), fpr_limit=1.0) <= 1


def test_spro_errors():
    regions = [[region([1], 1.0)]]
    for limit in (0, -1, 1.5, np.nan):
        with pytest.raises(ValueError, match="fpr_limit must be above 0 and at most 1"):
            spro(regions, ROW, limit)
    with pytest.raises(ValueError, match="regions: expected 1, a list per anomaly map, got 2"):
        spro(regions * 2, ROW)
    with pytest.raises(ValueError, match="NaN"):
        spro(regions, ROW * np.nan)
    for nothing in ([[]], [[region([], 1.0)]], [[region(list(range(16)), 1.0)]]):
        with pytest.raises(UndefinedMetric):
            spro(nothing, ROW)
    with pytest.raises(UndefinedMetric):
        spro([], [])


def test_f1_above_by_hand():
    # Above 10: the 6 pixels on the left, 2 of the 3 anomalous ones among them. A score equal to the threshold is not.
    masks = np.zeros((1, 1, 16), int)
    masks[0, 0, [1, 2, 9]] = 1
    assert f1_above(masks, ROW, 10) == pytest.approx(2 * 2 / (3 + 6), abs=1e-15)
    assert f1_above(masks, ROW, 99) == 0
    halves = [masks[0, :, :8], masks[0, :, 8:]], [ROW[0, :, :8], ROW[0, :, 8:]]
    assert f1_above(*halves, 10) == f1_above(masks, ROW, 10)
    with pytest.raises(UndefinedMetric):
        f1_above(masks * 0, ROW, 10)
