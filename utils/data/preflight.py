"""First step of train.py and test.py: check the data, and start only with files that can be used."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets import DataSource
from datasets.names import printable
from datasets.problems import WARNING, Problem, count, error, errors_among, raise_errors
from utils.data.check import KnownLevels, Splits, check_source
from utils.data.decoded_files import DecodedFiles
from utils.data.facts import Facts
from utils.system.errors import command, layout_flags

Skipped = dict[str, str]  # files below the data set's root -> why the run goes on without them


class Usable(NamedTuple):
    """The samples of every category, which files were left out, how files become grey levels, what is known of
    every image, whether test files were left out besides, and the files that were opened."""

    samples: dict[str, Splits]
    skipped: Skipped
    levels: KnownLevels
    images: Mapping[Path, Facts]
    test_errors: bool
    decoded: DecodedFiles


def usable_samples(
    source: DataSource, splits: Sequence[str], *, workers: int, cache_dir: Path, skip_bad: bool,
    levels: KnownLevels | None = None, test_needed: bool = True,
) -> Usable:
    """The samples of every category; `skip_bad` leaves out bad files. levels: where they are decided already.

    Warnings are counted on stderr. Raises one DataError listing all errors; with `skip_bad` those that leaving files
    out does not mend. Unless the test set is needed, errors of its files alone are warnings, and these are left out.
    """
    decoded = DecodedFiles()
    checked = check_source(source, splits, workers=workers, cache_dir=cache_dir, levels=levels, decoded=decoded)
    samples, problems = checked.samples, checked.problems
    usable = Usable(samples, {}, checked.levels, checked.images, False, decoded)
    layout = layout_flags(source.name, source.names.good, source.names.bad)
    listing = command("scripts/check_data.py", "--data_root", source.root, *layout)
    errors = errors_among(problems)
    if source.note:
        print(f"note: {source.note}", file=sys.stderr)
    only_test = errors and all(problem.split == "test" and problem.skips for problem in errors)
    late = only_test and not test_needed and not skip_bad
    warn([*(problem for problem in problems if problem.severity == WARNING), *(errors if late else [])], listing)
    if late:
        print("training goes on without these test files; test.py will refuse them", file=sys.stderr)
        return usable._replace(samples=leave_out(source, samples, errors)[0], test_errors=True)
    if not skip_bad:
        advice = "; --skip_bad goes on without such files" if all(problem.skips for problem in errors) else ""
        raise_errors(str(source.root), errors, f"list all with: {listing}{advice}")
        return usable
    samples, skipped = leave_out(source, samples, errors)
    message = "category has no training image without errors"
    empty = [error(message, source.root / name) for name, parts in samples.items() if parts.get("train") == []]
    raise_errors(str(source.root), [*(problem for problem in errors if not problem.skips), *empty])
    if skipped:
        print(f"--skip_bad: going on without {count(len(skipped), 'file')}; why: {listing}", file=sys.stderr)
    return usable._replace(samples=samples, skipped=skipped)


def warn(problems: Sequence[Problem], listing: str) -> None:
    """Count problems that are no obstacle by kind, each with an example, and say how to list them."""
    for message, times in Counter(problem.message for problem in problems).items():
        example = next(problem for problem in problems if problem.message == message)
        print(f"warning, {count(times, 'time')}: {example}", file=sys.stderr)
    if problems:
        print(f"list all with: {listing}", file=sys.stderr)


def leave_out(
    source: DataSource, samples: dict[str, Splits], errors: Sequence[Problem]
) -> tuple[dict[str, Splits], Skipped]:
    """The samples without the files that have errors, and these files."""
    paths = {problem.skips: problem.message for problem in reversed(errors) if problem.skips}  # the first reason stays
    kept = {
        category: {split: [s for s in part if s.image_path not in paths] for split, part in parts.items()}
        for category, parts in samples.items()
    }
    return kept, {printable(path.relative_to(source.root).as_posix()): paths[path] for path in sorted(paths)}
