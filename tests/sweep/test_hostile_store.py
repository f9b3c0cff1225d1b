"""A store that anyone may have written to: tasks that cannot be used are named, the others come, and nothing outside is
read or written."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.support.commands import run_process
from utils.sweep.attempts import Attempt, attempts, check_content, completed, fetch_files
from utils.sweep.gather import gather
from utils.sweep.store import Store
from utils.system.errors import StoreError

RESULTS = {
    "categories": {"a": {"image_auroc": 0.5}}, "mean": {"image_auroc": 0.5}, "seed": 0, "protocol": {},
    "settings": {"categories": ["a"], "skipped": {}}, "training": {}, "testing": {}, "seconds": {"a": {}},
    "test_files": {"a": {"count": 1, "sha256": "0"}}, "published_protocol": {}, "skipped": {},
}
CONFIG = {
    "method": "aand", "backbone": "resnet18", "image_size": 32, "dataset": "folder", "data_root": "d", "seed": 0,
    "command": "train.py", "started": "2024", "categories": ["a"], "skipped": {},
}
GOOD, BAD = "d/aand/seed0/a", "d/rd4ad/seed0/a"
ATTEMPT, DIGEST = "0001-0123ab", hashlib.sha256(b"x").hexdigest()


class Task:
    """A finished task in a store that is a folder; `put` adds files to it, whatever they are called."""

    def __init__(self, root: Path, key: str = BAD, attempt: str = ATTEMPT):
        self.root, self.folder, self.attempt = root, root / "tasks" / key, attempt
        self.files: dict[str, object] = {}
        self.put("results.json", json.dumps(RESULTS))

    def put(self, name: str, content: str | bytes, digest: str | None = None) -> None:
        content = content if isinstance(content, bytes) else content.encode()
        self.files[name] = hashlib.sha256(content).hexdigest() if digest is None else digest
        path = self.folder / ATTEMPT / "files" / str(self.files[name])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def finish(self, **content: object) -> None:
        complete = {"attempt": self.attempt, "files": self.files, "seconds": 1.0, **content}
        (self.folder / "complete.json").write_text(json.dumps(complete))


@pytest.fixture
def root(tmp_path) -> Path:
    """A store with one good task."""
    Task(tmp_path / "store", GOOD).finish()
    return tmp_path / "store"


def fetched(root: Path, reason: str) -> list[str]:
    """What scripts/fetch_runs.py brings, where one task cannot be used for this reason."""
    result = run_process(root.parent, "scripts/fetch_runs.py", "--store", root, "--output", "out")
    assert result.status == 1 and result.out == "out/d-aand\n", result.err
    [error] = result.errors
    assert reason in error and "Traceback" not in result.err
    return sorted(path.relative_to(root.parent / "out").as_posix() for path in (root.parent / "out").rglob("*"))


TREE = ["d-aand", "d-aand/results.csv", "d-aand/results.json", "d-aand/seed0", "d-aand/seed0/results.csv",
        "d-aand/seed0/results.json"]


@pytest.mark.parametrize("key", ["a", "d/aand/seed0", "d/other/seed0/a", "d/aand/seed00/a", "d/aand/seedx/a",
                                 "d/aand/seed0/a/b", "d/aand/seed0/teacher.pt", "d/aand/seed0/Mean", "d\n/aand/seed0/a",
                                 "d/aand/seed0/a\\b"])
def test_tasks_of_other_names(root, key):
    Task(root, key).finish()
    reason = {"teacher.pt": "a run has something else of that name", "Mean": "a run has something else"}.get(
        key.rpartition("/")[2], "cannot be printed" if "\n" in key else "no name of a folder" if "\\" in key else "SEED"
    )
    assert fetched(root, "DATASET/METHOD/seedN/CATEGORY" if reason == "SEED" else reason) == TREE


COMPLETE = {
    "no attempt": ({"attempt": None}, "names no attempt"),
    "an attempt elsewhere": ({"attempt": "../../../../../elsewhere"}, "names no attempt"),
    "an attempt of other letters": ({"attempt": "0001-0123aB"}, "names no attempt"),
    "an attempt and a line": ({"attempt": "0001-0123ab\n"}, "names no attempt"),
    "files that are none": ({"files": ["results.json"]}, "names no files"),
    "no results": ({"files": {}}, "has no results.json"),
    "a digest elsewhere": ({"files": {"results.json": "../about.json"}}, "under no checksum"),
    "a digest that is a number": ({"files": {"results.json": 1}}, "under no checksum"),
    "a name elsewhere": ({"files": {"../x": DIGEST}}, "outside of its run"),
    "an absolute name": ({"files": {"/x": DIGEST}}, "outside of its run"),
    "a hidden name": ({"files": {"checkpoints/a/.x": DIGEST}}, "outside of its run"),
    "an empty name": ({"files": {"": DIGEST}}, "outside of its run"),
    "an empty part": ({"files": {"a//b": DIGEST}}, "outside of its run"),
    "a line break": ({"files": {"a\nb": DIGEST}}, "outside of its run: a\\nb"),
    "a file that is a folder": ({"files": {"maps/a": DIGEST, "maps/a/b": DIGEST}}, "a folder too"),
    "another category": ({"files": {"checkpoints/b/stage2.pt": DIGEST}}, "files of something else than a"),
    "another seed's": ({"files": {"seed1/config.json": DIGEST}}, "files of something else than a"),
    "no duration": ({"seconds": "1"}, "seconds that are no duration"),
}


@pytest.mark.parametrize("case", COMPLETE)
def test_what_complete_json_may_say(root, case):
    elsewhere = root.parent / "elsewhere/files"
    elsewhere.mkdir(parents=True)
    (elsewhere / DIGEST).write_bytes(b"x")
    content, reason = COMPLETE[case]
    Task(root).finish(**content)
    assert fetched(root, f"{BAD}: ") == TREE
    store = Store(str(root))
    assert reason in gather(store, root.parent / "again").skipped[BAD]
    if case not in ("no results", "another category", "another seed's"):
        assert completed(store, BAD) is None  # a sweep would do it again
    assert completed(store, GOOD)["attempt"] == ATTEMPT


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '"x"', "\xff", '{"attempt": NaN}', "[" * 100000])
def test_a_complete_json_that_is_none(root, text):
    Task(root).finish()
    (root / "tasks" / BAD / "complete.json").write_text(text, encoding="latin-1")
    assert fetched(root, f"{BAD}: its complete.json cannot be read") == TREE


def test_a_complete_json_without_end(root):
    Task(root).finish()
    with (root / "tasks" / BAD / "complete.json").open("wb") as file:
        file.truncate(2**40)  # a sparse terabyte
    assert fetched(root, f"{BAD}: its complete.json cannot be read") == TREE


RESULT_CHANGES = {
    "another category": {"categories": {"b": {}}}, "more categories": {"categories": {"a": {}, "b": {}}},
    "a metric that is none": {"categories": {"a": {"x": 1}}}, "a fraction above 1": {"categories": {"a": {"aupro": 2}}},
    "another seed": {"seed": 1}, "no seed": {"seed": None}, "settings of another kind": {"settings": []},
    "settings of others": {"settings": {"categories": ["a", "b"], "skipped": {}}},
    "a list of skipped": {"settings": {"categories": ["a"], "skipped": []}},
    "durations of others": {"seconds": {"b": {}}}, "no durations": {"seconds": None}, "a list": {"models": [[]]},
    "models of others": {"models": {"b": "x"}}, "no protocol": {"protocol": None}, "no test files": {"test_files": {}},
    "a gain that is none": {"published_protocol": {"a": {"gain": 3}}},
}


@pytest.mark.parametrize("case", RESULT_CHANGES)
def test_results_are_checked_before_they_are_in_a_table(root, case):
    task = Task(root)
    task.put("results.json", json.dumps(RESULTS | RESULT_CHANGES[case]))
    task.finish()
    found = gather(Store(str(root)), root.parent / "out")
    assert [run.name for run in found.runs] == ["d-aand"] and list(found.skipped) == [BAD]
    assert "results.json" in found.skipped[BAD] or "settings" in found.skipped[BAD]
    assert ".gathering-" not in found.skipped[BAD]


@pytest.mark.parametrize(("name", "text"), [
    ("results.json", "{"), ("config.json", "[]"), ("config.json", json.dumps(CONFIG | {"categories": ["b"]})),
    ("config.json", json.dumps(CONFIG | {"skipped": 3})), ("config.json", json.dumps(CONFIG | {"seed": 1})),
    ("metrics.jsonl", "{}"), ("metrics.jsonl", "\xff"), ("log.txt", "\xff"),
])
def test_other_files_of_a_run_are_checked_too(root, name, text):
    task = Task(root)
    task.put("config.json", json.dumps(CONFIG))
    task.finish()
    assert not gather(Store(str(root)), root.parent / "before").skipped
    task.put(name, text.encode("latin-1"))
    task.finish()
    found = gather(Store(str(root)), root.parent / "after")
    assert list(found.skipped) == [BAD] and [run.name for run in found.runs] == ["d-aand"]


def test_a_file_that_is_not_what_its_name_says(root):
    task = Task(root)
    task.put("log.txt", "a log", DIGEST)
    task.finish()
    assert fetched(root, "is damaged: its content is not that of its name") == TREE


@pytest.mark.parametrize("what", ["complete.json", "files", "a file", "an attempt"])
def test_links_that_lead_out_of_a_folder_are_not_followed(root, what):
    secret = root.parent / "secret"
    task = Task(root)
    task.put("log.txt", "secret")
    task.finish()
    place = {"complete.json": task.folder / "complete.json", "files": task.folder / ATTEMPT / "files",
             "an attempt": task.folder / ATTEMPT,
             "a file": task.folder / ATTEMPT / "files" / str(task.files["log.txt"])}[what]
    place.rename(secret)
    place.symlink_to(secret)
    assert fetched(root, "it is a link that leads out of the store") == TREE
    with pytest.raises(StoreError, match="leads out of the store"):
        Store(str(root)).put(root / "tasks" / GOOD / "complete.json", f"tasks/{BAD}/{ATTEMPT}/files/new"
                             if what in ("files", "an attempt") else f"{place.relative_to(root)}")
    assert not (secret / "new").exists() and not (secret / "files/new").exists()


def test_links_within_the_store_are_followed(root, tmp_path):
    task = Task(root)
    task.finish()
    (task.folder / ATTEMPT).rename(root / "moved")
    (task.folder / ATTEMPT).symlink_to(root / "moved")
    assert not gather(Store(str(root)), tmp_path / "out").skipped
    os.symlink(root, tmp_path / "linked")  # and a store may be reached by one
    assert not gather(Store(str(tmp_path / "linked")), tmp_path / "again").skipped


@pytest.mark.parametrize("what", ["complete.json", "file"])
def test_pipes_and_folders_are_no_files(root, what):
    task = Task(root)
    task.put("log.txt", "text")
    task.finish()
    path = task.folder / "complete.json"
    if what == "file":
        path = task.folder / ATTEMPT / "files" / str(task.files["log.txt"])
    path.unlink()
    os.mkfifo(path)
    assert fetched(root, "it is no regular file") == TREE


def test_tasks_that_are_asked_for_and_not_finished_are_named(root):
    arguments = ("--store", root, "--output", "out", "--tasks", GOOD, "d/aand/seed5/a")
    result = run_process(root.parent, "scripts/fetch_runs.py", *arguments)
    assert (result.status, result.out) == (1, "out/d-aand\n")
    assert result.errors == ["error: d/aand/seed5/a: it is not finished"]


def test_attempts_have_their_names_and_an_end(root):
    store = Store(str(root))
    for name in ("0002-0123ab", "x", "0003-", "0004-0123ab0", "99999-0123ab", "0005-0123ag"):
        store.write_json(f"tasks/{GOOD}/{name}/about.json", {})
    assert attempts(store, GOOD) == [ATTEMPT, "0002-0123ab"]
    assert Attempt.begin(store, GOOD).name.startswith("0003-")
    store.write_json(f"tasks/{GOOD}/9999-0123ab/about.json", {})
    with pytest.raises(StoreError, match="9999-0123ab, after which there can be none"):
        Attempt.begin(store, GOOD)


def test_what_is_not_checked_is_not_fetched(root, tmp_path):
    store = Store(str(root))
    for content in ({"files": {"x": DIGEST}}, {"files": {"x": DIGEST}, "attempt": "../x"}):
        with pytest.raises(StoreError, match="a snapshot in the store"):
            fetch_files(store, GOOD, content, tmp_path / "run")
    assert check_content({"attempt": ATTEMPT, "files": {"x/y": DIGEST}})["files"] == {"x/y": DIGEST}
    assert not (tmp_path / "run").exists()
