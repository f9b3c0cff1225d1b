"""What is written for TensorBoard: a figure an epoch, epochs that are trained again once, and maps at the end."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from tests.support.commands import ASIDE, OWN, run_train
from tests.support.trees import make_folder
from utils.runs.board import FOLDER, StageBoard, require_board
from utils.runs.settings import read_config
from utils.system.errors import MissingPackage


def read(folder):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = accumulators.EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    return accumulator.Reload()


def test_a_runs_curves_and_maps(tmp_path):
    root = make_folder(tmp_path / "data", ["widget"])
    result = run_train(tmp_path, "--data_root", root, *OWN, *ASIDE, "--tensorboard", "--output", "run")
    assert result.status == 0, result.err
    for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        written = read(tmp_path / "run" / FOLDER / "widget" / f"stage{row['stage']}")
        figures = {name: value for name, value in row.items() if name not in ("category", "stage", "epoch")}
        assert set(written.Tags()["scalars"]) == set(figures)
        for name, value in figures.items():
            event = next(event for event in written.Scalars(name) if event.step == row["epoch"])
            assert event.value == pytest.approx(value, rel=1e-5)
    [maps] = [len(written.Images(tag)) for tag in written.Tags()["images"] if tag.startswith("maps")][:1]
    assert maps == 1
    assert "tensorboard" not in read_config(tmp_path / "run")


def test_a_stage_that_goes_on_replaces_its_last_epochs(tmp_path):
    for first, last in ((1, 4), (3, 5)):
        board = StageBoard(tmp_path, "widget", 2, first)
        for epoch in range(first, last):
            board.add(epoch, {"loss": float(first)})
        board.close()
    events = read(tmp_path / FOLDER / "widget/stage2").Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(1, 1.0), (2, 1.0), (3, 3.0), (4, 3.0)]


def test_pictures(tmp_path):
    board = StageBoard(tmp_path, "widget", 1)
    board.show(1, np.zeros((2, 4, 8, 3), np.uint8))
    board.close()
    assert read(tmp_path / FOLDER / "widget/stage1").Tags()["images"]


def test_without_the_package_it_is_said_before_anything_is_done(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingPackage, match="`tensorboard` needs a package: pip install tensorboard"):
        require_board()
