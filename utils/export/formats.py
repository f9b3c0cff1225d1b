"""Write a trained category as a file that runs without this code: ONNX, OpenVINO, TorchScript or torch.export's.

A new format is a row of FORMATS with a function that writes it, and a row of RUNTIMES in utils/detection/model_file.py
that says what runs it. Torch is imported only where it is used: programs read FORMATS before they need it.
"""

from __future__ import annotations

import copy
import io
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from datasets.problems import count
from utils.detection import model_file
from utils.detection.model_file import Facts
from utils.detection.thresholds import read_thresholds
from utils.runs.folder import Run
from utils.system.errors import UsageError
from utils.system.files import atomic_write, sha256_of
from utils.system.packages import require

if TYPE_CHECKING:
    from onnx import ModelProto

    from models.aand import AAND
    from utils.export.model import DeployedModel

OPSET = 18  # of ONNX: the first with all that the graph is made of
ONNX = ("onnx", "onnxscript")  # packages that write it
MEASURED = (  # begin the names, in a graph, of weights that make or read the features which distances are measured of
    "model.teacher.pretrained.trunk.", "model.bottleneck.reduce",
)

Say = Callable[[str], None]  # is told what begins now and may take long


@dataclass(frozen=True)
class ExportSource:
    """A trained model and what its files shall say of it."""

    model: AAND
    facts: Facts

    @classmethod
    def of(cls, run: Path, category: str) -> ExportSource:
        """Read a category of a run folder. Raises RunError or CheckpointError for files that cannot be used."""
        from utils.runs.checkpoint import model_word

        files, settings = Run(run).category(category), Run(run).settings
        model, _ = files.load_model()
        view = files.view
        thresholds = read_thresholds(run, category, model_word(model, view))
        names = {name: getattr(settings, name) for name in ("method", "backbone", "recipe", "image_size")}
        return cls(model, Facts(category, **names, view=view, precision="fp32", thresholds=thresholds))

    def deployed(self, precision: str) -> DeployedModel:
        """The model made ready, in the arithmetic of `precision` ("int8" starts from float32)."""
        import torch

        from utils.export.model import DeployedModel
        from utils.system.device import DTYPES

        model = copy.deepcopy(self.model).optimize_for_inference(DTYPES.get(precision, torch.float32))
        return DeployedModel(model, self.facts.view, self.facts.image_size).eval()


def export(
    source: ExportSource, format: str, path: Path, precision: str = "fp32", images: Sequence[np.ndarray] = (),
    say: Say = lambda phase: None,
) -> None:
    """Write a model file, completely or not at all.

    format: a name in FORMATS. images: uint8 (H, W, 3), of good parts; int8 measures the range of activations on them.
    say: is told each phase as it begins, e.g. "translating it to ONNX". Raises UsageError for a precision that the
    format does not have, MissingPackage for a package that is not installed.
    """
    row = FORMATS[format]
    if precision not in row.precisions:
        raise UsageError(f"`format` {format} has no `precision` {precision}; it has {', '.join(row.precisions)}")
    for package in (*row.packages, model_file.RUNTIMES[row.suffixes[0]].package):
        require(package, f"`format` {format}")
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters' future, and of shapes that tests show to be free
        row.write(source, path, replace(source.facts, precision=precision, opset=row.opset), images, say)


def write_onnx(source: ExportSource, path: Path, facts: Facts, images: Sequence[np.ndarray], say: Say) -> None:
    import onnx
    import torch

    say("building the graph")
    graph = source.deployed(facts.precision).program()
    say("translating it to ONNX")
    program = torch.onnx.export(
        graph, input_names=[model_file.INPUT], output_names=list(model_file.OUTPUTS), opset_version=OPSET, dynamo=True,
        verbose=False,
    )
    proto = program.model_proto
    if facts.precision == "int8":
        say(f"quantising it to int8, by {count(len(images), 'image')}")
        standardised = getattr(source.model, "standardisation", None) is not None
        proto = quantize(proto, images, left=MEASURED if standardised else ())
    onnx.helper.set_model_props(proto, {model_file.KEY: facts.to_text(), model_file.SEAL_KEY: model_file.UNSEALED})
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(model_file.sealed(proto.SerializeToString()))


def quantize(model: ModelProto, images: Sequence[np.ndarray], left: tuple[str, ...] = ()) -> ModelProto:
    """The model with its convolutions in int8: weights per channel, activations by their range on `images` of good
    parts, uint8 (H, W, 3) each.

    What compares, measures and smooths stays in float32: matrices of the resize, the gate's memory, the Gaussian. So do
    convolutions whose weights' names begin as one of `left`: a standardised map amplifies the rounding of the teacher's
    features, which the student does not share; and where one convolution reads a tensor rounded, OpenVINO lets all that
    read it do so, the memory too. Raises UsageError without images, MissingPackage without onnxruntime.
    """
    if not images:
        raise UsageError("`precision` int8 needs images of good parts to measure activations on")
    require("onnxruntime", "`precision` int8")
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    shown = tqdm(images, "measuring activations", unit="image", leave=False, disable=None)
    inputs = ({model_file.INPUT: np.ascontiguousarray(image[None])} for image in shown)

    class Images(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(inputs, None)

    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    stay = [  # those with computed weights are the memory and the Gaussian
        node.name for node in convolutions if not node.input[1].endswith(".weight") or node.input[1].startswith(left)
    ]
    with TemporaryDirectory() as folder:
        before, after = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, before)
        quantize_static(
            before, after, Images(), quant_format=QuantFormat.QDQ, per_channel=True, op_types_to_quantize=["Conv"],
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=stay,
        )
        return onnx.load(after)


def write_openvino(source: ExportSource, path: Path, facts: Facts, images: Sequence[np.ndarray], say: Say) -> None:
    """Convert an ONNX file; with "fp16" its weights are kept so, with "bf16" the file asks to be computed so."""
    import openvino

    with TemporaryDirectory() as folder:
        onnx_path = Path(folder) / "model.onnx"
        graph = replace(facts, precision="int8" if facts.precision == "int8" else "fp32")
        write_onnx(source, onnx_path, graph, images, say)
        say("converting it to OpenVINO")
        model = openvino.convert_model(onnx_path)
        model.set_rt_info(facts.to_text(), model_file.KEY)
        made, half = Path(folder) / "model.xml", facts.precision == "fp16"
        openvino.save_model(model, made, compress_to_fp16=half)
        model.set_rt_info(sha256_of(made.with_suffix(".bin")), model_file.WEIGHTS_KEY)
        model.set_rt_info(model_file.UNSEALED, model_file.SEAL_KEY)
        openvino.save_model(model, made, compress_to_fp16=half)  # again: now it can say what its weights are
        made.write_bytes(model_file.sealed(made.read_bytes()))
        write_pair(made, path)


def write_pair(made: Path, path: Path) -> None:
    """Move an .xml and its .bin into place: whoever finds an .xml finds the weights that it was written with."""
    with atomic_write(path) as graph, atomic_write(path.with_suffix(".bin")) as weights:  # the latter comes first
        shutil.copyfile(made, graph)
        shutil.copyfile(made.with_suffix(".bin"), weights)
        with weights.open("rb+") as file:
            os.fsync(file.fileno())
        path.unlink(missing_ok=True)  # the old one may not tell the new weights from its own


def write_torchscript(source: ExportSource, path: Path, facts: Facts, images: Sequence[np.ndarray], say: Say) -> None:
    say("tracing the model")
    extra = {model_file.EXTRA_FILE: facts.to_text()}
    content = source.deployed(facts.precision).traced().save_to_buffer(_extra_files=extra)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_pt2(source: ExportSource, path: Path, facts: Facts, images: Sequence[np.ndarray], say: Say) -> None:
    import torch

    say("building the graph")
    content = io.BytesIO()  # given a name, torch hides why it failed
    program = source.deployed(facts.precision).program()
    torch.export.save(program, content, extra_files={model_file.EXTRA_FILE: facts.to_text()})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())


class Format(NamedTuple):
    """A kind of model file; RUNTIMES in utils/detection/model_file.py says what runs it."""

    suffixes: Sequence[str]  # of its files; the first is that of the one that has a name
    precisions: Sequence[str]
    write: Callable[[ExportSource, Path, Facts, Sequence[np.ndarray], Say], None]
    packages: Sequence[str] = ()  # that it is written with
    opset: int | None = None
    note: str = ""  # for a user who chooses


FORMATS = {  # onnxruntime has no bfloat16 convolution, OpenVINO computes on a CPU in float32 or bfloat16
    "onnx": Format([".onnx"], ("fp32", "fp16", "int8"), write_onnx, ONNX, OPSET),
    "openvino": Format([".xml", ".bin"], model_file.PRECISIONS, write_openvino, ONNX, note=".xml with .bin beside it"),
    "torchscript": Format([".pt"], ("fp32", "bf16"), write_torchscript, note=".pt"),
    "pt2": Format([".pt2"], ("fp32", "bf16"), write_pt2, note="torch.export"),
}
