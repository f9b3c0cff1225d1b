"""Rates of false alarms, and how many good images they need."""

from __future__ import annotations

import math
from fractions import Fraction

from utils.system.errors import UsageError

RATES = (0.01, 0.02, 0.05, 0.1)  # of false alarms
USUAL_SHARE, MOST_SHARE = 1 / 5, 1 / 3  # of the good images, kept out of training
MOST_LOOKED, LEAST_LOOKED = 0.3, 0.1  # of the good images, to be looked at
LOOKED = 4  # times as many as are called anomalous


def smallest_rate(images: int) -> float:
    """The lowest rate of false alarms that so many good images allow."""
    return 1 / (images + 1)


def images_needed(far: float) -> int:
    """The number of good images that a false-alarm rate needs."""
    return math.ceil(1 / exact(far)) - 1


def shortage(images: int, far: float) -> str | None:
    """A message for those who want a lower rate than so many good images allow; None where they allow it."""
    needed = images_needed(far)
    lowest = f"{images} good images allow no rate of false alarms below {smallest_rate(images):.3g}"
    return None if images >= needed else f"{lowest}; {far:g} needs {needed}"


def suitable_rates(images: int, calibration: float | None, far: float | None) -> tuple[float, float]:
    """The share of so many good images to keep out of training, and the rate of false alarms: what is given, and for
    None what suits: the lowest of RATES that a third of the images allows, and a fifth of them or what it needs."""
    if far is None:
        most = round(images * (MOST_SHARE if calibration is None else calibration))
        far = next((rate for rate in RATES if images_needed(rate) <= most), smallest_rate(max(1, most)))
    if calibration is None:
        calibration = min(MOST_SHARE, max(USUAL_SHARE, images_needed(far) / max(1, images)))
    return calibration, far


def suitable_look(far: float) -> float:
    """The share of good images to be looked at that suits a rate of false alarms."""
    return max(far, min(MOST_LOOKED, max(LEAST_LOOKED, LOOKED * far)))


def check_look(far: float | None, look: float | None) -> None:
    """UsageError for a `look` at which no image could be one to look at."""
    if far and look and look <= far:
        raise UsageError(f"`look` {look:g} must be above `far` {far:g}: images to look at are those between the two")


def exact(far: float) -> Fraction:
    """The rate as it was written, 0.1 being a tenth: rounding must not move a rank."""
    return Fraction(str(far))
