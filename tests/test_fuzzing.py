"""Damaged and hostile inputs of every kind end in the errors that are documented, quickly, within little memory, and
write nothing where they should not. Inputs, and what is checked of each: tests/fuzzing.py.

    python -m pytest tests/test_fuzzing.py                # the same 2,400 inputs every time
    FUZZ_FACTOR=10 python -m pytest tests/test_fuzzing.py # ten times as many, other ones every time (make fuzz)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.commands import ROOT
from tests.fuzzing import EXAMPLES, KINDS

FACTOR = os.environ.get("FUZZ_FACTOR")
MEMORY = 2e9  # bytes, of a process that reads all inputs of a kind, torch included


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_strangers(kind):
    """In a process of its own: what crashes it is seen, and its memory is its own."""
    command = [sys.executable, "-m", "tests.fuzzing", kind, *([FACTOR] if FACTOR else [])]
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
