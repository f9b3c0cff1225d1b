"""What a model takes from the good training images without learning: standardisation, and memories of their patches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from models.aand import AAND
from models.memory import LocalStandardisation, embed, resize
from models.patchcore import PatchCore
from models.standardisation import residuals
from models.teacher import STRIDES
from utils.data.image_store import Stack
from utils.training.category import TrainingSet
from utils.training.config import TrainConfig
from utils.training.execution import Execution
from utils.training.features import TeacherFeatures
from utils.training.resumable import ResumableStage

CANDIDATES = 50_000  # patches that a coreset is chosen from
CORESET = 0.1  # of them, in PatchCore's memory
PATCHES = 4000  # in the memory of a standardisation
PROJECTED = 128  # dimensions in which a coreset is searched
CHECKED = 100  # patches between two looks at whether to stop

Progress = Callable[[Iterable[int]], Iterable[int]]


@torch.no_grad()
def standardise(model: AAND, features: TeacherFeatures, execution: Execution) -> None:
    """Set the model's standardisation by its residuals, then its distances, on the training images; then, with a
    memory, by what is usual for patches alike."""
    standardisation = model.standardisation
    model.eval()

    def student_features() -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        return both_features(model, features, execution)

    def mean(values: Iterator[list[Tensor]]) -> list[Tensor]:
        """Means of each level's values (N, ..., H, W) over images and positions, in float64."""
        count, sums = 0, None
        for levels in values:
            totals = [level.flatten(-2).mean(dim=-1).double().sum(dim=0) for level in levels]
            sums = totals if sums is None else [a + b for a, b in zip(sums, totals, strict=True)]
            count += len(levels[0])
        execution.world.all_reduce_coalesced(sums)
        count = execution.world.total(count)
        return [total / count for total in sums]

    standardisation.reset()
    offsets = mean([residuals(*pair) for pair in zip(*both, strict=True)] for both in student_features())
    for offset, found in zip(standardisation.offsets, offsets, strict=True):
        offset.copy_(found)
    moments = mean(
        [torch.stack([d, d.square()], dim=1) for d in standardisation(*both)] for both in student_features()
    )  # (2,) each
    first, second = torch.stack(moments).unbind(1)  # (levels,) each
    standardisation.set_scale(first, (second - first**2).clamp_min(0).sqrt())
    if model.memory:
        set_usual(model, features, execution)


def both_features(
    model: AAND, features: TeacherFeatures, execution: Execution
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """The teacher's features of the training images, as `TeacherFeatures.epoch` gives them, and the student's."""
    for teacher_features in features.epoch(1):
        with execution.autocast(teacher_features[0].device):
            yield teacher_features, model.student(teacher_features)


def set_usual(model: AAND, features: TeacherFeatures, execution: Execution) -> None:
    """Set what is usual for the patches of the model's memory, by the distances on the training images."""
    memory = model.memory
    count = torch.zeros(len(memory), dtype=torch.float64, device=model.device)
    sums, squares = (count.new_zeros(len(memory), memory.origin.shape[1]) for _ in range(2))
    for batch, both in zip(features.batches(1), both_features(model, features, execution), strict=True):
        away, place = memory.nearest_of_others(embed(both[0]), batch // features.windows)
        distances = [resize(distance, away) for distance in model.standardisation(*both)]
        values = torch.stack([*distances, away], dim=-1).double().flatten(0, 2)  # (N * h * w, levels + 1)
        count.index_add_(0, place.flatten(), torch.ones_like(values[:, 0]))
        sums.index_add_(0, place.flatten(), values)
        squares.index_add_(0, place.flatten(), values.square())
    execution.world.all_reduce_coalesced([count, sums, squares])
    memory.set_usual(count, sums, squares)


def remember(memory: LocalStandardisation, features: TeacherFeatures, stage: ResumableStage) -> None:
    """Fill the memory of a model with a coreset of PATCHES patches of the training images."""
    patches, images = draw_patches(features)
    chosen, _ = search(patches, PATCHES, features.seed, stage)
    memory.patches, memory.images = patches[chosen].to(memory.patches.device), images[chosen].to(memory.images.device)


def fill_memory(model: PatchCore, data: TrainingSet, config: TrainConfig, stage: ResumableStage) -> None:
    """Fill PatchCore's memory with patches of the training images; nothing is trained, so it is all a single epoch."""
    features = memory_features(model, data.images, config, data.view.windows)
    for epoch in stage.epochs(1):
        figures = {"radius": fill(model, features, stage)}
        if data.test_set:
            figures |= data.test_set.metrics(model.eval(), config.batch_size, config.world)
        stage.log(epoch, figures)


def memory_features(model: PatchCore, images: Stack, config: TrainConfig, windows: int) -> TeacherFeatures:
    """The features that PatchCore's memory is made of, in float32."""
    execution = replace(config.execution, precision="fp32")
    return TeacherFeatures(
        model, images, batch_size=config.batch_size, seed=config.seed, execution=execution, windows=windows
    )


def fill(model: PatchCore, features: TeacherFeatures, stage: ResumableStage) -> float:
    """Fill PatchCore's memory; returns the distance of the patch that is farthest from it."""
    patches, _ = draw_patches(features)
    chosen, radius = search(patches, max(1, round(CORESET * len(patches))), features.seed, stage)
    model.memory.patches = patches[chosen].to(model.device)
    return radius


def draw_patches(features: TeacherFeatures) -> tuple[Tensor, Tensor]:
    """At most CANDIDATES patches (P, C) of the training images, drawn at random, and the number of the image that each
    is of, (P,): on the CPU, and the same in all processes."""
    height, width = features.images.shape[1:3]
    grid = (height // STRIDES[1]) * (width // STRIDES[1])  # patches of a window
    generator = torch.Generator().manual_seed(features.seed)
    drawn = torch.randperm(len(features.images) * grid, generator=generator)[:CANDIDATES].sort().values
    images, positions = drawn // grid, drawn % grid
    own: dict[int, Tensor] = {}
    for batch, levels in zip(features.batches(1), features.epoch(1), strict=True):
        for image, patches in zip(batch.tolist(), embed(levels).flatten(2).transpose(1, 2), strict=True):
            own[image] = patches[positions[images == image].to(patches.device)].cpu()
    whole = {image: patches for part in features.execution.world.all_gather(own) for image, patches in part.items()}
    return torch.cat([whole[image] for image in sorted(whole)]), images // features.windows


def search(patches: Tensor, count: int, seed: int, stage: ResumableStage) -> tuple[Tensor, float]:
    """The coreset of at most so many patches, as `choose_coreset` gives it, found by rank 0 for all processes. A bar
    shows its steps; Interrupted where the stage is asked to stop."""

    def watched(steps: Iterable[int]) -> Iterator[int]:
        for step in tqdm(steps, "memory", unit="patch", leave=False, disable=None):
            if step % CHECKED == 0:
                stage.check()
            yield step

    count = min(count, len(patches))
    return stage.world.broadcast(lambda: choose_coreset(patches, count, seed, watched))


def choose_coreset(candidates: Tensor, count: int, seed: int, progress: Progress = iter) -> tuple[Tensor, float]:
    """Indices (count,) of candidates (P, C) by greedy k-centre: each is the one farthest from those before it.

    Searched in a random projection where C is larger than PROJECTED. Returns also the distance of the candidate that is
    farthest from the coreset, there.
    """
    if candidates.shape[1] > PROJECTED:
        from sklearn.random_projection import GaussianRandomProjection  # late: nobody else needs it

        projection = GaussianRandomProjection(PROJECTED, random_state=seed)
        candidates = torch.from_numpy(projection.fit_transform(candidates.numpy())).float()
    squares = candidates.square().sum(dim=1)
    chosen = torch.empty(count, dtype=torch.long)
    nearest = torch.full_like(squares, torch.inf)
    place = int(torch.randint(len(candidates), (1,), generator=torch.Generator().manual_seed(seed)))
    for step in progress(range(count)):
        chosen[step] = place
        away = squares - 2 * (candidates @ candidates[place]) + squares[place]
        torch.minimum(nearest, away.clamp_min_(0), out=nearest)
        nearest[place] = 0
        place = int(nearest.argmax())
    return chosen, float(nearest.max().sqrt())
