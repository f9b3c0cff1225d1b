"""docs/commands.md is what the programs' parsers say. After a change of a flag: make docs."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from docs import make_commands
from docs.make_commands import PAGE, PROGRAMS, ROOT, format_page, load_parser, row_of, split_help

BY_MACHINE = {"--workers", "--scratch"}  # their help says in words how the default is found


def parsers_of(program: str) -> list[argparse.ArgumentParser]:
    parser = load_parser(program)
    parts = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return list(parts[0].choices.values()) if parts else [parser]


def test_the_page_is_what_the_parsers_say():
    assert PAGE.read_text(encoding="utf-8") == format_page(), "docs/commands.md is old: make docs"


def test_every_program_is_on_the_page():
    programs = {"train.py", "test.py", *(f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py"))}
    assert set(PROGRAMS) == programs


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_flag_has_a_help_that_states_its_default(program):
    for action in (action for parser in parsers_of(program) for action in parser._actions):
        text, stated = split_help(action)
        assert text, f"{program} {action.option_strings}: no help"
        if isinstance(action.default, (int, float, str, Path)) and action.nargs != 0 and action.dest != "help":
            default = f"{action.default:.10g}" if isinstance(action.default, (int, float)) else str(action.default)
            assert default in stated or BY_MACHINE & set(action.option_strings), f"{program} {action.dest}: {stated}"


def test_rows():
    parser = argparse.ArgumentParser()
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--far", type=float, default=0.01, metavar="X", help="share of <good> images (default 0.01)")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="a|b, with --far (default: all)")
    parser.add_argument("--cache", choices=["ram", "none"], default="ram", help="where images stay")
    parser.add_argument("--on", action="store_true", help="switch it on")
    assert [str(row_of(action)) for action in parser._actions[1:]] == [
        "| `RUN` | required | run folder |\n",
        "| `--far X` | 0.01 | share of &lt;good> images |\n",
        "| `--names NAME ...` | all | a\\|b, with `--far` |\n",
        "| `--cache CACHE` | ram | where images stay; one of ram, none |\n",
        "| `--on` | off | switch it on |\n",
    ]


def test_the_page_needs_no_torch_and_nothing_of_the_machine(tmp_path):
    """Written where torch cannot be imported, and another number of cores is there."""
    code = (
        "import os, runpy, sys\nsys.modules['torch'] = None\nos.cpu_count = lambda: 3\n"
        f"sys.argv = ['make_commands.py', '--output', {str(tmp_path / 'page.md')!r}]\n"
        f"runpy.run_path({make_commands.__file__!r}, run_name='__main__')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, cwd=tmp_path)
    assert (tmp_path / "page.md").read_bytes() == PAGE.read_bytes()
