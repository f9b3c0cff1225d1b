"""Run folders in a store: whole or not at all, whoever is cut off when."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from tests.support.commands import TINY, run_train, same_weights
from utils.sweep.attempts import Attempt, attempts, completed, completed_keys, copy_run, fetch_files, pull
from utils.sweep.store import Store
from utils.system.errors import StoreError, Superseded
from utils.system.signals import Interrupted
from utils.training.resumable import ResumableStage

pytestmark = pytest.mark.usefixtures("one_thread")
KEY = "mvtec/aand/seed0/bottle"


class Cut(Exception):
    """The connection is gone."""


def cut_after(store: Store, puts: int, patch: pytest.MonkeyPatch) -> None:
    """Let so many files be written, and no more."""
    remaining, put = iter([None] * puts), store.put

    def dying_put(local: Path, name: str) -> None:
        if next(remaining, Cut) is Cut:
            raise Cut(name)
        put(local, name)

    patch.setattr(store, "put", dying_put)


def make_run_folder(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


# Run folders


def test_a_run_folder_is_handed_from_one_attempt_to_the_next(store, tmp_path):
    run = make_run_folder(tmp_path / "run", config_dot_json="{}", log_dot_txt="one\n", checkpoints__a="A",
                          _dot_lock="", checkpoints___dot_x_dot_0123456789ab_dot_pt="half")
    first = Attempt.begin(store, KEY)
    first.push(run, tmp_path / "staging")
    (run / "log.txt").write_text("one\ntwo\n")
    first.push(run, tmp_path / "staging")
    assert not (tmp_path / "staging").exists()
    second = Attempt.begin(store, KEY)
    assert [name[:4] for name in attempts(store, KEY)] == ["0001", "0002"]
    assert pull(store, KEY, tmp_path / "second") == first.name
    assert content(tmp_path / "second") == {"config.json": "{}", "log.txt": "one\ntwo\n", "checkpoints/a": "A"}
    (tmp_path / "second/checkpoints/a").write_text("B")
    assert completed(store, KEY) is None
    finished = second.finish(tmp_path / "second", tmp_path / "staging", {"seconds": 3.5})
    assert (finished["attempt"], finished["seconds"]) == (second.name, 3.5)
    assert completed(store, KEY) == finished
    assert completed_keys(store) == [KEY]
    fetch_files(store, KEY, finished, tmp_path / "fetched")
    assert content(tmp_path / "fetched") == {"config.json": "{}", "log.txt": "one\ntwo\n", "checkpoints/a": "B"}


def test_only_what_changed_is_pushed_and_what_is_outdated_deleted(store, tmp_path, monkeypatch):
    run = make_run_folder(tmp_path / "run", large="L" * 1000, small="1")
    attempt = Attempt.begin(store, KEY)
    attempt.push(run, tmp_path / "staging")
    (run / "small").write_text("2")
    written, put = [], store.put
    monkeypatch.setattr(store, "put", lambda local, name: (written.append(local.name), put(local, name)))
    attempt.push(run, tmp_path / "staging")
    assert "large" not in written
    assert "small" in written
    assert len([name for name in store.names() if "/files/" in name]) == 2


@pytest.mark.parametrize("puts", range(5))
def test_a_push_that_is_cut_leaves_what_was_there(store, tmp_path, monkeypatch, puts):
    """Of a second push of three files and the snapshot, so many writes come through; a fifth one is complete.json."""
    run = make_run_folder(tmp_path / "run", a="1", b="1", c="1")
    attempt = Attempt.begin(store, KEY)
    attempt.push(run, tmp_path / "staging")
    make_run_folder(run, a="2", b="2", c="2")
    with monkeypatch.context() as patch:
        cut_after(store, puts, patch)
        with pytest.raises(Cut):
            attempt.finish(run, tmp_path / "staging", {})
    assert completed(store, KEY) is None
    assert completed_keys(store) == []
    assert pull(store, KEY, tmp_path / "pulled") == attempt.name
    assert set(content(tmp_path / "pulled").values()) == ({"1"} if puts < 4 else {"2"})


def test_a_damaged_snapshot_gives_way_to_the_one_before(store, tmp_path):
    run = make_run_folder(tmp_path / "run", a="good")
    first, second = Attempt.begin(store, KEY), Attempt.begin(store, KEY)
    second.push(make_run_folder(tmp_path / "other", a="other"), tmp_path / "staging")
    with pytest.raises(Superseded):
        first.push(run, tmp_path / "staging")
    third = Attempt.begin(store, KEY)
    third.push(run, tmp_path / "staging")
    [stored] = [name for name in store.names() if third.name in name and "/files/" in name]
    (tmp_path / "damage").write_text("g")
    store.put(tmp_path / "damage", stored)
    assert pull(store, KEY, tmp_path / "pulled") == second.name
    assert content(tmp_path / "pulled") == {"a": "other"}
    store.remove([stored])
    assert pull(store, KEY, tmp_path / "again") == second.name


@pytest.mark.parametrize("files", [None, [], {"../a": "0"}, {"/etc/a": "0"}, {"a": 1}, {"..\\a": "0"}])
def test_a_snapshot_of_something_else_is_not_used(tmp_path, files):
    store = Store(str(tmp_path / "store"))
    attempt = Attempt.begin(store, KEY)
    store.write_json(attempt.path("snapshot.json"), {"files": files})
    assert pull(store, KEY, tmp_path / "pulled" / "run") is None
    with pytest.raises(StoreError, match="a snapshot in the store names"):
        fetch_files(store, KEY, {"files": files, "attempt": attempt.name}, tmp_path / "run")
    assert not (tmp_path / "a").exists()


# Two attempts at once


def test_an_attempt_gives_way_to_a_later_one_and_to_a_finished_one(store, tmp_path):
    run = make_run_folder(tmp_path / "run", a="1")
    zombie, later = Attempt.begin(store, KEY), Attempt.begin(store, KEY)
    with pytest.raises(Superseded, match=f"{zombie.name} gives way to {later.name}"):
        zombie.push(run, tmp_path / "staging")
    finished = later.finish(run, tmp_path / "staging", {})
    for attempt in (zombie, Attempt.begin(store, KEY)):
        with pytest.raises(Superseded):
            attempt.finish(make_run_folder(tmp_path / "other", a="2"), tmp_path / "staging", {})
    assert completed(store, KEY) == finished
    fetch_files(store, KEY, finished, tmp_path / "fetched")
    assert content(tmp_path / "fetched") == {"a": "1"}


def test_a_zombie_that_does_not_see_the_other_leaves_a_whole_result(store, tmp_path, monkeypatch):
    """It has looked before the other finished, and writes complete.json after it, and after the cleaning up."""
    run = make_run_folder(tmp_path / "run", weights="W", checkpoints__stage2_dot_progress_dot_pt="P")
    zombie, other = Attempt.begin(store, KEY), Attempt.begin(store, KEY)
    monkeypatch.setattr(zombie, "check", lambda: None)
    zombie.push(run, tmp_path / "staging")
    (run / "checkpoints/stage2.progress.pt").unlink()
    other.finish(run, tmp_path / "staging", {})
    left = [name for name in store.names() if zombie.name in name and "/files/" in name]
    assert len(left) == 1  # its progress was deleted, and nothing else
    finished = zombie.finish(run, tmp_path / "staging", {})
    assert completed(store, KEY) == finished
    fetch_files(store, KEY, finished, tmp_path / "fetched")
    assert content(tmp_path / "fetched") == {"weights": "W"}


def test_a_copy_is_never_behind_in_its_curves(tmp_path, monkeypatch):
    """While it is made an epoch ends, and then the stage: its line comes first, then the progress goes."""
    run = make_run_folder(tmp_path / "run", metrics_dot_jsonl="1\n", a_dot_progress_dot_pt="1", z="z")
    import utils.sweep.attempts as module

    copied, copy = [], module._copy

    def training_goes_on(source, target):
        if not copied:
            (run / "metrics.jsonl").write_text("1\n2\n")
            (run / "a.progress.pt").unlink()
            (run / "stage1.pt").write_text("1")
        copied.append(source.name)
        copy(source, target)

    monkeypatch.setattr(module, "_copy", training_goes_on)
    copy_run(run, tmp_path / "copy")
    assert content(tmp_path / "copy") == {"metrics.jsonl": "1\n2\n", "stage1.pt": "1", "z": "z"}
    assert copied[-1] == "metrics.jsonl"


def test_a_copy_beside_a_writer_is_of_one_moment(tmp_path):
    """The curves are written before the progress: a copy's progress never knows more epochs than its curves."""
    run = make_run_folder(tmp_path / "run", metrics_dot_jsonl="", stage1_dot_progress_dot_pt="0")
    stop = threading.Event()

    def train():
        epoch = 0
        while not stop.is_set():
            epoch += 1
            with (run / "metrics.jsonl").open("a") as file:
                file.write(f"{epoch}\n")
            (run / ".new").write_text(str(epoch))
            (run / ".new").replace(run / "stage1.progress.pt")

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for number in range(100):
            copy_run(run, tmp_path / f"copy{number}")
    finally:
        stop.set()
        thread.join()
    for number in range(100):
        copy = content(tmp_path / f"copy{number}")
        assert int(copy["stage1.progress.pt"]) <= copy["metrics.jsonl"].count("\n")


# Training, by way of a store


def test_training_goes_on_from_s3_with_the_same_bits(s3, trained, tmp_path, monkeypatch):
    """Stopped in Stage II, pushed, the next push cut half way; elsewhere it goes on and ends as if undisturbed."""
    store = Store("s3://bucket/training")
    base = ("--data_root", trained.data, *TINY, "--aux_path", "builtin", "--categories", "bottle", "--output")
    attempt, checks = Attempt.begin(store, KEY), iter([None] * 3)

    def stop_in_stage_2(progress):
        if progress.path.name == "stage2.progress.pt" and next(checks, Cut) is Cut:
            progress.save()
            raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr(ResumableStage, "_stop_if_asked", stop_in_stage_2)
        assert run_train(tmp_path, *base, "first").status == 143
    attempt.push(tmp_path / "first", tmp_path / "staging")
    (tmp_path / "first/log.txt").write_text("more\n")
    with monkeypatch.context() as patch:
        cut_after(store, 1, patch)
        with pytest.raises(Cut):
            attempt.push(tmp_path / "first", tmp_path / "staging")
    shutil.rmtree(tmp_path / "first")

    second = Attempt.begin(store, KEY)
    assert pull(store, KEY, tmp_path / "second") == attempt.name
    result = run_train(tmp_path, *base, "second")
    assert "stage 1 already trained" in result.out
    assert "stage 2 goes on in epoch 2, step 1" in result.out
    finished = second.finish(tmp_path / "second", tmp_path / "staging", {})
    fetch_files(store, KEY, finished, tmp_path / "fetched")
    assert same_weights(tmp_path / "fetched", trained.aand, "bottle")
    lines = (trained.aand / "metrics.jsonl").read_text().splitlines()
    assert (tmp_path / "fetched/metrics.jsonl").read_text().splitlines() == [line for line in lines if "bottle" in line]
