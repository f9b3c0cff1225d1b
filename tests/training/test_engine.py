"""The training stages: schedule, what is trained, losses' composition; and the prediction of maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import losses
from models.aand import build_model
from models.losses import gate_focal_loss, level_mask
from models.recipes import BASELINE, PUBLISHED
from models.teacher import build_teacher
from tests.support.stages import amplify_maps
from utils.detection.prediction import Predictor
from utils.system.signals import Interrupted
from utils.training import steps
from utils.training.category import TrainingSet
from utils.training.config import TrainConfig
from utils.training.execution import PLAIN, Execution
from utils.training.features import TeacherFeatures
from utils.training.resumable import ResumableStage
from utils.training.stages import (
    stage1_losses,
    stage2_loss,
    train_stage1,
    train_stage2,
)
from utils.training.steps import Average

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 64
FP32 = Execution()


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(build_teacher("efficientnet_lite0", "random"))


@pytest.fixture
def rates(monkeypatch):
    """The learning rate of every optimiser step."""
    seen = []

    class Recorder(torch.optim.Adam):
        def step(self, closure=None):
            (group,) = self.param_groups
            seen.append((round(group["lr"], 8), group["betas"]))
            return super().step(closure)

    monkeypatch.setattr(steps, "Adam", Recorder)
    return seen


def make_data(images):
    with_foregrounds = torch.cat([images, torch.ones_like(images[..., :1])], dim=-1)
    return TrainingSet(with_foregrounds, [], images.flip(0).permute(0, 3, 1, 2))


def make_config(**changes):
    return TrainConfig(Path(), **{"batch_size": 5, "precision": "fp32", "cache_features": "off"} | changes)


def make_stage(records, *arguments, **options):
    stage = ResumableStage(*arguments, **options)
    stage.log = lambda epoch, figures: records.append((epoch, figures))
    return stage


def make_features(model, images, how=FP32):
    return TeacherFeatures(model, images, batch_size=5, seed=0, execution=how)


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(module, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_stage1_trains_the_amplification_alone_and_lowers_the_rate_twice(model, images, rates):
    trunk, student = snapshot(model.pretrained), snapshot(model.decoder)
    records = []
    train_stage1(model, make_data(images), make_config(epochs_stage1=10), make_stage(records))
    assert rates == [(0.005, (0.5, 0.999))] * 8 + [(0.001, (0.5, 0.999)), (0.0002, (0.5, 0.999))]
    assert same(model.pretrained, trunk)
    assert same(model.decoder, student)
    assert [epoch for epoch, _ in records] == list(range(1, 11))
    assert records[-1][1]["focal"] < 0.8 * records[0][1]["focal"]
    assert {"loss", "focal", "amplify"} <= records[0][1].keys()
    for _, figures in records:
        assert figures["loss"] == pytest.approx(figures["focal"] + 0.1 * figures["amplify"], rel=1e-5)


@pytest.mark.parametrize("checks", [1, 2, 3, 7, 8, 10])  # a check before each of 2 steps and after the epoch
def test_stage1_goes_on_with_the_same_draws_and_schedule(images, tmp_path, monkeypatch, rates, checks):
    """Positions are drawn, as there are more of them than are looked at."""
    monkeypatch.setattr(losses, "AMPLIFY_NORMAL", 30)
    monkeypatch.setattr(losses, "AMPLIFY_ANOMALOUS", 20)
    records = []

    def train(path=None, check=lambda: None):
        torch.manual_seed(0)
        model = build_model(build_teacher("efficientnet_lite0", "random"))
        stage = make_stage(records, path, {"amplification": model.teacher.amplification}, check=check)
        train_stage1(model, make_data(images), make_config(batch_size=3, epochs_stage1=5), stage)
        return snapshot(model.teacher.amplification)

    whole = train()
    whole_records, whole_rates = list(records), list(rates)
    records.clear(), rates.clear()
    remaining = iter([*[None] * (checks - 1), Interrupted(15)])

    def check():
        if found := next(remaining, None):
            raise found

    path = tmp_path / "progress.pt"
    with pytest.raises(Interrupted):
        train(path, check)
    resumed = train(path)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.items())
    assert (records, rates) == (whole_records, whole_rates)


@pytest.mark.parametrize(("epochs", "expected"), [(100, [80, 90]), (120, [96, 108]), (4, [3, 3]), (1, [1, 1])])
def test_the_rate_falls_after_80_and_90_percent(epochs, expected):
    assert PUBLISHED.milestones(epochs) == expected
    assert BASELINE.milestones(epochs) == []


@pytest.mark.parametrize(("method", "last"), [("aand", [0.001, 0.0002]), ("rd4ad", [0.005, 0.005])])
def test_stage2_trains_the_student_alone(model, images, rates, method, last):
    teacher = snapshot(model.teacher)
    records = []
    stage = ResumableStage()
    stage.log = lambda epoch, figures: records.append((figures["loss"], model.training))
    train_stage2(model, make_data(images), make_config(method=method, epochs_stage2=10), stage)
    assert [rate for rate, _ in rates] == [0.005] * 8 + last
    assert same(model.teacher, teacher)
    assert records[-1][0] < 0.8 * records[0][0]
    assert not any(training for _, training in records)  # ready to be scored after each epoch


def test_stage1_losses_are_sums_over_levels_with_the_true_mask_as_gate(model, images):
    inputs = images.permute(0, 3, 1, 2)
    masks = torch.zeros(5, 1, SIZE, SIZE, dtype=torch.uint8)
    masks[:, :, 16:40, 8:48] = 1
    foregrounds = torch.ones_like(masks)
    foregrounds[..., 56:] = 0
    focal, amplify, counts = stage1_losses(model.teacher, inputs, masks, foregrounds, torch.Generator(), FP32)
    features = model.pretrained(model.normalise(inputs))
    expected_focal = expected_amplify = 0
    for level, raa in zip(features, model.teacher.amplification, strict=True):
        mask = level_mask(masks, level.shape[-2:])
        amplified = level + mask * raa.generator(level)  # the true mask in the gate's place
        foreground = level_mask(foregrounds, level.shape[-2:])
        expected_focal += gate_focal_loss(raa.gate(level), mask)
        expected_amplify += amplify_maps(level, amplified, mask, foreground, torch.Generator())
    assert focal.item() == pytest.approx(expected_focal.item(), rel=1e-5)
    assert amplify.item() == pytest.approx(expected_amplify.item(), rel=1e-5)
    assert counts.shape == (3, 3)


def test_the_residuals_gradient_is_that_of_computing_it_everywhere(model, images):
    inputs = images.permute(0, 3, 1, 2)
    masks = torch.zeros(5, 1, SIZE, SIZE, dtype=torch.uint8)
    masks[:, :, 16:40, 8:48] = 1
    _, at_positions, _ = stage1_losses(model.teacher, inputs, masks, torch.ones_like(masks), torch.Generator(), FP32)
    everywhere = 0
    for level, raa in zip(model.pretrained(model.normalise(inputs)), model.teacher.amplification, strict=True):
        mask = level_mask(masks, level.shape[-2:])
        amplified = level + mask * raa.generator(level)
        everywhere += amplify_maps(level, amplified, mask, torch.ones_like(mask), torch.Generator())
    parameters = [p for raa in model.teacher.amplification for p in raa.generator.parameters()]
    pairs = zip(*(torch.autograd.grad(loss, parameters) for loss in (at_positions, everywhere)), strict=True)
    for found, expected in pairs:
        assert expected.abs().max() > 0
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def test_the_baselines_loss_is_without_the_hard_positions(model, images):
    model.eval()
    teacher = make_features(model, images).compute(torch.arange(5))
    with torch.no_grad():
        both = stage2_loss(model, teacher, hard_positions=True, execution=FP32).item()
        plain = stage2_loss(model, teacher, hard_positions=False, execution=FP32).item()
        pairs = zip(model.teacher(model.normalise(images.permute(0, 3, 1, 2))), model.student(teacher), strict=True)
        expected = sum(1 - torch.cosine_similarity(t.flatten(1), s.flatten(1)).mean().item() for t, s in pairs)
    assert plain == pytest.approx(expected, rel=1e-5)
    assert both > plain


def test_bf16_keeps_losses_in_float32_and_near(model, images):
    inputs = images.permute(0, 3, 1, 2)
    masks = torch.zeros(5, 1, SIZE, SIZE, dtype=torch.uint8)
    masks[:, :, 16:40, 8:48] = 1
    exact, rough = [], []
    for found, how in ((exact, FP32), (rough, Execution("bf16"))):
        found += stage1_losses(model.teacher, inputs, masks, torch.ones_like(masks), torch.Generator(), how)[:2]
        found.append(stage2_loss(model, make_features(model, images, how).compute(torch.arange(5)), True, how))
    for one, other in zip(exact, rough, strict=True):
        assert other.dtype == torch.float32
        assert other.item() == pytest.approx(one.item(), rel=0.05)
        assert other.item() != one.item()


def test_the_plain_mode_trains_the_same_model(model, images):
    start = snapshot(model)
    trained = []
    for how in (PLAIN, FP32):
        model.load_state_dict(start)
        how.prepare(model)
        config = make_config(epochs_stage1=1, epochs_stage2=1, lr=1e-4, plain=how == PLAIN)
        train_stage1(model, make_data(images), config, ResumableStage())
        train_stage2(model, make_data(images), config, ResumableStage())
        trained.append(snapshot(model))
    for name, tensor in trained[0].items():
        assert torch.allclose(tensor, trained[1][name], rtol=1e-3, atol=2.1e-4), name  # Adam's step: lr times a sign
    assert not same(model, start)


def test_maps_do_not_depend_on_the_batch_size(model, images):
    maps, scores = Predictor.of(model, SIZE, batch_size=2).maps(images)
    with torch.inference_mode():
        expected, _ = model.eval()(model.normalise(images.permute(0, 3, 1, 2)))
    assert maps.shape == (5, SIZE, SIZE)
    assert np.allclose(maps, expected[:, 0].numpy(), atol=1e-5)
    assert np.array_equal(scores, maps.max(axis=(1, 2)))


def test_averages_weigh_batches_by_their_size_and_gate_levels_alike():
    average = Average()
    average.add(3, loss=torch.tensor(1.0))
    average.add(1, loss=torch.tensor(5.0))
    average.count(torch.tensor([[1, 2, 4], [0, 0, 2]]))  # hits, predicted, anomalous: a level without a prediction
    average.count(torch.tensor([[1, 2, 4], [0, 0, 2]]))
    assert average.finish() == {"loss": 2.0, "gate_precision": 0.5, "gate_recall": pytest.approx((0.25 + 0) / 2)}
