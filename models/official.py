"""The authors' checkpoint format: two files, read into our model and written back, every key accounted for.

    model = load_official("stage1.pth", "stage2.pth")             # AAND with a WideResNet50-2 teacher
    stage1, stage2 = to_official(model)                           # dicts for torch.save

Stage 1 is {"encoder_AT": whole WideResNet50-2 and the three RAA modules}, stage 2 {"bn": OCBE, "decoder_ss": decoder}.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision.models as tv
from torch import Tensor, nn

from models import WeightsError
from models.aand import AAND
from models.amplification import AmplifiedTeacher
from models.teacher import build_teacher
from models.tensor_files import describe_misfit, is_state_dict, read_file

Tensors = dict[str, Tensor]

RAA = {"projs.0.": "gate.query.", "projs2.0.": "generator.scale.", "K_list.0": "gate.memory"}
OCBE = {
    "bn_layer.": "embed.", "conv1.": "reduce1.0.", "bn1.": "reduce1.1.", "conv2.": "reduce1.3.", "bn2.": "reduce1.4.",
    "conv3.": "reduce2.0.", "bn3.": "reduce2.1.",
}
DECODER = {
    f"layer{stage}.{theirs}": f"level{4 - stage}.{ours}"
    for theirs, ours in (("0.upsample.", "0.downsample."), ("", ""))
    for stage in (1, 2, 3)
}
# (part of the official files, prefix there, prefix in ours); the first that fits a name is taken
PREFIXES = (
    *(
        ("encoder_AT", f"feat_recons_{letter}.{theirs}", f"teacher.amplification.{level}.{ours}")
        for level, letter in enumerate("abc")
        for theirs, ours in RAA.items()
    ),
    *(
        ("encoder_AT", f"{name}.", f"teacher.pretrained.trunk.{name}.")
        for name in ("conv1", "bn1", "layer1", "layer2", "layer3")
    ),
    *(("bn", theirs, f"bottleneck.{ours}") for theirs, ours in OCBE.items()),
    *(("decoder_ss", theirs, f"decoder.{ours}") for theirs, ours in DECODER.items()),
)
# What the method never reads
UNUSED_PREFIXES = (("encoder_AT", "layer4."), ("encoder_AT", "fc."), ("bn", "conv4."), ("bn", "bn4."))


def build_official() -> AAND:
    return AAND(AmplifiedTeacher(build_teacher("wide_resnet50_2", weights="random")))


def load_official(stage1_path: str | Path, stage2_path: str | Path) -> AAND:
    """Read the authors' two checkpoint files into a model in eval mode.

    Raises WeightsError naming the file for one that cannot be read or whose keys or shapes differ from the format.
    """
    ours, _ = split_official(read_official(stage1_path, stage2_path))
    model = build_official()
    load_ours(model, ours, source=f"{stage1_path} and {stage2_path}")
    return model.eval()


def read_official(*paths: str | Path) -> dict[str, Tensors]:
    """The parts in the authors' files; WeightsError if one is not a dict of state dicts."""
    parts: dict[str, Tensors] = {}
    for path in paths:
        content = read_file(path, legacy=True)
        if not all(map(is_state_dict, content.values())):
            raise WeightsError(f"{path}: expected a dict of state dicts (encoder_AT, or bn and decoder_ss)")
        parts |= content
    return parts


def split_official(parts: Mapping[str, Tensors]) -> tuple[Tensors, dict[str, Tensors]]:
    """Their tensors under our names, and those the method never uses under theirs (by part).

    Raises WeightsError for a part or key that the format does not have.
    """
    if missing := {"encoder_AT", "bn", "decoder_ss"} - parts.keys():
        raise WeightsError(f"no {', '.join(sorted(missing))} in these checkpoints; stage 1 and stage 2 are both needed")
    ours: Tensors = {}
    unused: dict[str, Tensors] = {part: {} for part in parts}
    for part, tensors in parts.items():
        for name, tensor in tensors.items():
            if any(part == p and name.startswith(prefix) for p, prefix in UNUSED_PREFIXES):
                unused[part][name] = tensor
            else:
                ours[our_name(part, name)] = tensor.squeeze(0) if name.endswith("K_list.0") else tensor
    return ours, unused


def load_ours(model: AAND, tensors: Tensors, source: str) -> None:
    """Load strictly; WeightsError names `source` and what is missing, unknown or of another shape."""
    if misfit := describe_misfit(model.state_dict(), tensors):
        raise WeightsError(f"{source}: {misfit}")
    model.load_state_dict(tensors, strict=True)


def our_name(part: str, name: str) -> str:
    """Our name of an official tensor; WeightsError if the format has no such tensor."""
    for known_part, theirs, ours in PREFIXES:
        if part == known_part and name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise WeightsError(f"unknown key {name} in part {part} of an official checkpoint")


def official_name(name: str) -> tuple[str, str]:
    """(part, name) of one of our tensors in the official files."""
    for part, theirs, ours in PREFIXES:
        if name.startswith(ours):
            return part, theirs + name.removeprefix(ours)
    raise WeightsError(f"tensor {name} has no place in the official checkpoint format")


def unused_zeros() -> dict[str, Tensors]:
    """Zeros for the tensors that the official files hold but the method never reads."""
    with torch.device("meta"):
        encoder = tv.wide_resnet50_2()
        pair = nn.ModuleDict({"conv4": nn.Conv2d(4096, 2048, 1, bias=False), "bn4": nn.BatchNorm2d(2048)})
    return {
        part: {
            name: torch.zeros_like(tensor, device="cpu")
            for name, tensor in module.state_dict().items()
            if name.startswith(tuple(prefix for p, prefix in UNUSED_PREFIXES if p == part))
        }
        for part, module in (("encoder_AT", encoder), ("bn", pair))
    }


def to_official(model: AAND, unused: Mapping[str, Tensors] | None = None) -> tuple[dict, dict]:
    """The two official checkpoints of a model, as dicts for torch.save.

    `unused`: the second result of `split_official`; without it, what the method never reads is filled with zeros.
    Raises WeightsError if the model is not the official architecture (WideResNet50-2 with RAA), or `unused` of another.
    """
    parts: dict[str, Tensors] = {"encoder_AT": {}, "bn": {}, "decoder_ss": {}}
    for name, tensor in model.state_dict().items():
        part, theirs = official_name(name)
        parts[part][theirs] = tensor[None] if theirs.endswith("K_list.0") else tensor
    if unknown := (unused or {}).keys() - parts.keys():
        raise WeightsError(f"no part of the official format: {', '.join(sorted(map(repr, unknown)))}")
    for part, tensors in (unused or unused_zeros()).items():
        parts[part].update(tensors)
    return {"encoder_AT": parts["encoder_AT"]}, {"bn": parts["bn"], "decoder_ss": parts["decoder_ss"]}
