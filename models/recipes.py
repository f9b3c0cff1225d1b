"""Methods and their recipes: which stages a model is trained in, what it is shown, and how its maps are made.

A new method is one row in METHODS and, where its model is another, a module in models/ with a class that can stand for
`models.aand.AAND`. The robust recipe was chosen on synthetic anomalies of kinds not trained on, on good images held
out (docs/accuracy_ablation.md); what prompted two changes was seen on test sets (docs/accuracy.md).
"""

from __future__ import annotations

from dataclasses import dataclass

USUAL_EPOCHS, MOST_EPOCHS, LEAST_EPOCHS = 20, 60, 5  # of a stage, where the number of images decides
FEW_IMAGES, MANY_IMAGES = 2000, 8000  # looked at in a stage: at least, with USUAL_EPOCHS or more; and at most
LR_MILESTONES = (0.8, 0.9)  # shares of the epochs after which the learning rate falls
LR_FACTOR = 0.2


@dataclass(frozen=True)
class Recipe:
    """The defaults are AAND's published ones."""

    model: str = "aand.AAND"  # module in models/ and class of the model, whose `of` gets the teacher and the recipe
    amplified: bool = True  # Stage I trains an amplification of the teacher's features on synthetic anomalies
    crop: bool = False  # images are cropped to where the training set's objects are
    stretch: bool = False  # the grey levels in use are stretched to all there are
    falling_rate: bool = True  # the learning rate falls near the end
    hard_positions: bool = True  # the worst positions have a loss of their own
    standardised: bool = False  # distances are relative to those of the training images
    memory: bool = False  # they are also relative to those of similar patches, and patches unlike all good ones count
    heads: bool = False  # the student's levels end linearly, where the teacher's features can be negative
    trained: bool = True  # Stage II trains a student; else a memory is filled with good patches

    @property
    def own_view(self) -> bool:
        """Each category has a view of its own (datasets/view.py)."""
        return self.crop or self.stretch

    def epochs(self, stage1: int, stage2: int) -> tuple[int, int]:
        """The epochs of both stages that a training has of those asked for; a memory is filled in one."""
        return stage1 if self.amplified else 0, stage2 if self.trained else 1

    def milestones(self, epochs: int) -> list[int]:
        """The epochs after which the learning rate falls to LR_FACTOR of it; the first epoch always has the whole."""
        return [max(1, int(share * epochs)) for share in LR_MILESTONES] if self.falling_rate else []


def epochs_for(images: int) -> int:
    """The epochs of a stage that suit so many training images: 20 for 100 to 400, more of fewer, fewer of more."""
    if images * USUAL_EPOCHS < FEW_IMAGES:
        return min(MOST_EPOCHS, -(-FEW_IMAGES // max(images, 1)))
    return min(USUAL_EPOCHS, max(LEAST_EPOCHS, MANY_IMAGES // images))


PUBLISHED = Recipe()
ROBUST = Recipe(crop=True, stretch=True, standardised=True, memory=True, heads=True)
BASELINE = Recipe(amplified=False, falling_rate=False, hard_positions=False)  # plain reverse distillation
PATCHCORE = Recipe(model="patchcore.PatchCore", amplified=False, trained=False)
METHODS = {
    "aand": {"published": PUBLISHED, "robust": ROBUST},
    "rd4ad": {"published": BASELINE},
    "patchcore": {"published": PATCHCORE},
}
RECIPES = tuple(dict.fromkeys(name for recipes in METHODS.values() for name in recipes))
