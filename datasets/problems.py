"""Problems with the files of a data set, and the one error that lists it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.base import DataError
from datasets.names import printable

ERROR, WARNING = "error", "warning"
MOST_SHOWN = 20  # problems that are spelt out


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: an "error", or a "warning" about what can be used all the same.

    `message` is the kind of problem, by which problems are counted. `skips` is the file without which --skip_bad goes
    on; None where leaving a file out does not help. `split` is that of the files, if they are of one.
    """

    severity: str
    message: str
    paths: tuple[Path, ...]
    details: str = ""
    skips: Path | None = None
    split: str | None = None

    def __str__(self) -> str:
        """One line, e.g. "mask has no image: data/bottle/ground_truth/crack/007_mask.png"."""
        line = f"{self.message}: {', '.join(map(str, self.paths))}"
        return printable(f"{line} ({self.details})" if self.details else line)


def error(message: str, *paths: Path, skips: Path | None = None, details: str = "") -> Problem:
    return Problem(ERROR, message, paths, details, skips)


def warning(message: str, *paths: Path, details: str = "") -> Problem:
    return Problem(WARNING, message, paths, details)


def errors_among(problems: Sequence[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.severity == ERROR]


def raise_errors(where: str, problems: Sequence[Problem], help_text: str = "") -> None:
    """Raise one DataError that counts the errors among the problems and lists the first; do nothing without any."""
    errors = errors_among(problems)
    if not errors:
        return
    lines = [*first_of([str(problem) for problem in errors]), *filter(None, [help_text])]
    raise DataError(f"{count(len(errors), 'error')} in {where}:", *lines)


def first_of(lines: Sequence[str]) -> list[str]:
    """First lines of many, and how many more there are."""
    more = len(lines) - MOST_SHOWN
    return [*lines[:MOST_SHOWN], *([f"... and {more} more"] if more > 0 else [])]


def count(number: int, noun: str) -> str:
    """E.g. "1 image" or "3 images"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
