"""make demo: what it calls, and that it deletes nothing. The programs are stood for by one that notes its arguments."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT, listing

NOTE = "import sys; print(*sys.argv[1:], file=open('calls.txt', 'a'))"


@pytest.fixture
def demo(tmp_path):
    """demo(*variables, target=) runs make where all is installed; returns the calls of programs."""
    (tmp_path / "requirements.txt").touch()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/installed").touch()
    (tmp_path / "note.py").write_text(NOTE)

    def run(*variables: str, target: str = "demo") -> list[str]:
        make = [shutil.which("make"), "-f", ROOT / "Makefile", target, f"VENV_PYTHON={sys.executable} note.py"]
        subprocess.run([*make, *variables], cwd=tmp_path, check=True, capture_output=True, timeout=60)
        calls = (tmp_path / "calls.txt").read_text().splitlines()
        (tmp_path / "calls.txt").unlink()
        return calls

    return run


def options_of(call: str) -> dict[str, str]:
    words = call.split()
    return {a: b for a, b in zip(words, words[1:], strict=False) if a.startswith("--")}


def test_demo_goes_on_with_its_run_and_deletes_nothing(tmp_path, demo):
    first = demo()
    train = next(call for call in first if call.startswith("train.py "))
    run = Path(options_of(train)["--output"])
    for name in (run / "config.json", run / "checkpoints/brick/stage1.progress.pt", "demo/mine.txt", "demo/run/a.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("kept")
    before = listing(tmp_path)
    assert demo() == first
    assert listing(tmp_path) == before


def test_other_epochs_are_another_run(demo):
    calls = {epochs: demo(f"DEMO_EPOCHS={epochs}") for epochs in (4, 20)}
    assert calls[20] == demo()
    runs = set()
    for epochs, [train, test, report] in {epochs: found[-3:] for epochs, found in calls.items()}.items():
        options = options_of(train)
        assert train.startswith("train.py ") and options["--epochs_stage1"] == options["--epochs_stage2"] == str(epochs)
        assert test.startswith("test.py ") and options_of(test)["--run"] == options["--output"]
        assert report == f"scripts/report.py {options['--output']}"
        runs.add(options["--output"])
    assert len(runs) == 2


def test_picture_runs_the_demo_first(tmp_path, demo):
    of_demo = demo()
    calls = demo(target="picture")
    assert calls[:-1] == of_demo
    assert calls[-1] == f"docs/make_picture.py {options_of(of_demo[-3])['--output']} --output docs/demo.png"
