"""The errors that a user can mend: programs print each as one line and end with exit status 2.

Those of data sets (`datasets.base.DataError`) and of weights (`models.WeightsError`) are told in the same way. Messages
name arguments in backticks, such as `image_size`; programs print these as their flags, --image_size.
"""

from __future__ import annotations

import re

from datasets.names import PrintableError

ARGUMENT = re.compile(r"`([a-z][a-z0-9_]*)`")  # as messages name them


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
    return ARGUMENT.sub(r"--\1", message)
