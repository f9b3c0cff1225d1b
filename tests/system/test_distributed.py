"""Several processes train as one does: the same images, gradients, statistics, maps and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.batches import SyntheticAnomalies
from models.aand import build_model
from models.recipes import BASELINE, PUBLISHED, ROBUST, Recipe
from models.teacher import build_teacher
from tests.support.processes import Processes
from tests.support.untrained import photographs
from utils.detection.prediction import Predictor
from utils.detection.test_set import TestSet
from utils.system.processes import ALONE, World, join
from utils.training.execution import Execution
from utils.training.features import TeacherFeatures
from utils.training.fitting import remember, standardise
from utils.training.norms import running_statistics, synchronise_norms
from utils.training.resumable import ResumableStage
from utils.training.stages import stage1_losses, stage2_loss
from utils.training.steps import Optimizer

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 64
CPU = torch.device("cpu")


Found = dict[str, Any]  # values by name


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Callable[..., list[Found]]:
    """What a function of CASES returns in each of two or three processes, which are started once for all its cases."""
    farm, found = Processes(tmp_path_factory.mktemp("processes")), {}

    def results(function: Callable, count: int, *arguments: object) -> list[Found]:
        if count not in found:
            found[count] = farm.call(count, run_cases, count)
        return [by_case[function.__name__, arguments] for by_case in found[count]]

    return results


def run_cases(count: int) -> dict[tuple, Found]:
    with join() as world:
        return {(f.__name__, arguments): f(world, *arguments) for f, of, arguments in CASES if of == count}


def make_model(recipe: Recipe = PUBLISHED):
    torch.manual_seed(0)
    return build_model(build_teacher("efficientnet_lite0", "random"), recipe)


def step_stage1(world: World, count: int) -> Found:
    """The gradient of the focal loss of a batch of so many images, and the figures of it."""
    model, execution = make_model(), Execution(world=world)
    own = world.share(count)
    images = torch.from_numpy(photographs(count, SIZE, SIZE)).permute(0, 3, 1, 2)[own]
    masks = torch.zeros(count, 1, SIZE, SIZE)
    for index in range(count):
        masks[index, :, : 8 * index, 4:40] = 1
    masks = masks[own]
    foregrounds = torch.ones_like(masks)
    focal, amplify, counts = stage1_losses(
        model.teacher, images, masks, foregrounds, torch.Generator(), execution
    )
    loss = focal + 0 * amplify  # so that every parameter has a gradient
    return take_step(model.teacher.amplification, loss, len(images), world) | {"counts": world.all_reduce(counts)}


def step_stage2(world: World, count: int, dtype: torch.dtype, synchronised: bool, precision: str = "fp32") -> Found:
    """The gradient of Stage II's loss of a batch of so many images, the norms' statistics and the loss."""
    model = make_model(BASELINE).to(dtype).train()
    students = nn.ModuleDict({"bottleneck": model.bottleneck, "decoder": model.decoder})
    if synchronised:
        for student in students.values():
            synchronise_norms(student, world)
    generator = torch.Generator().manual_seed(1)
    levels = zip(model.pretrained.plan.channels, (16, 8, 4), strict=True)
    features = [torch.randn(count, c, s, s, generator=generator).to(dtype) for c, s in levels]
    own = world.share(count)
    execution = Execution(precision, world=world)
    loss = stage2_loss(model, [level[own] for level in features], True, execution)
    return take_step(students, loss, len(features[0][own]), world)


def take_step(module: nn.Module, loss: Tensor, images: int, world: World) -> Found:
    whole = world.total(images)
    execution = Execution(fused_optimizer=False, world=world)
    optimizer = Optimizer(module.parameters(), 0.01, execution, CPU, running_statistics(module))
    optimizer.adam.zero_grad = lambda **_: None  # they are looked at
    optimizer.step(loss, images / whole)
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in module.named_parameters()}
    figures = world.means(images / whole, loss=loss.detach())
    return gradients | figures | {name: value.detach() for name, value in module.state_dict().items()}


def difference(first: Found, second: Found, what: str) -> float:
    """The norm of the difference of all values whose names begin so, as a share of their norm."""
    one, other = (torch.cat([v.flatten() for name, v in f.items() if name.startswith(what)]) for f in (first, second))
    return float((one - other).norm() / one.norm())


def assert_same_bits(results: list[Found]) -> None:
    for result in results[1:]:
        assert all(torch.equal(value, results[0][name]) for name, value in result.items())


# Five images are three and two, or two, two and one; of one image a process has none.
@pytest.mark.parametrize(("processes", "count"), [(2, 5), (2, 1), (3, 2)])
def test_focal_gradients_are_those_of_one_process(several, processes, count):
    whole, results = step_stage1(ALONE, count), several(step_stage1, processes, count)
    assert_same_bits(results)
    assert difference(whole, results[0], "gradient") < 1e-6
    assert float(whole["loss"]) == pytest.approx(float(results[0]["loss"]), rel=1e-6)
    assert torch.equal(whole["counts"], results[0]["counts"])


@pytest.mark.parametrize(
    ("processes", "count", "dtype"), [(2, 5, "float32"), (2, 5, "float64"), (3, 5, "float64"), (2, 1, "float64")]
)
def test_gradients_with_synchronised_norms_are_those_of_one_process(several, processes, count, dtype):
    case = (count, getattr(torch, dtype), True)
    whole, results = step_stage2(ALONE, *case), several(step_stage2, processes, *case)
    assert_same_bits(results)
    if dtype == "float32":
        assert all((whole[n] - results[0][n]).abs().max() < 1e-6 for n in whole if n.startswith("gradient"))
    else:
        assert difference(whole, results[0], "gradient") < 1e-12
    assert float(whole["loss"]) == pytest.approx(float(results[0]["loss"]), rel=1e-6)
    for name in whole:
        if "running" in name:
            assert torch.allclose(whole[name], results[0][name], rtol=1e-4), name


def test_each_process_has_its_own_norms_and_they_end_equal(several, monkeypatch):
    """Of five images the first process has two: each share alone, and their means weighted by 2/5 and 3/5."""
    case = (5, torch.float64, False)
    results = several(step_stage2, 2, *case)
    assert_same_bits(results)
    parts = []
    for own in (slice(0, 2), slice(2, 5)):
        monkeypatch.setattr(World, "share", lambda self, count, own=own: own)
        parts.append(step_stage2(ALONE, *case))
    for name, value in results[0].items():
        if name == "loss" or name.startswith("gradient") or "running" in name:
            assert torch.allclose(value, 0.4 * parts[0][name] + 0.6 * parts[1][name], rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("synchronised", [True, False])
def test_a_process_without_images_takes_part_in_bfloat16(several, synchronised):
    results = several(step_stage2, 2, 1, torch.float32, synchronised, "bf16")
    assert_same_bits(results)
    whole = step_stage2(ALONE, 1, torch.float32, False, "bf16")
    assert difference(whole, results[0], "gradient") < (0.1 if synchronised else 1e-6)
    assert all(value.isfinite().all() for value in results[0].values())


def test_shares_are_parts_in_a_row():
    for size in (1, 2, 3, 7):
        for count in (0, 1, 5, 16):
            parts = [list(range(count))[World(rank, size).share(count)] for rank in range(size)]
            assert sum(parts, []) == list(range(count))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
            assert World(0, size).shares(count) == list(map(len, parts))


def test_processes_see_the_same_anomalies_as_one():
    images = torch.from_numpy(np.concatenate([photographs(5, 32, 32), np.ones((5, 32, 32, 1), np.uint8)], axis=3))
    textures = torch.from_numpy(photographs(3, 32, 32)).permute(0, 3, 1, 2)

    def batches(world: World) -> list[tuple[Tensor, ...]]:
        anomalies = SyntheticAnomalies(images, textures, batch_size=3, seed=1, share=world.share)
        return [*anomalies.epoch(1), *anomalies.epoch(2)]

    for whole, *shares in zip(batches(ALONE), *(batches(World(rank, 4)) for rank in range(4)), strict=True):
        for one, *parts in zip(whole, *shares, strict=True):
            assert torch.equal(one, torch.cat(parts))


def test_processes_see_the_same_features_as_one(monkeypatch):
    monkeypatch.setattr(World, "total", lambda self, count: count)  # no other process is there
    images = torch.from_numpy(photographs(5, SIZE, SIZE))
    model = make_model(BASELINE).eval()

    def batches(world: World) -> list[list[Tensor]]:
        features = TeacherFeatures(model, images, batch_size=3, seed=1, execution=Execution(world=world))
        features.keep("on", "ram", None)
        return list(features.epoch(2))

    for whole, *shares in zip(batches(ALONE), batches(World(0, 2)), batches(World(1, 2)), strict=True):
        for one, *parts in zip(whole, *shares, strict=True):
            assert torch.equal(one, torch.cat(parts))


def evaluate(world: World, count: int) -> Found:
    """Maps, scores and metrics of so many images in batches of two, and what calibration finds."""
    model = make_model(ROBUST).eval()
    images = torch.from_numpy(photographs(count, SIZE, SIZE))
    features = TeacherFeatures(model, images, batch_size=3, seed=0, execution=Execution(world=world))
    maps, scores = Predictor.of(model, SIZE, batch_size=2).maps(images, world=world)
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    masks[1::2, :9, :9] = 1
    test_set = TestSet(images, masks.any(axis=(1, 2)).astype(int), masks)
    metrics = test_set.metrics(model, 2, world)
    remember(model.memory, features, ResumableStage(world=world))
    standardise(model, features, Execution(world=world))
    found = {"maps": maps, "scores": scores, "metrics": metrics, "usual": model.memory.state_dict()}
    return found | {"calibration": model.standardisation.state_dict()}


@pytest.mark.parametrize(("processes", "count"), [(2, 5), (3, 3)])
def test_maps_and_metrics_are_exactly_those_of_one_process(several, processes, count):
    whole = evaluate(ALONE, count)
    assert len(whole["metrics"]) > 5
    for found in several(evaluate, processes, count):
        assert np.array_equal(found["maps"], whole["maps"]) and np.array_equal(found["scores"], whole["scores"])
        assert found["metrics"] == whole["metrics"]
        for name, value in found["calibration"].items():
            assert torch.allclose(value, whole["calibration"][name], rtol=1e-5, atol=1e-7), name
        for name, value in found["usual"].items():  # numbers around 1, of what was rounded before
            assert torch.allclose(value, whole["usual"][name], rtol=1e-5, atol=1e-5), name


CASES = [
    *((step_stage1, *case) for case in [(2, (5,)), (2, (1,)), (3, (2,))]),
    *((step_stage2, processes, (count, torch.float64, True)) for processes, count in [(2, 5), (3, 5), (2, 1)]),
    (step_stage2, 2, (5, torch.float32, True)),
    (step_stage2, 2, (5, torch.float64, False)),
    *((step_stage2, 2, (1, torch.float32, synchronised, "bf16")) for synchronised in (True, False)),
    *((evaluate, *case) for case in [(2, (5,)), (3, (3,))]),
]
