"""One task at a time: what it leaves when it fails, is killed or succeeds, and as Slurm does it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.commands import ROOT, TINY, same_weights
from tests.support.sweeps import task
from utils.sweep import work as work_module
from utils.sweep.attempts import SNAPSHOT, Attempt, attempts, completed, completed_keys, pull
from utils.sweep.gather import gather
from utils.sweep.plan import Task
from utils.sweep.store import Store
from utils.sweep.work import Workplace, own_folder, run_program, work
from utils.system.errors import TaskFailed, TaskLost

FLAGS = ["--aux_path", "builtin", *TINY]


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
