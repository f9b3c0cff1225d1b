"""What holds for the metrics of any scores: properties, and equality with the slow references, on generated cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.metric_references import random_case, slow_ap, slow_auroc, slow_f1_max, slow_pixel_metrics
from utils.metrics import FPR_LIMIT, METRICS, aupro, aupro_per_image, evaluate

HIGHEST = 6  # integer scores 0..6: many ties
EQUIDISTANT = "aupro_per_image"  # its thresholds move with the scale of the scores
Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

generated = settings(max_examples=40, deadline=None, derandomize=True, database=None)


@st.composite
def cases(draw: st.DrawFn, highest: int = HIGHEST) -> Case:
    """labels and scores (N,), masks and maps (N, H, W) of integer scores; good and anomalous images and pixels."""
    count, height, width = (draw(st.integers(*limits)) for limits in ((2, 4), (1, 5), (2, 5)))
    labels = np.arange(count) % draw(st.integers(2, count)) == draw(st.integers(0, 1))
    size = count * height * width

    def draw_integers(largest: int, size: int) -> np.ndarray:
        return np.array(draw(st.lists(st.integers(0, largest), min_size=size, max_size=size)))

    masks = draw_integers(2, size).reshape(count, height, width) // 2
    masks[:, 0, 0] = 1
    masks[~labels] = 0
    return labels, draw_integers(highest, count), masks, draw_integers(highest, size).reshape(masks.shape)


tables = st.lists(st.integers(1, 10**6), min_size=HIGHEST + 1, max_size=HIGHEST + 1).map(np.cumsum)  # strictly rising


@generated
@given(cases())
def test_equal_to_brute_force(case):
    labels, scores, masks, maps = case
    of_images = {
        "image_auroc": slow_auroc(labels, scores),
        "image_ap": slow_ap(labels, scores),
        "image_f1_max": slow_f1_max(labels, scores),
    }
    expected = of_images | slow_pixel_metrics(masks, maps)
    assert evaluate(*case) == pytest.approx(expected, abs=1e-12)


@generated
@given(cases(highest=10**9))
def test_between_zero_and_one(case):
    metrics = evaluate(*case)
    assert metrics.keys() >= set(METRICS) - {EQUIDISTANT}
    assert all(0 <= value <= 1 for value in metrics.values())


@generated
@given(cases(), tables, st.integers(-(10**6), 10**6))
def test_only_the_order_of_the_scores_matters(case, table, offset):
    labels, scores, masks, maps = case
    table = table + offset
    before, after = evaluate(*case), evaluate(labels, table[scores], masks, table[maps].astype(np.float32))
    for metrics in (before, after):
        metrics.pop(EQUIDISTANT, None)
    assert after == before


@generated
@given(cases(), st.integers(-4, 10), st.integers(-100, 100))
def test_scale_and_offset_do_not_matter_to_aupro_per_image(case, power, offset):
    _, _, masks, maps = case
    expected = evaluate(*case).get(EQUIDISTANT)
    if expected is not None:
        assert aupro_per_image(masks, maps * 2.0**power + offset) == pytest.approx(expected, abs=1e-12)


@generated
@given(cases(), st.randoms(use_true_random=False))
def test_order_of_images_does_not_matter(case, random):
    order = random.sample(range(len(case[0])), len(case[0]))
    shuffled = evaluate(*(values[order] for values in case))
    assert shuffled == pytest.approx(evaluate(*case), abs=1e-12)


@generated
@given(cases())
def test_perfect_is_one(case):
    labels, scores, masks, maps = case
    metrics = evaluate(labels, scores + labels * (HIGHEST + 1), masks, maps + masks * (HIGHEST + 1))
    assert metrics.pop(EQUIDISTANT, 1.0) == pytest.approx(1, abs=1e-12)
    assert metrics == dict.fromkeys(set(METRICS) - {EQUIDISTANT}, 1.0)


def test_rounding_does_not_lift_aupro_per_image_above_one():
    maps = np.zeros((1, 30, 20))
    maps[0, -1, -1] = 100
    for size in range(1, 400):
        masks = np.arange(600).reshape(maps.shape) < size
        value = aupro_per_image(masks, maps + 200 * masks)
        assert 1 - 1e-12 <= value <= 1


@generated
@given(cases())
def test_reversed_is_zero(case):
    labels, scores, masks, maps = case
    metrics = evaluate(labels, scores - labels * (HIGHEST + 1), masks, maps - masks * (HIGHEST + 1))
    for name in ("image_auroc", "pixel_auroc", "aupro"):
        assert metrics[name] == 0.0
    assert metrics.get(EQUIDISTANT, 0.0) == 0.0


@generated
@given(cases(), st.floats(-(2.0**99), 2.0**99, width=32), st.floats(0.01, 1))
def test_constant_scores_are_chance(case, value, limit):
    labels, scores, masks, maps = case
    maps = np.full(maps.shape, value, np.float32)
    metrics = evaluate(labels, np.full(scores.shape, value), masks, maps)
    assert EQUIDISTANT not in metrics
    for what, prevalence in (("image", labels.mean()), ("pixel", masks.mean())):
        assert metrics[f"{what}_auroc"] == 0.5
        assert metrics[f"{what}_ap"] == pytest.approx(prevalence, abs=1e-15)
        assert metrics[f"{what}_f1_max"] == pytest.approx(2 * prevalence / (1 + prevalence), abs=1e-15)
    assert metrics["aupro"] == pytest.approx(FPR_LIMIT / 2, abs=1e-15)
    assert aupro(masks, maps, limit) == pytest.approx(limit / 2, abs=1e-15)


@generated
@given(cases(), st.floats(0.01, 0.99))
def test_pro_area_grows_with_the_limit(case, limit):
    # The curve never falls, so its mean height up to a limit does not either, and its area grows by at most the width.
    _, _, masks, maps = case
    low, high = aupro(masks, maps, limit), aupro(masks, maps, 1.0)
    assert low <= high + 1e-12
    assert high <= low * limit + (1 - limit) + 1e-12


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int8, np.int32])
def test_any_real_type_and_memory_order_gives_the_same(dtype):
    masks, maps = random_case(seed=5, num_values=100)
    labels, levels = masks.any(axis=(1, 2)), np.rint(maps * 90).astype(np.float64)
    scores = levels.max(axis=(1, 2))
    expected = evaluate(labels, scores, masks, levels)
    assert expected.keys() == set(METRICS)
    for mask_type in (bool, np.uint8, np.float32):
        result = evaluate(labels.astype(mask_type), scores.astype(dtype), masks.astype(mask_type), levels.astype(dtype))
        assert result == expected
    wide = np.repeat(levels.astype(dtype), 2, axis=2)[..., ::2]  # not contiguous
    assert evaluate(labels, scores, np.asfortranarray(masks.astype(bool)), wide) == expected
    turned = list(np.asfortranarray(masks.astype(bool))), [np.asfortranarray(image) for image in levels.astype(dtype)]
    assert evaluate(labels, scores, *turned) == expected


def test_half_precision_is_taken_for_what_it_is():
    rng = np.random.default_rng(0)
    masks = rng.random((3, 20, 20)) < 0.2
    maps = (rng.normal(size=masks.shape) + masks).astype(np.float16)
    labels, scores = np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3], np.float16)
    masks[0] = False
    expected = evaluate(labels, scores.astype(np.float64), masks, maps.astype(np.float64))
    assert evaluate(labels, scores, masks, maps) == expected


def test_inputs_are_left_alone():
    masks, maps = random_case(seed=5, num_values=30)
    for change in (np.asarray, list):
        inputs = masks.any(axis=(1, 2)), maps.max(axis=(1, 2)), change(masks.astype(bool)), change(maps)
        before = [np.array(values) for values in inputs]
        evaluate(*inputs)
        for values, unchanged in zip(inputs, before, strict=True):
            assert (np.array(values) == unchanged).all()
