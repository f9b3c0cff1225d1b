"""The memory of good patches: nearest neighbours, coreset, and distances relative to what is usual there."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models import memory as module
from models.memory import LocalStandardisation, Memory, embed, nearness, resize, soften, squared_distances
from models.tensor_files import describe_misfit
from utils.training.fitting import choose_coreset


def patches(rows: list[list[float]]) -> torch.Tensor:
    """Patches (1, C, 1, P) of these vectors."""
    return torch.tensor(rows).T[None, :, None]


@pytest.fixture
def usual(monkeypatch) -> LocalStandardisation:
    """Three patches of images 0, 0 and 1 on a line, each on its own; one level."""
    monkeypatch.setattr(module, "ALIKE", 1)
    monkeypatch.setattr(module, "PRIOR", 1.0)
    made = LocalStandardisation(channels=1, levels=1)
    made.patches, made.images = torch.tensor([[0.0], [4.0], [10.0]]), torch.tensor([0, 0, 1])
    return made


# Patches


def test_a_patch_is_both_levels_averaged_over_its_neighbours():
    level2, level3 = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 2, 2)
    level2[0, 1, 1, 1] = 9
    level3[:] = 18
    found = embed([torch.rand(1, 5, 8, 8), level2, level3])
    assert found.shape == (1, 3, 4, 4) and found.dtype == torch.float32
    assert found[0, 1].tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert found[0, 2].unique().tolist() == [8]  # 4 of 9 positions are within the 2 x 2


def test_squared_distances_are_those_of_torch_and_never_negative():
    one, other = torch.randn(2, 5, 7, 16), torch.randn(11, 16)
    expected = torch.cdist(one.flatten(0, 2), other).square().view(2, 5, 7, 11)
    assert torch.allclose(squared_distances(one, nearness(one, other)), expected, atol=1e-4)
    far = 1000 + other
    assert squared_distances(far, nearness(far, far)).min() >= 0


def test_the_nearest_patch_is_found_however_the_memory_is_cut(monkeypatch):
    made = Memory(6)
    made.patches = torch.randn(23, 6)
    asked = torch.randn(2, 6, 3, 4)
    expected, places = torch.cdist(asked.movedim(1, -1).flatten(0, 2), made.patches).min(dim=1)
    for size in (1, 5, 23, 1024):
        monkeypatch.setattr(module, "AT_ONCE", size)
        away, place = made.nearest(asked)
        assert torch.allclose(away.flatten(), expected, atol=1e-4)
        assert place.flatten().tolist() == places.tolist()


def test_a_training_image_is_compared_with_the_others(usual):
    away, place = usual.nearest_of_others(patches([[1.0], [9.0]]), torch.tensor([0]))
    assert (away.flatten().tolist(), place.flatten().tolist()) == ([9, 1], [2, 2])
    away, place = usual.nearest_of_others(patches([[1.0], [9.0]]), torch.tensor([1]))
    assert (away.flatten().tolist(), place.flatten().tolist()) == ([1, 5], [0, 1])
    usual.images[:] = 0  # a single image has no others
    away, place = usual.nearest_of_others(patches([[1.0], [9.0]]), torch.tensor([0]))
    assert (away.flatten().tolist(), place.flatten().tolist()) == ([1, 1], [0, 2])


# What is usual


def test_origin_and_deviation_are_those_of_each_patch_and_a_little_of_all(usual):
    """Positions 2, 1, 1; the first column's distances 1 and 3, 2, 6; the second's all 5."""
    count = torch.tensor([2.0, 1.0, 1.0])
    sums = torch.tensor([[4.0, 10.0], [2.0, 5.0], [6.0, 5.0]])
    squares = torch.tensor([[10.0, 50.0], [4.0, 25.0], [36.0, 25.0]])
    usual.set_usual(count, sums, squares)
    whole, whole_square = 12 / 4, 50 / 4
    means = [(4 + whole) / 3, (2 + whole) / 2, (6 + whole) / 2]
    mean_squares = [(10 + whole_square) / 3, (4 + whole_square) / 2, (36 + whole_square) / 2]
    deviations = [(s - m**2) ** 0.5 for s, m in zip(mean_squares, means, strict=True)]
    assert usual.deviation[:, 0].tolist() == pytest.approx(deviations, rel=1e-5)
    standing = [(m - whole) / (whole_square - whole**2) ** 0.5 for m in means]  # half of it is kept
    kept = [m - 0.5 * z * d for m, z, d in zip(means, standing, deviations, strict=True)]
    assert usual.origin[:, 0].tolist() == pytest.approx(kept, rel=1e-5)
    assert usual.origin[:, 1].tolist() == [5, 5, 5] and usual.deviation[:, 1].tolist() == [1, 1, 1]  # only shifted


def test_patches_alike_have_the_same_usual_distances(usual, monkeypatch):
    monkeypatch.setattr(module, "ALIKE", 2)  # 0 with 4, 4 with 0, 10 with 4
    monkeypatch.setattr(module, "STANDING", 0)
    count = torch.tensor([1.0, 3.0, 4.0])
    sums = torch.tensor([[1.0], [3.0], [12.0]]).expand(3, 2)
    usual.set_usual(count, sums, sums**2)
    assert usual.origin[:, 0].tolist() == pytest.approx([(4 + 2) / 5, (4 + 2) / 5, (15 + 2) / 8])


def test_distances_are_relative_to_what_is_usual_for_the_nearest_patch(usual):
    usual.origin = torch.tensor([[1.0, 0.5], [2.0, 0.25], [3.0, 1.0]])
    usual.deviation = torch.tensor([[0.5, 2.0], [1.0, 0.5], [2.0, 0.25]])
    asked = patches([[0.0], [5.0], [13.0]]), [torch.tensor([[[2.0, 2.0, 2.0]]])]
    level, away = usual.compare(*asked)
    assert level.flatten().tolist() == [(2 - 1) / 0.5, (2 - 2) / 1, (2 - 3) / 2]
    assert away.flatten().tolist() == [(0 - 0.5) / 2, (1 - 0.25) / 0.5, (3 - 1) / 0.25]
    level, away = usual(*asked)
    assert level.flatten().tolist() == [2, 0, 0]  # what is rebuilt well is no sign of a good image
    assert away.flatten().tolist() == pytest.approx([0, 3 * (1 - 0.25) / 0.5, 3 * 3 * (1 + math.log(8 / 3))])


def test_distances_are_softened_beyond_the_limit_without_a_jump_or_kink():
    distances = torch.tensor([-5.0, 0.0, 1.5, 2.0, 2 * math.e, 2e4], dtype=torch.double)
    limit = torch.tensor(2.0, dtype=torch.double)
    assert soften(distances, limit).tolist() == pytest.approx([0, 0, 1.5, 2, 4, 2 * (1 + math.log(1e4))])
    below, at, above = soften(torch.tensor([2 - 1e-4, 2, 2 + 1e-4], dtype=torch.double), limit).tolist()
    assert above - at == pytest.approx(at - below, rel=1e-3)


def test_what_is_usual_is_enlarged_to_a_finer_level(usual):
    usual.origin = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    usual.deviation = torch.ones(3, 2)
    level, _ = usual.compare(patches([[0.0], [4.0]]), [torch.full((1, 1, 3), 5.0)])
    assert level.flatten().tolist() == [5, 4, 3]
    assert resize(torch.ones(1, 2, 2), torch.ones(1, 2, 2)).shape == (1, 2, 2)


# The coreset


def test_each_of_a_coreset_is_the_farthest_from_those_before_it():
    candidates = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 3))).float()
    chosen, radius = choose_coreset(candidates, 12, seed=4)
    away = torch.cdist(candidates, candidates)
    for step in range(1, 12):
        nearest = away[:, chosen[:step]].amin(dim=1)
        assert nearest[chosen[step]] == pytest.approx(nearest.max().item(), rel=1e-5)
    assert radius == pytest.approx(away[:, chosen].amin(dim=1).max().item(), rel=1e-4)
    assert choose_coreset(candidates, 12, seed=4)[0].tolist() == chosen.tolist()
    assert choose_coreset(candidates, 12, seed=5)[0].tolist() != chosen.tolist()
    assert sorted(choose_coreset(candidates, 60, seed=0)[0].tolist()) == list(range(60))  # none twice


def test_a_coreset_of_many_channels_is_searched_in_a_projection():
    wide = torch.randn(40, 3) @ torch.randn(3, 500)  # three dimensions in 500: all distances are nearly kept
    chosen, _ = choose_coreset(wide, 10, seed=1)
    assert len(set(chosen.tolist())) == 10
    covered = torch.cdist(wide, wide[chosen]).amin(dim=1).max()
    assert covered < torch.cdist(wide, wide[:10]).amin(dim=1).max()


def test_a_search_shows_its_steps_and_can_be_stopped():
    seen = []

    def progress(steps):
        for step in steps:
            if step == 3:
                raise KeyboardInterrupt
            seen.append(step)
            yield step

    with pytest.raises(KeyboardInterrupt):
        choose_coreset(torch.randn(20, 2), 10, 0, progress)
    assert seen == [0, 1, 2]


# Files


def test_any_number_of_patches_is_loaded_but_all_tensors_have_it(usual):
    usual.origin, usual.deviation = torch.rand(3, 2), torch.rand(3, 2)
    state, made = usual.state_dict(), LocalStandardisation(channels=1, levels=1)
    assert describe_misfit(made.state_dict(), state) == ""
    made.load_state_dict(state)
    assert torch.equal(made.patches, usual.patches) and torch.equal(made.origin, usual.origin)
    own = LocalStandardisation(1, 1).state_dict()
    assert describe_misfit(own, own).startswith("patches is empty; origin is empty")
    shorter = describe_misfit(own, state | {"origin": torch.rand(2, 2)})
    assert shorter == "its tensors have different numbers of rows: 2, 3"
    wider = describe_misfit(own, state | {"patches": torch.rand(3, 2)})
    assert wider == "patches has shape (3, 2), the model needs (0, 1)"
    for left_out in ("patches", "weights", "limit"):
        lacking = {name: tensor for name, tensor in state.items() if name != left_out}
        assert f"{left_out} is missing" in describe_misfit(own, lacking)
