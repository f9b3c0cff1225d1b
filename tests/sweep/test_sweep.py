"""Sweeps without a cluster: the plan, who is tried again, one task at a time as Slurm does it, and what is gathered."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.commands import ROOT, TINY, run_process, run_sweep, same_weights
from tests.support.trees import make_mvtec, make_visa
from utils.sweep import driver as driver_module
from utils.sweep import work as work_module
from utils.sweep.attempts import SNAPSHOT, Attempt, attempts, completed, completed_keys, pull
from utils.sweep.driver import DONE, FAILED, Outcome, Sweep
from utils.sweep.gather import gather
from utils.sweep.plan import Estimate, Task
from utils.sweep.store import Store
from utils.sweep.work import (
    Workplace,
    own_folder,
    run_program,
    work,
)
from utils.system import packages
from utils.system.errors import RunError, TaskFailed, TaskLost

FLAGS = ["--aux_path", "builtin", *TINY]


def task(name: str, image_epochs: int = 10, method: str = "aand") -> Task:
    return Task("/data", "data", name, method, 0, image_epochs, (), ())


# The plan


@pytest.fixture
def data(tmp_path) -> Path:
    make_mvtec(tmp_path / "mvtec", ["bottle", "tile"], train=3)
    make_mvtec(tmp_path / "mvtec", ["bottle"], train=5)
    make_visa(tmp_path / "visa", ["candle"], train=4)
    return tmp_path


def test_the_costliest_task_comes_first(data):
    """bottle has 5 images and 4 epochs (aand) or 2 (rd4ad), candle 4, tile 3."""
    arguments = ("--data_root", "mvtec", "visa", "--categories", "all", "--methods", "rd4ad", "aand", "--seeds", 0, 3,
                 "--store", "store", *FLAGS)
    result = run_sweep(data, *arguments, "--list")
    assert result.out.splitlines() == [f"{n}\t{key}" for n, key in enumerate([
        "mvtec/aand/seed0/bottle", "mvtec/aand/seed3/bottle", "visa/aand/seed0/candle", "visa/aand/seed3/candle",
        "mvtec/aand/seed0/tile", "mvtec/aand/seed3/tile", "mvtec/rd4ad/seed0/bottle", "mvtec/rd4ad/seed3/bottle",
        "visa/rd4ad/seed0/candle", "visa/rd4ad/seed3/candle", "mvtec/rd4ad/seed0/tile", "mvtec/rd4ad/seed3/tile",
    ])]
    shown = run_sweep(data, *arguments, "--dry_run").out
    assert re.search(r"^ +0 +mvtec/aand/seed0/bottle +20 image-epochs +unknown$", shown, re.M)
    assert "No time is known" in shown
    shown = run_sweep(data, *arguments, "--dry_run", "--seconds_per_image_epoch", 60, "--slots", 3).out
    # twice 20 16 12 10 8 6: on three slots 20 20 16 | 16 12 12 | ... = 48, 144 in all
    assert "one after the other 2 h 24 min; on 3 slots 48 min 0 s, of which the work itself makes 48 min 0 s" in shown
    assert not (data / "store").exists()


@pytest.mark.parametrize(("flags", "message"), [
    (["--epoch_stage1", 3], "unrecognized arguments: --epoch_stage1"),
    (["--epochs_stage1", 0], "argument --epochs_stage1: 0 is below 1"),
    (["--method", "aand"], "--method of train.py cannot be passed on"),
    (["--output=x"], "--output of train.py cannot be passed on"),
    (["--categories", "bottle", "no-such"], "none of the data sets has no-such"),
    (["--methods", "aand", "rd4ad", "--recipe", "robust"], "--recipe robust: there is none for --methods rd4ad"),
    (["--gpus", "1.5"], "neither a whole number nor a share"),
    (["--task", "99"], "there are 3 tasks, numbered from 0"),
    (["--data_root", "mvtec", "other/mvtec"], "whose names must differ"),
    (["--store", "memory://x"], "do not see it"),
])
def test_wrong_calls_are_one_line(data, flags, message):
    make_mvtec(data / "other/mvtec")
    result = run_sweep(data, "--data_root", "mvtec", "visa", "--store", "store", *FLAGS, *flags)
    assert result.status == 2
    assert message in result.err
    assert "Traceback" not in result.err


def test_a_store_keeps_to_the_settings_it_was_started_with(data):
    base = ("--data_root", "mvtec", "--store", "store", *FLAGS)
    assert run_sweep(data, *base, "--task", 99).status == 2
    assert (data / "store/sweep.json").is_file()
    for flags, message in ((["--lr", 0.1], "lr: 0.005 -> 0.1"), (["--epochs_stage1", 3, "--epochs_stage2", 3],
                           "epochs_stage1: 2 -> 3; epochs_stage2: 2 -> 3")):
        result = run_sweep(data, *base, *flags, "--dry_run")
        assert result.status == 2
        assert f"holds a sweep with other settings ({message}); choose another --store" in result.err
    make_mvtec(data / "other/mvtec")
    other = run_sweep(data, "--data_root", "other/mvtec", "--store", "store", *FLAGS, "--dry_run")
    assert f"mvtec: {data / 'mvtec'} -> {data / 'other/mvtec'}" in other.err
    kept = json.loads((data / "store/sweep.json").read_text())
    earlier = kept | {"settings": kept["settings"] | {"select": "last", "holdout": 0.1}}  # flags that there were
    (data / "store/sweep.json").write_text(json.dumps(earlier))
    for flags in (["--workers", 3, "--seeds", 4], ["--data_root", "visa"]):  # change no result
        assert run_sweep(data, *base, *flags, "--dry_run").status == 0


def test_without_ray_the_message_says_how_to_get_it(data, monkeypatch):
    def nothing(name):
        if name == "ray":
            raise ImportError(f"No module named {name!r}")
        return sys.modules[name]

    import fsspec.core  # noqa: F401

    monkeypatch.setattr(packages, "import_module", nothing)
    result = run_sweep(data, "--data_root", "mvtec", "--store", "store", *FLAGS)
    assert result.status == 2
    assert "scripts/sweep.py needs the package ray: pip install -r requirements-cluster.txt" in result.err


# Time


def test_expected_seconds_are_measured_before_they_are_given():
    estimate = Estimate(given=2.0)
    assert estimate.of(task("a", 10)) == 20
    estimate.add("aand", 30.0, 10)
    estimate.add("aand", 10.0, 10)
    assert estimate.of(task("a", 10)) == 20  # 40 / 20 * 10
    assert estimate.of(task("a", 10, "rd4ad")) == 20  # as given
    unknown = Estimate()
    assert unknown.of(task("a")) is None
    unknown.add("aand", 30.0, 10)
    assert unknown.of(task("a", 5, "rd4ad")) == 15  # as the others


# Handing out


class Scripted:
    """A cluster of so many slots where each attempt ends as the list of its task says, in the order of submission."""

    def __init__(self, slots: int, outcomes: dict[str, list[Outcome]]):
        self.free, self.outcomes, self.submitted, self.most = slots, outcomes, [], 0

    def slots(self) -> int:
        return self.free

    def submit(self, task: Task) -> int:
        self.submitted.append(task.category)
        return len(self.submitted) - 1

    def wait(self, handles, seconds):
        self.most = max(self.most, len(handles))
        first = min(handles)
        return [(first, self.outcomes[self.submitted[first]].pop(0))]


DONE_WITH = Outcome(finished={"seconds": 5.0})
LOST, WRONG = Outcome(error="NodeDiedError", lost=True), Outcome(error="data/aand/seed0/b: train.py: bad (see x)")


def test_lost_tasks_are_tried_again_and_failed_ones_are_not():
    tasks = [task(name) for name in "abcd"]
    cluster = Scripted(2, {"a": [LOST, LOST, DONE_WITH], "b": [WRONG], "c": [LOST] * 4, "d": [DONE_WITH]})
    sweep = Sweep(tasks, Estimate(), out=io.StringIO(), retries=3)
    failed = sweep.run(cluster)
    assert sorted(entry.task.category for entry in failed) == ["b", "c"]
    assert {e.task.category: (e.state, e.retried) for e in sweep.entries.values()} == {
        "a": (DONE, 2), "b": (FAILED, 0), "c": (FAILED, 3), "d": (DONE, 0)
    }
    assert sorted(cluster.submitted) == sorted("aaabccccd")
    assert cluster.submitted[:2] == ["a", "b"]  # in their order
    assert cluster.most == 2
    said = sweep.out.getvalue()
    assert "data/aand/seed0/a: lost (NodeDiedError); it will be retried" in said
    assert "data/aand/seed0/b: failed: data/aand/seed0/b: train.py: bad (see x)" in said
    assert said.splitlines()[-1] == "0 waiting, 0 running, 2 done, 2 failed, 2 retried"


def test_the_time_left_is_that_of_a_schedule(monkeypatch):
    """Running for 4 of 10 s, and 10, 10, 5 s to come, on two slots: 6 | 10 and 10 | 5, which is 16."""
    monkeypatch.setattr(driver_module.time, "monotonic", lambda: 104.0)
    tasks = [task("a"), task("b"), task("c"), task("d", 5)]
    sweep = Sweep(tasks, Estimate(given=1.0), out=io.StringIO())
    sweep.entries[tasks[0]].state, sweep.entries[tasks[0]].started = driver_module.RUNNING, 100.0
    assert sweep.seconds_left(2) == 16
    assert sweep.seconds_left(0) is None
    assert sweep.summary(2) == "3 waiting, 1 running, 0 done, 0 failed, 0 retried; about 16 s left"
    assert replace(sweep, estimate=Estimate()).seconds_left(2) is None


def test_a_terminal_gets_a_table_that_is_drawn_anew():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    tasks, out = [task(name) for name in "ab"], Terminal()
    Sweep(tasks, Estimate(), out=out).run(Scripted(2, {"a": [DONE_WITH], "b": [DONE_WITH]}))
    assert re.search(r"  data/aand/seed0/a +0 s\n  data/aand/seed0/b +0 s\n0 waiting, 2 running", out.getvalue())
    assert "\x1b[3F\x1b[J" in out.getvalue()  # three lines up


# One task


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Lets train.py and test.py be these two programs; returns a task of them, and its store."""

    def make(train: str, test: str = "") -> tuple[Task, Store]:
        for name, text in {"train.py": train, "test.py": test}.items():
            (tmp_path / name).write_text(f"import sys, os, time\nrun = sys.argv[-1]\n{text}\n")
        monkeypatch.setattr(work_module, "ROOT", tmp_path)
        return task("bottle"), Store(str(tmp_path / "store"))

    return make


def place(tmp_path: Path, push_every: float = 60.0) -> Workplace:
    return Workplace(push_every=push_every, folder=tmp_path / "scratch", here=tmp_path)


@pytest.mark.parametrize(("train", "message"), [
    ("print('bottle failed: no images (see log.txt)'); print('error: not trained: bottle'); sys.exit(1)",
     "train.py: bottle failed: no images"),
    ("print('train.py: error: bad flag', file=sys.stderr); sys.exit(2)", "train.py: train.py: error: bad flag"),
    ("sys.exit(3)", "train.py: it printed nothing"),
])
def test_a_task_that_fails_names_its_log(programs, tmp_path, train, message):
    wrong, store = programs(train)
    with pytest.raises(TaskFailed, match=re.escape(f"data/aand/seed0/bottle: {message}")) as caught:
        work(wrong, store, place(tmp_path))
    log = re.search(r"; see (\S+)\)", str(caught.value))[1]
    assert Path(log).is_file()
    assert completed_keys(store) == []
    assert not list((tmp_path / "scratch").rglob("*.*"))


def test_a_program_that_is_killed_makes_a_lost_task_whose_folder_is_saved(programs, tmp_path):
    killed, store = programs("os.mkdir(run); open(run + '/a', 'w').write('A'); os.kill(os.getpid(), 9)")
    with pytest.raises(TaskLost, match=r"train.py was ended by a signal \(status -9\)"):
        work(killed, store, place(tmp_path))
    assert pull(store, killed.key, tmp_path / "pulled")
    assert (tmp_path / "pulled/a").read_text() == "A"


def test_a_running_tasks_folder_is_saved_now_and_then_and_a_deaf_store_costs_nothing(programs, tmp_path, capsys):
    """The program waits for a file that only a push brings."""
    _, store = programs("for _ in range(200): os.path.exists('pushed') or time.sleep(0.05)\n"
                        "sys.exit(not os.path.exists('pushed'))")
    folder = tmp_path / "x"
    (folder / "run").mkdir(parents=True)
    command, workplace = ["train.py", str(folder / "run")], place(tmp_path, 0.05)
    assert run_program(command, folder, workplace, (tmp_path / "pushed").touch) == 0
    attempt = Attempt.begin(store, "data/aand/seed0/bottle")
    store.url = store.root = "/proc/no/store"
    work_module.push(attempt, folder)
    assert "not saved now: cannot write /proc/no/store" in capsys.readouterr().err


def test_folders_of_dead_attempts_are_cleared_and_of_living_ones_are_not(tmp_path):
    with own_folder(tmp_path, "task", "0001-a") as alive, own_folder(tmp_path, "task", "0002-b") as second:
        assert alive.is_dir()  # its lock is held
        assert second != alive
    with own_folder(tmp_path, "task", "0003-c") as folder:
        parent = folder.parent
        (parent / "0000-dead").mkdir()
        (parent / "0000-dead.lock").touch()
    with own_folder(tmp_path, "task", "0004-d"):
        assert not (parent / "0000-dead").exists()
    assert not parent.exists()


def test_other_code_than_the_sweeps_is_refused(programs, tmp_path):
    one, store = programs("")
    with pytest.raises(TaskFailed, match="this machine has code .*, the sweep was started with {'commit': 'x'}"):
        work(one, store, replace(place(tmp_path), code={"commit": "x"}))
    assert attempts(store, one.key) == []


# Slurm


def test_an_array_job_does_one_task_after_another(trained, tmp_path):
    """Without sbatch, and with the number that Slurm would give; killed in the middle, and submitted again."""
    script = ROOT / "scripts/slurm.sbatch"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    environment = os.environ | {"PYTHON": sys.executable, "SLURM_ARRAY_TASK_ID": "0", "SLURM_CPUS_PER_TASK": "1",
                                "SLURM_SUBMIT_DIR": str(ROOT)}
    flags = ["--data_root", trained.data, "--categories", "tile", "--store", tmp_path / "store", "--push_every", 0.3,
             "--scratch", tmp_path / "scratch", "--cache_dir", tmp_path / "cache", *FLAGS]
    command, store = ["bash", script, *map(str, flags)], Store(str(tmp_path / "store"))
    key = "data/aand/seed0/tile"
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while not any("stage1" in str(store.read_json(name)) for name in store.names() if name.endswith(SNAPSHOT)):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert completed(store, key) is None
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{key}: done, attempt 0002-" in done.stdout
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert f"{key}: done, attempt 0002-" in again.stdout
    [run] = gather(store, tmp_path / "runs").runs
    assert same_weights(run / "seed0", trained.aand, "tile")
    assert (run / "seed0/scores.csv").read_text().count("\ntile/test/") == 5
    assert re.search("tile: (already trained|stage 1 (goes on|already trained))", (run / "seed0/log.txt").read_text())
    assert not list((tmp_path / "scratch").rglob("*.pt"))
    missing = {name: value for name, value in environment.items() if name != "SLURM_ARRAY_TASK_ID"}
    refused = subprocess.run(command, env=missing, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "submit it with sbatch --array" in refused.stderr


# Gathering


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
