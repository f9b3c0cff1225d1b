"""Standard streams that are closed, full or unread cost no results; files that cannot be written are named with why."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.support.commands import ASIDE, OWN, ROOT, run_compare, run_export, run_predict, run_report, run_test
from tests.support.trees import good_image, write_image
from utils.cli import run_command
from utils.runs.history import RunLog
from utils.system.errors import WriteError
from utils.system.files import atomic_write, naming, write_text
from utils.system.streams import ReaderGone, standard_streams

pytestmark = pytest.mark.usefixtures("one_thread")
SPACE = os.strerror(errno.ENOSPC)
CLOSED = {"stdout": ">&-", "stderr": "2>&-", "both": ">&- 2>&-", "all": "<&- >&- 2>&-"}


def shell(cwd, program, arguments, ending):
    """Run a program with its streams as a shell's redirections say: its exit status, stdout and stderr."""
    command = ["bash", "-c", f'set -o pipefail; "$@" {ending}', "bash", sys.executable, ROOT / program, *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    return done


@pytest.fixture
def run(own, tmp_path):
    shutil.copytree(own.run, tmp_path / "run")
    return tmp_path / "run"


# Streams


@pytest.mark.parametrize("closed", CLOSED)
def test_a_closed_stream_costs_no_results(own, run, tmp_path, closed):
    flags = ("--data_root", own.data, "--run", run, "--device", "cpu", "--workers", 1)
    assert shell(tmp_path, "test.py", flags, CLOSED[closed]).returncode == 0
    assert json.loads((run / "results.json").read_text())["categories"].keys() == {"widget"}


def test_training_with_closed_streams_leaves_the_same_files(own, tmp_path):
    flags = ("--data_root", own.data, *OWN, *ASIDE, "--output", "run")
    assert shell(tmp_path, "train.py", flags, CLOSED["all"]).returncode == 0
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (own.run / "metrics.jsonl").read_bytes()
    for name in (path.relative_to(own.run) for path in own.run.rglob("*") if path.name != ".lock"):
        assert (tmp_path / "run" / name).exists()


def test_a_full_disk_behind_stdout_is_said(own, run, tmp_path):
    flags = ("--data_root", own.data, "--run", run, "--device", "cpu", "--workers", 1)
    done = shell(tmp_path, "test.py", flags, "> /dev/full")
    assert done.returncode == 2 and done.stderr.endswith(f"error: cannot write the standard output: {SPACE}\n")
    assert (run / "results.json").is_file()
    assert shell(tmp_path, "test.py", flags, "2> /dev/full").returncode == 0


def test_a_reader_that_has_gone_ends_a_program_silently(own, tmp_path):
    pixels = good_image(np.random.default_rng(3), 64)
    for number in range(3):
        write_image(tmp_path / f"in/{number}{'x' * 200}.png", pixels)
    done = shell(tmp_path, "scripts/predict.py", [own.run, "in", "--save_maps", "maps"], "| true")
    assert (done.returncode, done.stdout) == (141, "") and "error" not in done.stderr
    assert len(list((tmp_path / "maps").iterdir())) == 3
    done = shell(tmp_path, "scripts/check_data.py", ["--data_root", own.data], "2>&1 | head -c 1")
    assert done.returncode in (0, 141) and done.stderr == ""


class Failing(io.StringIO):
    """A stream on which nothing can be written."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(("number", "kind"), [(errno.EPIPE, ReaderGone), (errno.ENOSPC, WriteError)])
def test_only_stdout_matters(monkeypatch, number, kind):
    monkeypatch.setattr(sys, "stdout", Failing(number))
    monkeypatch.setattr(sys, "stderr", Failing(number))
    with standard_streams():
        print("dropped", file=sys.stderr)
        with pytest.raises(kind):
            print("missed")
    assert isinstance(sys.stdout, Failing) and isinstance(sys.stderr, Failing)


def test_training_goes_on_when_nobody_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE))
    with standard_streams():
        RunLog(tmp_path).say("one", "t\x1bwo")
    assert (tmp_path / "log.txt").read_text()[20:] == "one\nt\\x1bwo\n"


def test_an_error_of_the_system_is_one_line(capsys):
    def fail():
        raise OSError("a\nb\x1b[2J")

    with pytest.raises(SystemExit) as end:
        run_command(fail)
    assert end.value.code == 2 and capsys.readouterr().err == "error: a\\nb\\x1b[2J\n"


# Files


@pytest.fixture
def full(tmp_path):
    """full(name) makes a link to a device that is always full."""

    def link(name):
        (tmp_path / name).symlink_to("/dev/full")
        return tmp_path / name

    return link


def unwritten(result, path):
    assert result.status == 2 and len(result.errors) == 1, result.err
    assert f"cannot write {path}: {SPACE}" in result.errors[0]


def test_a_full_disk_is_named_by_every_writer(own, run, tmp_path, full):
    image = write_image(tmp_path / "a.png", good_image(np.random.default_rng(3), 64))
    shutil.copytree(run, tmp_path / "other")
    for folder in (run, tmp_path / "other"):
        assert run_test(tmp_path, "--data_root", own.data, "--run", folder).status == 0
    for name in ("a.csv", "a.jsonl"):
        unwritten(run_predict(tmp_path, run, image, "--output", full(name)), tmp_path / name)
    for name in ("c.md", "c.csv", "c.json"):
        unwritten(run_compare(tmp_path, run, tmp_path / "other", "--output", full(name)), tmp_path / name)
    unwritten(run_report(tmp_path, run, "--output", full("a.html")), tmp_path / "a.html")
    options = ("--category", "widget", "--format", "torchscript", "--output", full("a.pt"))
    unwritten(run_export(tmp_path, run, *options), tmp_path / "a.pt")
    for name in ("results.csv", "results.json"):
        (run / name).unlink()
        full(f"run/{name}")
        unwritten(run_test(tmp_path, "--data_root", own.data, "--run", run), run / name)
        (run / name).unlink()
    assert all(os.path.lexists(tmp_path / name) and not (tmp_path / name).is_file() for name in ("a.csv", "a.html"))


def test_a_full_disk_under_a_log_is_named(tmp_path):
    for name in ("log.txt", "metrics.jsonl"):
        (tmp_path / name).symlink_to("/dev/full")
    log = RunLog(tmp_path)
    with pytest.raises(WriteError, match=f"cannot write {tmp_path}/log.txt: {SPACE}"):
        log.say("line")
    with pytest.raises(WriteError, match=f"cannot write {tmp_path}/metrics.jsonl: {SPACE}"):
        log.append("metrics.jsonl", "{}")


def test_a_full_disk_under_maps_is_an_error_of_their_images(own, run, tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOSPC, SPACE)

    image = write_image(tmp_path / "a.png", good_image(np.random.default_rng(3), 64))
    monkeypatch.setattr(os, "fsync", refuse)
    result = run_predict(tmp_path, run, image, "--save_maps", "maps")
    assert result.status == 1 and len(result.out.splitlines()) == 1
    assert f"cannot write maps/a.png.png: {SPACE}" in result.errors[0] and list((tmp_path / "maps").iterdir()) == []


def test_devices_are_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    reader = os.open(tmp_path / "pipe.txt", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe.txt", "through")
    assert os.read(reader, 100) == b"through" and (tmp_path / "pipe.txt").is_fifo()
    os.close(reader)


def test_an_error_names_its_file_once(tmp_path):
    with pytest.raises(WriteError) as found, naming("outer"), atomic_write(tmp_path / "a\nb") as temporary:
        raise OSError(errno.ENOSPC, SPACE, temporary)
    assert str(found.value) == f"cannot write {tmp_path}/a\\nb: {SPACE}; what was there before is as it was"
