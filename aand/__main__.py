"""The command `aand`: runs one of the programs that are installed with it."""

from __future__ import annotations

import argparse
import ast
import pkgutil
import runpy
import sys

import aand
import scripts as programs


def make_parser() -> argparse.ArgumentParser:
    """The parser of the first word: a program's name."""
    parser = argparse.ArgumentParser(prog="aand", description=aand.__doc__.partition(":")[0] + ".")
    parser.add_argument("--version", action="version", version=f"aand {aand.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for program in pkgutil.iter_modules(programs.__path__):
        source = program.module_finder.find_spec(program.name).loader.get_source(program.name)
        summary = ast.get_docstring(ast.parse(source)).partition("\n\n")[0]
        commands.add_parser(program.name, help=summary, add_help=False)
    return parser


def main() -> None:
    """Run the program that the first word of the command line names, with the words behind it."""
    command = make_parser().parse_args(sys.argv[1:2]).command
    sys.argv[:2] = [f"aand {command}"]
    runpy.run_module(f"{programs.__name__}.{command}", run_name="__main__")


if __name__ == "__main__":
    main()
