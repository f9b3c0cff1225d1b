"""Recipes: the calibration, and what users see of them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from datasets.files import image_files
from models import WeightsError, memory, recipes
from models.aand import build_model, gaussian_smooth
from models.memory import embed, resize
from models.official import official_name
from models.recipes import METHODS, PUBLISHED, Recipe
from models.similarity import compare_features
from models.standardisation import Standardisation, residuals
from models.teacher import build_teacher
from tests.support.commands import TINY, run_test, run_train, same_weights
from utils.data.image_store import FileStack
from utils.runs.folder import Run
from utils.training.execution import Execution
from utils.training.features import TeacherFeatures
from utils.training.fitting import remember, standardise
from utils.training.resumable import ResumableStage

SIZE, FP32 = 64, Execution()
ROBUST = ("--recipe", "robust", "--categories", "bottle", "--aux_path", "builtin")


@pytest.fixture
def images() -> torch.Tensor:
    """uint8 (5, S, S, 4): noise, the foreground everywhere."""
    content = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 4), dtype=np.uint8)
    content[..., 3] = 1
    return torch.from_numpy(content)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(build_teacher("efficientnet_lite0", "random"), recipes.ROBUST).eval()


@pytest.fixture
def features(model, images) -> TeacherFeatures:
    return TeacherFeatures(model, images, batch_size=2, seed=3, execution=FP32)


# The calibration


def test_as_made_its_distances_are_one_minus_the_cosine():
    torch.manual_seed(0)
    first = [torch.randn(2, channels, 4, 4) for channels in (8, 12)]
    second = [torch.randn(2, channels, 4, 4) for channels in (8, 12)]
    for distance, one, other in zip(Standardisation((8, 12))(first, second), first, second, strict=True):
        assert torch.allclose(distance, compare_features(one, other).distance(), atol=1e-6)


def test_a_residual_is_the_difference_of_unit_vectors():
    one, other = torch.tensor([3.0, 4.0])[None, :, None, None], torch.tensor([0.0, 2.0])[None, :, None, None]
    assert residuals(one, other).flatten().tolist() == pytest.approx([0.6, -0.2])
    assert residuals(0 * one, other).flatten().tolist() == [0, -1]  # a zero vector counts as zero
    assert residuals(one.bfloat16(), other.bfloat16()).dtype == torch.float32


def test_residuals_are_centred_and_distances_scaled():
    one, other = torch.tensor([1.0, 0.0])[None, :, None, None], torch.tensor([0.0, 1.0])[None, :, None, None]
    calibration = Standardisation((2, 2))
    calibration.offset1.copy_(torch.tensor([0.4, -0.2]))
    calibration.set_scale(torch.tensor([0.5, 0.2]), torch.tensor([0.25, 0.1]))
    first, second = calibration([one, one], [other, one])
    assert first.item() == pytest.approx(((0.6**2 + 0.8**2) / 2 - 0.5) / 0.25)  # residual (1, -1)
    assert second.item() == pytest.approx((0 - 0.2) / 0.1)
    calibration.reset()
    first, second = calibration([one, one], [other, one])
    assert (first.item(), second.item()) == (1, 0)


def test_a_level_without_deviation_is_only_shifted():
    one, other = torch.tensor([1.0, 0.0])[None, :, None, None], torch.tensor([0.0, 1.0])[None, :, None, None]
    calibration = Standardisation((2,))
    calibration.set_scale(torch.tensor([0.3]), torch.tensor([0.0]))
    assert calibration([one], [other])[0].item() == pytest.approx(0.7)


def test_it_is_fitted_to_all_positions_of_the_training_images(model, features, images):
    """Against all at once: means over five images in batches of two."""
    standardise(model, features, FP32)
    standardise(model, features, FP32)  # from where it is as from the start
    with torch.no_grad():
        teacher = model.teacher(model.normalise(images[..., :3].permute(0, 3, 1, 2)))
        student = model.student(teacher)
    for level, (one, other) in enumerate(zip(teacher, student, strict=True)):
        residual = one / one.norm(dim=1, keepdim=True) - other / other.norm(dim=1, keepdim=True)
        offset = residual.mean(dim=(0, 2, 3), keepdim=True)
        distance = (residual - offset).square().sum(dim=1) / 2
        calibration = model.standardisation
        assert torch.allclose(calibration.offsets[level], offset.flatten(), atol=1e-6)
        assert calibration.mean[level].item() == pytest.approx(distance.mean().item(), rel=1e-4)
        assert calibration.deviation[level].item() == pytest.approx(distance.std(correction=0).item(), rel=1e-3)


def test_a_models_map_is_that_of_standardised_distances(model, features, images):
    inputs = model.normalise(images[..., :3].permute(0, 3, 1, 2))
    standardise(model, features, FP32)
    with torch.no_grad():
        anomaly_map, score = model(inputs)
        teacher = model.teacher(inputs)
        distances = model.standardisation(teacher, model.student(teacher))
    levels = [F.interpolate(d[:, None], SIZE, mode="bilinear", align_corners=True) for d in distances]
    assert torch.allclose(anomaly_map, gaussian_smooth(sum(levels), 4.0), atol=1e-5)
    assert torch.equal(score, anomaly_map.amax(dim=(1, 2, 3)))
    assert abs(torch.stack([d.mean() for d in distances])).max() < 1e-3  # around 0 on these images
    assert torch.stack([d.std(correction=0) for d in distances]).numpy() == pytest.approx(1, rel=1e-3)


def test_with_a_memory_the_map_is_that_of_what_is_usual_for_similar_patches(model, features, images):
    remember(model.memory, features, ResumableStage())
    standardise(model, features, FP32)
    inputs = model.normalise(images[..., :3].permute(0, 3, 1, 2))
    with torch.no_grad():
        anomaly_map, score = model(inputs)
        teacher = model.teacher(inputs)
        parts = model.memory(embed(teacher), model.standardisation(teacher, model.student(teacher)))
    large = [F.interpolate(part[:, None], SIZE, mode="bilinear", align_corners=True) for part in parts]
    assert torch.allclose(anomaly_map, gaussian_smooth(sum(large), 4.0), atol=1e-4)
    assert torch.equal(score, anomaly_map.amax(dim=(1, 2, 3)))


def test_what_is_usual_is_measured_without_an_images_own_patches(model, features, images, monkeypatch):
    """All 5 x 64 patches are in the memory; each position's nearest one is of another image. Against all at once."""
    monkeypatch.setattr(memory, "ALIKE", 1)
    remember(model.memory, features, ResumableStage())
    standardise(model, features, FP32)
    assert model.memory.patches.shape == (320, 152) and model.memory.images.bincount().tolist() == [64] * 5
    with torch.no_grad():
        teacher = model.teacher(model.normalise(images[..., :3].permute(0, 3, 1, 2)))
        distances = model.standardisation(teacher, model.student(teacher))
        patches = embed(teacher).permute(0, 2, 3, 1).reshape(320, 152)
    owners = torch.arange(5).repeat_interleave(64)
    apart = torch.cdist(patches, model.memory.patches)
    apart[owners[:, None] == model.memory.images] = torch.inf
    away, place = apart.min(dim=1)
    values = torch.stack([*(resize(d, distances[1]).flatten() for d in distances), away], dim=1)
    for row in (place[0], place[100]):
        near = values[place == row]
        mean = (near.sum(dim=0) + 60 * values.mean(dim=0)) / (len(near) + 60)
        square = (near.square().sum(dim=0) + 60 * values.square().mean(dim=0)) / (len(near) + 60)
        deviation = (square - mean**2).sqrt()
        origin = mean - 0.5 * deviation * (mean - values.mean(dim=0)) / values.std(dim=0, correction=0)
        assert model.memory.origin[row].tolist() == pytest.approx(origin.tolist(), rel=1e-3, abs=1e-3)
        assert model.memory.deviation[row].tolist() == pytest.approx(deviation.tolist(), rel=1e-2)


def test_a_robust_run_from_before_there_were_memory_and_heads_has_the_maps_of_then(trained, tmp_path):
    assert run_train(tmp_path, "--data_root", trained.data, *TINY, *ROBUST, "--output", "run").status == 0
    category = Run(tmp_path / "run").category("bottle")
    content = torch.load(category.stage(2))
    assert len(content["usual"]["patches"]) == 64  # four images of 4 x 4 positions
    del content["usual"], content["heads"]
    torch.save(content, category.stage(2))
    model, _ = category.load_model()
    assert model.memory is None and model.heads is None
    assert list(model.stage_parts()[2]) == ["bottleneck", "decoder", "calibration"]  # thresholds name it by these
    inputs = model.normalise(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    with torch.no_grad():
        anomaly_map, _ = model(inputs)
        teacher = model.teacher(inputs)
        distances = model.standardisation(teacher, model.student(teacher))
    levels = [F.interpolate(d[:, None], 32, mode="bilinear", align_corners=True) for d in distances]
    assert torch.allclose(anomaly_map, gaussian_smooth(sum(levels), 4.0), atol=1e-5)
    assert run_test(tmp_path, "--data_root", trained.data, "--run", "run").status == 0


@pytest.mark.parametrize(("backbone", "signed"), [("efficientnet_lite0", True), ("resnet18", False)])
def test_a_teacher_with_negative_features_has_a_student_that_can_rebuild_them(backbone, signed):
    model = build_model(build_teacher(backbone, "random"), recipes.ROBUST)
    assert model.pretrained.plan.signed == signed
    assert (model.heads is not None) == signed
    assert build_model(build_teacher(backbone, "random")).heads is None  # the published student
    sizes = zip(model.pretrained.plan.channels, (32, 16, 8), strict=True)
    features = [torch.randn(2, width, size, size) for width, size in sizes]
    with torch.no_grad():
        before, rebuilt = model.eval().decoder(model.bottleneck(features)), model.student(features)
    assert all(torch.equal(a, b) for a, b in zip(before, rebuilt, strict=True))  # heads are the identity at first
    assert all((level >= 0).all() for level in rebuilt)
    if signed:
        with torch.no_grad():
            model.heads.level2.weight.neg_()
            assert (model.student(features)[1] == -rebuilt[1]).all()
        assert model.heads in model.student_parts and model.stage_parts()[2]["heads"] is model.heads


def test_only_a_recipe_that_calibrates_saves_a_calibration():
    teacher = build_teacher("efficientnet_lite0", "random")
    assert "calibration" in build_model(teacher, recipes.ROBUST).stage_parts()[2]
    assert "calibration" not in build_model(teacher).stage_parts()[2]
    with pytest.raises(WeightsError, match="calibration.mean has no place in the official checkpoint format"):
        official_name("calibration.mean")


# What users see


def test_a_robust_run_from_training_to_results(trained, tmp_path):
    options = ("--data_root", trained.data, *TINY, *ROBUST, "--eval_every", 1, "--output", "run")
    assert run_train(tmp_path, *options).status == 0
    assert run_test(tmp_path, "--data_root", trained.data, "--run", "run").status == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["settings"]["recipe"] == "robust"
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    scored = results["categories"]["bottle"]
    logged = {name: records[-1][name] for name in scored}
    stepped = "aupro_per_image"  # of 200 thresholds: where rounding moves a pixel over one, it jumps
    assert scored.pop(stepped) == pytest.approx(logged.pop(stepped), abs=1e-3)
    assert scored == pytest.approx(logged, abs=1e-5)  # scale saved and loaded
    model, _ = Run(tmp_path / "run").category("bottle").load_model()
    saved = model.standardisation.mean.clone()
    paths = sorted((trained.data / "bottle/train/good").iterdir())
    good = FileStack(image_files(paths, Run(tmp_path / "run").category("bottle").view), 32, workers=1)[:]
    standardise(model, TeacherFeatures(model, good, batch_size=2, seed=0, execution=FP32), FP32)
    assert saved.tolist() == pytest.approx(model.standardisation.mean.tolist(), rel=1e-3)  # that of the last epoch


@pytest.mark.parametrize(
    ("options", "times"),
    [((), 1), (("--eval_every", 1), 4), (("--eval_every", 3), 2)],
)
def test_it_is_standardised_whenever_it_is_looked_at(options, times, trained, tmp_path, monkeypatch):
    """At the last epoch, and at those that are tested or rated; of four."""
    seen = []
    monkeypatch.setattr("utils.training.stages.standardise", lambda *a: seen.append(1) or standardise(*a))
    arguments = (*TINY, *ROBUST, "--epochs_stage1", 1, "--epochs_stage2", 4, *options)
    assert run_train(tmp_path, "--data_root", trained.data, *arguments, "--output", "run").status == 0
    assert len(seen) == times


def test_a_robust_run_repeats(trained, tmp_path):
    for name in ("first", "second"):
        assert run_train(tmp_path, "--data_root", trained.data, *TINY, *ROBUST, "--output", name).status == 0
    assert same_weights(tmp_path / "first", tmp_path / "second", "bottle")
    assert not same_weights(tmp_path / "first", trained.aand, "bottle")


def test_a_run_from_before_there_were_recipes_is_published_and_goes_on(trained, tmp_path):
    run = shutil.copytree(trained.aand, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    assert config.pop("recipe") == "published"
    (run / "config.json").write_text(json.dumps(config))
    assert run_test(tmp_path, "--data_root", trained.data, "--run", run).status == 0
    assert json.loads((run / "results.json").read_text())["protocol"]["epoch"] == "last"
    (run / "checkpoints/tile/stage2.pt").unlink()
    result = run_train(tmp_path, "--data_root", trained.data, *TINY, "--aux_path", "builtin", "--output", run)
    assert result.status == 0, result.err  # it goes on: nothing that matters has changed
    assert same_weights(run, trained.aand, "tile")


def test_the_baseline_has_no_recipes(trained, tmp_path):
    result = run_train(tmp_path, "--data_root", trained.data, *TINY, "--method", "rd4ad", "--recipe", "robust")
    assert result.status == 2
    assert result.errors == ["error: --recipe robust: --method rd4ad has published alone"]


def test_published_is_the_default_and_has_nothing_new():
    assert METHODS["aand"]["published"] == Recipe() == PUBLISHED
    assert not PUBLISHED.own_view and not PUBLISHED.standardised and PUBLISHED.hard_positions
