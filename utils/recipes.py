"""What a model is shown, how Stage II trains its student, and from where discrepancies are measured: the published
recipe, the baseline's, and a robust one.

The robust recipe was chosen on synthetic anomalies of unseen kinds on held-out good images alone, as
benchmarks/recipes.py does it; no test image had a part in it.
"""

from __future__ import annotations

from dataclasses import dataclass

LR_MILESTONES = (0.8, 0.9)  # shares of the epochs after which the learning rate falls
LR_FACTOR = 0.2


@dataclass(frozen=True)
class Recipe:
    """The defaults are AAND's published ones."""

    crop: bool = False  # whether images are cropped to where the training set's objects are
    stretch: bool = False  # whether the grey levels in use are stretched to all there are
    falling_rate: bool = True  # whether the learning rate falls near the end
    hard_positions: bool = True  # whether the worst positions have a loss of their own
    calibrated: bool = False  # whether discrepancies are measured from those of the training images

    @property
    def own_view(self) -> bool:
        """Whether each category has a view of its own (datasets/view.py)."""
        return self.crop or self.stretch

    def milestones(self, epochs: int) -> list[int]:
        """The epochs after which the learning rate falls to LR_FACTOR of it; the first epoch always has the whole."""
        return [max(1, int(share * epochs)) for share in LR_MILESTONES] if self.falling_rate else []


PUBLISHED = Recipe()
RECIPES = {
    "published": PUBLISHED,
    "robust": Recipe(crop=True, stretch=True, calibrated=True),
}
BASELINE = Recipe(falling_rate=False, hard_positions=False)  # plain reverse distillation


def recipe_of(method: str, recipe: str) -> Recipe:
    """The recipe of a run; "rd4ad" has its own alone."""
    return RECIPES[recipe] if method == "aand" else BASELINE
