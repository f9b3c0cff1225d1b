"""Teachers, their weights, student sizes, the position code, the anomaly map and the official checkpoint format."""

from __future__ import annotations

import urllib.error

import numpy as np
import pytest
import skimage.data
import timm
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from models import WeightsError
from models.aand import AAND, discrepancies, gaussian_smooth, sum_levels
from models.amplification import AmplifiedTeacher, MatchingGuidedResidualGate, sine_position_code
from models.official import build_official, load_official, split_official, to_official
from models.student import OneClassBottleneck, ReverseDecoder
from models.teacher import StudentPlan, build_teacher, find_weights
from tests.support.golden import OFFICIAL_KEYS, array, official_part

PARTS = ("encoder_AT", "bn", "decoder_ss")


@pytest.fixture(scope="module")
def official_files(tmp_path_factory):
    """The two files as the authors' code writes them, filled by rule."""
    folder = tmp_path_factory.mktemp("official")
    torch.save({"encoder_AT": official_part("encoder_AT")}, folder / "stage1.pth")
    torch.save({part: official_part(part) for part in ("bn", "decoder_ss")}, folder / "stage2.pth")
    return folder / "stage1.pth", folder / "stage2.pth"


# ------------------------------------------------------------------------------------------------------------ teachers


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ("resnet18", (64, 128, 256)),
        ("resnet34", (64, 128, 256)),
        ("resnet50", (256, 512, 1024)),
        ("wide_resnet50_2", (256, 512, 1024)),
        ("efficientnet_lite0", (24, 40, 112)),
        ("timm:mobilenetv3_small_050", (8, 16, 24)),
    ],
)
def test_any_teacher_gets_a_student_of_its_shapes(backbone, channels):
    model = AAND(AmplifiedTeacher(build_teacher(backbone, "random"))).eval()
    images = array(0, (1, 3, 64, 96))
    with torch.inference_mode():
        teacher = model.teacher(images)
        embedding = model.bottleneck(teacher)
        student = model.decoder(embedding)
        anomaly_map, anomaly_score = model(images)
    sizes = [(16, 24), (8, 12), (4, 6)]
    assert [tuple(f.shape) for f in teacher] == [(1, c, *size) for c, size in zip(channels, sizes, strict=True)]
    assert [f.shape for f in student] == [f.shape for f in teacher]
    assert embedding.shape == (1, 2 * channels[2], 2, 3)
    assert anomaly_map.shape == (1, 1, 64, 96)
    assert anomaly_score.tolist() == [anomaly_map.max().item()]


def test_student_blocks_follow_the_design():
    def count(plan):
        embed, decoder = OneClassBottleneck(plan).embed, ReverseDecoder(plan)
        return [len(stage) for stage in (embed, decoder.level3, decoder.level2, decoder.level1)]

    assert count(build_teacher("resnet18", "random").plan) == [2, 2, 2, 2]
    assert count(build_teacher("resnet34", "random").plan) == [3, 3, 4, 6]
    assert count(build_teacher("wide_resnet50_2", "random").plan) == [3, 3, 4, 6]
    for backbone, transposed, plain in (("resnet18", "conv1", "conv2"), ("resnet50", "conv2", "conv1")):
        first = ReverseDecoder(build_teacher(backbone, "random").plan).level3[0]
        assert isinstance(getattr(first, transposed), nn.ConvTranspose2d)  # it doubles the size
        assert isinstance(getattr(first, plain), nn.Conv2d)
    assert StudentPlan((255, 512, 1024), (2, 2, 2)).basic
    assert not StudentPlan((256, 512, 1024), (3, 4, 6)).basic


def test_the_teacher_stays_frozen_and_in_eval_mode():
    model = AAND(AmplifiedTeacher(build_teacher("resnet18", "random"))).train()
    assert model.bottleneck.training
    assert not any(part.training for part in model.pretrained.modules())
    assert not any(parameter.requires_grad for parameter in model.pretrained.parameters())
    before = {name: tensor.clone() for name, tensor in model.pretrained.state_dict().items()}
    model(model.normalise(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.pretrained.state_dict().items())


def test_an_adapter_never_feeds_the_next_level():
    teacher = AmplifiedTeacher(build_teacher("resnet18", "random"))
    images = array(1, (1, 3, 64, 64))
    plain = teacher.pretrained(images)
    with torch.no_grad():
        for level in teacher.amplification:
            level.generator.scale[4].bias.fill_(5.0)  # a strong residual at every level
        amplified = teacher.amplify(plain)
    for features, output, again in zip(plain, amplified, teacher(images), strict=True):
        assert torch.allclose(output.amplified - output.residual, features, atol=1e-5)
        assert torch.allclose(output.amplified, again)


def test_normalise_uses_imagenet_statistics_or_the_backbones_own():
    grey = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert build_teacher("resnet18", "random").normalise(grey)[0, :, 0, 0].tolist() == pytest.approx(expected)
    assert build_teacher("efficientnet_lite0", "random").normalise(grey)[0, :, 0, 0].tolist() == [1, 1, 1]


def test_sizes_that_are_not_multiples_of_32_are_refused():
    model = AAND(build_teacher("resnet18", "random"))
    with pytest.raises(ValueError, match="multiples of 32"):
        model(torch.zeros(1, 3, 64, 80))


# ------------------------------------------------------------------------------------------------------------- weights


def test_bundled_weights_know_imagenet():
    teacher = build_teacher("efficientnet_lite0")  # bundled is this backbone's default
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(find_weights("efficientnet_lite0", "bundled"))
    cat = torch.from_numpy(skimage.data.chelsea()[:288, :448].copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        classes = whole(teacher.normalise(cat)).topk(5).indices[0].tolist()
    assert {281, 282, 285} & set(classes[:2])  # ImageNet's tabby, tiger and Egyptian cat
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in teacher.trunk.state_dict().items())


def test_a_torchvision_state_dict_may_lack_the_unused_layers(tmp_path):
    source = build_teacher("resnet18", "random")
    torch.save(source.trunk.state_dict(), tmp_path / "trunk.pth")
    torch.save(source.trunk.state_dict() | {"fc.weight": torch.zeros(1000, 512)}, tmp_path / "whole.pth")
    for name in ("trunk.pth", "whole.pth"):
        loaded = build_teacher("resnet18", str(tmp_path / name))
        assert all(torch.equal(t, loaded.trunk.state_dict()[n]) for n, t in source.trunk.state_dict().items())


@pytest.mark.parametrize(
    ("backbone", "content", "message"),
    [
        ("resnet18", {"conv1.weight": torch.zeros(64, 3, 7, 7)}, "tensors are missing"),
        ("resnet18", [1, 2], "not a dict"),
        ("resnet18", {"epoch": 3}, "expected a state dict"),
        ("resnet34", None, "tensors are missing"),
        ("resnet50", None, "tensors are missing|the model needs"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, backbone, content, message):
    path = tmp_path / "weights.pth"
    torch.save(build_teacher("resnet18", "random").trunk.state_dict() if content is None else content, path)
    with pytest.raises(WeightsError, match=message):
        build_teacher(backbone, str(path))


def test_weights_of_another_width_are_refused(tmp_path):
    torch.save(build_teacher("resnet50", "random").trunk.state_dict(), tmp_path / "resnet50.pth")
    with pytest.raises(WeightsError, match="the model needs"):
        build_teacher("wide_resnet50_2", str(tmp_path / "resnet50.pth"))


def test_weights_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "broken.pth").write_bytes(b"no archive")
    with pytest.raises(WeightsError, match=r"broken\.pth"):
        build_teacher("resnet18", str(tmp_path / "broken.pth"))
    with pytest.raises(WeightsError, match="no such file"):
        build_teacher("resnet18", str(tmp_path / "absent.pth"))


@pytest.mark.parametrize(
    ("backbone", "weights"), [("resnet19", "random"), ("resnet18", "bundled"), ("timm:none", "random")]
)
def test_unknown_backbones_and_foreign_bundles_are_refused(backbone, weights):
    with pytest.raises(WeightsError, match=backbone):
        build_teacher(backbone, weights)


def test_a_timm_model_without_the_strides_is_refused():
    with pytest.raises(WeightsError, match="strides"):
        build_teacher("timm:vit_tiny_patch16_224", "random")


def test_a_failed_download_says_what_helps(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/nonexistent")
    monkeypatch.setattr(torch.hub.os, "makedirs", lambda *_args, **_kwargs: None)
    with pytest.raises(WeightsError) as caught:
        build_teacher("wide_resnet50_2", "default")
    assert all(word in str(caught.value) for word in ("wide_resnet50_2-", ".pth", "`weights`", "efficientnet_lite0"))


# ------------------------------------------------------------------------------------------- gate, map, official format


def test_position_code_by_hand():
    code = sine_position_code(8, 3, 5, torch.device("cpu"))
    row, column = 2, 4
    expected = [np.sin(column), np.cos(column), np.sin(column / 100), np.cos(column / 100)]
    expected += [np.sin(row), np.cos(row), np.sin(row / 100), np.cos(row / 100)]
    assert code.shape == (8, 3, 5)
    assert code[:, row, column].tolist() == pytest.approx(expected, abs=1e-6)
    assert sine_position_code(7, 2, 2, torch.device("cpu")).shape == (7, 2, 2)  # odd widths too


def test_the_gate_is_the_anomalous_share_of_the_memory():
    gate = MatchingGuidedResidualGate(8)
    with torch.no_grad():
        gate.memory[50:] = gate.memory[:50]  # the same items on both sides: no way to tell
        assert gate(array(2, (1, 8, 4, 4))).flatten().tolist() == pytest.approx([0.5] * 16, abs=1e-6)
        features = array(3, (1, 8, 1, 1))
        query = gate.query(features + sine_position_code(8, 1, 1, torch.device("cpu"))).flatten()
        gate.memory[:50], gate.memory[50:] = -query, query  # cos -1 and 1: sigmoid(2 / 0.2)
        assert gate(features).item() == pytest.approx(1 / (1 + np.exp(-10)), abs=1e-6)


def test_gaussian_equals_scipys():
    maps = array(5, (2, 1, 40, 64))
    expected = np.stack([gaussian_filter(m[0], sigma=4) for m in maps.numpy()])
    assert np.abs(gaussian_smooth(maps, 4.0)[:, 0].numpy() - expected).max() < 1e-5


def test_discrepancy_by_hand():
    one, other = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
    found = sum_levels(discrepancies([one, one, torch.zeros_like(one)], [other, 3 * one, one]), (2, 2))
    assert found.flatten().tolist() == pytest.approx([2.0] * 4)  # 1 + 0 + 1: a zero vector is at distance 1


def test_official_checkpoints_round_trip_exactly(official_files):
    parts = {part: official_part(part) for part in PARTS}
    _, unused = split_official(parts)
    stages = to_official(load_official(*official_files), unused)
    written = stages[0] | stages[1]
    assert [part for stage in stages for part in stage] == list(PARTS)
    for part in PARTS:
        assert {name: list(t.shape) for name, t in written[part].items()} == {n: s for n, s, _ in OFFICIAL_KEYS[part]}
        assert {name: str(t.dtype) for name, t in written[part].items()} == {
            n: f"torch.{d}" for n, _, d in OFFICIAL_KEYS[part]
        }
        assert all(torch.equal(tensor, parts[part][name]) for name, tensor in written[part].items())


def test_our_own_models_get_every_official_key():
    stages = to_official(build_official())
    written = stages[0] | stages[1]
    for part in PARTS:
        assert {name: list(t.shape) for name, t in written[part].items()} == {n: s for n, s, _ in OFFICIAL_KEYS[part]}
    assert not written["bn"]["conv4.weight"].any()


@pytest.mark.parametrize("change", ["missing", "unknown", "part"])
def test_official_checkpoints_load_strictly(official_files, tmp_path, change):
    stage1 = torch.load(official_files[0])
    if change == "missing":
        del stage1["encoder_AT"]["feat_recons_b.projs.0.2.bias"]
    elif change == "unknown":
        stage1["encoder_AT"]["layer5.weight"] = torch.zeros(1)
    else:
        stage1 = {"encoder": stage1["encoder_AT"]}
    torch.save(stage1, tmp_path / "stage1.pth")
    with pytest.raises(WeightsError, match="gate.query.2.bias|layer5|encoder_AT"):
        load_official(tmp_path / "stage1.pth", official_files[1])


def test_other_architectures_have_no_official_format():
    with pytest.raises(WeightsError):
        to_official(AAND(AmplifiedTeacher(build_teacher("efficientnet_lite0", "random"))))
