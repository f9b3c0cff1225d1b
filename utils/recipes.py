"""How Stage II trains a student and how its maps are scaled: the published recipe, the baseline's, and a robust one.

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
    """Stage II; the defaults are AAND's published ones."""

    schedule: str = "steps"  # of the learning rate: steps, cosine with a warm-up, constant
    rate: float = 1.0  # highest learning rate, as a share of --lr
    hard_positions: bool = True  # whether the worst positions have a loss of their own
    corrupted: float = 0.0  # share of steps whose student sees synthetic anomalies, and must rebuild the good image
    scale_levels: bool = False  # whether each level's distances are scaled by those of the training images

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
    "robust": Recipe(schedule="cosine", rate=0.4, corrupted=0.5, scale_levels=True),
}
BASELINE = Recipe(schedule="constant", hard_positions=False)  # plain reverse distillation
