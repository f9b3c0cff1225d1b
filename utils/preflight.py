"""What train.py and test.py do first: check the data, and start only with files that can be used."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from datasets import DataSource
from datasets.names import printable
from datasets.problems import WARNING, Problem, count, error, errors_among, raise_errors
from utils.data_check import Splits, check_source

Skipped = dict[str, str]  # files below the data set's root -> why the run goes on without them


def usable_samples(
    source: DataSource, splits: Sequence[str], args: argparse.Namespace
) -> tuple[dict[str, Splits], Skipped]:
    """The samples of every category of the source, and which files --skip_bad left out.

    Warnings are counted on stderr. Raises one DataError listing all errors; with --skip_bad those that leaving files
    out does not mend.
    """
    samples, problems = check_source(source, splits, workers=args.workers, cache_dir=args.cache_dir)
    data = f"--data_root {shlex.quote(printable(source.root))} --dataset {source.name}"
    command = f"python scripts/check_data.py {data}"
    errors = errors_among(problems)
    warn(problems, command)
    if not args.skip_bad:
        advice = "; --skip_bad goes on without such files" if all(problem.skips for problem in errors) else ""
        raise_errors(str(source.root), errors, f"list all with: {command}{advice}")
        return samples, {}
    samples, skipped = leave_out(source, samples, errors)
    raise_errors(str(source.root), [*(p for p in errors if not p.skips), *find_empty(source, samples)])
    if skipped:
        print(f"--skip_bad: going on without {count(len(skipped), 'file')}; why: {command}", file=sys.stderr)
    return samples, skipped


def warn(problems: Sequence[Problem], command: str) -> None:
    """Count the warnings by kind, each with an example, and say how to list them."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.severity == WARNING:
            kinds.setdefault(problem.message, []).append(problem)
    for found in kinds.values():
        print(f"warning, {count(len(found), 'time')}: {found[0]}", file=sys.stderr)
    if kinds:
        print(f"list all with: {command}", file=sys.stderr)


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


def find_empty(source: DataSource, samples: dict[str, Splits]) -> list[Problem]:
    """An error for each category of whose training images all were left out."""
    message = "category has no training image without errors"
    return [error(message, source.root / c) for c, parts in samples.items() if parts.get("train") == []]
