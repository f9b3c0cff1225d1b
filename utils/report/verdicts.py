"""What a run's own thresholds make of its test images: counts, an explanation, and what the page needs to judge."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from datasets.problems import count
from utils.detection.rates import shortage
from utils.detection.thresholds import ANOMALOUS, GOOD, LOOK, Thresholds


def count_outcomes(thresholds: Thresholds, labels: np.ndarray, scores: np.ndarray) -> str:
    """Count in words what is found, to be looked at, missed and a false alarm, with the rate that was asked for.

    labels: 1 = anomalous, scores: of the same images, both (N,).
    """
    counts = Counter(zip(labels.tolist(), verdicts_on(scores, thresholds), strict=True))
    look = "" if thresholds.look_threshold is None else f"{counts[0, LOOK] + counts[1, LOOK]} to look at, "
    alarms, good = counts[0, ANOMALOUS], int((labels == 0).sum())
    share = f"{_percent(alarms / good)} of good images, " if good else ""
    return (
        f"{counts[1, ANOMALOUS]} found, {look}{counts[1, GOOD]} missed, {count(alarms, 'false alarm')} "
        f"({share}at most {_percent(thresholds.wanted_far)} asked for)"
    )


def explain_thresholds(thresholds: Thresholds) -> str:
    """Explain what the verdicts are by, what was asked for, and how they are counted."""
    images, look = len(thresholds.scores), thresholds.look_threshold is not None
    sentences = [
        "Verdicts are those of scripts/predict.py, by the run's own thresholds.",
        f"Anomalous: above {thresholds.image_threshold:.4g}; at most {_percent(thresholds.wanted_far)} of good images "
        "were asked for.",
    ]
    if look:
        sentences.append(
            f"To be looked at: others above {thresholds.look_threshold:.4g}; at most "
            f"{_percent(thresholds.wanted_look)} of good images were asked for, false alarms included."
        )
    sentences.append(f"{count(images, 'good image')} ({thresholds.source}) set {'both' if look else 'this'}.")
    if short := shortage(images, thresholds.wanted_far):
        sentences.append(f"{short}.")
    if look:
        sentences.append(
            "An anomalous image to look at is neither found nor missed; a good one is neither passed nor a false alarm."
        )
    sentences.append("Move the slider to try another threshold" + (", without images to look at." if look else "."))
    return " ".join(sentences)


def own_verdicts(thresholds: Thresholds, scores: np.ndarray) -> dict[str, Any]:
    """Give report.js the image threshold, the verdict on each score (N,), and by verdict the threshold of the regions
    that are outlined, None if none are."""
    verdicts = verdicts_on(scores, thresholds)
    regions = {verdict: thresholds.region_threshold(verdict) for verdict in sorted(set(verdicts))}
    return {"threshold": thresholds.image_threshold, "verdicts": verdicts, "regions": regions}


def verdicts_on(scores: np.ndarray, thresholds: Thresholds) -> list[str]:
    return [thresholds.verdict(score) for score in scores.tolist()]


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"
