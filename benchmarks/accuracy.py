"""Tables of scored runs, in Markdown, as README and docs/ have them.

    python benchmarks/accuracy.py results/main/*                          # --table runs
    python benchmarks/accuracy.py results/main/* --table summary

Read results.json and metrics.jsonl of each run and its seeds; no model, no data. Figures are percent, of the result's
epoch; a dash: not known; in `summary` and `runs` the best of each category and teacher is bold. The tables:

    summary    a row a category and teacher, a column a recipe: I-AUROC / P-AUROC / PRO, means over the seeds
    runs       a row a run: mean and standard deviation over the seeds, and the swing: highest less lowest test image
               AUROC over the last fifth of the epochs, averaged over the seeds, of those that --eval_every logged; and
               the seconds of training, mean over the seeds, on whatever machine it was
    protocol   beside the result, the epoch with the best image AUROC on the test set (with --eval_every): no result
    kinds      a row a run, a column a kind of defect: I-AUROC of its images against the good ones, by scores.csv: mean
               and standard deviation over the seeds; of a single category
    seeds      a row a run, a column a seed: I-AUROC / P-AUROC / PRO
    synthetic  for runs of earlier versions with --select synthetic --eval_every: Spearman's rank correlation between
               figures on synthetic anomalies and on the test set, over a run's epochs (mean over runs and seeds) and
               over the last epochs of all runs; and test points of the selected epoch less those of the last one
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from utils.cli import run_command, user_path
from utils.metrics.tables import ABSENT, COLUMNS, HEADINGS, Statistic
from utils.results.comparison import Run, Values, read_runs
from utils.results.record import SCORES, result_folders
from utils.runs.history import SYNTHETIC, read_metrics
from utils.system.errors import RunError

LAST_FIFTH = 0.8  # share of the epochs before it
BASELINE = "rd4ad"
RATED_BY = ("image_auroc", "aupro")  # what rated an epoch, with the prefix SYNTHETIC
TEACHERS = {"resnet18": "ResNet-18", "resnet50_v1": "ResNet-50 (v1)"}  # as tables write them; others by their own name
DATASETS = {"mvtec": " (MVTec AD)", "mvtec3d": " (MVTec 3D-AD, RGB)", "visa": " (VisA)"}
RECIPES = {
    BASELINE: "RD4AD, ours", "patchcore": "PatchCore, ours", "published": "AAND, ours",
    "robust": "AAND, `--recipe robust`",
}

Curve = dict[int, dict[str, Any]]  # what was logged of a category, by epoch of Stage II
Table = list[list[str]]  # rows of cells, the headings first


class ScoredRun(NamedTuple):
    """A run of one or more categories, with the test and synthetic figures that its epochs logged."""

    run: Run
    curves: list[dict[str, Curve]]  # of each seed, by category
    folder: Path
    links: Path | None  # folder of the page that links to it

    @property
    def recipe(self) -> str:
        """The method of a baseline, otherwise the recipe."""
        settings = self.run.seeds[0]["settings"]
        return settings.get("recipe", "published") if settings["method"] == "aand" else settings["method"]

    @property
    def teacher(self) -> str:
        backbone = self.run.seeds[0]["settings"]["backbone"]
        return TEACHERS.get(backbone, backbone)

    def linked(self, text: str) -> str:
        if self.links is None:
            return text
        return f"[{text}]({Path(os.path.relpath(self.folder, self.links)).as_posix()})"

    def figures(self, category: str) -> list[Values]:
        return [self.run.figures(category, metric) for metric in COLUMNS]

    def seconds(self, category: str) -> str:
        """The mean seconds of training, in whole ones."""
        found = [seed.get("seconds", {}).get(category, {}).get("training") for seed in self.run.seeds]
        return ABSENT if None in found else f"{fmean(found):.0f}"

    def chosen_on_test(self, category: str) -> list[Values]:
        """The figures of the published protocol: those of the epoch with the best image AUROC on the test set."""
        chosen = [s.get("published_protocol", {}).get(category, {}).get("metrics", {}) for s in self.run.seeds]
        values = [[metrics.get(metric) for metrics in chosen] for metric in COLUMNS]
        return [None if None in found else found for found in values]


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


def groups(runs: Sequence[ScoredRun]) -> Iterator[tuple[str, str, list[ScoredRun]]]:
    """Each category and teacher with its runs, all in the order in which they come first."""
    categories = dict.fromkeys(category for run in runs for category in run.run.categories())
    teachers = dict.fromkeys(run.teacher for run in runs)
    for category in categories:
        for teacher in teachers:
            if found := [run for run in runs if run.teacher == teacher and category in run.run.categories()]:
                yield category, teacher, found


def summary(runs: Sequence[ScoredRun]) -> Table:
    recipes = list(dict.fromkeys(run.recipe for run in runs))
    rows = [["category", "teacher", *(RECIPES[recipe] for recipe in recipes)]]
    for category, teacher, found in groups(runs):
        if len({run.recipe for run in found}) < len(found):
            raise RunError(f"{category}, {teacher}: a recipe has several runs; this table has room for one")
        cells = [[percent(values, spread=False) for values in run.figures(category)] for run in found]
        triples = [join(row, best) for row, best in zip(cells, find_best(cells), strict=True)]
        written = dict(zip([run.recipe for run in found], triples, strict=True))
        title = category.replace("_", " ") + DATASETS.get(found[0].run.seeds[0]["settings"].get("dataset"), "")
        rows.append([title, teacher, *(written.get(recipe, ABSENT) for recipe in recipes)])
    return blank_repeated(rows, 1)


def list_runs(runs: Sequence[ScoredRun]) -> Table:
    rows = [["category", "teacher", "recipe", "seeds", *COLUMNS.values(), "swing", "training, s"]]
    for category, teacher, found in groups(runs):
        cells = [[percent(values) for values in run.figures(category)] for run in found]
        for run, row, best in zip(found, cells, find_best(cells), strict=True):
            figures = [f"**{cell}**" if bold else cell for cell, bold in zip(row, best, strict=True)]
            swings = [swing(curves.get(category, {})) for curves in run.curves]
            shown = ABSENT if None in swings else f"{100 * fmean(swings):.2f}"
            seconds = run.seconds(category)
            rows.append([category, teacher, run.linked(run.recipe), str(len(run.run.seeds)), *figures, shown, seconds])
    return blank_repeated(rows, 2)


def protocol(runs: Sequence[ScoredRun]) -> Table:
    last, best = "last epoch: I-AUROC / P-AUROC / PRO", "best epoch on the test set: the same"
    rows = [["category", "teacher", "recipe", last, best, "I-AUROC: best less last"]]
    for category, teacher, found in groups(runs):
        for run in found:
            results, chosen = run.figures(category), run.chosen_on_test(category)
            triples = [" / ".join(percent(values, spread=False) for values in part) for part in (results, chosen)]
            rows.append([category, teacher, run.linked(run.recipe), *triples, percent(run.run.gains(category))])
    return blank_repeated(rows, 2)


def by_seed(runs: Sequence[ScoredRun]) -> Table:
    seeds = list(dict.fromkeys(seed["seed"] for run in runs for seed in run.run.seeds))
    rows = [["run", *(f"seed {seed}" for seed in seeds), "mean ± standard deviation"]]
    for run in runs:
        at = {seed["seed"]: place for place, seed in enumerate(run.run.seeds)}
        for category in run.run.categories():
            figures = run.figures(category)
            one = [[None if v is None else v[at[s]: at[s] + 1] for v in figures] if s in at else [] for s in seeds]
            cells = [" / ".join(map(percent, values)) or ABSENT for values in [*one, figures]]
            rows.append([run.linked(run.run.name), *cells])
    return rows


def by_kind(runs: Sequence[ScoredRun]) -> Table:
    found = [[read_kinds(seed) for seed in result_folders(run.folder)] for run in runs]
    kinds = list(dict.fromkeys(kind for seeds in found for seed in seeds for kind in seed))
    rows = [["teacher", "recipe", *kinds]]
    for run, seeds in zip(runs, found, strict=True):
        rows.append([run.teacher, run.linked(run.recipe), *(percent([seed[kind] for seed in seeds]) for kind in kinds)])
    return blank_repeated(rows, 1)


def read_kinds(folder: Path) -> dict[str, float]:
    """I-AUROC of each kind of defect, by the scores in the folder of a seed."""
    with (folder / SCORES).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels, scores = (np.array([float(row[name]) for row in rows]) for name in ("label", "score"))
    defects = np.array([row["defect"] for row in rows])
    own = {kind: (labels == 0) | (defects == kind) for kind in dict.fromkeys(defects[labels == 1].tolist())}
    return {kind: float(roc_auc_score(labels[of], scores[of])) for kind, of in own.items()}


def synthetic(runs: Sequence[ScoredRun]) -> Table:
    rows = [["category", "metric", "over epochs", "over runs", "selected less last epoch, test set"]]
    for category in dict.fromkeys(category for run in runs for category in run.run.categories()):
        found = [run for run in runs if category in run.run.categories()]
        for metric in RATED_BY:
            ranks = correlations(found, category, metric)
            written = [ABSENT if rank is None else f"{rank:+.2f}" for rank in ranks]
            rows.append([category, HEADINGS[metric], *written, gained(found, category, metric)])
    return rows


def pairs(curve: Curve, metric: str) -> list[tuple[float, float]]:
    """The figures on synthetic anomalies and on the test set of each epoch that has both."""
    return [
        (record[SYNTHETIC + metric], record[metric])
        for _, record in sorted(curve.items()) if metric in record and SYNTHETIC + metric in record
    ]


def correlations(runs: Sequence[ScoredRun], category: str, metric: str) -> tuple[float | None, float | None]:
    """Over the epochs of a run, averaged, and over the last epochs of all runs and seeds; None for fewer than three."""
    curves = [found for run in runs for seed in run.curves if (found := pairs(seed.get(category, {}), metric))]
    over_epochs = [rank_correlation(curve) for curve in curves if len(curve) > 2]
    last = [curve[-1] for curve in curves]
    return fmean(over_epochs) if over_epochs else None, rank_correlation(last) if len(last) > 2 else None


def rank_correlation(points: Sequence[tuple[float, float]]) -> float:
    return float(spearmanr(*zip(*points, strict=True)).statistic)


def gained(runs: Sequence[ScoredRun], category: str, metric: str) -> str:
    """Points of the result less those of the last logged epoch on the test set: mean over runs and seeds, and range."""
    points = [
        100 * (seed["categories"][category][metric] - tested[-1][1])
        for run in runs
        for seed, curves in zip(run.run.seeds, run.curves, strict=True)
        if metric in seed["categories"][category] and (tested := pairs(curves.get(category, {}), metric))
    ]
    return f"{fmean(points):+.2f} ({min(points):+.2f} to {max(points):+.2f})" if points else ABSENT


def percent(values: Values, spread: bool = True) -> str:
    """The mean in percent with two decimals, and with `spread` the standard deviation over several seeds."""
    if values is None:
        return ABSENT
    return (Statistic.over(values) if spread else Statistic(fmean(values), None)).percent()


def find_best(cells: Sequence[Sequence[str]]) -> list[list[bool]]:
    """For each cell whether its column has no larger one, as printed; all False for a single row."""
    def value(cell: str) -> float:
        return -1.0 if cell == ABSENT else float(cell.split()[0])

    highest = [max(map(value, column)) for column in zip(*cells, strict=True)]
    return [[len(cells) > 1 and 0 <= value(c) == top for c, top in zip(row, highest, strict=True)] for row in cells]


def join(cells: Sequence[str], bold: Sequence[bool]) -> str:
    """`a / **b / c**`: bold neighbours in one."""
    parts = groupby(zip(cells, bold, strict=True), key=lambda pair: pair[1])
    texts = [(is_bold, " / ".join(cell for cell, _ in part)) for is_bold, part in parts]
    return " / ".join(f"**{text}**" if is_bold else text for is_bold, text in texts)


def blank_repeated(rows: Table, columns: int) -> Table:
    """The rows with the first `columns` cells empty where they and those before them repeat the row above."""
    blanked = [
        ["" if row[: place + 1] == above[: place + 1] else row[place] for place in range(columns)] + row[columns:]
        for above, row in zip(rows, rows[1:], strict=False)
    ]
    return [rows[0], *blanked]


def print_table(rows: Table) -> None:
    headings, *others = rows
    for cells in [headings, None, *others]:
        print("|---" * len(headings) + "|" if cells is None else f"|{'|'.join(f' {c} ' if c else ' ' for c in cells)}|")


TABLES: dict[str, Callable[[Sequence[ScoredRun]], Table]] = {
    "runs": list_runs, "summary": summary, "protocol": protocol, "kinds": by_kind, "seeds": by_seed,
    "synthetic": synthetic,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("runs", type=user_path, nargs="+", metavar="RUN", help="run folder, or one of results alone")
    add("--table", choices=TABLES, default="runs", help="which table (default runs)")
    add("--links", type=user_path, metavar="DIR", help="link each run to its folder, from a page in DIR")
    args = parser.parse_args()
    runs = [
        ScoredRun(run, [read_curves(seed) for seed in result_folders(folder)], folder, args.links)
        for run, folder in zip(read_runs(args.runs), args.runs, strict=True)
    ]
    print_table(TABLES[args.table](runs))


if __name__ == "__main__":
    run_command(main)
