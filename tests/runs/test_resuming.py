"""Runs that were stopped or killed go on and end with the same bits; two processes do not share a run folder."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import product

import numpy as np
import pytest
import torch

from tests.chaos.kill import torture
from tests.support.commands import ROOT, TINY, read_state, run_test, run_train, same_state, same_weights
from tests.support.trees import write_image
from utils.runs.folder import Run
from utils.runs.resuming import started_with, unfinished_run
from utils.runs.settings import read_config
from utils.system.signals import Interrupted
from utils.training.resumable import ResumableStage

pytestmark = pytest.mark.usefixtures("one_thread")
FLAGS = [*TINY, "--aux_path", "builtin"]


@pytest.fixture
def interrupted(monkeypatch):
    """A function that makes training stop, as if asked to, after so many checks of all that follow."""

    def after(checks: int) -> None:
        remaining = iter([*[None] * (checks - 1), Interrupted(signal.SIGTERM)])
        stop = ResumableStage._stop_if_asked

        def ask(self):
            def check():
                if isinstance(found := next(remaining, None), Interrupted):
                    raise found

            self.check = check
            stop(self)

        monkeypatch.setattr(ResumableStage, "_stop_if_asked", ask)

    return after


# 2 batches and 2 epochs a stage: a check before each step and after each epoch, 6 a stage.
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 6, 7, 8, 11, 12, 13])
@pytest.mark.filterwarnings("error")
def test_a_run_stopped_between_any_steps_ends_with_the_same_bits(trained, tmp_path, interrupted, monkeypatch, steps):
    command = ("--data_root", trained.data, *FLAGS, "--output", "run")
    with monkeypatch.context():
        interrupted(steps)
        stopped = run_train(tmp_path, *command)
    assert stopped.status == 143
    assert "go on with: python train.py --resume run" in stopped.err
    monkeypatch.undo()
    assert run_train(tmp_path, *command).status == 0
    run = tmp_path / "run"
    assert same_weights(run, trained.aand, "bottle") and same_weights(run, trained.aand, "tile")
    assert (run / "metrics.jsonl").read_bytes() == (trained.aand / "metrics.jsonl").read_bytes()
    assert not list(run.rglob("*.progress.pt"))


@pytest.mark.parametrize(
    "flags",
    [
        ("--recipe", "robust"),
        ("--method", "rd4ad", "--eval_every", "1", "--cache", "disk"),
        ("--precision", "bf16", "--cache_features", "off"),
        ("--plain",),
    ],
)
def test_a_run_of_any_kind_ends_with_the_same_bits(trained, tmp_path, interrupted, monkeypatch, flags):
    command = ("--data_root", trained.data, "--categories", "bottle", *FLAGS, *flags)
    assert run_train(tmp_path, *command, "--output", "whole").status == 0
    first = 3 if flags[0] == "--method" else 9  # in the middle of Stage II
    interrupted(first)
    assert run_train(tmp_path, *command, "--output", "run").status == 143
    monkeypatch.undo()
    assert run_train(tmp_path, *command, "--output", "run").status == 0
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert same_weights(run, whole, "bottle")
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_a_run_goes_on_from_its_last_epoch(trained, tmp_path, interrupted, monkeypatch):
    interrupted(4)  # before the second epoch of Stage I
    run_train(tmp_path, "--data_root", trained.data, *FLAGS, "--output", "run")
    monkeypatch.undo()
    result = run_train(tmp_path, "--resume", "run")
    assert "bottle: stage 1 goes on in epoch 2, step 1" in result.out
    epochs = [line for line in (tmp_path / "run/log.txt").read_text().splitlines() if "bottle stage 1 epoch" in line]
    assert [re.search(r"epoch (\d)/2", line)[1] for line in epochs] == ["1", "2"]  # none twice


def test_resume_takes_the_flags_of_the_run(trained, tmp_path, interrupted, monkeypatch):
    flags = ("--data_root", trained.data, *FLAGS, "--categories", "tile", "--lr", "0.004", "--seeds", 3, 1)
    interrupted(2)
    run_train(tmp_path, *flags, "--output", "run")
    monkeypatch.undo()
    assert started_with(tmp_path / "run") == [*map(str, flags), "--output", "run"]
    os.rename(tmp_path / "run", tmp_path / "moved")
    result = run_train(tmp_path, "--resume", "moved", "--workers", 2)
    assert result.status == 0, result.err
    configs = {seed: read_config(tmp_path / f"moved/seed{seed}") for seed in (3, 1)}
    assert all(config["lr"] == 0.004 and config["categories"] == ["tile"] for config in configs.values())
    assert configs[1]["workers"] == 2  # the second seed began afterwards
    assert started_with(tmp_path / "moved")[-4:] == ["--workers", "2", "--output", "moved"]  # it can be resumed as well
    assert (tmp_path / "moved/results.json").is_file() and not (tmp_path / "run").exists()


def test_resume_refuses_other_settings_with_the_differences_before_it_reads_data(trained, tmp_path, monkeypatch):
    run = shutil.copytree(trained.aand, tmp_path / "run")
    monkeypatch.setattr("utils.training.run.read_data", lambda *arguments: pytest.fail("data were read"))
    result = run_train(trained.cwd, "--resume", run, "--lr", "0.1", "--batch_size", "3")
    assert result.status == 2
    [error] = result.errors
    assert "batch_size: 2 -> 3; lr: 0.005 -> 0.1" in error and "choose another --output" in error
    result = run_train(tmp_path, "--resume", "nothing")
    assert result.status == 2 and "nothing is not a run folder of train.py" in result.errors[0]


def test_the_same_command_without_output_goes_on(trained, tmp_path, interrupted, monkeypatch):
    command = ("--data_root", trained.data, *FLAGS)
    interrupted(14)
    assert run_train(tmp_path, *command).status == 143
    monkeypatch.undo()
    [run] = (tmp_path / "runs").iterdir()
    other = run_train(tmp_path, *command, "--lr", "0.004", "--output", "other")
    assert other.status == 0
    again = run_train(tmp_path, *command)
    assert again.status == 0 and f"going on with the unfinished runs/{run.name}" in again.err
    assert list((tmp_path / "runs").iterdir()) == [run]
    assert same_weights(run, trained.aand, "tile")


def of_earlier_version(run, select: str, **flags: object):
    """Make a run, finished or not, what a version with --select and --holdout would have left."""
    flags = {"select": select, "holdout": 0.1, **flags}
    config = json.loads((run / "config.json").read_text())
    config["command"] += f" --select={select} --holdout {flags['holdout']}"
    (run / "config.json").write_text(json.dumps(config | flags))
    for path in run.glob("checkpoints/*/stage?*.pt"):
        content = torch.load(path, weights_only=True)
        if "progress" in path.name:
            content["identity"] |= {f"made with {name}": value for name, value in flags.items()}
            content["best"] = {"epoch": 0, "rating": -math.inf, "states": []}
        else:
            content["made_with"] |= flags
        torch.save(content, path)
    return run


def test_a_run_of_an_earlier_version_goes_on(trained, tmp_path, interrupted, monkeypatch):
    command = ("--data_root", trained.data, *FLAGS, "--output", "run")
    interrupted(9)  # within Stage II
    assert run_train(tmp_path, *command).status == 143
    monkeypatch.undo()
    run = of_earlier_version(tmp_path / "run", "last")
    shutil.copytree(run, tmp_path / "copy")
    result = run_train(tmp_path, *command)
    assert result.status == 0 and "bottle: stage 2 goes on in epoch" in result.out, result.err
    assert started_with(tmp_path / "copy") == [*map(str, command)]
    assert run_train(tmp_path, "--resume", "copy").status == 0
    for folder, category in product((run, tmp_path / "copy"), ("bottle", "tile")):
        first, second = (read_state(Run(one).category(category).stage(2)) for one in (folder, trained.aand))
        assert same_state(first, second)  # and so of the same Stage I, which stands in it


def test_a_run_whose_epoch_was_to_be_chosen_does_not_go_on(trained, tmp_path):
    run = of_earlier_version(shutil.copytree(trained.aand, tmp_path / "runs" / trained.aand.name), "synthetic")
    (run / "checkpoints/tile/stage2.pt").unlink()
    command = ("--data_root", trained.data, *FLAGS)
    expected = (
        f"{run} was started with --select synthetic, which train.py no longer has: it can be scored and used, but not "
        "resumed; choose another --output"
    )
    for flags, before in (("--resume", run), "train.py: error: --resume: "), ((*command, "--output", run), "error: "):
        result = run_train(tmp_path, *flags)
        assert result.status == 2 and result.errors == [before + expected]
    config = read_config(trained.aand)
    assert unfinished_run("*", config, (), tmp_path / "runs") is None
    of_earlier_version(run, "last")
    assert unfinished_run("*", config, (), tmp_path / "runs") == run


def test_features_are_kept_or_not_as_before(trained, tmp_path, interrupted, monkeypatch):
    """In a smaller batch they may be rounded otherwise."""
    command = ("--data_root", trained.data, "--categories", "tile", *FLAGS, "--output", "run", "--cache_features")
    interrupted(10)
    assert "features are computed anew in each epoch" in run_train(tmp_path, *command, "off").out
    monkeypatch.undo()
    resumed = run_train(tmp_path, *command, "on")
    assert resumed.status == 0 and "features are computed anew in each epoch" in resumed.out


def test_progress_is_not_used_for_other_images(trained, tmp_path, interrupted, monkeypatch):
    data = shutil.copytree(trained.data, tmp_path / "data")
    command = ("--data_root", data, *FLAGS, "--output", "run")
    interrupted(3)
    run_train(tmp_path, *command)
    monkeypatch.undo()
    write_image(data / "bottle/train/good/001.png", np.full((64, 64, 3), 99, np.uint8))
    result = run_train(tmp_path, *command)
    assert result.status == 1  # the other category is trained
    assert "stage1.progress.pt cannot go on with something else (training images:" in result.out
    assert (tmp_path / "run/checkpoints/tile/stage2.pt").is_file()
    Run(tmp_path / "run").category("bottle").progress(1).write_bytes(b"broken")
    result = run_train(tmp_path, *command)
    assert result.status == 1 and "delete it to train this stage from its start" in result.out


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(trained, tmp_path):
    run = shutil.copytree(trained.aand, tmp_path / "run")
    before = (run / "log.txt").read_bytes()
    code = "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire()"
    code += "; print(1, flush=True); time.sleep(99)"
    holder = subprocess.Popen([sys.executable, "-c", code, run / ".lock"], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"1\n"
        result = run_train(trained.cwd, "--resume", run)
        assert result.status == 2 and f"another process is training in {run}" in result.errors[0]
        assert (run / "log.txt").read_bytes() == before
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert run_train(trained.cwd, "--resume", run).status == 0


def test_what_a_killed_process_left_is_cleared_away(trained, tmp_path):
    run = shutil.copytree(trained.aand, tmp_path / "run")
    left = run / "checkpoints/bottle/.stage2.0123456789ab.pt"
    own = run / "checkpoints/.mine.pt"
    left.touch()
    own.touch()
    assert run_train(trained.cwd, "--resume", run).status == 0
    assert own.exists() and not left.exists()


def test_nothing_is_left_of_a_run_that_did_not_begin(tmp_path):
    (tmp_path / "data/part/train/good").mkdir(parents=True)
    (tmp_path / "data/part/train/good/000.png").write_bytes(b"no image")
    result = run_train(tmp_path, "--data_root", "data", *FLAGS, "--image_size", 64, "--seeds", 0, 1)
    assert result.status == 2 and "000.png" in result.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_process_after_its_step(trained, tmp_path, number, status):
    command = [sys.executable, ROOT / "train.py", "--data_root", trained.data, *map(str, FLAGS), "--output", "run"]
    command += ["--epochs_stage1", "500"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run/metrics.jsonl"
    deadline = time.monotonic() + 200
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == status
    assert "stopping after this step" in errors and "go on with: python train.py --resume run" in errors
    assert "Traceback" not in errors
    assert Run(tmp_path / "run").category("bottle").progress(1).is_file()


def test_killed_runs_end_with_the_same_bits(tmp_path):
    """The short form of `make chaos`."""
    kills, different = torture(tmp_path, trials=3, seed=int(os.environ.get("CHAOS_SEED", 7)))
    assert kills.total() >= 3
    assert different == []


def test_a_scored_run_is_the_same_for_any_number_of_workers_and_order_of_categories(trained, tmp_path):
    command = ("--data_root", trained.data, *FLAGS, "--eval_every", 1)
    assert run_train(tmp_path, *command, "--output", "one").status == 0
    swapped = ("--workers", 3, "--categories", "tile", "bottle")
    assert run_train(tmp_path, *command, *swapped, "--output", "three").status == 0
    one, three = tmp_path / "one", tmp_path / "three"
    assert (one / "metrics.jsonl").read_bytes() == (three / "metrics.jsonl").read_bytes()
    results = []
    for run in (one, three):
        assert run_test(tmp_path, "--data_root", trained.data, "--run", run).status == 0
        results.append(json.loads((run / "results.json").read_text())["categories"])
    assert results[0] == results[1]
