"""PRO by other definitions: the script's variants against the exact metric, and the table in docs/metrics.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.pro_definitions import (
    DEFINITIONS,
    GOOD,
    curve_at,
    cut_area,
    equidistant,
    format_table,
    interpolated_area,
    make_test_set,
    rescaled_area,
)
from tests.support.metric_references import random_case, slow_aupro
from utils.metrics import aupro

DOCS = Path(__file__).resolve().parents[2] / "docs/metrics.md"


def test_docs_show_what_the_script_prints():
    assert format_table(seed=0) in DOCS.read_text(encoding="utf-8")


def test_test_set_has_good_images_and_regions_of_every_size():
    masks, maps = make_test_set(seed=0)
    assert masks.shape == maps.shape == (20, 128, 128)
    assert not masks[:GOOD].any()
    assert masks[GOOD:].any(axis=(1, 2)).all()
    assert (maps.min(), maps.max()) == (0, 1)


@pytest.mark.parametrize("seed", range(3))
def test_every_score_as_threshold_gives_the_exact_metric(seed):
    masks, maps = random_case(seed, num_values=50)
    thresholds = np.append(np.unique(maps), -1)
    curve = curve_at(masks, maps, thresholds)
    assert interpolated_area(*curve) == pytest.approx(aupro(masks, maps), abs=1e-12)
    assert interpolated_area(*curve) == pytest.approx(slow_aupro(masks, maps, limit=0.3), abs=1e-12)


def test_areas_by_hand():
    fpr, pro = np.array([0, 0.1, 0.2, 0.4]), np.array([0.25, 0.75, 0.75, 1])
    assert cut_area(fpr, pro) == pytest.approx((0.05 + 0.075) / 0.3)
    assert rescaled_area(fpr, pro) == pytest.approx((0.05 + 0.075) / 0.2)
    assert interpolated_area(fpr, pro) == pytest.approx((0.05 + 0.075 + 0.1 * (0.75 + 0.875) / 2) / 0.3)
    at_the_limit = np.array([0, 0.1, 0.3]), np.array([0.5, 0.5, 1])
    assert cut_area(*at_the_limit) == pytest.approx((0.05 + 0.15) / 0.3)
    assert rescaled_area(*at_the_limit) == pytest.approx(0.5)


def test_diagonal_regions_by_connectivity():
    masks, maps = np.eye(4, dtype=np.uint8)[None], np.arange(16.0).reshape(1, 4, 4)
    masks[0, 3, 2] = 1  # 4-connected: 1, 1 and 3 pixels, of which two score 14 and 15
    thresholds = np.array([13.5])
    assert curve_at(masks, maps, thresholds)[1] == pytest.approx(2 / 5)
    assert curve_at(masks, maps, thresholds, connectivity=4)[1] == pytest.approx(2 / 9)


def test_equidistant_thresholds_leave_the_maximum_out():
    assert equidistant(np.array([1.0, 5.0]), count=4).tolist() == [1, 2, 3, 4]


def test_only_definitions_of_every_threshold_are_free_of_the_scale():
    masks, maps = make_test_set(seed=0)
    exact, without_good, *others = DEFINITIONS.values()
    for definition in (exact, without_good):
        assert definition(masks, maps.astype(np.float64) ** 4) == definition(masks, maps)
    for definition in others:
        assert abs(definition(masks, maps.astype(np.float64) ** 4) - definition(masks, maps)) > 0.005
