"""Convolutions of an ONNX model in eight bits: weights per channel, activations by their range on images of good parts.

What compares, measures and smooths stays in float32: matrices of the resize, the gate's memory, the Gaussian.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from utils.detection.model_file import INPUT
from utils.system.errors import UsageError
from utils.system.packages import require

if TYPE_CHECKING:
    from onnx import ModelProto


def quantize(model: ModelProto, images: Sequence[np.ndarray]) -> ModelProto:
    """The model with its convolutions in int8. images: uint8 (H, W, 3) each.

    Raises UsageError without images, MissingPackage without onnxruntime.
    """
    if not images:
        raise UsageError("--precision int8 needs images of good parts to measure activations on")
    require("onnxruntime", "--precision int8")
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self):
            self.left: Iterator[np.ndarray] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {INPUT: np.ascontiguousarray(image[None])}

    with TemporaryDirectory() as folder:
        before, after = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, before)
        quantize_static(
            before, after, Images(), quant_format=QuantFormat.QDQ, per_channel=True, op_types_to_quantize=["Conv"],
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=_kept(model),
        )
        return onnx.load(after)


def _kept(model: ModelProto) -> list[str]:
    """The convolutions whose weights are computed and not learned: the gate's memory, normalised, and the Gaussian."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    return [node.name for node in convolutions if not node.input[1].endswith(".weight")]
