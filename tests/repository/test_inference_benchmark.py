"""benchmarks/inference.py at a tiny size: its table; nothing is timed to be compared."""

from __future__ import annotations

import math
import sys

import pytest

from benchmarks import inference
from tests.repository.test_benchmarks import call, tables
from utils.system.errors import UsageError

TINY = ("--backbones", "efficientnet_lite0", "--image_size", 32, "--batch_size", 2, "--threads", 1, "--repetitions", 2)


def test_every_row_has_its_figures(monkeypatch, capsys):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    rows = ("torch-eager", "torch-bf16", "openvino-bf16")
    [[heading, *found]] = tables(call(inference, monkeypatch, capsys, *TINY, "--only", *rows))
    assert heading[:2] == ["backbone", "row"]
    assert [row[1] for row in found] == list(rows)
    for row in found:
        median, slow, rate, memory = map(float, row[2:6])
        assert 0 < median <= slow and rate > 0
        assert 0.05 < memory < 20 or math.isnan(memory)
    assert [row[6] == "" for row in found] == [True, True, False]
    assert float(found[2][6]) > 1
    if sys.platform == "linux":
        assert float(found[2][5]) < float(found[0][5])  # no torch in the memory of a model file's process


def test_a_row_that_fails_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(inference, "write_file", lambda *_: tmp_path / "none.onnx")
    with pytest.raises(UsageError, match=r"efficientnet_lite0, onnx-fp32: .*there is no model file"):
        call(inference, monkeypatch, capsys, *TINY, "--only", "onnx-fp32")
