"""Damaged and hostile inputs of every kind end in the errors that are documented, quickly, within little memory, and
write nothing where they should not. Inputs, and what is checked of each: tests/support/fuzzing.py.

    python -m pytest tests/programs/test_fuzzing.py                # the same 3,600 inputs every time
    FUZZ_FACTOR=10 python -m pytest tests/programs/test_fuzzing.py # ten times as many, others each time (make fuzz)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from datasets import open_dataset
from datasets.base import DataError
from tests.support.commands import ROOT, run_train
from tests.support.damage import EXAMPLES
from tests.support.fuzzing import CONFIG, KINDS
from tests.support.trees import make_visa
from utils.runs.checkpoint import load_checkpoint
from utils.runs.folder import Run
from utils.runs.history import published_protocol
from utils.system.errors import CheckpointError, RunError

FACTOR = os.environ.get("FUZZ_FACTOR")
MEMORY = 2e9  # bytes, of a process that reads all inputs of a kind, torch included


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_strangers(kind):
    """In a process of its own: what crashes it is seen, and its memory is its own."""
    command = [sys.executable, "-m", "tests.support.fuzzing", kind, *([FACTOR] if FACTOR else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    limit = 300 * int(FACTOR or 1)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, done.stderr[-20_000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["inputs"] >= EXAMPLES[kind] * int(FACTOR or 1)
    assert found["peak"] < MEMORY


def test_there_are_enough_inputs():
    assert KINDS.keys() == EXAMPLES.keys()
    assert sum(EXAMPLES.values()) >= 2000


# Inputs that failed once: with another exception than the one here


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b'{"train": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="RecursionError"),
        pytest.param(
            b'{"train": {}, "test": {"a": [{"img_path": "' + b"a" * 5000 + b'/b", "mask_path": "", "anomaly": 0}]}}',
            id="OSError: File name too long",
        ),
    ],
)
def test_lists_that_failed_once(tmp_path, content):
    (make_visa(tmp_path, meta=True) / "meta.json").write_bytes(content)
    with pytest.raises(DataError):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"recipe": None}, id="KeyError"),
        pytest.param({"recipe": []}, id="TypeError: unhashable"),
    ],
)
def test_settings_that_failed_once(tmp_path, changed):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changed))
    with pytest.raises(RunError):
        _ = Run(tmp_path).category("tile").view


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(b'{"category": "a", "stage": 2, "epoch": 1, "image_auroc": null}', id="TypeError: None - None"),
        pytest.param(
            b'{"category": "a", "stage": 2, "epoch": null, "image_auroc": 0.5}\n'
            b'{"category": "a", "stage": 2, "epoch": 1, "image_auroc": 0.5}',
            id="TypeError: None < int",
        ),
    ],
)
def test_metrics_that_failed_once(tmp_path, lines):
    (tmp_path / "metrics.jsonl").write_bytes(lines)
    with pytest.raises(RunError):
        published_protocol(tmp_path)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"QK\x03\x04", id="IndexError: a pickle's persistent id from an empty stack"),
    ],
)
def test_checkpoints_that_failed_once(tmp_path, first):
    path = tmp_path / "part.pt"
    torch.save({}, path)
    path.write_bytes(first + path.read_bytes()[4:])
    with pytest.raises(CheckpointError, match="part.pt"):
        load_checkpoint(path, {"part": nn.Linear(1, 1)}, {"method": "aand", "backbone": "resnet18", "image_size": 32})


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--resume", "a" * 300], id="OSError: File name too long"),
    ],
)
def test_commands_that_failed_once(tmp_path, flags):
    result = run_train(tmp_path, "--data_root", "absent", *flags)
    assert result.status == 2
    assert len(result.errors) == 1
