"""Write a trained category as a file that runs without this code: ONNX, OpenVINO, TorchScript or torch.export's.

    source = ExportSource.of(run, "bottle")
    export(source, "onnx", Path("bottle.onnx"))      # utils/detection/model_file.py runs it without torch
    export(source, "openvino", Path("bottle.xml"), "bf16")             # two files: bottle.xml and bottle.bin
    export(source, "onnx", Path("bottle.int8.onnx"), "int8", images)   # images (uint8) to measure activations on
"""

from __future__ import annotations

import copy
import io
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from models.aand import AAND
from utils.detection.model_file import INPUT, KEY, OUTPUTS, WEIGHTS_KEY, Facts
from utils.detection.sealing import SEAL_KEY, UNSEALED, sealed
from utils.detection.thresholds import read_thresholds
from utils.export.model import DeployedModel
from utils.export.quantization import quantize
from utils.runs.checkpoint import model_word
from utils.runs.folder import Run
from utils.system.errors import UsageError
from utils.system.files import atomic_write, sha256_of
from utils.system.packages import require
from utils.system.precision import DTYPES

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt", "pt2": ".pt2"}
FORMAT_PRECISIONS = {  # onnxruntime has no bfloat16 convolution, OpenVINO computes on a CPU in float32 or bfloat16
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "fp16", "bf16", "int8"),
    "torchscript": ("fp32", "bf16"),
    "pt2": ("fp32", "bf16"),
}
OPSET = 18  # of ONNX: the first with all that the graph is made of
EXTRA_FILE = f"{KEY}.json"  # the metadata within TorchScript and pt2 files
LARGEST_BATCH, LARGEST_SIDE = 1024, 16384  # that pt2 files accept
EXAMPLE = (2, 61, 67, 3)  # no two sizes alike, or they could be taken for the same


@dataclass(frozen=True)
class ExportSource:
    """A trained model and what its files shall say of it."""

    model: AAND
    facts: Facts

    @classmethod
    def of(cls, run: Path, category: str) -> ExportSource:
        """Of a run folder. Raises RunError or CheckpointError if one of its files cannot be used."""
        files, settings = Run(run).category(category), Run(run).settings
        model, _ = files.load_model()
        names = {name: getattr(settings, name) for name in ("method", "backbone", "recipe", "image_size")}
        view = files.view
        thresholds = read_thresholds(run, category, model_word(model, view))
        facts = Facts(category, **names, view=view, precision="fp32", thresholds=thresholds)
        return cls(model, facts)

    def deployed(self, precision: str) -> DeployedModel:
        """The model made ready, in the arithmetic of `precision` ("int8" starts from float32)."""
        model = copy.deepcopy(self.model).optimize_for_inference(DTYPES.get(precision, torch.float32))
        return DeployedModel(model, self.facts.view, self.facts.image_size).eval()


def export(
    source: ExportSource, kind: str, path: Path, precision: str = "fp32", images: Sequence[np.ndarray] = ()
) -> None:
    """Write a model file, completely or not at all.

    images: uint8 (H, W, 3), of good parts; int8 measures the range of activations on them.

    Raises UsageError for a precision that the format does not have, MissingPackage for a package that is not installed.
    """
    if precision not in FORMAT_PRECISIONS[kind]:
        raise UsageError(f"--format {kind} has no --precision {precision}; it has {', '.join(FORMAT_PRECISIONS[kind])}")
    facts = replace(source.facts, precision=precision, opset=OPSET if kind == "onnx" else None)
    if kind in ("onnx", "openvino"):
        for package in ("onnx", "onnxscript", "onnxruntime" if kind == "onnx" else "openvino"):
            require(package, f"--format {kind}")
    with torch.no_grad(), _without_warnings():
        if kind == "onnx":
            _write_onnx(source, path, facts, images)
        elif kind == "openvino":
            _write_openvino(source, path, facts, images)
        elif kind == "torchscript":
            _write_torchscript(source.deployed(precision), path, facts)
        else:
            _write_pt2(source.deployed(precision), path, facts)


def load_torch_file(path: Path) -> tuple[torch.nn.Module, Facts]:
    """The module in a TorchScript or pt2 file and its facts: for checks, since torch's own functions load it too."""
    extra = {EXTRA_FILE: ""}
    if path.suffix == SUFFIXES["torchscript"]:
        with _without_warnings():
            module = torch.jit.load(path, _extra_files=extra)
    else:
        module = torch.export.load(path, extra_files=extra).module()
    text = extra[EXTRA_FILE]
    return module, Facts.from_text(text if isinstance(text, str) else text.decode())


def _write_onnx(source: ExportSource, path: Path, facts: Facts, images: Sequence[np.ndarray]) -> None:
    import onnx

    program = torch.onnx.export(
        _program(source.deployed(facts.precision)), input_names=[INPUT], output_names=list(OUTPUTS),
        opset_version=OPSET, dynamo=True, verbose=False,
    )
    proto = program.model_proto
    if facts.precision == "int8":
        proto = quantize(proto, images)
    onnx.helper.set_model_props(proto, {KEY: facts.to_text(), SEAL_KEY: UNSEALED})
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(sealed(proto.SerializeToString()))


def _write_openvino(source: ExportSource, path: Path, facts: Facts, images: Sequence[np.ndarray]) -> None:
    """Weights are kept in float16 with "fp16" alone; "bf16" is how the file asks to be computed."""
    import openvino

    with TemporaryDirectory() as folder:
        onnx_path = Path(folder) / "model.onnx"
        graph = replace(facts, precision="int8" if facts.precision == "int8" else "fp32")
        _write_onnx(source, onnx_path, graph, images)
        model = openvino.convert_model(onnx_path)
        model.set_rt_info(facts.to_text(), KEY)
        made, half = Path(folder) / "model.xml", facts.precision == "fp16"
        openvino.save_model(model, made, compress_to_fp16=half)
        model.set_rt_info(sha256_of(made.with_suffix(".bin")), WEIGHTS_KEY)
        model.set_rt_info(UNSEALED, SEAL_KEY)
        openvino.save_model(model, made, compress_to_fp16=half)  # again: now it can say what its weights are
        made.write_bytes(sealed(made.read_bytes()))
        write_pair(made, path)


def write_pair(made: Path, path: Path) -> None:
    """Move an .xml and its .bin into place: whoever finds an .xml finds the weights that it was written with."""
    with atomic_write(path) as graph, atomic_write(path.with_suffix(".bin")) as weights:  # the latter comes first
        shutil.copyfile(made, graph)
        shutil.copyfile(made.with_suffix(".bin"), weights)
        with weights.open("rb+") as file:
            os.fsync(file.fileno())
        path.unlink(missing_ok=True)  # the old one may not tell the new weights from its own


def _write_torchscript(deployed: DeployedModel, path: Path, facts: Facts) -> None:
    traced = torch.jit.trace(deployed, _example(), check_trace=False)
    content = io.BytesIO()  # given a name, torch hides why it failed
    torch.jit.save(traced, content, _extra_files={EXTRA_FILE: facts.to_text()})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def _write_pt2(deployed: DeployedModel, path: Path, facts: Facts) -> None:
    content = io.BytesIO()
    torch.export.save(_program(deployed), content, extra_files={EXTRA_FILE: facts.to_text()})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def _program(deployed: DeployedModel) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    height, width = (torch.export.Dim(side, min=1, max=LARGEST_SIDE) for side in ("height", "width"))
    return torch.export.export(deployed, (_example(),), dynamic_shapes=({0: batch, 1: height, 2: width},))


def _example() -> Tensor:
    return torch.zeros(EXAMPLE, dtype=torch.uint8)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Exporters warn of their own future, and of shapes that the tests show to be free."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
