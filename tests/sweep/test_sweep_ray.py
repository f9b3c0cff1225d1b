"""A sweep on a Ray cluster of two machines (of this one), of which one dies, then the driver, then head and all: on
a new cluster it goes on, all results are there once, and they have the bits of runs that nothing disturbed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.commands import ROOT, TINY, run_process, run_test, run_train, same_weights
from utils.runs.history import read_metrics
from utils.sweep.attempts import attempts, completed, completed_keys
from utils.sweep.store import Store

pytest.importorskip("ray")
PATIENCE = 500  # seconds
FLAGS = ["--aux_path", "builtin", "--methods", "rd4ad", "aand", "--seeds", 0, 1, "--cpus", 1, "--push_every", 1, *TINY]
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # where Ray takes a computer's name for 127.0.0.1, and not the reverse
}


class Machines:
    """A cluster whose head has no core to give, and machines of one core each."""

    def __init__(self, patch: pytest.MonkeyPatch):
        for name, value in QUIET.items():
            patch.setenv(name, value)
        self.drivers: list[subprocess.Popen] = []
        self.cluster = self.new_cluster()

    @staticmethod
    def new_cluster():
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
        return patiently(lambda: Cluster(initialize_head=True, head_node_args=head))

    def restart(self) -> None:
        """End head and machines, and start another head."""
        self.cluster.shutdown()
        self.cluster = self.new_cluster()

    def add(self):
        return patiently(lambda: self.cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1"))

    @staticmethod
    def processes(machine) -> list[psutil.Process]:
        [daemon] = machine.all_processes["raylet"]
        process = psutil.Process(daemon.process.pid)
        return [process, *process.children(recursive=True)]

    def trains(self, machine) -> bool:
        """Tell whether a task has begun there; one that waits for a machine goes to another, and is not lost."""
        with suppress(psutil.NoSuchProcess):
            return any(part.endswith("train.py") for one in self.processes(machine) for part in one.cmdline())
        return False

    def kill(self, machine) -> None:
        """All of its processes at once, as when its power fails; Ray kills its daemon alone, and workers may finish."""
        for victim in self.processes(machine):
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        self.cluster.remove_node(machine, allow_graceful=False)


def patiently(start):
    """Ray gives up on its own processes after seconds, which are few on a busy computer."""
    for _ in range(3):
        try:
            return start()
        except Exception as error:  # it raises no other type
            reason = error
    raise reason


@pytest.fixture
def machines(monkeypatch):
    found = Machines(monkeypatch)
    yield found
    for driver in found.drivers:
        driver.kill()
        driver.wait()
    found.cluster.shutdown()


def start(cwd: Path, *arguments: object) -> subprocess.Popen:
    """The program in a process of its own, which writes to sweep.log."""
    command = [sys.executable, ROOT / "scripts/sweep.py", *map(str, arguments)]
    with (cwd / "sweep.log").open("ab") as log:
        return subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})


def call(cwd: Path, *arguments: object) -> str:
    """What the program prints, to its end."""
    before = len((cwd / "sweep.log").read_text())
    status = start(cwd, *arguments).wait(PATIENCE)
    printed = (cwd / "sweep.log").read_text()[before:]
    assert status == 0, printed
    return printed


def wait_for(cwd: Path, process: subprocess.Popen, condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, (cwd / "sweep.log").read_text()
        assert time.monotonic() < end, (cwd / "sweep.log").read_text()
        time.sleep(0.2)


def test_a_sweep_survives_a_machine_its_driver_and_its_cluster(machines, trained, seeded, tmp_path):
    store, log = Store(str(tmp_path / "store")), tmp_path / "sweep.log"
    first, _ = machines.add(), machines.add()
    arguments = ("--data_root", trained.data, "--store", "store", *FLAGS)

    driver = start(tmp_path, *arguments, "--address", machines.cluster.address)
    machines.drivers.append(driver)
    wait_for(tmp_path, driver, lambda: len(completed_keys(store)) >= 1 and machines.trains(first))
    machines.kill(first)
    wait_for(tmp_path, driver, lambda: "lost (" in log.read_text() and len(completed_keys(store)) >= 3)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {key: completed(store, key) for key in completed_keys(store)}
    assert 3 <= len(before) < 8

    machines.restart()
    machines.add()
    machines.add()
    printed = call(tmp_path, *arguments, "--address", machines.cluster.address)
    assert f"8 tasks, {len(before)} of them finished" in printed
    keys = {f"data/{m}/seed{s}/{c}" for m in ("aand", "rd4ad") for s in (0, 1) for c in ("bottle", "tile")}
    assert set(re.findall(r"^(\S+): running", printed, re.M)) == keys - set(before)  # nothing twice
    assert completed_keys(store) == sorted(keys)  # everything once
    assert all(completed(store, key) == content for key, content in before.items())
    assert max(len(attempts(store, key)) for key in keys) >= 2  # some had to be tried again
    table = printed[printed.index("\ndata\n") :]
    assert "data-aand: difference" in table

    again = call(tmp_path, *arguments, "--address", "127.0.0.1:1")  # nothing to do: no cluster is needed
    assert again == f"8 tasks, 8 of them finished\n{table}"

    fetched = run_process(tmp_path, "scripts/fetch_runs.py", "--store", "store", "--output", "runs")
    assert fetched.out.split() == ["runs/data-aand", "runs/data-rd4ad"], fetched.err
    single = ("--method", "rd4ad", "--seed", 1, "--aux_path", "builtin", "--output", "single")
    assert run_train(tmp_path, "--data_root", trained.data, *TINY, *single).status == 0
    references = {"data-aand/seed0": trained.aand, "data-aand/seed1": seeded.run / "seed1",
                  "data-rd4ad/seed0": trained.rd4ad, "data-rd4ad/seed1": tmp_path / "single"}
    for name, reference in references.items():
        check_run(tmp_path / "runs" / name, reference, trained.data, tmp_path / "reference" / name)


def check_run(run: Path, reference: Path, data: Path, copy: Path) -> None:
    """A gathered run has the weights, curves and figures of a run of both categories."""
    assert all(same_weights(run, reference, category) for category in ("bottle", "tile"))
    shutil.copytree(reference, copy)
    scored = run_test(copy.parent, "--data_root", data, "--run", copy)
    assert scored.status == 0, scored.err
    one, other = (json.loads((folder / "results.json").read_text()) for folder in (run, copy))
    for part in ("categories", "mean", "test_files"):
        assert one[part] == other[part]
    one, other = (read_metrics(folder) for folder in (run, copy))
    assert [line | curve for line, curve in zip(other, one, strict=True)] == other  # some have test metrics besides
