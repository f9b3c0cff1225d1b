"""A table of scored runs, and how well synthetic anomalies foretell what test sets say of them.

    python benchmarks/accuracy.py results/tire-robust-resnet18 results/tire-rd4ad-resnet18 ...

Reads results.json and metrics.jsonl of each run and its seeds; no model, no data. A row a run: mean and standard
deviation over the seeds of the result's metrics, in percent, and the swing: highest less lowest test image AUROC over
the last fifth of the epochs, averaged over the seeds, of those that --eval_every logged; a dash for fewer than two.

Where runs were made with --select synthetic and --eval_every, their result is that of the selected epoch, and a second
table says for each category and metric how the figures on synthetic anomalies rank those on the test set: Spearman's
rank correlation over the epochs of a run, averaged over runs and seeds, and over the last epochs of all runs.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scipy.stats import spearmanr

from utils.cli import run_command, user_path
from utils.comparison import Run, read_runs, result_folders
from utils.report import ABSENT, COLUMNS, HEADINGS, Statistic
from utils.runs import RATED_BY, SYNTHETIC, RunError, read_metrics

LAST_FIFTH = 0.8  # share of the epochs before it

Curve = dict[int, dict[str, Any]]  # what was logged of a category, by epoch of Stage II


class ScoredRun(NamedTuple):
    """A run of one or more categories, with the test and synthetic figures that its epochs logged."""

    run: Run
    curves: list[dict[str, Curve]]  # of each seed, by category

    @property
    def label(self) -> str:
        settings = self.run.seeds[0]["settings"]
        return settings["method"] if settings["method"] == "rd4ad" else settings.get("recipe", "published")

    @property
    def backbone(self) -> str:
        return self.run.seeds[0]["settings"]["backbone"]

    def row(self, category: str) -> list[str]:
        """What the table says of a category."""
        figures = [self.run.figures(category, metric) for metric in COLUMNS]
        cells = [ABSENT if values is None else Statistic.over(values).percent() for values in figures]
        swings = [swing(curves.get(category, {})) for curves in self.curves]
        shown = ABSENT if None in swings else f"{100 * fmean(swings):.2f}"
        return [category, self.backbone, self.label, str(len(self.run.seeds)), *cells, shown]


def read_curves(folder: Path) -> dict[str, Curve]:
    curves: dict[str, Curve] = defaultdict(dict)
    for record in read_metrics(folder):
        if record["stage"] == 2:
            curves[record["category"]][record["epoch"]] = record
    return dict(curves)


def swing(curve: Curve) -> float | None:
    """Highest less lowest test image AUROC of the last fifth of the epochs; None for fewer than two."""
    start = LAST_FIFTH * max(curve, default=0)
    aurocs = [r["image_auroc"] for epoch, r in curve.items() if "image_auroc" in r and epoch > start]
    return max(aurocs) - min(aurocs) if len(aurocs) > 1 else None


def pairs(curve: Curve, metric: str) -> list[tuple[float, float]]:
    """The figures on synthetic anomalies and on the test set of each epoch that has both."""
    return [
        (record[SYNTHETIC + metric], record[metric])
        for _, record in sorted(curve.items()) if metric in record and SYNTHETIC + metric in record
    ]  # fmt: skip


def correlations(runs: Sequence[ScoredRun], category: str, metric: str) -> tuple[float | None, float | None]:
    """Over the epochs of a run, averaged, and over the last epochs of all runs and seeds; None for fewer than three."""
    curves = [found for run in runs for seed in run.curves if (found := pairs(seed.get(category, {}), metric))]
    over_epochs = [rank_correlation(curve) for curve in curves if len(curve) > 2]
    last = [curve[-1] for curve in curves]
    return fmean(over_epochs) if over_epochs else None, rank_correlation(last) if len(last) > 2 else None


def rank_correlation(points: Sequence[tuple[float, float]]) -> float:
    return float(spearmanr(*zip(*points, strict=True)).statistic)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for cells in [headings, ["---"] * len(headings), *rows]:
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=user_path, nargs="+", metavar="RUN", help="run folder, or one of results alone")
    folders = parser.parse_args().runs
    runs = [
        ScoredRun(run, [read_curves(seed) for seed in result_folders(folder)])
        for run, folder in zip(read_runs(folders), folders, strict=True)
    ]
    headings = ["category", "teacher", "recipe", "seeds", *COLUMNS.values(), "swing"]
    print_table(headings, [run.row(category) for run in runs for category in run.run.categories()])
    rated = defaultdict(list)
    for run in runs:
        for category in run.run.categories():
            if any(pairs(seed.get(category, {}), RATED_BY[0]) for seed in run.curves):
                rated[category].append(run)
    if rated:
        print()
        rows = []
        for category, found in rated.items():
            for metric in RATED_BY:
                ranks = correlations(found, category, metric)
                rows.append([category, HEADINGS[metric], *(ABSENT if r is None else f"{r:+.2f}" for r in ranks)])
        print_table(["category", "metric", "over epochs", "over runs"], rows)


if __name__ == "__main__":
    run_command(main, RunError)
