"""One fit of benchmarks/peers.py, in a process of its own: seconds, memory, metrics, latency, and the exported file."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from benchmarks.inference import times
from benchmarks.memory import process_peak
from benchmarks.peer_methods import METHODS, Method, Ours
from datasets import open_dataset
from datasets.anomalies.textures import list_textures
from datasets.files import Files, evaluation_files, image_files, paths_of, texture_files, training_files
from datasets.view import WHOLE, View
from models.tensor_files import first_line
from utils.cli import DEFAULT_WORKERS
from utils.data.image_store import FileStack
from utils.detection.prediction import Prediction
from utils.detection.test_set import TestSet

BATCH_SIZE = 16  # images scored at once
PROBES = 16  # test images that latency is measured on


class Data:
    """A category's decoded images, read when they are asked for."""

    def __init__(self, category: str, options: argparse.Namespace):
        folder, _, self.category = category.rpartition("/")
        self.source = open_dataset(options.data_root / folder, "auto", [self.category])
        self.size, self.aux_path = options.image_size, options.aux_path
        self.train, self.test = (self.source.samples(self.category, split) for split in ("train", "test"))

    def images(self) -> Tensor:
        """The training images, uint8 (N, S, S, 3)."""
        return self._read(image_files(paths_of(self.train)))

    def images_and_foregrounds(self, view: View) -> Tensor:
        """The training images as a view shows them, and their foregrounds, uint8 (N, S, S, 4)."""
        return self._read(training_files(paths_of(self.train), self.source.name, self.category, None, view))

    def textures(self) -> Tensor:
        """The textures for synthetic anomalies, uint8 (T, 3, S, S)."""
        return self._read(texture_files(list_textures(self.aux_path)))

    def test_set(self, view: View = WHOLE) -> TestSet:
        """The test images as a view shows them, with masks of the whole."""
        return TestSet.of(self.test, [self._read(files) for files in evaluation_files(self.test, view)], view)

    def probes(self) -> np.ndarray:
        """Some test images, spread over all of them: uint8 (P, S, S, 3)."""
        places = np.unique(np.linspace(0, len(self.test) - 1, PROBES).round().astype(int))
        return self._read(image_files([self.test[place].image_path for place in places])).numpy()

    def _read(self, files: Files) -> Tensor:
        return FileStack(files, self.size, DEFAULT_WORKERS)[:]


class Fit(Protocol):
    """A method on a category's data, which it reads when it is made."""

    test: TestSet

    def fit(self) -> str:
        """Make the model of the decoded images; returns the epochs in words."""

    def predict(self) -> Prediction:
        """Raw maps and scores of the test images."""

    def clamped(self) -> Prediction | None:
        """The same after the method's post-processing, where it clamps."""

    def state(self) -> Mapping[str, Tensor]:
        """The state dict of the fitted model."""

    def answer(self, images: np.ndarray) -> np.ndarray:
        """Scores (N,) of images uint8 (N, S, S, 3) by all that the exported file does, in PyTorch."""

    def export(self, folder: Path) -> Path:
        """Write the OpenVINO file; returns its .xml."""


def fit_of(method: Method) -> Callable[[Method, Data, argparse.Namespace, int], Fit]:
    """The class of a method's fits; only what it needs is imported."""
    if isinstance(method, Ours):
        from benchmarks.peer_ours import OurFit

        return OurFit
    from benchmarks.peer_anomalib import PeerFit

    return PeerFit


def fit(options: argparse.Namespace, category: str, method: str, seed: int, folder: Path) -> None:
    """Measure a fit, and write result.json, the exported file and, to try it on, probe.npz to a folder."""
    make = fit_of(METHODS[method])  # imports count in memory, not in time
    started = time.perf_counter()
    data = Data(category, options)
    one = make(METHODS[method], data, options, seed)
    read = time.perf_counter()
    result: dict[str, Any] = {"reading_s": read - started, "epochs": one.fit()}
    fitted = time.perf_counter()
    result |= {"fitting_s": fitted - read, "fitting_gb": process_peak() / 1e9}
    prediction = one.predict()
    result |= {"scoring_s": time.perf_counter() - fitted, "metrics": one.test.evaluate(prediction)}
    if clamped := one.clamped():
        result["clamped"] = one.test.evaluate(clamped)
    images = data.probes()
    result |= {
        "model_mb": sum(tensor.nbytes for tensor in one.state().values()) / 1e6,
        "torch_ms": 1000 * float(np.median(times(one.answer, images[:1], options.repetitions))),
    }
    np.savez(folder / "probe.npz", images=images, scores=one.answer(images))
    try:
        result["file"] = str(one.export(folder).relative_to(folder))
    except Exception as error:  # of exporters, of many types: hours of fitting are not lost for it
        result["file_error"] = f"not written: {first_line(error)}"
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
