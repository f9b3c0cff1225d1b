"""The errors that a user can mend, and the commands that they advise: programs print each as one line, and end with
exit status 2.

Those of data sets (`datasets.base.DataError`) and of weights (`models.WeightsError`) are told in the same way. Messages
name arguments in backticks, such as `image_size`; programs print these as their flags, --image_size.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from datasets.names import PrintableError


class UserError(PrintableError):
    """The base of all: each argument is one line of the message, which says what is wrong and what helps."""


class UsageError(UserError, ValueError):
    """The value of an argument that cannot be used; the message names the argument."""


class MissingPackage(UsageError):
    """A package that the core requirements do not have; the message says how to get it."""


class WriteError(UserError, OSError):
    """A file that cannot be written; the message names it, and says why."""


class RunError(UserError, RuntimeError):
    """A run folder that cannot be used; the message names it."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that is missing, unreadable or of another model; the message names the file."""


class PredictionError(RunError):
    """Maps and scores that are no result; the message names the images, as far as their names are known."""


class ModelFileError(UsageError):
    """An exported model file that cannot be used; the message names it."""


class TrainingError(UserError, RuntimeError):
    """A category that cannot be trained; the message says which, why, and what may help."""


class ProcessError(UserError, RuntimeError):
    """A failure in another of the processes that train together, in words; all know it."""


class ProcessLost(UserError, RuntimeError):
    """Another process does not answer any more, or cannot write: the run cannot go on."""


class StoreError(UserError, RuntimeError):
    """Storage that cannot be used; the message names the file in it, and says why."""


class Superseded(UserError, RuntimeError):
    """A later attempt works at the same task, or one has finished it."""


class TaskFailed(UserError, RuntimeError):
    """A task that would fail again; the message says where to read why."""


class TaskLost(UserError, RuntimeError):
    """A program of a task that was killed: the task may be tried again."""


def as_flags(message: str) -> str:
    """A message for the user of a program: the arguments that it names in backticks as flags."""
    return re.sub(r"`([a-z][a-z0-9_]*)`", r"--\1", message)


def command(program: str, *arguments: object) -> str:
    """A command line to be pasted into a shell, e.g. command("test.py", "--run", run), whatever names are in it; IMAGES
    and the like stand for what is not known."""
    start = ["python", program] if program.endswith(".py") else [program]  # installed: "aand predict" (setup.py)
    return " ".join([*start, *(_quoted(str(argument)) for argument in arguments)])


def layout_flags(dataset: str, good: Iterable[str], bad: Iterable[str]) -> list[str]:
    """The flags that say what lies where in a data set, for `command`."""
    names = [part for flag, names in (("--good", good), ("--bad", bad)) if names for part in (flag, *names)]
    return ["--dataset", dataset, *names]


def _quoted(text: str) -> str:
    """A word for the shell; with line breaks, escape codes and the like as bash and zsh write them, $'\\u000a'."""
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_escaped(character) for character in text) + "'"


def _escaped(character: str) -> str:
    if character.isprintable():
        return f"\\{character}" if character in "\\'" else character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
