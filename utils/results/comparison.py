"""Compare scored runs: each one's figures over its seeds, their differences to the first, and how far to trust these.

Only results.json is read, of the run or of each seedN/ in it, and no torch. Values are fractions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from utils.metrics.tables import HEADINGS, Statistic
from utils.results.record import read_results, result_folders
from utils.runs.settings import EARLIER, FREE_SETTINGS
from utils.system.errors import RunError

MEAN = "Mean"
CHOSEN_BY = "image_auroc"  # the published protocol's metric

Values = Sequence[float] | None  # one a seed; None where a seed has none


@dataclass(frozen=True)
class Run:
    """A scored run: the name of its column, and results.json of each seed."""

    name: str
    seeds: Sequence[Mapping[str, Any]]

    def figures(self, category: str, metric: str) -> Values:
        values = [seed["categories"][category].get(metric) for seed in self.seeds]
        return None if None in values else values

    def gains(self, category: str) -> Values:
        """The amount that choosing the epoch on the test set would add to the result's image AUROC."""
        chosen = [seed.get("published_protocol", {}).get(category) for seed in self.seeds]
        return None if None in chosen else [float(found["gain"][CHOSEN_BY]) for found in chosen]

    def categories(self) -> list[str]:
        """Those that every seed has."""
        return [c for c in self.seeds[0]["categories"] if all(c in seed["categories"] for seed in self.seeds)]


class Difference(NamedTuple):
    """A run's mean minus that of the first run; the fields are named as in files."""

    difference: float
    spread: float | None  # standard deviation of the difference of two single runs; None unless both have two seeds
    beyond_spread: bool | None
    p: float | None  # two-sided, of Welch's t-test; None where it is not defined

    @classmethod
    def between(cls, first: Sequence[float], other: Sequence[float]) -> Difference:
        a, b = Statistic.over(first), Statistic.over(other)
        difference, p = b.mean - a.mean, None
        if a.std is None or b.std is None:
            return cls(difference, None, None, None)
        if spread := math.hypot(a.std, b.std):
            from scipy.stats import ttest_ind_from_stats  # slow to import

            p = float(ttest_ind_from_stats(*a, len(first), *b, len(other), equal_var=False).pvalue)
        return cls(difference, spread, abs(difference) > spread, p)


@dataclass(frozen=True)
class Entry:
    """A metric of one category, or of their mean, in every run."""

    category: str
    metric: str
    values: Sequence[Values]

    @property
    def statistics(self) -> list[Statistic | None]:
        return [None if values is None else Statistic.over(values) for values in self.values]

    @property
    def differences(self) -> list[Difference | None]:
        """One for each run but the first."""
        first, *others = self.values
        return [None if first is None or other is None else Difference.between(first, other) for other in others]


@dataclass(frozen=True)
class Comparison:
    """The figures of runs. `gains` are those of the published protocol: no results."""

    names: Sequence[str]
    num_seeds: Sequence[int]
    entries: Sequence[Entry]  # category by category
    means: Sequence[Entry]  # one a metric
    gains: Sequence[Entry]  # one a category
    mean_gain: Sequence[Entry]  # one, or none
    notes: Sequence[str]  # what else the runs differ in


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders. Raises RunError that names each one that cannot be used and says what helps."""
    runs, errors = [], []
    for folder, name in zip(folders, short_names(folders), strict=True):
        try:
            runs.append(Run(name, [read_results(seed, folder) for seed in result_folders(folder)]))
        except RunError as error:
            errors.append(str(error))
    if errors:
        raise RunError("; ".join(errors))
    return runs


def short_names(folders: Sequence[Path]) -> list[str]:
    """Each folder's name, with as many of the folders above it as tell it from the others; RunError for one twice."""
    paths = [folder.resolve() for folder in folders]
    if twice := {str(folder) for folder, path in zip(folders, paths, strict=True) if paths.count(path) > 1}:
        raise RunError(f"each run only once: {' and '.join(sorted(twice))}")
    names = []
    for path in paths:
        tails = (path.parts[-length:] for length in range(1, len(path.parts) + 1))
        shortest = next(tail for tail in tails if sum(other.parts[-len(tail) :] == tail for other in paths) == 1)
        names.append(Path(*shortest).as_posix())
    return names


def compare(runs: Sequence[Run], metrics: Sequence[str]) -> Comparison:
    """The runs' figures in the categories that all of them have.

    Means are over the categories that have the metric in every run. Raises RunError if no category is common.
    """
    categories = [category for category in runs[0].categories() if all(category in run.categories() for run in runs)]
    if not categories:
        there = "; ".join(f"{run.name} has {', '.join(run.categories()) or 'none for all seeds'}" for run in runs)
        raise RunError(f"no category in common: {there}")
    entries = [Entry(c, m, [run.figures(c, m) for run in runs]) for c in categories for m in metrics]
    gains = [Entry(c, CHOSEN_BY, [run.gains(c) for run in runs]) for c in categories]
    gains = [gain for gain in gains if any(gain.values)] if CHOSEN_BY in metrics else []
    notes = describe_differences(runs, categories)
    means: list[Entry] = []
    for metric in metrics:
        complete = [entry for entry in entries if entry.metric == metric and None not in entry.values]
        means += _mean(complete)
        if 0 < len(complete) < len(categories):
            notes.append(f"Mean {HEADINGS[metric]} is over {len(complete)} of {len(categories)} categories.")
    return Comparison(
        [run.name for run in runs], [len(run.seeds) for run in runs], entries, means, gains,
        _mean([gain for gain in gains if None not in gain.values]), notes,
    )


def describe_differences(runs: Sequence[Run], categories: Sequence[str]) -> list[str]:
    """Differences of the runs besides their figures, as sentences; `categories` are those compared."""
    notes, every = [], [seed for run in runs for seed in run.seeds]
    if others := [c for c in categories if len({seed["test_files"][c]["sha256"] for seed in every}) > 1]:
        notes.append(f"WARNING: not the same test images: {', '.join(others)}.")
    left_out = {run.name: sorted({c for s in run.seeds for c in s["categories"]} - set(categories)) for run in runs}
    if any(left_out.values()):
        has = "; ".join(f"{name} also has {', '.join(left)}" for name, left in left_out.items() if left)
        notes.append(f"Only common categories are compared: {has}.")
    if len({json.dumps(seed.get("protocol"), sort_keys=True) for seed in every}) > 1:
        notes.append('Not scored in the same way: see "protocol" in results.json.')
    for name in dict.fromkeys(name for seed in every for name in seed["settings"]):
        if name != "seed" and name not in FREE_SETTINGS:
            notes += _tell_apart(f"Setting {name}", runs, partial(_setting, name))
    if len({len(run.seeds) for run in runs}) > 1:
        notes += _tell_apart("Seed", runs, lambda seed: str(seed.get("seed")))
    notes += _tell_apart("Trained with", runs, lambda seed: _versions(seed["training"]))
    return notes + _tell_apart("Scored with", runs, lambda seed: _versions(seed["testing"]))


def _setting(name: str, seed: Mapping[str, Any]) -> str:
    """The value of a setting, or what it was before there was one."""
    return str(seed["settings"].get(name, EARLIER.get(name)))


def _tell_apart(what: str, runs: Sequence[Run], value: Callable[[Mapping[str, Any]], str]) -> list[str]:
    """A sentence with the values, each with the runs whose seeds have it, unless all runs have the same."""
    names: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        names.setdefault(tuple(dict.fromkeys(map(value, run.seeds))), []).append(run.name)
    if len({frozenset(values) for values in names}) == 1:
        return []
    return [f"{what}: " + "; ".join(f"{' and '.join(v)} ({', '.join(of)})" for v, of in names.items()) + "."]


def _versions(made: Mapping[str, Any]) -> str:
    code, torch = made.get("code") or {}, (made.get("environment") or {}).get("torch", "unknown")
    changed = " with changes" if code.get("changed") else ""
    return f"code {code.get('commit', 'unknown')[:7]}{changed}, torch {torch}"


def _mean(complete: Sequence[Entry]) -> list[Entry]:
    """The mean over entries of one metric, run by run and seed by seed; empty without any entry."""
    if not complete:
        return []
    runs = zip(*(entry.values for entry in complete), strict=True)
    return [Entry(MEAN, complete[0].metric, [[fmean(v) for v in zip(*values, strict=True)] for values in runs])]
