"""What several test files share: a small data set, and runs that were trained on it once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.support.commands import ASIDE, OWN, TINY, run_export, run_train
from tests.support.trees import make_mvtec


@dataclass(frozen=True)
class Trained:
    """A working folder with a data set in data/ and trained runs; tests copy what they change."""

    cwd: Path
    data: Path
    aand: Path  # run folders
    rd4ad: Path


@dataclass(frozen=True)
class Seeded:
    """A run of seeds 0 and 1, otherwise trained as `Trained.aand` and with the test metrics of every epoch logged."""

    run: Path
    out: str  # what train.py printed


@dataclass(frozen=True)
class Own:
    """A working folder with good and other images of one category in data/, and a run with thresholds."""

    cwd: Path
    data: Path
    run: Path


@pytest.fixture
def one_thread():
    """Tiny networks: threads would wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def closed(monkeypatch):
    """A function that makes a folder one that may not be looked into, whoever runs the test."""
    names, scan = set(), os.scandir

    def refuse(folder):
        if str(folder) in names:
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    return lambda folder: names.add(str(folder))


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    cwd = tmp_path_factory.mktemp("trained")
    data = make_mvtec(cwd / "data", ["bottle", "tile"], train=4)
    for method in ("aand", "rd4ad"):
        options = ("--method", method, "--output", f"runs/{method}", "--aux_path", "builtin")
        result = run_train(cwd, "--data_root", data, *TINY, *options)
        assert result.status == 0, result.err
    return Trained(cwd, data, cwd / "runs/aand", cwd / "runs/rd4ad")


@pytest.fixture(scope="session")
def seeded(trained) -> Seeded:
    options = ("--seeds", 0, 1, "--eval_every", 1, "--output", "seeded", "--aux_path", "builtin")
    result = run_train(trained.cwd, "--data_root", trained.data, *TINY, *options)
    assert result.status == 0, result.err
    return Seeded(trained.cwd / "seeded", result.out)


@pytest.fixture(scope="session")
def own(tmp_path_factory) -> Own:
    cwd = tmp_path_factory.mktemp("own")
    data = make_mvtec(cwd / "data", ["widget"], train=10)
    result = run_train(cwd, "--data_root", data, *OWN, *ASIDE, "--output", "run")
    assert result.status == 0, result.err
    return Own(cwd, data, cwd / "run")


@pytest.fixture(scope="session")
def models(own) -> dict[str, Path]:
    """Exported files by format, of the run with thresholds."""
    paths = {}
    for kind, suffix in (("onnx", ".onnx"), ("openvino", ".xml")):
        path = own.cwd / f"line/widget{suffix}"
        result = run_export(own.cwd, own.run, "--category", "widget", "--format", kind, "--output", path)
        assert result.status == 0, result.err
        paths[kind] = path
    return paths


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium with a camera that shows a test pattern."""
    from tests.support.browsing import CHROMIUM, playwright  # skips, or fails, where there is none

    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        yield chromium
        chromium.close()
