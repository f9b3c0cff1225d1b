"""A watched folder: what arrives is scored once, when it is complete, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.detection.test_detector import brightness
from tests.support.trees import write_image
from utils.detection import watching
from utils.detection.files import Summary
from utils.detection.pictures import HEAT_MAPS
from utils.detection.watching import PATIENCE, SETTLED, check_watch, journal, watch
from utils.system.errors import UsageError
from utils.system.signals import Interrupted

Step = Callable[[], object]


class Clock:
    """Time that passes when it is slept only; before each sleep the next step happens, and the last one interrupts."""

    def __init__(self, *steps: Step):
        self.now, self.steps = 0.0, list(steps)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if not self.steps:
            raise Interrupted(2)
        self.steps.pop(0)()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(steps...) watches tmp_path/in, a step before each look but the first, and returns what was written."""
    (tmp_path / "in").mkdir()
    output = tmp_path / "out/scores.jsonl"

    def call(*steps: Step, pictures: dict | None = None) -> list[dict]:
        monkeypatch.setattr(watching, "time", Clock(*steps))
        with pytest.raises(Interrupted):
            watch(brightness(32), tmp_path / "in", output, pictures or {}, 2, Summary())
        return [json.loads(line) for line in output.read_text().splitlines()]

    return call


def nothing() -> None:
    pass


def wait(seconds: float) -> list[Step]:
    return [nothing] * (int(seconds / watching.POLL) + 2)


def photograph(path: Path, value: int = 100) -> Path:
    return write_image(path, np.full((8, 8, 3), value, np.uint8))


def names(rows: list[dict]) -> list[str]:
    return [Path(row["path"]).name for row in rows]


def test_what_arrives_is_scored_once(tmp_path, run):
    folder = tmp_path / "in"
    photograph(folder / "a.png")
    rows = run(lambda: photograph(folder / "lot/b.png"), *wait(SETTLED), lambda: photograph(folder / "c.png"),
               *wait(SETTLED))
    assert sorted(names(rows)) == ["a.png", "b.png", "c.png"]
    assert all(row["score"] is not None and row["error"] is None and row["size"] > 0 for row in rows)


def test_a_restart_neither_loses_nor_doubles(tmp_path, run):
    folder = tmp_path / "in"
    photograph(folder / "a.png")
    assert names(run(*wait(SETTLED))) == ["a.png"]
    photograph(folder / "b.png")  # while nobody watches
    assert names(run(*wait(SETTLED))) == ["a.png", "b.png"]
    output = tmp_path / "out/scores.jsonl"
    whole = output.read_bytes()
    output.write_bytes(whole[:-20])  # killed while it wrote the second line
    assert names(run(*wait(SETTLED))) == ["a.png", "b.png"]
    assert len(output.read_bytes()) == len(whole)


def test_a_file_that_is_written_anew_is_scored_again(tmp_path, run):
    path = photograph(tmp_path / "in/a.png", 50)
    rows = run(*wait(SETTLED), lambda: photograph(path, 200), *wait(SETTLED))
    assert names(rows) == ["a.png", "a.png"] and rows[0]["score"] < rows[1]["score"]


def test_a_file_is_waited_for_until_it_is_complete(tmp_path, run):
    source = photograph(tmp_path / "whole.png").read_bytes()
    path = tmp_path / "in/a.png"

    def grow(size: int) -> Step:
        return lambda: path.write_bytes(source[:size])

    steps = [grow(size) for size in range(20, len(source), 20)] + [grow(len(source))]
    rows = run(*steps, *wait(SETTLED))
    assert names(rows) == ["a.png"] and rows[0]["error"] is None
    path.write_bytes(source[:30])  # a copy that has stopped for a while
    rows = run(*wait(PATIENCE / 2), grow(len(source)), *wait(SETTLED))
    assert [row["error"] for row in rows] == [None, None]


def test_bad_files_are_told_once_and_end_nothing(tmp_path, run):
    folder = tmp_path / "in"
    (folder / "bad.png").write_bytes(b"no image")
    (folder / "phone.heic").write_bytes(b"no image either")
    (folder / "notes.txt").write_text("by hand")
    (folder / "link.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    rows = run(*wait(PATIENCE), lambda: photograph(folder / "good.png"), *wait(PATIENCE))
    assert sorted(names(rows)) == ["bad.png", "good.png", "phone.heic"]
    errors = {Path(row["path"]).name: row["error"] for row in rows}
    assert errors["good.png"] is None and "bad.png" in errors["bad.png"] and "HEIC" in errors["phone.heic"]


def test_a_burst_is_scored_in_parts(tmp_path, run):
    for index in range(150):
        photograph(tmp_path / f"in/{index:03}.png")
    rows = run(*wait(SETTLED))
    assert len(rows) == len(set(names(rows))) == 150


def test_a_folder_that_is_gone_is_waited_for(tmp_path, run, capsys):
    folder = tmp_path / "in"
    rows = run(folder.rmdir, *wait(SETTLED), lambda: photograph(folder / "a.png"), *wait(SETTLED))
    assert names(rows) == ["a.png"]
    assert capsys.readouterr().err.splitlines() == [
        f"the folder {folder} is gone; waiting until it is there again", f"the folder {folder} is there again"
    ]


def test_pictures_are_written_and_never_scored(tmp_path, run):
    photograph(tmp_path / "in/lot/a.png")
    rows = run(*wait(SETTLED), pictures={HEAT_MAPS: tmp_path / "maps"})
    written = tmp_path / "maps/lot/a.png.png"
    assert names(rows) == ["a.png"] and written.is_file()
    written.rename(tmp_path / "in/map.png")
    assert names(run(*wait(SETTLED))) == ["a.png"]


def test_a_file_of_somebody_else_is_not_overwritten(tmp_path, run):
    photograph(tmp_path / "in/a.png")
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/a.png.png").write_text("mine")
    [row] = run(*wait(SETTLED), pictures={HEAT_MAPS: tmp_path / "maps"})
    assert row["score"] is not None and "maps/a.png.png is no file that this program wrote" in row["error"]
    assert (tmp_path / "maps/a.png.png").read_text() == "mine"


def test_files_and_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "in").mkdir()
    for output in ("scores.csv", "scores.jsonl"):
        (tmp_path / output).write_text("path,score\n")
        with pytest.raises(UsageError, match="`output` .*scores"), journal(tmp_path / output):
            pass
    taken = tmp_path / "taken.jsonl"
    with journal(taken), pytest.raises(UsageError, match="another process writes to"), journal(taken):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "scores.csv", "scores.jsonl", "taken.jsonl"]
    with pytest.raises(UsageError, match="`watch` .*: there is no such folder"):
        check_watch(tmp_path / "nowhere", {})
    with pytest.raises(UsageError, match="`save_maps` .* lies in the folder that is watched"):
        check_watch(tmp_path / "in", {HEAT_MAPS: tmp_path / "in/maps"})
