"""The PatchCore baseline: its score by hand, its memory, and a run from training to a verdict."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F

from models.aand import build_model, gaussian_smooth
from models.memory import embed
from models.recipes import METHODS
from models.teacher import build_teacher
from tests.support.commands import ASIDE, OWN, TINY, run_predict, run_test, run_train, same_weights
from utils.runs.folder import Run
from utils.training import fitting
from utils.training.category import TrainingSet
from utils.training.config import TrainConfig
from utils.training.fitting import choose_coreset, draw_patches, fill_memory
from utils.training.resumable import ResumableStage

RECIPE = METHODS["patchcore"]["published"]
PATCHCORE = ("--method", "patchcore", "--categories", "bottle")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(build_teacher("efficientnet_lite0", "random"), RECIPE).eval()


def images(count: int) -> torch.Tensor:
    """uint8 (N, 64, 64, 4): noise, the foreground everywhere."""
    return torch.randint(0, 256, (count, 64, 64, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_the_score_is_lowered_where_the_nearest_patch_has_near_neighbours(model):
    """On a line: the farthest patch is at 6, the nearest one of the memory at 4, its neighbours at 3 and 0."""
    model.memory.patches = torch.tensor([[0.0], [3.0], [4.0]])
    patches, distance, place = torch.tensor([[[0.5, 6.0]]]), torch.tensor([[0.5, 2.0]]), torch.tensor([[0, 2]])
    expected = 2 * (1 - math.exp(2) / (math.exp(2) + math.exp(3) + math.exp(6)))
    assert model.score(patches, distance, place).item() == pytest.approx(expected, rel=1e-5)
    model.memory.patches = torch.tensor([[4.0]])
    assert model.score(patches, distance, torch.zeros_like(place)).item() == 2  # a single patch has no neighbours


def test_of_many_patches_nine_are_neighbours(model):
    model.memory.patches = torch.arange(20.0)[:, None]
    found = model.score(torch.tensor([[[25.0]]]), torch.tensor([[6.0]]), torch.tensor([[19]])).item()
    assert found == pytest.approx(6 * (1 - math.exp(6) / sum(math.exp(away) for away in range(6, 15))), rel=1e-5)


def test_a_map_is_the_distances_to_the_memory_smoothed(model):
    inputs, other = model.normalise(images(3)[..., :3].permute(0, 3, 1, 2)).split([2, 1])
    model.memory.patches = embed(model.teacher(other))[0].flatten(1).T[::7].contiguous()
    patches = embed(model.teacher(inputs))  # none of them is remembered: near 0 a product of floats is not exact
    anomaly_map, score = model(inputs)
    away = torch.cdist(patches.flatten(2).transpose(1, 2), model.memory.patches).amin(dim=2)
    large = F.interpolate(away.view(2, 1, 8, 8), 64, mode="bilinear", align_corners=True)
    assert torch.allclose(anomaly_map, gaussian_smooth(large, 4.0), atol=1e-3)
    assert anomaly_map.shape == (2, 1, 64, 64) and (score <= (1 + 1e-5) * away.amax(dim=1)).all()
    with pytest.raises(ValueError, match="multiples of 32"):
        model(inputs[..., :40])


def test_the_memory_is_a_coreset_of_all_images_patches(model, monkeypatch):
    monkeypatch.setattr(fitting, "CANDIDATES", 200)
    data = TrainingSet(images(5), [])
    config = TrainConfig("", method="patchcore", batch_size=2, seed=3, precision="fp32")
    logged = []
    stage = ResumableStage()
    stage.log = lambda epoch, figures: logged.append((epoch, figures))
    fill_memory(model, data, config, stage)
    features = fitting.TeacherFeatures(model, data.images, batch_size=2, seed=3, execution=config.execution)
    candidates, owners = draw_patches(features)
    assert candidates.shape == (200, 152) and owners.unique().tolist() == [0, 1, 2, 3, 4]
    whole = embed(model.teacher(model.normalise(data.images[..., :3].permute(0, 3, 1, 2)))).flatten(2)  # (5, C, 64)
    away = torch.cdist(candidates, whole.transpose(1, 2).reshape(-1, 152)).view(200, 5, 64).amin(dim=2)
    assert away.argmin(dim=1).tolist() == owners.tolist() and away.amin(dim=1).max() < 0.1  # others are at 3 and more
    features.windows = 2
    assert draw_patches(features)[1].tolist() == [owner // 2 for owner in owners.tolist()]  # photographs' numbers
    chosen, radius = choose_coreset(candidates, 20, seed=3)
    assert torch.equal(model.memory.patches, candidates[chosen])
    assert logged == [(1, {"radius": radius})]


def test_a_run_from_training_to_results(trained, tmp_path):
    options = ("--data_root", trained.data, *TINY, *PATCHCORE, "--eval_every", 1)
    assert run_train(tmp_path, *options, "--output", "run").status == 0
    assert run_test(tmp_path, "--data_root", trained.data, "--run", "run").status == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1]  # whatever --epochs_stage2 says
    scored = results["categories"]["bottle"]
    assert scored == pytest.approx({name: records[0][name] for name in scored}, abs=1e-5)
    assert run_train(tmp_path, *options, "--output", "again").status == 0
    assert same_weights(tmp_path / "run", tmp_path / "again", "bottle")
    model, _ = Run(tmp_path / "run").category("bottle").load_model()
    assert len(model.memory) > 0 and model.memory.patches.isfinite().all()


def test_thresholds_and_verdicts(own, tmp_path):
    arguments = ("--data_root", own.data, *OWN, *ASIDE, "--method", "patchcore")
    assert run_train(tmp_path, *arguments, "--output", "run").status == 0
    result = run_predict(tmp_path, "run", own.data)
    assert result.status == 0 and "good" in result.out


def test_it_has_no_robust_recipe(trained, tmp_path):
    result = run_train(tmp_path, "--data_root", trained.data, *TINY, *PATCHCORE, "--recipe", "robust")
    assert result.errors == ["error: --recipe robust: --method patchcore has published alone"]
