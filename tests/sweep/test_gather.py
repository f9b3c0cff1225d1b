"""Finished tasks, gathered as the runs that one train.py would have left."""

from __future__ import annotations

import json

import pytest

from tests.support.commands import run_process
from utils.sweep.attempts import Attempt
from utils.sweep.gather import gather
from utils.sweep.store import Store
from utils.system.errors import RunError


def test_nothing_is_gathered_over_a_run_or_of_an_empty_store(tmp_path):
    fetch = ("scripts/fetch_runs.py", "--store", "store", "--output", "runs")
    empty = run_process(tmp_path, *fetch)
    assert (empty.status, empty.errors) == (2, [f"error: {tmp_path}/store has no finished task"])
    store = Store(str(tmp_path / "store"))
    (tmp_path / "run").mkdir()
    results = {"categories": {"a": {"image_auroc": 0.5}}, "mean": {"image_auroc": 0.5}, "seed": 0, "protocol": {},
               "settings": {"categories": ["a"], "skipped": {}}, "training": {}, "testing": {}, "seconds": {"a": {}},
               "test_files": {"a": {"count": 1, "sha256": "0"}}, "published_protocol": {}, "skipped": {}}
    for name, value in (("b", 1.0), ("a", 0.5)):
        text = json.dumps(results).replace('"a"', f'"{name}"').replace("0.5", str(value))
        (tmp_path / "run/results.json").write_text(text)
        key = f"data/aand/seed0/{name}"
        Attempt.begin(store, key).finish(tmp_path / "run", tmp_path / "staging", {"seconds": 1.0})
    [run] = gather(store, tmp_path / "runs").runs
    for folder in (run, run / "seed0"):
        found = json.loads((folder / "results.json").read_text())
        assert found["categories"] == {"a": {"image_auroc": 0.5}, "b": {"image_auroc": 1.0}}
        assert found["mean"] == {"image_auroc": 0.75}
    assert found["settings"]["categories"] == ["a", "b"]
    assert list(found["tasks"]) == ["a", "b"]
    with pytest.raises(RunError, match="data-aand is there already"):
        gather(store, tmp_path / "runs")
    [run] = gather(store, tmp_path / "one", keys=["data/aand/seed0/b"]).runs
    assert list(json.loads((run / "results.json").read_text())["categories"]) == ["b"]
    with pytest.raises(RunError, match="no finished task of those asked for"):
        gather(store, tmp_path / "two", keys=["data/aand/seed1/b"])
