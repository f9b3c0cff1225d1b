"""When an image is called anomalous, decided by good images alone that training has not seen.

Image threshold (split conformal prediction, Vovk et al. 2005): the ceil((n + 1) (1 - far))-th smallest of the n scores;
an image is anomalous when its score is above it. Then P(false alarm) <= far for a new good image.

Pixel threshold (conformal risk control, Angelopoulos et al. 2022): the smallest t with n / (n + 1) R(t) + 1 / (n + 1)
<= far, where R(t) is the mean over the n images of the share of their maps' pixels above t. Then the expected share of
a new good image's pixels above t is <= far. It is a statement about pixels on average: one image may have more.

Both hold over the draw of the n images and the new one together, where these n + 1 are exchangeable (docs/own_data.md).
n images allow no rate below 1 / (n + 1): where less is wanted, both thresholds are the largest value seen, and `far`
is that.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct, structs

from datasets.names import printable
from datasets.plain_json import read_json, typed
from utils.detection.rates import exact, smallest_rate
from utils.runs.folder import Run
from utils.runs.settings import Count, describe
from utils.system.errors import RunError
from utils.system.files import write_text

MOST_PIXELS = 2**25  # kept of all maps, 128 MB; of 512 images of 256 px all, of more the largest
LADDER_STEP = 1.05  # between the ranks stored: another rate's pixel threshold allows up to 5 % fewer pixels than it may
GOOD, LOOK, ANOMALOUS = "good", "look", "anomalous"  # verdicts
NAMED = 3  # photographs with the highest scores that are named
HELD_OUT, GIVEN = "held out", "images given"  # where the good images are from
DERIVED = ("images", "far", "image_threshold", "pixel_threshold")


class LargestPixels:
    """The largest values of anomaly maps of one size, as they come: all of them up to `most`, in bounded memory."""

    def __init__(self, most: int = MOST_PIXELS):
        self.most, self.pixels = most, 0  # pixels: of one map
        self.kept: list[np.ndarray] = []

    def add(self, maps: np.ndarray) -> None:
        """Add maps float32 (N, H, W). Raises ValueError if one of their values is no finite number."""
        if not np.isfinite(maps).all():
            raise ValueError("the maps hold NaN or infinite values")
        self.pixels = maps[0].size
        self.kept.append(maps.reshape(-1))
        if sum(map(len, self.kept)) >= 2 * self.most:
            self.kept = [self._largest()]

    def ladder(self, exact: int) -> tuple[tuple[int, float], ...]:
        """(rank, value) pairs, `value` being the smallest above which at most `rank` values are: for rank `exact` and
        others in growing steps, as far as values were kept."""
        values = np.sort(self._largest())[::-1]
        ranks, rank = {min(exact, len(values) - 1)}, 0
        while rank < len(values):
            ranks.add(rank)
            rank = max(rank + 1, int(rank * LADDER_STEP))
        return tuple((rank, float(values[rank])) for rank in sorted(ranks))

    def _largest(self) -> np.ndarray:
        values = np.concatenate(self.kept)
        return np.partition(values, -self.most)[-self.most :] if len(values) > self.most else values


@dataclass(frozen=True)
class Thresholds:
    """The scores of good images, and what follows from them for a wanted rate of false alarms.

    Raises ValueError for values that cannot be.
    """

    scores: tuple[float, ...]  # sorted
    pixel_tail: tuple[tuple[int, float], ...]  # as of `LargestPixels.ladder`
    pixels: int  # of one map
    source: str  # HELD_OUT or GIVEN
    wanted_far: float
    model: str | None = None  # which one gave the scores (`model_word`), if known
    names: tuple[str, ...] = ()  # of the good images, in the order of their scores; earlier files have none
    wanted_look: float | None = None  # share of good images to be looked at, those called anomalous among them

    def __post_init__(self):
        if not self.scores or not all(map(math.isfinite, self.scores)) or list(self.scores) != sorted(self.scores):
            raise ValueError("scores must be finite numbers in ascending order, at least one")
        if not 0 < self.wanted_far < 1:
            raise ValueError(f"wanted_far must be a number between 0 and 1, not {self.wanted_far}")
        if self.wanted_look is not None and not 0 < self.wanted_look < 1:
            raise ValueError(f"wanted_look must be a number between 0 and 1, or None, not {self.wanted_look}")
        if self.names and len(self.names) != len(self.scores):
            raise ValueError(f"there are {len(self.names)} names of {len(self.scores)} scores")
        steps = self.pixel_tail
        if not steps or steps[0][0] != 0 or any(a[0] >= b[0] or a[1] < b[1] for a, b in pairwise(steps)):
            raise ValueError("pixel_tail must begin with rank 0, ranks rising and values not")

    @classmethod
    def from_scores(
        cls, scores: Sequence[float] | np.ndarray, pixels: LargestPixels, far: float, source: str,
        model: str | None = None, names: Sequence[str] = (), look: float | None = None,
    ) -> Thresholds:
        """Thresholds by the scores (N,) of good images, N names of them or none, and the pixels of their maps."""
        allowed = _pixels_allowed(len(scores), pixels.pixels, far)
        order = np.argsort(np.asarray(scores), kind="stable").tolist()
        ordered = tuple(float(scores[place]) for place in order)
        named = tuple(names[place] for place in order) if names else ()
        return cls(ordered, pixels.ladder(allowed), pixels.pixels, source, far, model, named, look)

    def at(self, far: float | None = None, look: float | None = None) -> Thresholds:
        """Thresholds for other rates; as few ranks are stored, that of pixels is a little higher than it need be."""
        return replace(self, wanted_far=far or self.wanted_far, wanted_look=look or self.wanted_look)

    @property
    def far(self) -> float:
        """The rate of false alarms that is guaranteed: the one wanted, or the lowest that so many images allow."""
        return max(self.wanted_far, smallest_rate(len(self.scores)))

    @cached_property
    def image_threshold(self) -> float:
        return self.scores[self._place(self.wanted_far)]

    @property
    def look_threshold(self) -> float | None:
        """The score above which an image is to be looked at, if it is not anomalous; None if there is no such class."""
        return self.scores[self._place(self.wanted_look)] if (self.wanted_look or 0) > self.wanted_far else None

    @property
    def setter(self) -> str | None:
        """The name of the good image whose score is the image threshold, if it is known."""
        return self.names[self._place(self.wanted_far)] if self.names else None

    @property
    def highest(self) -> tuple[str, ...]:
        """Names of the good images with the highest scores, the highest first: one that is not good among them raises
        the threshold."""
        return self.names[: -NAMED - 1 : -1]

    def verdict(self, score: float) -> str:
        """GOOD, LOOK or ANOMALOUS."""
        if score > self.image_threshold:
            return ANOMALOUS
        return LOOK if self.look_threshold is not None and score > self.look_threshold else GOOD

    def region_threshold(self, verdict: str) -> float | None:
        """The pixel threshold of the regions that are shown of images with a verdict; None if none are."""
        if verdict == LOOK:
            return self.at(self.wanted_look).pixel_threshold
        return self.pixel_threshold if verdict == ANOMALOUS else None

    def _place(self, rate: float) -> int:
        """The place among the scores of the one that so many of good images may be above."""
        above = max(1, math.floor((len(self.scores) + 1) * exact(rate)))  # of n + 1
        return len(self.scores) - above

    @cached_property
    def pixel_threshold(self) -> float:
        allowed = _pixels_allowed(len(self.scores), self.pixels, self.wanted_far)
        return next(value for rank, value in reversed(self.pixel_tail) if rank <= allowed)

    @property
    def colour_limits(self) -> tuple[float, float]:
        """Ends of the colour scale of heat maps: an ordinary pixel of a good image is cold, and the image threshold is
        half way to hot."""
        middle = len(self.scores) * self.pixels // 2
        ordinary = next(value for rank, value in reversed(self.pixel_tail) if rank <= middle)
        return ordinary, max(ordinary, 2 * self.image_threshold - ordinary)

    def p_value(self, score: float) -> float:
        """The share of good images, this one among them, that score as high or higher: at most `far` just where it is
        above the image threshold. Raises ValueError for a score that is no finite number."""
        if not math.isfinite(score):
            raise ValueError(f"a score of {score} is no number that could be compared")
        as_high = len(self.scores) - bisect_left(self.scores, score)
        return (1 + as_high) / (len(self.scores) + 1)

    def __str__(self) -> str:
        by = f" ({printable(self.setter)})" if self.setter else ""
        look = "" if self.look_threshold is None else f"; to be looked at above {self.look_threshold:.6g}"
        named = f"; the highest of the good: {printable(', '.join(self.highest))}" if self.names else ""
        return (
            f"{len(self.scores)} good images ({self.source}): anomalous above {self.image_threshold:.6g}{by}, at most "
            f"{100 * self.far:.3g} % false alarms{look}{named}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the thresholds among them for those who read the file without this class."""
        derived = {"images": len(self.scores), **{name: getattr(self, name) for name in DERIVED[1:]}}
        stored = {name: value for name, value in asdict(self).items() if value not in (None, ())}  # as earlier files
        return derived | stored

    @classmethod
    def from_dict(cls, content: Any) -> Thresholds:
        """The inverse of `to_dict`. Raises ValueError for anything else."""
        stored = structs.asdict(typed(content, StoredThresholds))
        derived = {name: stored.pop(name) for name in DERIVED}
        thresholds = cls(**stored)
        for name, value in derived.items():
            expected = thresholds.to_dict()[name]
            if value != expected:
                raise ValueError(f"{name} is {describe(value)}, but of these scores {expected}")
        return thresholds


class StoredThresholds(Struct, forbid_unknown_fields=True):
    """The content of thresholds.json; DERIVED follow from the others. Files from before know no model."""

    scores: tuple[float, ...]
    pixel_tail: tuple[tuple[Annotated[int, Meta(ge=0)], float], ...]
    pixels: Count
    source: Literal[HELD_OUT, GIVEN]
    wanted_far: float
    images: int
    far: float
    image_threshold: float
    pixel_threshold: float
    model: str | None = None
    names: tuple[str, ...] = ()
    wanted_look: float | None = None


def read_thresholds(run: Path, category: str, model: str | None = None) -> Thresholds | None:
    """The thresholds of a trained category, None if it has none; RunError if they cannot be read, or are of another
    model than `model`."""
    files = Run(run).category(category)
    path = files.thresholds
    if not path.exists():
        return None
    try:
        thresholds = Thresholds.from_dict(read_json(path))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); make it anew with scripts/calibrate.py --images") from error
    if model and thresholds.model not in (None, model):
        raise RunError(
            f"{path} was set by another model than {files.stage(2)} and what is beside it; restore the "
            "one that was exchanged, or set thresholds anew with scripts/calibrate.py --images"
        )
    return thresholds


def write_thresholds(run: Path, category: str, thresholds: Thresholds) -> None:
    write_text(Run(run).category(category).thresholds, json.dumps(thresholds.to_dict()) + "\n")


def _pixels_allowed(images: int, pixels: int, far: float) -> int:
    """Pixels of all maps together that may be above the pixel threshold."""
    return math.floor(pixels * max(0, (images + 1) * exact(far) - 1))
