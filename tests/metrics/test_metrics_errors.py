"""Metrics that cannot be computed, and wrong calls: absent, or an error that names what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.metric_references import random_case, random_sizes
from tests.support.single_metrics import image_auroc, pixel_ap, pixel_auroc
from utils.metrics import UndefinedMetric, aupro, aupro_per_image, evaluate, image_roc_curve, pixel_curves

RANKED_PIXEL_METRICS = (aupro, pixel_curves)
PIXEL_METRICS = (*RANKED_PIXEL_METRICS, aupro_per_image)
IMAGE_NAMES = {"image_auroc", "image_ap", "image_f1_max"}
RANKED_PIXEL_NAMES = {"pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro"}


def two_images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """labels (2,), masks and maps (2, 4, 4); one anomalous pixel, in image 1."""
    masks = np.zeros((2, 4, 4), int)
    masks[1, 0, 0] = 1
    return np.array([0, 1]), masks, np.zeros((2, 4, 4))


# ---- What cannot be computed -----------------------------------------------------------------------------------------


def test_image_metrics_of_one_class_are_undefined():
    for labels in ([0, 0, 0], [1, 1, 1], []):
        message = f"anomalous and normal images, got {sum(labels)} anomalous and {labels.count(0)} normal"
        with pytest.raises(UndefinedMetric, match=message):
            image_roc_curve(np.array(labels), np.zeros(len(labels)))
        assert evaluate(np.array(labels), np.zeros(len(labels)), None, np.zeros((len(labels), 3, 3))) == {}


@pytest.mark.parametrize("metric", RANKED_PIXEL_METRICS)
def test_pixel_metrics_of_one_class_are_undefined(metric):
    for value, message in ((0, "0 anomalous and 18 normal"), (1, "18 anomalous and 0 normal")):
        masks = np.full((2, 3, 3), value)
        with pytest.raises(UndefinedMetric, match=f"anomalous and normal pixels, got {message}"):
            metric(masks, np.zeros((2, 3, 3)))
        assert evaluate(np.full(2, value), np.zeros(2), masks, np.zeros((2, 3, 3))) == {}
    for nothing in (np.zeros((0, 3, 3)), []):
        with pytest.raises(UndefinedMetric, match="0 anomalous and 0 normal"):
            metric(nothing, nothing)


def test_aupro_per_image_is_undefined_without_an_image_that_counts():
    ramp = np.arange(20.0).reshape(1, 4, 5)
    half = ramp % 2
    for masks, maps in (
        (half * 0, ramp),
        (half * 0 + 1, ramp),
        (half, ramp * 0),  # all scores equal
        (half, half),  # a threshold flags all of the region and no false pixel, or everything
        (np.zeros((0, 4, 5)), np.zeros((0, 4, 5))),
        ([], []),
    ):
        with pytest.raises(UndefinedMetric, match="no anomalous image has two false-positive rates below the limit"):
            aupro_per_image(masks, maps)


def test_aupro_per_image_passes_over_images_that_do_not_count():
    masks, maps = random_case(seed=4, num_values=10_000)
    expected = aupro_per_image(masks, maps)
    more_masks = np.concatenate([masks, masks[1:2], np.ones_like(masks[:1])])  # all scores equal; nothing defect-free
    assert aupro_per_image(more_masks, np.concatenate([maps, maps[:1] * 0, maps[:1]])) == expected


def test_evaluate_leaves_undefined_metrics_out():
    maps, labels, scores = np.random.default_rng(0).random((3, 4, 4)), np.array([0, 1, 1]), np.array([0.0, 1.0, 2.0])
    of_images = dict.fromkeys(IMAGE_NAMES, 1.0)
    masks = np.zeros((3, 4, 4), int)
    assert evaluate(labels, scores, None, maps) == of_images
    assert evaluate(labels, scores, masks, maps) == of_images  # no anomalous pixel
    assert evaluate(labels * 0, scores, masks, maps) == {}
    assert evaluate(labels * 0, scores, None, maps) == {}
    assert evaluate(labels, scores, masks + labels[:, None, None], maps).keys() >= IMAGE_NAMES | RANKED_PIXEL_NAMES
    assert evaluate(labels * 0 + 1, scores, masks + 1, maps) == {}  # no good image, no defect-free pixel
    masks[:, 0, 0] = 1
    anomalous_only = evaluate(labels * 0 + 1, scores, masks, maps)
    assert anomalous_only.keys() == RANKED_PIXEL_NAMES | {"aupro_per_image"}
    assert evaluate(labels * 0 + 1, scores, masks, maps * 0).keys() == RANKED_PIXEL_NAMES  # all scores equal


def test_evaluate_of_nothing_is_empty():
    assert evaluate(np.zeros(0), np.zeros(0), np.zeros((0, 4, 4)), np.zeros((0, 4, 4))) == {}
    assert evaluate([], [], [], []) == {}


# ---- Wrong values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_sequence", [np.asarray, list])
def test_nan_and_infinity_in_maps_are_named(as_sequence):
    masks, maps = np.zeros((5, 4, 4), int), np.zeros((5, 4, 4))
    masks[1, 0, 0] = 1
    maps[1, :2, 0], maps[3, 2, 2], maps[3, 3, 3] = np.nan, np.inf, -np.inf
    labels, scores, maps = np.array([0, 1, 0, 0, 0]), np.arange(5.0), as_sequence(maps)
    calls = [lambda metric=metric: metric(masks, maps) for metric in PIXEL_METRICS]
    calls += [lambda masks=masks: evaluate(labels, scores, masks, maps), lambda: evaluate(labels, scores, None, maps)]
    for call in calls:
        with pytest.raises(ValueError, match=r"anomaly_maps: 2 NaN and 2 infinite values, in images 1, 3 "):
            call()


def test_nan_and_infinity_in_scores_are_named():
    def evaluate_images(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
        return evaluate(labels, scores, None, np.zeros((3, 4, 4)))

    for value, message in ((np.nan, "1 NaN and 0 infinite"), (-np.inf, "0 NaN and 1 infinite")):
        for metric in (image_roc_curve, evaluate_images):
            with pytest.raises(ValueError, match=f"scores: {message} values, in image 2 "):
                metric(np.array([0, 1, 0]), np.array([0.0, 1.0, value]))


def test_many_images_are_not_all_listed():
    with pytest.raises(ValueError, match=r"12 NaN .* 8, 9 and 2 more \(counted from 0\)"):
        image_auroc(np.arange(12) % 2, np.full(12, np.nan))
    with pytest.raises(ValueError, match=r"10 NaN .* 8, 9 \(counted"):
        image_auroc(np.arange(10) % 2, np.full(10, np.nan))


def test_wrong_values_are_named():
    labels, masks, maps = two_images()
    lists = list(masks * 255), list(maps)
    half = np.array([0.5, 1.0])
    for call, message in (
        (lambda: aupro(masks * 255, maps), "masks: expected 0 and 1 only, got 255 in image 1 "),
        (lambda: aupro(*lists), "masks: expected 0 and 1 only, got 255 in image 1 "),
        (lambda: aupro(np.where(masks, np.nan, 0), maps), "masks: expected 0 and 1 only, got nan in image 1 "),
        (lambda: image_auroc(labels * 2 - 1, np.zeros(2)), "labels: expected 0 and 1 only, got -1 in image 0 "),
        (lambda: image_auroc(half, np.zeros(2)), "labels: expected 0 and 1 only, got 0.5 in image 0 "),
        (lambda: aupro(masks, maps, fpr_limit=0.0), "fpr_limit .* got 0.0"),
        (lambda: aupro(masks, maps, fpr_limit=30), "fpr_limit .* got 30"),
        (lambda: aupro(masks, maps, fpr_limit=float("nan")), "fpr_limit .* got nan"),
        (lambda: image_auroc(labels, np.array(["a", "b"])), "scores: expected real numbers, got dtype <U1"),
        (lambda: image_auroc(labels, np.array([1, 2j])), "scores: expected real numbers, got dtype complex128"),
        (lambda: image_auroc(labels, np.array([1.0, None])), "scores: expected real numbers, got dtype object"),
        (lambda: pixel_ap(masks, maps.astype(str)), "anomaly_maps: expected real numbers"),
        (lambda: evaluate(1 - labels, np.zeros(2), masks, maps), r"label is 0 \(good\), in image 1 "),
        (lambda: evaluate(labels * 0, np.zeros(2), 1 - masks, maps), r"label is 0 \(good\), in images 0, 1 "),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# ---- Wrong shapes ----------------------------------------------------------------------------------------------------


def test_wrong_shapes_are_named():
    labels, masks, maps = two_images()
    for call, message in (
        (lambda: image_auroc(labels, np.zeros(3)), r"scores: expected shape \(2,\).* got \(3,\)"),
        (lambda: image_auroc(labels, np.zeros((2, 1))), r"scores: expected shape \(2,\).* got \(2, 1\)"),
        (lambda: image_auroc(labels[:, None], np.zeros(2)), r"labels: expected shape \(N,\), got \(2, 1\)"),
        (lambda: aupro(masks, maps[:, None]), r"anomaly_maps: expected shape \(N, H, W\), got \(2, 1, 4, 4\)"),
        (lambda: aupro(masks[:, None], maps), r"masks: expected shape \(N, H, W\), got \(2, 1, 4, 4\)"),
        (lambda: pixel_auroc(masks, maps[0]), r"anomaly_maps: expected shape \(N, H, W\), got \(4, 4\)"),
        (lambda: aupro(masks[:1], maps), "masks: expected 2, one mask per anomaly map, got 1"),
        (lambda: aupro(list(masks), list(maps[:1])), "masks: expected 1, one mask per anomaly map, got 2"),
        (lambda: evaluate(labels[:1], np.zeros(1), None, maps), "anomaly_maps: expected 1, one map per label, got 2"),
        (lambda: evaluate(labels, np.zeros(2), masks[:, :2], maps), r"masks: expected shape \(4, 4\).* got \(2, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_wrong_shapes_in_lists_name_the_image():
    masks, maps = random_sizes(seed=0, num_values=9)
    for index in (0, 3):
        shape = r"\({}, {}\)".format(*maps[index].shape)
        for wrong, message in (
            (masks[index][:, 1:], rf"masks: expected shape {shape} .*got \(.*\) in image {index}$"),
            (masks[index].T, rf"masks: expected shape {shape} .*got \(.*\) in image {index}$"),
            (masks[index][None], rf"masks: expected shape \(H, W\), got \(1, .*\) in image {index}$"),
            (None, rf"masks: expected shape \(H, W\), got \(\) in image {index}$"),
        ):
            with pytest.raises(ValueError, match=message):
                aupro([*masks[:index], wrong, *masks[index + 1 :]], maps)
        with pytest.raises(ValueError, match=rf"anomaly_maps: expected shape \(H, W\), got \(.*1\) in image {index}$"):
            aupro(masks, [*maps[:index], maps[index][..., None], *maps[index + 1 :]])
