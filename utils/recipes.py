"""What a model is shown, how Stage II trains its student, and from where discrepancies are measured: the published
recipe, the baseline's, and a robust one.

The robust recipe was chosen on synthetic anomalies of unseen kinds on held-out good images alone (--select synthetic
rates by the same); no test image had a part in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LR_MILESTONES = (0.8, 0.9)  # shares of the epochs after which the published learning rate falls
LR_FACTOR = 0.2
WARM_UP = 0.05  # share of the steps in which the cosine schedule's rate rises
SMALLEST_RATE = 1e-3  # where it starts from


@dataclass(frozen=True)
class Recipe:
    """The defaults are AAND's published ones."""

    crop: bool = False  # whether images are cropped to where the training set's objects are
    stretch: bool = False  # whether the grey levels in use are stretched to all there are
    schedule: str = "steps"  # of the learning rate: steps, cosine with a warm-up, constant
    rate: float = 1.0  # highest learning rate, as a share of --lr
    hard_positions: bool = True  # whether the worst positions have a loss of their own
    calibrated: bool = False  # whether discrepancies are measured from those of the training images

    @property
    def own_view(self) -> bool:
        """Whether each category has a view of its own (datasets/view.py)."""
        return self.crop or self.stretch

    def rate_at(self, done: float, epochs: int) -> float:
        """The learning rate as a share of --lr when so many of the epochs, with fractions, are done."""
        if self.schedule == "steps":
            return self.rate * LR_FACTOR ** sum(done >= milestone for milestone in lr_milestones(epochs))
        if self.schedule == "cosine":
            share = done / epochs
            if share < WARM_UP:
                return self.rate * max(SMALLEST_RATE, share / WARM_UP)
            return self.rate * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))) / 2
        return self.rate


def lr_milestones(epochs: int) -> list[int]:
    """The epochs after which the published learning rate falls; the first epoch always has the whole rate."""
    return [max(1, int(share * epochs)) for share in LR_MILESTONES]


PUBLISHED = Recipe()
RECIPES = {
    "published": PUBLISHED,
    "robust": Recipe(crop=True, stretch=True, schedule="cosine", rate=0.4, calibrated=True),
}
BASELINE = Recipe(schedule="constant", hard_positions=False)  # plain reverse distillation


def recipe_of(method: str, recipe: str) -> Recipe:
    """The recipe of a run; "rd4ad" has its own alone."""
    return RECIPES[recipe] if method == "aand" else BASELINE
