"""Batch norms folded into convolutions: the same function, only where it is one, and the fast model scores alike."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from models.aand import build_model
from models.folding import fold_batch_norms
from models.recipes import METHODS
from models.teacher import build_teacher
from tests.support.norms import count_norms, noise, randomise_norms

pytestmark = pytest.mark.usefixtures("one_thread")
EXAMPLE = torch.zeros(1, 3, 64, 64)


@torch.no_grad()
def folded_copy(module: nn.Module, channels: int = 3) -> tuple[nn.Module, int]:
    """A folded copy that computes what the module does, and how many norms are gone."""
    folded = copy.deepcopy(module)
    count = fold_batch_norms(folded, torch.zeros(1, channels, 8, 8))
    inputs = noise(channels=channels, size=8)
    torch.testing.assert_close(folded(inputs), module(inputs), rtol=1e-5, atol=1e-5)
    return folded, count


# Single layers


@torch.no_grad()
def test_folding_by_hand():
    conv, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=1.0)
    conv.weight.fill_(2)
    norm.running_mean.fill_(1)
    norm.running_var.fill_(3)
    norm.weight.fill_(3)
    norm.bias.fill_(5)
    folded = nn.Sequential(conv, norm).eval()
    assert fold_batch_norms(folded, torch.zeros(1, 1, 2, 2)) == 1  # 3 * (2 x - 1) / sqrt(3 + 1) + 5
    torch.testing.assert_close(conv.weight.flatten(), torch.tensor([3.0]))
    torch.testing.assert_close(conv.bias, torch.tensor([3.5]))
    assert isinstance(folded[1], nn.Identity)
    assert folded(torch.full((1, 1, 1, 1), 4.0)).item() == pytest.approx(15.5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_both_kinds_of_convolutions_take_a_norm(kind, bias):
    torch.manual_seed(0)
    conv = kind(3, 5, 2, stride=2, bias=bias)  # 3 and 5: a mistaken axis would not fit
    _, count = folded_copy(randomise_norms(nn.Sequential(conv, nn.BatchNorm2d(5), nn.ReLU())))
    assert count == 1


@pytest.mark.parametrize("activation", [nn.ReLU6, nn.Identity])
def test_the_activation_inside_timms_norm_stays(activation):
    torch.manual_seed(0)
    norm = timm.layers.BatchNormAct2d(3, act_layer=activation)
    folded, count = folded_copy(randomise_norms(nn.Sequential(nn.Conv2d(3, 3, 1), norm)))
    assert (count, count_norms(folded)) == (1, 0)
    reached = folded(10 * noise(size=8))
    assert (reached.min() == 0, reached.max() == 6) == ((activation is nn.ReLU6,) * 2)


class SharedConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.conv(x)))


class SharedNorm(SharedConvolution):
    def __init__(self):
        super().__init__()
        self.other = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.norm(self.other(x))


class TwoNorms(SharedConvolution):
    def __init__(self):
        super().__init__()
        self.other = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        between = self.conv(x)
        return self.norm(between) * self.other(between)


class UsedBeside(SharedConvolution):
    def forward(self, x: Tensor) -> Tensor:
        between = self.conv(x)
        return between + self.norm(between)


class FedByASum(SharedConvolution):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x) + x)


def norm_first() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))


def activation_between() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3))


def activation_between_in_place() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(3))


def linear_before() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm2d(3))


STAYING = [SharedConvolution, SharedNorm, TwoNorms, UsedBeside, FedByASum, norm_first, activation_between]
STAYING += [activation_between_in_place, linear_before]


@pytest.mark.parametrize("make", STAYING)
def test_norms_that_are_not_a_convolutions_alone_stay(make):
    torch.manual_seed(0)
    module = randomise_norms(make())
    folded, count = folded_copy(module)
    assert (count, count_norms(folded)) == (0, count_norms(module))
    # beside one that can be folded, only that one is
    whole = randomise_norms(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Tanh(), module))
    folded, count = folded_copy(whole)
    assert (count, count_norms(folded)) == (1, count_norms(module))


def test_norms_that_still_learn_are_refused_by_name():
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.BatchNorm2d(3))).eval()
    module[1][0].train()
    weight = module[0].weight.clone()
    with pytest.raises(ValueError, match=r"^1\.0 is in training mode; call eval\(\)"):
        fold_batch_norms(module, torch.zeros(1, 3, 8, 8))
    assert torch.equal(module[0].weight, weight)
    assert fold_batch_norms(module.eval(), torch.zeros(1, 3, 8, 8)) == 1


def test_folding_again_changes_nothing():
    trunk = randomise_norms(build_teacher("resnet18", "random").trunk)
    assert fold_batch_norms(trunk, EXAMPLE) > 0
    before = copy.deepcopy(trunk.state_dict())
    assert fold_batch_norms(trunk, EXAMPLE) == 0
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in trunk.modules())


# Whole networks


@pytest.mark.parametrize(
    ("backbone", "norms"),
    [
        ("resnet18", 1 + 3 * 2 * 2 + 2),  # stem; 2 blocks of 2 in 3 layers; 2 shortcuts
        ("wide_resnet50_2", 1 + (3 + 4 + 6) * 3 + 3),  # stem; blocks of 3; 3 shortcuts
        ("efficientnet_lite0", 1 + 2 + (2 + 2 + 3 + 3 + 4 + 1) * 3),  # stem; a separable block; inverted residuals of 3
    ],
)
def test_folded_trunks_give_the_same_features(backbone, norms):
    torch.manual_seed(0)
    teacher = build_teacher(backbone, "random")
    randomise_norms(teacher.trunk)
    expected = teacher(noise())
    found_norms = count_norms(teacher.trunk)
    assert fold_batch_norms(teacher.trunk, EXAMPLE) == found_norms == norms
    assert count_norms(teacher.trunk) == 0
    for level, right in zip(teacher(noise()), expected, strict=True):
        assert (level - right).norm() <= 1e-5 * right.norm()
        torch.testing.assert_close(level, right, rtol=1e-4, atol=1e-5 * right.abs().max().item())


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
@pytest.mark.parametrize("method", ["aand", "rd4ad"])
@torch.no_grad()
def test_models_optimised_for_inference_score_alike(backbone, method):
    for seed in range(2):
        torch.manual_seed(seed)
        model = randomise_norms(build_model(build_teacher(backbone, "random"), METHODS[method]["published"]), seed)
        images = model.normalise(torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8))
        maps, scores = model(images)
        assert scores.min() > 1  # of 6: there is something to compare
        fast = copy.deepcopy(model).optimize_for_inference()
        assert count_norms(fast) == 0
        found_maps, found_scores = fast(images)
        torch.testing.assert_close(found_scores, scores, rtol=1e-5, atol=0)  # measured: 2e-7
        torch.testing.assert_close(found_maps, maps, rtol=0, atol=1e-5)  # 1.4e-6
        short = copy.deepcopy(model).optimize_for_inference(torch.bfloat16)
        assert count_norms(short) == 0
        found_maps, found_scores = short(images)
        assert found_maps.dtype == found_scores.dtype == torch.float32
        torch.testing.assert_close(found_scores, scores, rtol=0.01, atol=0)  # measured: 0.002
        torch.testing.assert_close(found_maps, maps, rtol=0, atol=0.03)  # 0.009
        assert (found_maps - maps).abs().max() > 1e-4  # otherwise it was no bfloat16


@pytest.mark.parametrize("method", ["aand", "rd4ad"])
def test_optimised_models_are_frozen_and_laid_out(method):
    model = build_model(build_teacher("resnet18", "random"), METHODS[method]["published"]).train()
    assert model.optimize_for_inference(torch.bfloat16) is model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    convolutions = [part for part in model.modules() if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d))]
    for part in convolutions:
        assert part.weight.dtype == torch.bfloat16
        assert part.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.pretrained.mean.dtype == torch.float32  # images are normalised in float32
