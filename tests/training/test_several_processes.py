"""train.py on several processes: it ends as one process does, and whoever is stopped, killed or fails as it should."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore

from datasets.base import DataError
from tests.support.commands import ROOT, TINY, run_train, same_weights
from tests.support.processes import Processes, StopAfter
from tests.support.trees import make_mvtec
from utils.runs.folder import Run
from utils.runs.settings import read_config
from utils.system import processes as distributed
from utils.system.errors import WriteError
from utils.system.memory import available_memory
from utils.system.processes import World, kept_by_launcher, own_device
from utils.training import resumable as progress
from utils.training import stages as engine
from utils.training.features import TeacherFeatures

pytestmark = pytest.mark.usefixtures("one_thread")
# Five images in batches of two: of the last batch, a single image, one process has nothing. Four checks for a stop an
# epoch, two epochs a stage.
FLAGS = ["--data_root", "data", *TINY, "--image_size", 64, "--aux_path", "builtin", "--sync_norms", "--eval_every", 1]
PLAIN = [*FLAGS, "--method", "rd4ad", "--categories", "bottle"]  # without pairs, which are others


@pytest.fixture(scope="module")
def farm(tmp_path_factory) -> Processes:
    """In its folder two/ is the run of two undisturbed processes; one/ and plain/ are of one and two, of rd4ad."""
    folder = tmp_path_factory.mktemp("several")
    make_mvtec(folder / "data", ["bottle", "tile"], train=5)
    farm = Processes(folder)
    assert run_train(folder, *PLAIN, "--output", "one").status == 0
    assert farm.train(2, *PLAIN, "--output", "plain") == [0, 0]
    assert farm.train(2, *FLAGS, "--output", "two") == [0, 0]
    assert "on cpu, 2 processes" in farm.printed(0)
    assert farm.printed(1) == ""  # the first alone is heard
    return farm


def assert_about_the_same(run: Path, other: Path) -> None:
    """Rounding grows with every step, and a student of a few steps separates badly: another number of threads moves its
    pixel metrics as much. That gradients are equal is tested in tests/system/test_distributed.py."""
    first, second = ((path / "metrics.jsonl").read_text().splitlines() for path in (run, other))
    for one, two in zip(first, second, strict=True):
        one, two = json.loads(one), json.loads(two)
        assert all(one.pop(name) == two.pop(name) for name in ("category", "stage", "epoch"))
        assert one.pop("loss") == pytest.approx(two.pop("loss"), rel=5e-3)
        assert one.keys() == two.keys()
        assert all(abs(one[name] - two[name]) < 0.05 for name in one if name.startswith("pixel"))


def assert_same_run(run: Path, other: Path) -> None:
    assert same_weights(run, other, "bottle") and same_weights(run, other, "tile")
    assert (run / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    assert not list(run.rglob("*.progress.pt"))


def test_two_processes_train_about_what_one_trains(farm):
    assert_about_the_same(farm.folder / "one", farm.folder / "plain")
    config = read_config(farm.folder / "plain")
    assert (config["processes"], config["sync_norms"]) == (2, True)


@pytest.mark.parametrize(("rank", "checks"), [(1, 3), (0, 10)])
def test_a_signal_to_one_process_stops_all_at_the_same_step(farm, rank, checks):
    run = f"stopped{rank}"
    assert farm.train(2, *FLAGS, "--output", run, before=StopAfter(rank, checks)) == [143, 143]
    assert f"go on with: python train.py --resume {run}" in farm.printed(0)
    assert farm.train(2, *FLAGS, "--output", run) == [0, 0]
    assert "goes on in epoch 1, step" in farm.printed(0)
    assert_same_run(farm.folder / run, farm.folder / "two")


def test_a_run_goes_on_with_another_number_of_processes(farm):
    command = (*PLAIN, "--output", "changing")
    assert farm.train(1, *command, before=StopAfter(0, 2)) == [143]
    assert farm.train(2, *command, before=StopAfter(0, 4)) == [143, 143]
    assert run_train(farm.folder, *command).status == 0
    log = (farm.folder / "changing/log.txt").read_text()
    assert re.findall(r"goes on in (.*)", log) == ["epoch 1, step 2", "epoch 2, step 1"]
    assert_about_the_same(farm.folder / "changing", farm.folder / "one")
    assert not list((farm.folder / "changing").rglob("*.progress.pt"))


def test_torchrun_starts_a_killed_process_again_and_the_run_ends_with_the_same_bits(farm):
    """Without --output: it is found again."""
    script = farm.folder / "dying.py"
    script.write_text(
        f"import os, runpy, signal, sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.support.processes import StopAfter, draw_few_positions\n"
        "draw_few_positions()\n"
        "if os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':\n"
        "    StopAfter(1, 7, signal.SIGKILL)(int(os.environ['RANK']))\n"  # in the second epoch of Stage I
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
    )
    launcher = launch(farm.folder, "--max-restarts", 1, script, *FLAGS)
    _, errors = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, errors
    [run] = (farm.folder / "runs").iterdir()
    assert "bottle: stage 1 goes on in epoch 2, step 1" in (run / "log.txt").read_text()
    assert "going on with the unfinished" not in errors  # torchrun's store knows it
    assert_same_run(run, farm.folder / "two")


def launch(folder: Path, *arguments: object) -> subprocess.Popen:
    """torchrun with two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(list(map(str, command)), cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun_stops_all_after_their_step(farm, number):
    run = farm.folder / number.name
    launcher = launch(farm.folder, ROOT / "train.py", *FLAGS, "--epochs_stage1", 500, "--output", run.name)
    deadline = time.monotonic() + 300
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    launcher.send_signal(number)
    _, errors = launcher.communicate(timeout=100)
    assert launcher.returncode != 0
    assert errors.count(f"go on with: python train.py --resume {run.name}") == 1 and errors.count("\nstopped\n") == 1
    assert "train.py\", line" not in errors  # no traceback of a process
    assert Run(run).category("bottle").progress(1).is_file()


def test_torchruns_store_keeps_the_run_for_the_next_attempt(monkeypatch):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    assert kept_by_launcher("run", lambda: "runs/first") == "runs/first"  # without torchrun nothing is kept
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    assert kept_by_launcher("run", lambda: "runs/second") == "runs/second"
    assert kept_by_launcher("run", lambda: pytest.fail("a run was looked for")) == "runs/second"


def test_epochs_are_planned_together(farm):
    assert farm.train(2, *FLAGS, "--time_limit", 600, "--output", "limited") == [0, 0]
    assert "--time_limit 600: 2 + 2 of 2 + 2 epochs" in farm.printed(0) and farm.printed(1) == ""
    assert all(same_weights(farm.folder / "limited", farm.folder / "two", name) for name in ("bottle", "tile"))


def fail_to_read(rank: int) -> None:
    """Of the first category, in the second process, an image cannot be read any more."""
    epoch = TeacherFeatures.epoch
    left = iter([rank == 1])

    def reading(self, number):
        if next(left, False):
            raise DataError("a broken image")
        return epoch(self, number)

    TeacherFeatures.epoch = lambda self, number: (batch for part in [reading] for batch in part(self, number))


def fail_to_compute(rank: int) -> None:
    distributed.PATIENCE = timedelta(seconds=1)
    loss = engine.stage2_loss

    def computing(*arguments):
        if rank == 1:
            raise RuntimeError("out of memory")
        return loss(*arguments)

    engine.stage2_loss = computing


def fail_to_write(rank: int) -> None:
    def writing(*arguments):
        raise WriteError("cannot write the progress")

    progress.save_tensors = writing


def test_what_one_process_cannot_read_fails_the_category_in_all(farm):
    assert farm.train(2, *FLAGS, "--output", "unreadable", before=fail_to_read) == [1, 1]
    assert farm.errors(2) == ["error: not trained: bottle; see above, or log.txt in unreadable"]
    assert "bottle failed: process 1: a broken image" in farm.printed(0)
    assert same_weights(farm.folder / "unreadable", farm.folder / "two", "tile")


def test_what_fails_in_one_process_alone_ends_all_with_a_line(farm):
    status = farm.train(2, *FLAGS, "--output", "alone", before=fail_to_compute)
    assert all(status) and status[1] == 2
    line = "error: bottle failed in process 1 alone: RuntimeError: out of memory (traceback in log.txt)"
    assert line in farm.errors(2)
    assert "computing" in (farm.folder / "alone/log.txt").read_text()


def test_what_the_first_process_cannot_write_ends_all_with_one_line(farm):
    assert farm.train(2, *FLAGS, "--output", "unwritten", before=fail_to_write) == [2, 2]
    assert farm.errors(2) == ["error: cannot write the progress"]


def test_what_all_processes_refuse_is_said_once(farm):
    small = [*FLAGS, "--image_size", 32, "--batch_size", 3]
    small.remove("--sync_norms")
    assert farm.train(2, *small) == [2, 2]
    [error] = farm.errors(2)
    assert "a process's share of a batch is a single one, too little for --image_size 32; use --sync_norms" in error
    assert farm.train(2, *FLAGS, "--epochs_stage1", "no")[0] == 2  # the others are ended, having been silent
    assert farm.printed(0).count("--epochs_stage1: 'no' is not a whole number") == 1 and farm.printed(1) == ""
    assert farm.train(2, *FLAGS, "--device", "cuda:1") == [2, 2]
    [error] = farm.errors(2)
    assert error.startswith("error: --device cuda:1: several processes train on cpu or cuda")


def test_each_process_has_a_device_and_its_part_of_the_memory(monkeypatch):
    assert own_device("cuda:1", World()) == "cuda:1"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [own_device(name, World(3, 4)) for name in ("auto", "cuda", "cpu")] == ["cuda:3", "cuda:3", "cpu"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert own_device("auto", World(3, 4)) == "cpu"
    whole = available_memory(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert available_memory(torch.device("cpu")) < whole / 3
