"""Write docs/commands.md: every program with its flags, as their parsers have them.

    python docs/make_commands.py                # make docs
    python docs/make_commands.py --output FILE

No program is run and torch is not needed. Defaults are those that the help states; where the help states none, the
parser's own. Flags that several programs share word for word are in one table at the end.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import sys
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PAGE = ROOT / "docs/commands.md"
PROGRAMS = (
    "train.py", "test.py", "scripts/predict.py", "scripts/app.py", "scripts/calibrate.py", "scripts/extend.py",
    "scripts/check_data.py",
    "scripts/report.py", "scripts/compare.py", "scripts/export.py", "scripts/fore_extractor.py",
    "scripts/make_demo_data.py", "scripts/visa_meta.py", "scripts/convert_checkpoint.py", "scripts/sweep.py",
    "scripts/fetch_runs.py",
)
SHARED_BY = 3  # programs; flags of as many have one row for all
HEAD = """# Commands

Every program and its flags. This page is written by `make docs` from the programs themselves. `PROGRAM --help` prints
the same, with examples. A default in words is decided when the program runs.
"""
TABLE = "| flag | default | what it does |\n|---|---|---|\n"
STATED_DEFAULT = re.compile(r"\s*[;,]?\s*\(?default:? ([^()]*(?:\([^()]*\))?[^()]*)\)?$")


class Row(NamedTuple):
    """A flag, or an argument without one, as Markdown."""

    flag: str
    default: str
    text: str

    def __str__(self) -> str:
        return f"| {self.flag} | {self.default} | {self.text} |\n"


def load_parser(program: str) -> argparse.ArgumentParser:
    """The parser of a program, which is imported for it under another name."""
    spec = importlib.util.spec_from_file_location("commands_" + Path(program).stem, ROOT / program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_parser()


def summary_of(program: str) -> str:
    """The first sentence of a program's docstring."""
    text = ast.get_docstring(ast.parse((ROOT / program).read_text(encoding="utf-8")))
    return " ".join(text.split("\n\n", 1)[0].split())


def row_of(action: argparse.Action) -> Row:
    """The row of an argument: as its help has it, the stated default in a column of its own."""
    text, default = split_help(action)
    name = ", ".join(action.option_strings) or action.metavar or action.dest
    values = (action.metavar or action.dest.upper()) if action.option_strings and action.nargs != 0 else None
    if action.choices and not all(re.search(rf"\b{choice}\b", text) for choice in map(str, action.choices)):
        text += f"; one of {', '.join(map(str, action.choices))}"
    words = [name, values, "..." if action.nargs == "+" else None]
    return Row(f"`{' '.join(filter(None, words))}`", escape(default), escape(text))


def split_help(action: argparse.Action) -> tuple[str, str]:
    """The help of an argument without its stated default, and the default in words."""
    help_text = " ".join((action.help or "").split())
    if stated := STATED_DEFAULT.search(help_text):
        return help_text[: stated.start()], stated[1]
    if action.required:
        return help_text, "required"
    if action.nargs == 0:
        return help_text, "off"
    return help_text, "" if action.default in (None, []) else str(action.default)


def escape(text: str) -> str:
    """Plain text as the content of a cell; flags and programs in it as code."""
    text = text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return re.sub(r"(?<![\w/`-])((?:--|scripts/)\w+(?:\.py)?|\w+\.py)", r"`\1`", text)


def rows_of(parser: argparse.ArgumentParser) -> list[Row]:
    """The rows of a parser's arguments, --help left out, in the order in which they were added."""
    hidden = (argparse._HelpAction, argparse._SubParsersAction)
    return [row_of(action) for action in parser._actions if not isinstance(action, hidden)]


def parts_of(program: str) -> dict[str, list[Row]]:
    """The rows of a program, by its sub-command; "" where it has none."""
    parser = load_parser(program)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {name: rows_of(part) for name, part in action.choices.items()}
    return {"": rows_of(parser)}


def call_of(program: str, name: str, rows: list[Row]) -> str:
    """The shortest call of a program, with what it requires."""
    required = [row.flag.strip("`") for row in rows if row.default == "required"]
    required.sort(key=lambda flag: flag.startswith("--"))
    return " ".join(filter(None, ["python", program, name, *required, "[flags]"]))


def format_page() -> str:
    """The whole page, the same on every machine."""
    parts = {program: parts_of(program) for program in PROGRAMS}
    uses = Counter(row for of_program in parts.values() for row in dict.fromkeys(chain(*of_program.values())))
    shared = [row for row, count in uses.items() if count >= SHARED_BY and row.flag.startswith("`--")]
    sections = [HEAD]
    for program, of_program in parts.items():
        sections.append(f"\n## {program}\n\n{escape(summary_of(program))}\n")
        for name, rows in of_program.items():
            own = [row for row in rows if row not in shared]
            sections.append(f"\n    {call_of(program, name, rows)}\n")
            sections.append("\n" + TABLE + "".join(map(str, own)))
            if others := [row.flag for row in rows if row in shared]:
                sections.append(f"\nAnd of the [shared flags](#shared-flags): {', '.join(others)}.\n")
        if program == "scripts/sweep.py":
            sections.append("\nAll other flags are those of `train.py`, and the same for every task.\n")
    sections.append("\n## Shared flags\n\n" + TABLE + "".join(map(str, shared)))
    return "".join(sections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=PAGE, metavar="FILE", help="default: docs/commands.md")
    output = parser.parse_args().output
    output.write_text(format_page(), encoding="utf-8")
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
