"""Metrics against values worked out by hand, a slow reference over all thresholds, and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from utils.metrics import UndefinedMetric, aupro, evaluate, image_auroc, pixel_auroc


def find_regions(masks: np.ndarray) -> list[list[tuple[int, int, int]]]:
    """8-connected regions by flood fill, each a list of (image, row, column)."""
    left = {tuple(int(i) for i in index) for index in np.argwhere(masks)}
    regions = []
    while left:
        todo, region = [left.pop()], []
        while todo:
            n, row, column = todo.pop()
            region.append((n, row, column))
            near = {(n, row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            todo += near
        regions.append(region)
    return regions


def slow_aupro(masks: np.ndarray, maps: np.ndarray, limit: float) -> float:
    """Every threshold, every region, by the definition."""
    regions, normal = find_regions(masks), masks == 0
    fpr, pro = [0.0], [0.0]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        flagged = maps >= threshold
        fpr.append(flagged[normal].mean())
        pro.append(np.mean([np.mean([flagged[pixel] for pixel in region]) for region in regions]))
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr[:-1], fpr[1:], pro[:-1], pro[1:], strict=True):
        stop = min(x1, limit)
        if x0 < stop:
            y_stop = y0 + (y1 - y0) * (stop - x0) / (x1 - x0)
            area += (stop - x0) * (y0 + y_stop) / 2
    return area / limit


def slow_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Share of the pairs in which the anomalous one scores higher, equal ones counting one half."""
    positives, negatives = scores[labels == 1], scores[labels == 0]
    wins = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    return float(np.mean(wins))


def random_case(seed: int, num_values: int) -> tuple[np.ndarray, np.ndarray]:
    """masks and maps (4, 7, 6); `num_values` different scores, so that few means many ties; image 0 is good."""
    rng = np.random.default_rng(seed)
    masks = (rng.random((4, 7, 6)) < rng.uniform(0.05, 0.4)).astype(np.uint8)
    masks[0] = 0
    masks[1, 2, 3] = 1
    maps = rng.integers(0, num_values, masks.shape) / num_values + 0.3 * masks * rng.integers(0, 2)
    return masks, maps.astype(np.float32)


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


# ---- Against slow references and scikit-learn ------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "num_values"), CASES)
def test_pixel_metrics_equal_brute_force(seed, num_values):
    masks, maps = random_case(seed, num_values)
    for limit in (0.05, 0.3, 0.77, 1.0):
        assert aupro(masks, maps, limit) == pytest.approx(slow_aupro(masks, maps, limit), abs=1e-12)
    assert pixel_auroc(masks, maps) == pytest.approx(slow_auroc(masks, maps), abs=1e-12)


@pytest.mark.parametrize("num_values", [3, 100, 10**9])
def test_auroc_equals_scikit_learn(num_values):
    rng = np.random.default_rng(num_values)
    scores = rng.integers(0, num_values, 5000) / num_values
    labels = (rng.random(5000) < 0.3 + 0.3 * scores).astype(int)
    expected = roc_auc_score(labels, scores)
    assert image_auroc(labels, scores) == pytest.approx(expected, abs=1e-12)
    shape = (5, 20, 50)
    assert pixel_auroc(labels.reshape(shape), scores.reshape(shape)) == pytest.approx(expected, abs=1e-12)


def test_evaluate_equals_the_single_functions():
    masks, maps = random_case(seed=3, num_values=20)
    labels, scores = masks.any(axis=(1, 2)).astype(int), maps.max(axis=(1, 2))
    assert evaluate(labels, scores, masks, maps) == {
        "image_auroc": image_auroc(labels, scores),
        "pixel_auroc": pixel_auroc(masks, maps),
        "aupro": aupro(masks, maps),
    }


# ---- Properties ------------------------------------------------------------------------------------------------------


def test_perfect_is_one_and_reversed_is_zero():
    masks, _ = random_case(seed=0, num_values=5)
    noise = np.random.default_rng(0).random(masks.shape)
    labels = masks.any(axis=(1, 2))
    perfect, reversed_ = masks * 2 + noise, noise - masks * 2
    assert evaluate(labels, labels * 1.0, masks, perfect) == {"image_auroc": 1.0, "pixel_auroc": 1.0, "aupro": 1.0}
    assert evaluate(labels, labels * -1.0, masks, reversed_) == {"image_auroc": 0.0, "pixel_auroc": 0.0, "aupro": 0.0}


def test_constant_scores_are_chance():
    masks, _ = random_case(seed=0, num_values=5)
    maps, labels = np.full(masks.shape, 0.7), masks.any(axis=(1, 2))
    assert image_auroc(labels, np.full(4, 0.7)) == 0.5
    assert pixel_auroc(masks, maps) == 0.5
    assert aupro(masks, maps) == pytest.approx(0.15, abs=1e-15)
    assert aupro(masks, maps, fpr_limit=1.0) == 0.5


@pytest.mark.parametrize("num_values", [5, 10_000])
def test_order_of_images_and_scale_of_scores_do_not_matter(num_values):
    masks, maps = random_case(seed=7, num_values=num_values)
    labels, scores = np.array([0, 1, 0, 1, 1, 0]), np.array([0.1, 0.4, 0.4, 0.9, 0.2, 0.3])
    order = np.array([2, 0, 3, 1])
    for metric in (pixel_auroc, aupro):
        expected = metric(masks, maps)
        assert metric(masks[order], maps[order]) == pytest.approx(expected, abs=1e-12)
        assert metric(masks, np.exp(3 * maps.astype(float)) - 100) == pytest.approx(expected, abs=1e-12)
    assert image_auroc(labels[::-1], scores[::-1]) == image_auroc(labels, scores) == image_auroc(labels, scores**3 - 5)


def test_inputs_are_left_alone_and_any_real_type_works():
    masks, maps = random_case(seed=5, num_values=30)
    expected = {aupro(masks, maps), aupro(masks.astype(bool), maps), aupro(masks.astype(float), maps.astype(float))}
    assert len(expected) == 1
    levels = np.rint(maps * 100).astype(np.uint8)
    assert aupro(masks, levels) == aupro(masks, levels.astype(np.float64))
    assert aupro(np.asfortranarray(masks), maps[:, ::1]) == expected.pop()
    masks_before, maps_before = masks.copy(), maps.copy()
    evaluate(masks.any(axis=(1, 2)), maps.max(axis=(1, 2)), masks, maps)
    assert (masks == masks_before).all()
    assert (maps == maps_before).all()


# ---- What cannot be computed, and wrong calls ------------------------------------------------------------------------


def test_undefined_metrics_raise():
    for labels in ([0, 0, 0], [1, 1, 1], []):
        with pytest.raises(UndefinedMetric, match="anomalous and normal images"):
            image_auroc(np.array(labels), np.zeros(len(labels)))
    for mask in (0, 1):
        for metric in (pixel_auroc, aupro):
            with pytest.raises(UndefinedMetric, match="anomalous and normal pixels"):
                metric(np.full((2, 3, 3), mask), np.zeros((2, 3, 3)))


def test_evaluate_leaves_undefined_metrics_out():
    maps, labels, scores = np.random.default_rng(0).random((3, 4, 4)), np.array([0, 1, 1]), np.array([0.0, 1.0, 2.0])
    masks = np.zeros((3, 4, 4), int)
    assert evaluate(labels, scores, None, maps) == {"image_auroc": 1.0}
    assert evaluate(labels, scores, masks, maps) == {"image_auroc": 1.0}  # no anomalous pixel
    assert evaluate(labels * 0, scores, masks, maps) == {}
    masks[:, 0, 0] = 1
    assert evaluate(labels * 0 + 1, scores, masks, maps).keys() == {"pixel_auroc", "aupro"}


def test_nan_and_infinity_are_named():
    maps = np.zeros((5, 4, 4))
    masks = np.zeros((5, 4, 4), int)
    masks[1, 0, 0] = 1
    maps[1, :2, 0], maps[3, 2, 2], maps[3, 3, 3] = np.nan, np.inf, -np.inf
    labels, scores = np.array([0, 1, 0, 0, 0]), np.arange(5.0)
    message = r"anomaly_maps: 2 NaN and 2 infinite values, in images 1, 3 "
    for call in (
        lambda: pixel_auroc(masks, maps),
        lambda: aupro(masks, maps),
        lambda: evaluate(labels, scores, masks, maps),
        lambda: evaluate(labels, scores, None, maps),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    scores[4] = np.nan
    for call in (lambda: image_auroc(labels, scores), lambda: evaluate(labels, scores, None, np.zeros_like(maps))):
        with pytest.raises(ValueError, match="scores: 1 NaN and 0 infinite values, in image 4 "):
            call()


def test_many_images_are_not_all_listed():
    with pytest.raises(ValueError, match=r"12 NaN .* 8, 9 and 2 more"):
        image_auroc(np.arange(12) % 2, np.full(12, np.nan))


def test_wrong_shapes_are_named():
    labels, masks, maps = np.array([0, 1]), np.zeros((2, 4, 4), int), np.zeros((2, 4, 4))
    masks[1, 0, 0] = 1
    for call, message in (
        (lambda: image_auroc(labels, np.zeros(3)), r"scores: expected shape \(2,\).* got \(3,\)"),
        (lambda: image_auroc(labels[:, None], np.zeros(2)), r"labels: expected shape \(N,\), got \(2, 1\)"),
        (lambda: aupro(masks, maps[:, None]), r"anomaly_maps: expected shape \(N, H, W\), got \(2, 1, 4, 4\)"),
        (lambda: aupro(masks[:1], maps), r"masks: expected shape \(2, 4, 4\).* got \(1, 4, 4\)"),
        (lambda: pixel_auroc(masks, maps[0]), r"anomaly_maps: expected shape \(N, H, W\), got \(4, 4\)"),
        (lambda: evaluate(labels[:1], np.zeros(1), None, maps), r"expected shape \(1, 4, 4\).* got \(2, 4, 4\)"),
        (lambda: evaluate(labels, np.zeros(2), masks[:, :2], maps), r"masks: .*got \(2, 2, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_wrong_values_are_named():
    labels, masks, maps = np.array([0, 1]), np.zeros((2, 4, 4), int), np.zeros((2, 4, 4))
    masks[1, 0, 0] = 1
    for call, message in (
        (lambda: aupro(masks * 255, maps), "masks: expected 0 and 1 only, got 255 in image 1 "),
        (lambda: image_auroc(labels * 2 - 1, np.zeros(2)), "labels: expected 0 and 1 only, got -1 in image 0 "),
        (lambda: aupro(masks, maps, fpr_limit=0.0), "fpr_limit .* got 0.0"),
        (lambda: aupro(masks, maps, fpr_limit=30), "fpr_limit .* got 30"),
        (lambda: aupro(masks, maps, fpr_limit=float("nan")), "fpr_limit .* got nan"),
        (lambda: image_auroc(labels, np.array(["a", "b"])), "scores: expected real numbers"),
        (lambda: evaluate(1 - labels, np.zeros(2), masks, maps), r"label is 0 \(good\), in image 1 "),
    ):
        with pytest.raises(ValueError, match=message):
            call()
