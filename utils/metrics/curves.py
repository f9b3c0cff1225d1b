"""Exact curves over all thresholds, in bounded memory.

A threshold matters only where it lets positives in. So the negative scores are sorted by value, the positives are
ranked, and looking these up among the former gives every corner of every curve. Each score is sorted once; ROC, PRO,
precision and recall are all read off the same `Ranking`, a piece at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

PIECE = 1 << 16  # thresholds worked on at a time: what bounds the memory

Corners = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Ranking:
    """The place of P > 0 positives, in T groups of equal score from the highest down, among N > 0 negatives."""

    order: np.ndarray  # (P,) positives in the order of falling score, as indices into scores[labels]
    group_ends: np.ndarray  # (T,) number of positives with a score >= that of the group
    negatives_above: np.ndarray  # (T,) number of negatives with a score > that of the group
    negatives_from: np.ndarray  # (T,) number of negatives with a score >= that of the group
    num_negatives: int

    @property
    def num_positives(self) -> int:
        return len(self.order)

    def pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The three counts, a piece at a time."""
        for piece in _pieces(len(self.group_ends)):
            yield self.group_ends[piece].astype(np.int64), self.negatives_above[piece], self.negatives_from[piece]


def rank(labels: np.ndarray, scores: np.ndarray) -> Ranking:
    """labels bool (n,), both classes present; scores (n,), finite."""
    count = np.uint32 if labels.size < 2**32 else np.int64
    negatives = scores[~labels]
    negatives.sort()
    positives = scores[labels]
    order = np.argsort(positives)[::-1].astype(count)
    positives = positives[order]
    group_ends = np.append(np.flatnonzero(positives[1:] != positives[:-1]) + 1, positives.size).astype(count)
    thresholds = positives[group_ends - 1]
    above, from_there = np.empty_like(group_ends), np.empty_like(group_ends)
    for piece in _pieces(len(group_ends)):
        above[piece] = negatives.size - np.searchsorted(negatives, thresholds[piece], "right")
        from_there[piece] = negatives.size - np.searchsorted(negatives, thresholds[piece], "left")
    return Ranking(order, group_ends, above, from_there, negatives.size)


def _pieces(count: int) -> Iterator[slice]:
    return (slice(start, start + PIECE) for start in range(0, count, PIECE))


def corners(ranking: Ranking, weights: np.ndarray | None = None) -> Iterator[Corners]:
    """The curve from (0, 0) to (1, 1) in pieces, each from the end of the one before: FPR and the weighted share of
    positives found, both (2 t + 1,). weights (P,) of the positives in the order of scores[labels]; None: all equal."""
    total = ranking.num_positives if weights is None else weights.sum()
    num_found = found_weight = 0
    end = (0.0, 0.0)
    for ends, above, from_there in ranking.pieces():
        if weights is None:
            shares = ends / total
        else:
            sums = found_weight + np.cumsum(weights[ranking.order[num_found : ends[-1]]])
            shares = sums[ends - 1 - num_found] / total
            num_found, found_weight = ends[-1], sums[-1]
        if ends[-1] == ranking.num_positives:
            shares[-1] = 1.0  # in spite of rounding
        fpr, recall = np.empty(2 * len(ends) + 1), np.empty(2 * len(ends) + 1)
        fpr[0], recall[0] = end
        fpr[1::2], recall[1::2] = above / ranking.num_negatives, np.append(end[1], shares[:-1])
        fpr[2::2], recall[2::2] = from_there / ranking.num_negatives, shares
        end = fpr[-1], recall[-1]
        yield fpr, recall
    yield np.array([end[0], 1.0]), np.array([1.0, 1.0])


def area(curve: Iterable[Corners], limit: float = 1.0) -> float:
    """Area under a curve from x = 0 to `limit`, divided by `limit`; cut exactly there, linear between corners."""
    total = 0.0
    for x, y in curve:
        end = np.searchsorted(x, limit, side="right")  # the first corner beyond the limit
        if end == 0:
            break
        if end < len(x):
            share = (limit - x[end - 1]) / (x[end] - x[end - 1])
            y_limit = y[end - 1] + share * (y[end] - y[end - 1])
            x, y = np.append(x[:end], limit), np.append(y[:end], y_limit)
        total += float(np.sum(np.diff(x) * (y[1:] + y[:-1])))
    return total / 2 / limit


def thin(curve: Iterable[Corners], steps: int = 400) -> Corners:
    """Enough corners of a curve to draw it: those that leave their cell of a `steps` x `steps` grid, and the ends."""
    xs, ys = zip(*(_leave_cells(x, y, steps) for x, y in curve), strict=True)
    return _leave_cells(np.concatenate(xs), np.concatenate(ys), steps)


def _leave_cells(x: np.ndarray, y: np.ndarray, steps: int) -> Corners:
    cells = np.rint(np.stack([x, y]) * steps)
    moves = (cells[:, 1:] != cells[:, :-1]).any(axis=0)
    keep = np.concatenate([[True], moves]) | np.concatenate([moves, [True]])
    return x[keep], y[keep]


def average_precision(ranking: Ranking) -> float:
    """Sum over thresholds of precision times the recall gained there (no interpolation)."""
    total, before = 0.0, 0
    for hits, _, false in ranking.pieces():
        precision = hits / (hits + false)
        total += float(np.sum(np.diff(hits, prepend=before) * precision))
        before = hits[-1]
    return total / ranking.num_positives


def f1_max(ranking: Ranking) -> float:
    """The highest harmonic mean of precision and recall that any threshold gives."""
    return max(float(np.max(2 * hits / (hits + false + ranking.num_positives))) for hits, _, false in ranking.pieces())
