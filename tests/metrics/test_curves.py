"""Curves: corners, areas, thinning, the work in pieces, and its memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tests.support.metric_references import random_case, random_sizes, slow_area
from utils.metrics import aupro, curves, evaluate, pixel_curves
from utils.metrics.curves import area, corners, rank, thin


def direct_corners(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> list[tuple[float, float]]:
    """At each score that a positive has: before its negatives and positives enter, and after."""
    positives, negatives = scores[labels], scores[~labels]
    points = [(0.0, 0.0)]
    for score in sorted(set(positives.tolist()), reverse=True):
        points.append(((negatives > score).mean(), weights[positives > score].sum() / weights.sum()))
        points.append(((negatives >= score).mean(), weights[positives >= score].sum() / weights.sum()))
    return [*points, (1.0, 1.0)]


def ranked_case(seed: int, num_values: int, count: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """labels, scores and a weight for each positive."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.4
    scores = (rng.integers(0, num_values, count) + 0.2 * num_values * labels).astype(np.float32)
    return labels, scores, rng.uniform(0.1, 1, labels.sum())


def join(curve: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[float, float]]:
    """The points, those once that a piece begins with because the one before ended there."""
    points = [tuple(point) for x, y in curve for point in np.stack([x, y], axis=1).tolist()]
    return points[:1] + [b for a, b in zip(points[:-1], points[1:], strict=True) if b != a]


# ---- Ranking, corners, areas -----------------------------------------------------------------------------------------


def test_ranking_by_hand():
    #                  9 alone; 7 with two negatives and two positives; 4 alone, below a negative at 5; a negative at 1
    scores = np.array([4.0, 7.0, 9.0, 7.0, 7.0, 7.0, 5.0, 1.0])
    labels = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    ranking = rank(labels, scores)
    assert scores[labels][ranking.order].tolist() == [9, 7, 7, 4]
    assert sorted(ranking.order) == [0, 1, 2, 3]
    assert ranking.group_ends.tolist() == [1, 3, 4]
    assert ranking.negatives_above.tolist() == [0, 0, 3]
    assert ranking.negatives_from.tolist() == [0, 2, 3]
    assert (ranking.num_positives, ranking.num_negatives) == (4, 4)


@pytest.mark.parametrize("piece", [1, 3, 1 << 16])
@pytest.mark.parametrize("num_values", [1, 4, 50, 10**6])
def test_corners_equal_a_direct_implementation(monkeypatch, num_values, piece):
    monkeypatch.setattr(curves, "PIECE", piece)
    for seed in range(5):
        labels, scores, weights = ranked_case(seed, num_values)
        for some, each in ((None, np.ones(labels.sum())), (weights, weights)):
            expected = direct_corners(labels, scores, each)
            got = list(corners(rank(labels, scores), some))
            assert all(len(x) == len(y) for x, y in got)
            rising = np.diff(np.concatenate([np.stack(each) for each in got], axis=1))
            assert (rising >= 0).all()
            deduplicated = [expected[0]] + [b for a, b in zip(expected[:-1], expected[1:], strict=True) if b != a]
            assert np.array(join(got)) == pytest.approx(np.array(deduplicated), abs=1e-12)


def test_last_corner_is_exactly_one():
    labels = np.ones(10**5 + 1, bool)
    labels[0] = False
    weights = np.full(10**5, 0.1)  # their running sum is not 10**4
    *_, (x, y), (x_last, y_last) = corners(rank(labels, np.arange(10.0**5 + 1)), weights)
    assert np.cumsum(weights)[-1] != weights.sum()
    assert (x[-1], y[-1]) == (0, 1)
    assert (x_last.tolist(), y_last.tolist()) == ([0, 1], [1, 1])


@pytest.mark.parametrize("piece", [1, 2, 5, 1 << 16])
def test_area_equals_a_direct_implementation(monkeypatch, piece):
    monkeypatch.setattr(curves, "PIECE", piece)
    for seed, num_values in ((0, 3), (1, 20), (2, 10**6)):
        labels, scores, weights = ranked_case(seed, num_values)
        x, y = zip(*direct_corners(labels, scores, weights), strict=True)
        for limit in (*{value for value in x if value}, 1e-3, 0.3, 0.5, 0.999):
            ours = area(corners(rank(labels, scores), weights), limit)
            assert ours == pytest.approx(slow_area(x, y, limit) / limit, abs=1e-12)


def test_area_by_hand():
    # From (0, 0) up to (0, 1/2), a slope to (1/2, 1), then flat: 3/8 + 1/2; up to 1/4: (1/2 + 3/4) / 2.
    piece = np.array([0, 0, 0.5]), np.array([0, 0.5, 1])
    last = np.array([0.5, 1]), np.array([1.0, 1])
    assert area([piece, last]) == 3 / 8 + 1 / 2
    assert area([piece, last], limit=0.25) == (1 / 2 + 3 / 4) / 2
    assert area([piece, last], limit=0.5) == (3 / 8) / 0.5


# ---- Curves to draw --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_values", [1, 5, 10**6])
def test_thin_keeps_the_ends_and_the_area(num_values):
    labels, scores, weights = ranked_case(seed=3, num_values=num_values, count=20_000)
    curve = list(corners(rank(labels, scores), weights))
    x, y = thin(curve)
    all_x, all_y = (np.concatenate(values) for values in zip(*curve, strict=True))
    assert (x[0], y[0], x[-1], y[-1]) == (all_x[0], all_y[0], all_x[-1], all_y[-1]) == (0, 0, 1, 1)
    for limit in (0.1, 0.3, 1.0):
        assert slow_area(x, y, limit) == pytest.approx(area(curve, limit) * limit, abs=1 / 200)
    assert {*zip(x, y, strict=True)} <= {*zip(all_x, all_y, strict=True)}
    assert len(x) <= 2 * (2 * 400 + 1)  # it enters at most 2 x 400 + 1 cells, and leaves them
    if num_values == 10**6:
        assert len(x) < len(all_x) / 5


def test_thin_leaves_no_corner_far_from_a_kept_one():
    labels, scores, weights = ranked_case(seed=3, num_values=10**6, count=5000)
    curve = list(corners(rank(labels, scores), weights))
    kept, every = np.stack(thin(curve)), np.concatenate([np.stack(piece) for piece in curve], axis=1)
    distances = np.abs(kept[:, :, None] - every[:, None]).max(axis=0).min(axis=0)
    assert distances.max() <= 1 / 400


def test_thin_drops_what_stays_in_a_cell():
    x, y = np.array([0, 0.001, 0.002, 0.3, 1]), np.array([0, 0, 0.001, 0.8, 1])
    assert [values.tolist() for values in thin([(x, y)], steps=10)] == [[0, 0.002, 0.3, 1], [0, 0.001, 0.8, 1]]


def test_thin_does_not_depend_on_the_pieces(monkeypatch):
    labels, scores, weights = ranked_case(seed=3, num_values=10**6, count=5000)
    expected = join([thin(corners(rank(labels, scores), weights))])
    for piece in (1, 100):
        monkeypatch.setattr(curves, "PIECE", piece)
        thinned = join([thin(corners(rank(labels, scores), weights))])
        assert np.array(thinned) == pytest.approx(np.array(expected), abs=1e-12)


# ---- In pieces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 2, 3, 7])
@pytest.mark.parametrize("num_values", [2, 30, 10_000])
def test_pieces_do_not_change_the_metrics(monkeypatch, piece, num_values):
    cases = [random_case(seed, num_values) for seed in range(4)] + [random_sizes(4, num_values)]
    labels, scores = np.array([0, 1, 1, 0, 1, 0, 1]), np.array([0.2, 0.9, 0.2, 0.3, 0.7, 0.7, 0.1])

    def measure() -> list[dict[str, float]]:
        metrics = []
        for masks, maps in cases:
            anomalous = np.array([mask.any() for mask in masks])
            metrics.append(evaluate(anomalous, [image.max() for image in maps], masks, maps))
            metrics.append({str(limit): aupro(masks, maps, limit) for limit in (0.01, 0.1, 0.5, 1.0)})
        return [*metrics, evaluate(labels, scores, None, np.zeros((7, 1, 1)))]

    expected = measure()
    monkeypatch.setattr(curves, "PIECE", piece)
    for ours, whole in zip(measure(), expected, strict=True):
        assert ours == pytest.approx(whole, abs=1e-12)


# ---- Memory ----------------------------------------------------------------------------------------------------------


def memory_case(share: float, num_values: int | None) -> tuple[np.ndarray, np.ndarray]:
    """20 maps of 256x256 float32 and bool masks; all scores differ where `num_values` is None."""
    rng = np.random.default_rng(0)
    shape = (20, 256, 256)
    masks = np.zeros(shape, bool)
    masks[:, : round(share * 256)] = True
    size = masks.size
    maps = rng.permutation(size) if num_values is None else rng.integers(0, num_values, size)
    return masks, maps.reshape(shape).astype(np.float32)


@pytest.mark.parametrize("as_sequence", [np.asarray, list])
@pytest.mark.parametrize(
    ("share", "num_values"), [(0.02, None), (0.5, None), (0.98, None), (0.98, 1), (0.98, 100_000), (0.98, 600_000)]
)
def test_memory_stays_below_40_bytes_a_pixel(share, num_values, as_sequence):
    masks, maps = memory_case(share, num_values)
    labels, scores = np.ones(20, int), np.arange(20.0)
    images = as_sequence(masks), as_sequence(maps)
    for call in (lambda: evaluate(labels, scores, *images), lambda: pixel_curves(*images)):
        tracemalloc.start()
        call()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak <= 40 * masks.size
