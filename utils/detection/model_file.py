"""Run a file of scripts/export.py where there is no torch: images in, anomaly maps and scores out.

    model = ExportedModel("bottle.onnx")                    # or bottle.xml, of OpenVINO, with bottle.bin beside it
    maps, scores = model.run(images)                        # uint8 (N, H, W, 3) -> (N, S, S), (N,)
    scores = model.score(["photo.jpg", "other.png"])
    model.facts.category, model.facts.thresholds            # utils/detection/detector.py puts the two together
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from msgspec import Struct, structs

from datasets.base import LARGEST_PASS
from datasets.plain_json import parse_json, typed
from datasets.sizes import Size, height_width
from datasets.view import View
from models import probe_image
from utils.detection.prediction import check_shapes, require_finite
from utils.detection.thresholds import Thresholds
from utils.runs.settings import StoredSize
from utils.system.errors import ModelFileError
from utils.system.files import sha256_of
from utils.system.packages import require
from utils.system.threads import threads_to_use

VERSION = 1  # of what a file holds
KEY = "aand"  # of the metadata: one text in JSON
EXTRA_FILE = f"{KEY}.json"  # the same within TorchScript and pt2 files
WEIGHTS_KEY = "aand_weights"  # of OpenVINO's: the SHA-256 of the .bin; earlier files do not have it
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
INPUT, OUTPUTS = "images", ("anomaly_map", "anomaly_score")
SEAL_KEY = "aand_seal"  # of the metadata: a checksum of the whole file; earlier files do not have it
UNSEALED = "sha256 " + "0" * 64
PROBE_SIZE = 64  # pixels of the image that a file is tried on

Compute = Callable[[np.ndarray], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Facts:
    """The metadata of a model file."""

    category: str
    method: str
    backbone: str
    recipe: str
    image_size: Size  # of a window
    view: View  # done inside the file
    precision: str
    thresholds: Thresholds | None = None  # of the run
    opset: int | None = None  # of ONNX

    def to_text(self) -> str:
        thresholds = self.thresholds and self.thresholds.to_dict()
        return json.dumps({"version": VERSION, **asdict(self), "thresholds": thresholds})

    @classmethod
    def from_text(cls, text: str) -> Facts:
        """The inverse of `to_text`. Raises ValueError for anything else."""
        stored = structs.asdict(typed(parse_json(text), StoredFacts, "metadata"))
        del stored["version"]
        thresholds = None if stored["thresholds"] is None else Thresholds.from_dict(stored["thresholds"])
        return cls(**stored | {"view": View.from_dict(stored["view"]), "thresholds": thresholds})


class StoredFacts(Struct, forbid_unknown_fields=True):
    """`Facts` in JSON."""

    version: Literal[VERSION]
    category: str
    method: str
    backbone: str
    recipe: str
    image_size: StoredSize
    view: dict[str, Any]
    precision: Literal[PRECISIONS]
    thresholds: dict[str, Any] | None
    opset: int | None


class ExportedModel:
    """A model file of ONNX (run by onnxruntime) or OpenVINO, with what it says of itself in `facts`.

    threads: of its computing, by default OMP_NUM_THREADS, or as many as there are cores.

    Raises ModelFileError for a file that cannot be read, is not of scripts/export.py, or does not answer a plain image;
    MissingPackage if what runs it is not there.
    """

    def __init__(self, path: str | PathLike, threads: int | None = None):
        self.path = Path(path)
        runtime = RUNTIMES.get(self.path.suffix)
        if runtime is None:
            usable = [suffix for suffix, one in RUNTIMES.items() if not one.instead]
            raise ModelFileError(f"{path} is no model file: its name must end in {' or '.join(usable)}")
        if runtime.instead:
            raise ModelFileError(f"{path} is run with torch: {runtime.instead}({str(path)!r})")
        if not self.path.is_file():
            raise ModelFileError(f"there is no model file {path}")
        package = require(runtime.package, f"running {path}")
        try:
            self.facts, self._compute = runtime.load(package, self.path, threads or threads_to_use())
            self._answer(probe_image(PROBE_SIZE)[None])
        except Exception as error:  # both packages raise many unrelated types
            raise ModelFileError(f"{path} cannot be used; export it anew: {_reason(error)}") from error

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Anomaly maps float32 (N, h, w) of the whole images, and scores (N,), of RGB images uint8 (N, H, W, 3).

        Raises ModelFileError for other answers, and for images so narrow that a resize in the file takes gigabytes.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
            raise ValueError(f"images must be uint8 (N, H, W, 3), got {images.dtype} {images.shape}")
        height, width = images.shape[1:3]
        if max(height_width(self.facts.image_size)) * max(height, width) > max(LARGEST_PASS, 2 * height * width):
            raise ModelFileError(
                f"{self.path} takes no image as long and narrow as {width} x {height} pixels: in the file it would "
                "become far larger; give the run folder, or cut the image"
            )
        try:
            return self._answer(images)
        except Exception as error:  # as above
            raise ModelFileError(f"{self.path} gives no result: {_reason(error)}") from error

    def _answer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps, scores = map(np.asarray, self._compute(np.ascontiguousarray(images)))
        expected = (len(images), 1, *self.facts.view.map_size(self.facts.image_size))
        if maps.shape != expected:
            raise ValueError(f"its maps are {maps.shape}, not {expected}")
        maps = maps[:, 0]
        check_shapes(maps, scores, len(images))
        require_finite(maps, scores)
        return maps, scores

    def score(self, paths: Sequence[str | PathLike]) -> np.ndarray:
        """Scores (N,) of image files, which may differ in size. Raises DataError for one that cannot be read."""
        scores = [self.run(self.facts.view.load(Path(path))[None])[1] for path in paths]
        return np.concatenate(scores) if scores else np.zeros(0, np.float32)


def _load_onnx(onnxruntime: ModuleType, path: Path, threads: int) -> tuple[Facts, Compute]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    facts = _find_facts(path, session.get_modelmeta().custom_metadata_map)
    inputs = [(one.name, one.type, len(one.shape)) for one in session.get_inputs()]
    _check_interface(inputs, "tensor(uint8)", [one.name for one in session.get_outputs()])
    return facts, lambda images: session.run(OUTPUTS, {INPUT: images})


def _load_openvino(openvino: ModuleType, path: Path, threads: int) -> tuple[Facts, Compute]:
    core, weights = openvino.Core(), path.with_suffix(".bin")
    if not weights.is_file():  # a pipe would be waited for
        raise ValueError(f"there is no file {weights}")
    model = core.read_model(path)
    facts = _find_facts(path, {key: model.get_rt_info(key).value for key in (KEY, SEAL_KEY) if model.has_rt_info(key)})
    if model.has_rt_info(WEIGHTS_KEY) and model.get_rt_info(WEIGHTS_KEY).value != sha256_of(weights):
        raise ValueError(f"{weights} is not the one that was written with it")
    inputs = [(one.any_name, one.element_type.get_type_name(), one.partial_shape.rank) for one in model.inputs]
    inputs = [(name, kind, rank.get_length() if rank.is_static else None) for name, kind, rank in inputs]
    _check_interface(inputs, "u8", [name for one in model.outputs for name in one.names])
    options = {"INFERENCE_PRECISION_HINT": {"bf16": "bf16"}.get(facts.precision, "f32")}  # the default may be bf16
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(model, "CPU", options)

    def compute(images: np.ndarray) -> list[np.ndarray]:
        answer = compiled({INPUT: images})
        return [answer[name] for name in OUTPUTS]

    return facts, compute


def _check_interface(inputs: Sequence[tuple[str, str, int | None]], kind: str, outputs: Sequence[str]) -> None:
    """Raise ValueError unless a file takes and gives what our exports do, by name, type and dimensions."""
    if list(inputs) != [(INPUT, kind, 4)]:
        taken = ", ".join(f"{name} {of} of {rank} dimensions" for name, of, rank in inputs)
        raise ValueError(f"it takes {taken or 'nothing'}, not {INPUT} {kind} of 4 dimensions")
    if missing := [name for name in OUTPUTS if name not in outputs]:
        raise ValueError(f"it does not give {', '.join(missing)}")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _find_facts(path: Path, metadata: Mapping[str, str]) -> Facts:
    if KEY not in metadata:
        raise ValueError("it was not made by scripts/export.py")
    if (seal := metadata.get(SEAL_KEY)) is not None:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = content.find(seal.encode())
            sha256 = hashlib.sha256(content[:start])
            sha256.update(UNSEALED.encode())
            sha256.update(content[start + len(UNSEALED) :])
        if start < 0 or seal != f"sha256 {sha256.hexdigest()}":
            raise ValueError("it is damaged, or was changed: its checksum is another")
    return Facts.from_text(metadata[KEY])


def sealed(content: bytes) -> bytes:
    """The content with its own checksum, taken as it is with UNSEALED, in place of that."""
    return content.replace(UNSEALED.encode(), f"sha256 {hashlib.sha256(content).hexdigest()}".encode())


class Runtime(NamedTuple):
    """A package, and the function that loads a model file with it, given the package, a path and threads (0: one a
    core)."""

    package: str
    load: Callable[[ModuleType, Path, int], tuple[Facts, Compute]] | None
    instead: str = ""  # the function of torch that its files are for: `ExportedModel` is for places without torch


RUNTIMES = {
    ".onnx": Runtime("onnxruntime", _load_onnx),
    ".xml": Runtime("openvino", _load_openvino),
    ".pt": Runtime("torch", None, instead="torch.jit.load"),
    ".pt2": Runtime("torch", None, instead="torch.export.load"),
}
