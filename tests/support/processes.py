"""Several processes as torchrun starts them, for tests, but quickly: forked from one that has everything imported.

    farm = Processes(tmp_path)
    results = farm.call(2, function, arguments)          # in each process function(*arguments), in the order of ranks
    status = farm.train(2, "--data_root", ...)           # train.py in each; what they printed is in farm.printed(rank)
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import runpy
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from models import losses
from tests.support.commands import ROOT
from utils.training.resumable import ResumableStage

PRELOADED = ["tests.support.processes", "utils.training.run", "utils.results.scoring"]
PATIENCE = 300  # seconds without anything ending


class Processes:
    """They work in `folder`, where <rank>.out is what each printed."""

    def __init__(self, folder: Path):
        self.folder = folder
        os.environ["PYTHONPATH"] = str(ROOT)  # of the server that they are forked from
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)

    def call(self, count: int, function: Callable, *arguments: Any) -> list[Any]:
        """What the function returns in each process; RuntimeError if one fails."""
        results = [self.folder / f"{rank}.result" for rank in range(count)]
        statuses = self._run(count, [(_keep_result, str(path), function, arguments) for path in results])
        if any(statuses):
            raise RuntimeError(f"ended with {statuses}:\n" + "\n".join(map(self.printed, range(count))))
        return [torch.load(path, weights_only=False) for path in results]

    def train(self, count: int, *flags: object, before: Callable[[int], None] | None = None) -> list[int]:
        """Exit statuses of train.py in every process; `before` is called first, with its rank."""
        return self._run(count, [(_train, list(map(str, flags)), before)] * count)

    def printed(self, rank: int) -> str:
        return (self.folder / f"{rank}.out").read_text().replace("\r", "\n")

    def errors(self, count: int) -> list[str]:
        """The lines of all processes that report an error."""
        return [line for r in range(count) for line in self.printed(r).splitlines() if line.startswith("error: ")]

    def _run(self, count: int, jobs: list[tuple]) -> list[int]:
        """Start the processes and, as torchrun does, end the others when one fails."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = [
            self.context.Process(target=_start, args=(self.folder, rank, count, port, *job))
            for rank, job in enumerate(jobs)
        ]
        for process in started:
            process.start()
        running = {process.sentinel: process for process in started}
        while running:
            ended = wait(running, timeout=PATIENCE)
            failed = any(running.pop(sentinel).exitcode for sentinel in ended)
            for process in running.values():
                if not ended:
                    os.kill(process.pid, signal.SIGABRT)  # which shows where it hangs
                elif failed:
                    process.terminate()
        return [process.exitcode for process in started]


def _start(folder: Path, rank: int, count: int, port: int, work: Callable, *arguments: Any) -> None:
    log = os.open(folder / f"{rank}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    os.chdir(folder)
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    work(*arguments)


def _keep_result(path: str, function: Callable, arguments: tuple) -> None:
    torch.save(function(*arguments), path)


def draw_few_positions() -> None:
    """Of the tiny images there are more than the amplification loss then looks at, so that it has to draw."""
    losses.AMPLIFY_NORMAL, losses.AMPLIFY_ANOMALOUS = 30, 10


def _train(flags: list[str], before: Callable[[int], None] | None) -> None:
    draw_few_positions()
    if before:
        before(int(os.environ["RANK"]))
    sys.argv = ["train.py", *flags]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


class StopAfter:
    """For `before`: a signal comes to one process alone at a check of its, counted from 1."""

    def __init__(self, rank: int, checks: int, number: signal.Signals = signal.SIGTERM):
        self.rank, self.checks, self.number = rank, checks, number

    def __call__(self, rank: int) -> None:
        if rank != self.rank:
            return
        stop, seen = ResumableStage._stop_if_asked, iter(range(1, self.checks + 1))

        def ask(progress: ResumableStage) -> None:
            if next(seen, None) == self.checks:
                os.kill(os.getpid(), self.number)
            stop(progress)

        ResumableStage._stop_if_asked = ask
