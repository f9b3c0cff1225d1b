"""Metrics against values worked out by hand, slow references over all thresholds, and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.support.metric_references import (
    random_case,
    random_sizes,
    slow_ap,
    slow_area,
    slow_aupro,
    slow_auroc,
    slow_f1_max,
    slow_pixel_metrics,
)
from tests.support.single_metrics import image_ap, image_auroc, image_f1_max, pixel_ap, pixel_auroc, pixel_f1_max
from utils.metrics import METRICS, aupro, aupro_per_image, evaluate, image_roc_curve, pixel_curves

CASES = [(seed, num_values) for seed in range(12) for num_values in (2, 5, 30, 10_000)]


# ---- By hand ---------------------------------------------------------------------------------------------------------


def test_image_auroc_by_hand():
    # pairs (anomalous, good): (3, 1) and (3, 2) won, (2, 1) won, (2, 2) half
    assert image_auroc(np.array([0, 1, 0, 1]), np.array([1.0, 3.0, 2.0, 2.0])) == 3.5 / 4


def test_pixel_auroc_by_hand():
    masks = np.array([[[0, 1]], [[0, 1]]])
    assert pixel_auroc(masks, np.array([[[1, 3]], [[2, 2]]])) == 3.5 / 4


def test_aupro_weights_regions_equally():
    # Scores fall from left to right. Found by then: the region of 1 pixel, 2 false pixels of 10, the region of 4, the
    # other 8 false ones. PRO is 1/2 up to FPR 0.2, then 1; weighted by pixels it would be 1/5.
    masks = np.array([[[1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]]])
    maps = np.arange(15, 0, -1.0).reshape(1, 1, 15)
    assert aupro(masks, maps) == pytest.approx((0.2 * 0.5 + 0.1 * 1) / 0.3, abs=1e-15)
    assert aupro(masks, maps, fpr_limit=0.2) == pytest.approx(0.5, abs=1e-15)
    assert aupro(masks, maps, fpr_limit=1.0) == pytest.approx(0.2 * 0.5 + 0.8, abs=1e-15)


def test_aupro_interpolates_at_the_limit():
    # One region of 2 pixels; one of them scores 9 alone, the other shares the score 5 with 4 of 10 false pixels: the
    # curve rises from (0, 1/2) to (0.4, 1), so it is 0.875 at 0.3.
    masks = np.array([[[1, 1] + 10 * [0]]])
    maps = np.array([[[9, 5] + 4 * [5] + 6 * [1]]], dtype=float)
    assert aupro(masks, maps) == pytest.approx((0.5 + 0.875) / 2, abs=1e-15)


def test_aupro_with_a_corner_exactly_at_the_limit():
    # 3 of 10 false pixels score highest, then the region: nothing of it is found below FPR 0.3, all of it above.
    masks = np.array([[[1] + 10 * [0]]])
    maps = np.array([[[5] + 3 * [9] + 7 * [1]]], dtype=float)
    assert aupro(masks, maps) == 0.0
    assert aupro(masks, maps, fpr_limit=0.6) == pytest.approx(0.5, abs=1e-15)


def test_tied_scores_enter_together():
    # The anomalous pixel shares its score with 1 of 2 false ones: a straight line from (0, 0) to (0.5, 1).
    masks, maps = np.array([[[1, 0, 0]]]), np.array([[[2.0, 2.0, 1.0]]])
    assert aupro(masks, maps) == pytest.approx(0.3, abs=1e-15)  # triangle 0.3 x 0.6 / 2, over 0.3
    assert pixel_auroc(masks, maps) == 0.75


def test_regions_that_touch_diagonally_are_one():
    # One region of 2 pixels, the first found at once and the other last, and one of 1 pixel, found at once: before
    # any false pixel, PRO is (1/2 + 1) / 2. Three regions of 1 pixel would give 2/3.
    masks, maps = np.zeros((1, 4, 4), int), np.ones((1, 4, 4))
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 3, 3] = 1
    maps[0, 0, 0], maps[0, 1, 1], maps[0, 3, 3] = 3, 0, 2
    assert aupro(masks, maps) == pytest.approx(0.75, abs=1e-15)


def test_regions_of_different_images_do_not_touch():
    masks = np.array([[[1, 0]], [[1, 0]], [[1, 1]]])  # 1 + 1 + 2 pixels in 3 regions, the first found at once
    maps = np.array([[[3.0, 1.0]], [[0.0, 1.0]], [[0.0, 0.0]]])
    assert aupro(masks, maps) == pytest.approx(1 / 3, abs=1e-15)


def test_fpr_counts_the_pixels_of_good_images():
    # The anomalous image alone: 1 of 1 false pixel precedes the region. With a good image of 9 calm pixels: 1 of 10.
    anomalous_mask, anomalous_map = np.array([[[1, 0]]]), np.array([[[5.0, 9.0]]])
    assert aupro(anomalous_mask, anomalous_map) == 0.0
    good_mask, good_map = np.zeros((4, 1, 2), int), np.ones((4, 1, 2))
    masks = np.concatenate([anomalous_mask, good_mask, [[[0, 0]]]])  # 11 defect-free pixels
    maps = np.concatenate([anomalous_map, good_map, [[[1.0, 1.0]]]])
    assert aupro(masks, maps) == pytest.approx((0.3 - 1 / 11) / 0.3, abs=1e-15)


def test_ap_by_hand():
    # From the top: anomalous (precision 1, recall 1/2), good, anomalous (2/3, recall 1), good.
    labels, scores = np.array([0, 1, 0, 1]), np.array([1.0, 4.0, 3.0, 2.0])
    assert image_ap(labels, scores) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3, abs=1e-15)
    assert pixel_ap(labels.reshape(2, 1, 2), scores.reshape(2, 1, 2)) == image_ap(labels, scores)


def test_ap_of_tied_scores_by_hand():
    # One anomalous and two good ones share the highest score: precision 1/3, recall 1/2; then 2/4, recall 1.
    labels, scores = np.array([1, 0, 0, 1, 0]), np.array([9.0, 9.0, 9.0, 5.0, 1.0])
    assert image_ap(labels, scores) == pytest.approx(1 / 2 * 1 / 3 + 1 / 2 * 2 / 4, abs=1e-15)


def test_f1_max_by_hand():
    # F1 = 2 found / (flagged + 3): from the top 2/4, 2/5, 4/6, 4/7, 6/8, 6/9. The best is not the highest precision.
    labels, scores = np.array([1, 0, 1, 0, 1, 0]), np.array([6, 5, 4, 3, 2, 1])
    assert image_f1_max(labels, scores) == pytest.approx(6 / 8, abs=1e-15)
    assert pixel_f1_max(labels.reshape(1, 2, 3), scores.reshape(1, 2, 3)) == image_f1_max(labels, scores)


def test_f1_max_of_tied_scores_by_hand():
    # The four at 5 enter together: 2/(1 + 3) before them, 6/(5 + 3) with them. Apart, 6/(3 + 3) could seem possible.
    assert image_f1_max(np.array([1, 1, 1, 0, 0, 0]), np.array([9, 5, 5, 5, 5, 1])) == pytest.approx(6 / 8, abs=1e-15)


def test_aupro_per_image_by_hand():
    # Minimum 0, maximum 200: the thresholds are 0, 1, ..., 199. 10 defect-free pixels; a region of two, at 200 and 180,
    # and one of one, at 100. From the top: the region of two, a false pixel at 150, the region of one, a false pixel
    # at 50, seven at 10 (FPR 0.9, dropped). FPR 0, 0.1, 0.2 become 0, 1/2, 1: PRO is 1/2 up to 1/2, then 1.
    mask = np.array([[1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    image = np.array([[200, 180, 150, 100, 50, 10, 10, 10, 10, 10, 10, 10, 0]])
    assert aupro_per_image(mask[None], image[None]) == pytest.approx(1 / 2 * 1 / 2 + 1 / 2 * 1, abs=1e-15)


def test_aupro_per_image_flags_what_is_strictly_above():
    # At the threshold 150 the second region (150.5) is flagged and the false pixel of 150 is not: PRO is 1 from FPR 0.
    mask = np.array([[1, 0, 1] + 9 * [0]])
    image = np.array([[200, 0, 150.5, 150] + 8 * [0]])
    assert aupro_per_image(mask[None], image[None]) == 1


def test_aupro_per_image_drops_the_limit_itself_and_averages_over_images():
    # Two regions of one pixel, 10 defect-free pixels. Image 0: the second region enters with two false pixels at FPR
    # 0.3, which is dropped: PRO stays 1/2. Image 1: PRO is 1 before the first false pixel. Image 2 is good, and in
    # image 3 no threshold but the lowest lets a false pixel in: neither counts, as 0 or otherwise.
    mask = np.array([[1, 0, 1] + 9 * [0]])
    masks = np.stack([mask, mask, mask * 0, mask])
    rows = [[200, 180, 150, 150, 150], [200, 100, 190, 0, 0], [200, 180, 150, 150, 150], [200, 0, 0, 0, 0]]
    maps = np.array([[row + 7 * [0]] for row in rows])
    assert aupro_per_image(masks, maps) == pytest.approx((1 / 2 + 1) / 2, abs=1e-15)


# ---- Against slow references and scikit-learn ------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "num_values"), CASES)
def test_pixel_metrics_equal_brute_force(seed, num_values):
    masks, maps = random_case(seed, num_values)
    for limit in (0.05, 0.77, 1.0):
        assert aupro(masks, maps, limit) == pytest.approx(slow_aupro(masks, maps, limit), abs=1e-12)
    labels = masks.any(axis=(1, 2))
    metrics = evaluate(labels, maps.max(axis=(1, 2)), masks, maps)
    pixel_metrics = {name: value for name, value in metrics.items() if not name.startswith("image_")}
    assert pixel_metrics == pytest.approx(slow_pixel_metrics(masks, maps), abs=1e-12)


@pytest.mark.parametrize("num_values", [2, 7, 1000])
def test_image_metrics_equal_brute_force(num_values):
    rng = np.random.default_rng(num_values)
    for _ in range(20):
        labels = rng.permutation(np.arange(30) % rng.integers(2, 6) == 0).astype(int)
        scores = rng.integers(-num_values, num_values, 30) / 3 + labels
        assert image_auroc(labels, scores) == pytest.approx(slow_auroc(labels, scores), abs=1e-12)
        assert image_ap(labels, scores) == pytest.approx(slow_ap(labels, scores), abs=1e-12)
        assert image_f1_max(labels, scores) == pytest.approx(slow_f1_max(labels, scores), abs=1e-12)


@pytest.mark.parametrize("num_values", [3, 100, 10**9])
def test_auroc_and_ap_equal_scikit_learn(num_values):
    rng = np.random.default_rng(num_values)
    scores = rng.integers(0, num_values, 5000) / num_values
    labels = (rng.random(5000) < 0.3 + 0.3 * scores).astype(int)
    masks, maps = labels.reshape(5, 20, 50), scores.reshape(5, 20, 50)
    for ours, of_pixels, theirs in (
        (image_auroc, pixel_auroc, roc_auc_score),
        (image_ap, pixel_ap, average_precision_score),
    ):
        expected = theirs(labels, scores)
        assert ours(labels, scores) == pytest.approx(expected, abs=1e-12)
        assert of_pixels(masks, maps) == pytest.approx(expected, abs=1e-12)


def test_evaluate_equals_the_single_functions():
    masks, maps = random_case(seed=3, num_values=20)
    labels, scores = masks.any(axis=(1, 2)).astype(int), maps.max(axis=(1, 2))
    metrics = evaluate(labels, scores, masks, maps)
    assert (metrics["aupro"], metrics["aupro_per_image"]) == (aupro(masks, maps), aupro_per_image(masks, maps))
    assert tuple(metrics) == METRICS
    assert all(type(value) is float for value in metrics.values())


def test_curves_to_draw_have_the_areas_of_the_metrics():
    masks, maps = random_case(seed=1, num_values=10_000)
    labels, scores = masks.any(axis=(1, 2)), np.array([0.3, 0.1, 0.4, 0.5])
    curves = pixel_curves(masks, maps)
    assert curves.keys() == {"roc", "pro"}
    for curve, expected in (
        (curves["roc"], pixel_auroc(masks, maps)),
        (curves["pro"], aupro(masks, maps, fpr_limit=1.0)),
        (image_roc_curve(labels, scores), 2 / 3),
    ):
        assert [ends.tolist() for ends in (curve[0][[0, -1]], curve[1][[0, -1]])] == [[0, 1], [0, 1]]
        assert slow_area(*curve, limit=1.0) == pytest.approx(expected, abs=1 / 200)


# ---- Images of different sizes ---------------------------------------------------------------------------------------


def test_lists_of_equal_sizes_equal_the_array():
    masks, maps = random_case(seed=2, num_values=30)
    labels, scores = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))
    expected = evaluate(labels, scores, masks, maps)
    for some_masks in (masks, list(masks), tuple(masks.astype(bool)), masks.tolist()):
        for some_maps in (maps, list(maps), tuple(maps)):
            assert evaluate(labels, scores, some_masks, some_maps) == expected


@pytest.mark.parametrize("num_values", [4, 9, 10_000])
@pytest.mark.parametrize("seed", range(4))
def test_different_sizes_equal_brute_force(seed, num_values):
    masks, maps = random_sizes(seed, num_values)
    labels = np.array([mask.any() for mask in masks])
    metrics = evaluate(labels, np.arange(5.0), masks, maps)
    pixel_metrics = {name: value for name, value in metrics.items() if not name.startswith("image_")}
    expected = slow_pixel_metrics(masks, maps)
    assert pixel_metrics == pytest.approx(expected, abs=1e-12)
    assert (metrics["aupro"], metrics["aupro_per_image"]) == (aupro(masks, maps), aupro_per_image(masks, maps))
