"""An exported file of benchmarks/peers.py, timed in a process of its own: no torch in its memory."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.inference import times
from benchmarks.memory import process_peak
from benchmarks.peer_methods import METHODS, Ours
from utils.detection.model_file import ExportedModel

Run = Callable[[np.ndarray], np.ndarray]  # uint8 (N, S, S, 3) -> scores (N,)


def time_file(options: argparse.Namespace, method: str, folder: Path) -> None:
    """Time the file that result.json of a fit names, and add what is found to result.json."""
    path = folder / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    with np.load(folder / "probe.npz") as probe:
        images, scores = probe["images"], probe["scores"]
    file = folder / result.pop("file")
    run = (open_ours if isinstance(METHODS[method], Ours) else open_peer)(file, options.threads)
    single = times(run, images[:1], options.repetitions)
    batches = times(run, images, max(1, options.repetitions // 5))
    result |= {
        "file_ms": 1000 * float(np.median(single)),
        "file_images_s": len(images) / float(np.median(batches)),
        "file_gb": process_peak() / 1e9,
        "file_mb": sum(part.stat().st_size for part in (file, file.with_suffix(".bin"))) / 1e6,
        "file_difference": float(np.abs(run(images) - scores).max() / np.abs(scores).max()),  # from PyTorch's scores
    }
    path.write_text(json.dumps(result), encoding="utf-8")


def open_ours(path: Path, threads: int) -> Run:
    model = ExportedModel(path, threads)
    return lambda images: model.run(images)[1]


def open_peer(path: Path, threads: int) -> Run:
    """A file of anomalib's, with the conversion that its own inferencer does before it."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}  # as our files ask for
    compiled = openvino.Core().compile_model(path, "CPU", options)

    def run(images: np.ndarray) -> np.ndarray:
        answer = compiled(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        return answer["pred_score"].reshape(-1)

    return run
