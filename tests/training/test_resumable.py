"""The state of a stage: when it is saved, what comes back, and what is refused."""

from __future__ import annotations

import pytest
import torch

from utils.system.errors import CheckpointError
from utils.training import resumable
from utils.training.resumable import ResumableStage


def test_a_stage_is_saved_only_as_often_as_it_may_cost(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(resumable.time, "perf_counter", lambda: clock[0])
    saved = []

    def save(path, content):
        saved.append(content["epoch"])
        clock[0] += 1.0  # what a save takes

    monkeypatch.setattr(resumable, "save_tensors", save)
    for _ in ResumableStage(tmp_path / "p.pt").epochs(50):
        clock[0] += 1.0
    assert saved == [2, 22, 42]  # 1 s of 20


def test_a_stage_restores_what_it_tracks(tmp_path):
    layer, path = torch.nn.Linear(2, 2), tmp_path / "p.pt"
    first = ResumableStage(path, {"layer": layer}, {"category": "a"})
    first.epoch, first.step, first.notes["kept"] = 4, 2, True
    first.save()
    drawn = torch.rand(3)
    weight = layer.weight.detach().clone()
    torch.nn.init.zeros_(layer.weight)
    second = ResumableStage(path, {"layer": layer}, {"category": "a"})
    assert torch.equal(torch.rand(3), drawn) and torch.equal(layer.weight, weight)
    assert (second.epoch, second.step, second.notes, second.resumed) == (4, 2, {"kept": True}, True)
    assert list(second.epochs(3)) == [] and list(second.steps("abcd")) == ["c", "d"]
    with pytest.raises(CheckpointError, match="category: a -> b"):
        ResumableStage(path, {"layer": layer}, {"category": "b"})
    with pytest.raises(CheckpointError, match="no other in it"):
        ResumableStage(path, {"other": layer}, {"category": "a"})
    with pytest.raises(CheckpointError, match=r"does not fit: layer: .*delete it"):
        ResumableStage(path, {"layer": torch.nn.Linear(3, 2)}, {"category": "a"})
