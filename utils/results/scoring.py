"""Score a run on the test set: tables, results.csv, results.json and scores.csv, heat maps, maps for MVTec's
evaluation.

A run of several seeds holds one run folder a seed; each gets its own results, and the run their mean and standard
deviation.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from datasets import DataSource, open_dataset
from datasets.base import DataError, Sample
from datasets.loading import evaluation_files
from datasets.marks import ANOMALY_MAP
from datasets.names import printable
from models.aand import AAND
from utils.data.image_store import ImageStore
from utils.data.preflight import Skipped, usable_samples
from utils.detection.prediction import Prediction, TestSet, find_lost_regions, fingerprint, warn_of_lost_regions
from utils.detection.thresholds import read_thresholds
from utils.metrics.tables import format_published_protocol, format_table, to_json, write_csv, write_json
from utils.results.image_scores import SCORES, ImageScore, image_scores, write_scores
from utils.results.maps import (
    heat_map_paths,
    is_heat_map,
    refuse_other_maps,
    save_heat_maps,
    save_tiffs,
    tiff_paths,
)
from utils.runs.checkpoint import model_word
from utils.runs.folder import RESULTS, Run, RunCategory, open_runs, trained_categories
from utils.runs.history import published_protocol
from utils.runs.settings import LAST_EPOCH, OFFICIAL, RATED_EPOCH
from utils.system.environment import code_version, environment
from utils.system.errors import PredictionError, RunError
from utils.system.own_files import RESULTS_CSV, RESULTS_JSON, SCORES_CSV, bears, begins_as, refuse_foreign

EPOCHS = {  # of earlier versions' runs, or of converted checkpoints, it may be another than the last
    LAST_EPOCH: "last epoch",
    RATED_EPOCH: "epoch chosen on synthetic anomalies",
    OFFICIAL: "epoch that the public code kept",
}
NATIVE_CSV = "results_native.csv"
PROTOCOL = {
    "image_score": "maximum of the smoothed anomaly map",
    "pixels": "maps and masks at image_size",
    "aupro": "MVTec's: whole test set, 8-connected regions, all thresholds, FPR limit 0.3",
    "aupro_per_image": "each anomalous image on its own, 200 thresholds; for comparison with published tables only",
}
PROTOCOL_NATIVE = "masks as their files have them, maps enlarged bilinearly"
TRAINING = ("command", "started", "code", "environment")  # of config.json: how a run was made, not what it is
LOCAL_SETTINGS = ("data_root", "aux_path", "checkpoints")  # paths of one machine stay out of results.json


@dataclass(frozen=True)
class Scoring:
    """How runs are scored, and what is written beside the results."""

    device: torch.device
    batch_size: int = 16
    workers: int = 1  # threads that read files
    cache: str = "ram"
    cache_dir: Path = Path("cache")
    native: bool = False  # also at the masks' own resolution
    heat_maps: bool = False
    mvtec_maps: Path | None = None  # folder of TIFF maps
    skipped: Skipped = field(default_factory=dict)  # files left out of the samples
    unwritten: list[str] = field(default_factory=list)  # gets a line for each map that could not be written


@dataclass
class Scores:
    """The figures of one seed, category by category."""

    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    native: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)  # which they are of
    lost: dict[str, dict[str, int]] = field(default_factory=dict)  # regions without a pixel, by image
    images: list[ImageScore] = field(default_factory=list)


def open_test_data(
    run: Path, data_root: Path, args: argparse.Namespace
) -> tuple[DataSource, dict[str, list[Sample]], Skipped]:
    """The data set of a run, the test samples of each category asked for (all that were trained), and the files that
    --skip_bad left out.

    A trained category that is not in `data_root` is left out with a notice on stderr. Raises RunError for categories
    that the run has not trained, DataError for those without test images and for all errors in the test images.
    """
    categories = args.categories
    trained = trained_categories(run)
    if not trained:
        raise RunError(f"{run} has no category yet that is trained")
    untrained = [category for category in categories or [] if category not in trained]
    if untrained:
        raise RunError(f"{run} has no trained {', '.join(untrained)}; it has: {', '.join(trained)}")
    first = open_runs(run)[0]
    source = open_dataset(data_root, first.settings.dataset, categories or trained)
    if source.missing:
        print(printable(f"trained, but not in {data_root}: {', '.join(source.missing)}"), file=sys.stderr)
    # The training images are not looked at: scoring needs none, and a copy among them was refused in training.
    levels = {category: first.category(category).view.levels for category in source.categories}
    usable = usable_samples(
        source, ["test"], workers=args.workers, cache_dir=args.cache_dir, skip_bad=args.skip_bad, levels=levels
    )
    samples = {category: parts["test"] for category, parts in usable.samples.items()}
    empty = [category for category, found in samples.items() if not found]
    if empty:
        raise DataError(f"no test images of {', '.join(empty)} in {source.root}; there is nothing to score")
    return source, samples, usable.skipped


def read_test_sets(
    runs: Sequence[Run], samples: Mapping[str, Sequence[Sample]], size: int, how: Scoring
) -> Callable[[str], TestSet]:
    """Read the files of all categories as the models of `runs` are shown them, and return the function that gives a
    category's test set.

    Raises RunError if the seeds are not shown the same, DataError listing the files that cannot be read.
    """
    first = {category: runs[0].category(category) for category in samples}
    views = {category: files.view for category, files in first.items()}
    for files in (run.category(category) for run, category in product(runs[1:], samples)):
        if files.view != views[files.name]:
            other = first[files.name].view_file
            raise RunError(f"{files.view_file} differs from {other}: the seeds were not trained alike")
    store = ImageStore(size, how.workers, how.cache, how.cache_dir)
    stacks = store.open({category: evaluation_files(found, views[category]) for category, found in samples.items()})
    return lambda category: TestSet.of(samples[category], stacks(category), views[category])


def score_run(run: Path, samples: Mapping[str, Sequence[Sample]], root: Path, how: Scoring) -> str:
    """Score the categories of `samples` (test samples below the data set's `root`); returns the tables to print.

    Every seed of the run must have these categories trained. Raises RunError, CheckpointError and DataError for what
    cannot be used, UsageError for files of others where results or maps are to be written.
    """
    runs = open_runs(run)
    refuse_other_files(run, runs, samples, root, how)
    scores = {one.folder: Scores() for one in runs}
    size, epoch = runs[0].settings.image_size, which_epoch(runs[0])  # the same of all seeds
    thresholds = {(one, category): read_thresholds(one.folder, category) for one in runs for category in samples}
    test_sets = read_test_sets(runs, samples, size, how)
    for category, found in tqdm(samples.items(), desc="scoring", unit="category", disable=None):
        test_set = test_sets(category)
        if lost := find_lost_regions(found, size, how.workers):  # of all seeds alike
            for score in scores.values():
                score.lost[category] = lost
        for one in runs:
            score = scores[one.folder]
            prediction = score_category(one.category(category), found, test_set, score, how, run)
            score.images += image_scores(category, found, root, prediction.scores, thresholds[one, category])
    warn_of_lost_regions(scores[runs[0].folder].lost, size)
    test_files = {category: fingerprint(found, root) for category, found in samples.items()}
    for one in runs:
        score = scores[one.folder]
        write_scores(one.folder / SCORES, score.images)
        write_results(one.folder, [score], run_info(one, score, test_files, how))
    if runs != [Run(run)]:
        seeds = {"seeds": [one.settings.seed for one in runs]}
        about = {"protocol": {"epoch": epoch, **PROTOCOL}, "test_files": test_files, "skipped": how.skipped}
        write_results(run, list(scores.values()), seeds | about)
    return format_results(run, list(scores), list(scores.values()), EPOCHS[epoch])


def which_epoch(run: Run) -> str:
    """The epoch whose models a run holds, one of EPOCHS."""
    return OFFICIAL if run.settings.weights == OFFICIAL else run.settings.select


def refuse_other_files(
    run: Path, runs: Sequence[Run], samples: Mapping[str, Sequence[Sample]], root: Path, how: Scoring
) -> None:
    """UsageError if results or maps would be written over files that this program did not write."""
    folders, size = [one.folder for one in runs], runs[0].settings.image_size
    every = dict.fromkeys([run, *folders])
    tables = {RESULTS: RESULTS_JSON, "results.csv": RESULTS_CSV, NATIVE_CSV: RESULTS_CSV, SCORES: SCORES_CSV}
    for name, pattern in tables.items():
        refuse_foreign([folder / name for folder in every], begins_as(pattern), "move it away")
    for folder, (category, found) in product(folders, samples.items()):
        if how.heat_maps:
            refuse_other_maps(heat_map_paths(folder, category, found), found, root / category, is_heat_map(size))
        if how.mvtec_maps:
            paths = tiff_paths(how.mvtec_maps, run, folder, category, found)
            refuse_other_maps(paths, found, root / category, bears(ANOMALY_MAP))


def score_category(
    files: RunCategory, samples: Sequence[Sample], test_set: TestSet, scores: Scores, how: Scoring, run: Path
) -> Prediction:
    """Evaluate one trained category of one seed, and write its maps."""
    started, category, folder = time.perf_counter(), files.name, files.run.folder
    model, training_seconds = files.load_model()
    scores.models[category] = model_word(model, test_set.view)
    read_thresholds(folder, category, scores.models[category])  # refuses those of another model
    model = model.to(how.device).optimize_for_inference()
    prediction = predict_category(category, folder, model, test_set, how.batch_size)
    scores.rows[category] = prediction.evaluate(test_set)
    if how.native:
        scores.native[category] = prediction.evaluate_native(samples)
    trained = {} if which_epoch(files.run) == OFFICIAL else {"training": training_seconds}  # theirs is not known
    scores.seconds[category] = trained | {"testing": time.perf_counter() - started}
    if how.heat_maps:
        pictures = test_set.pictures(samples, how.workers)
        paths = heat_map_paths(folder, category, samples)
        how.unwritten.extend(save_heat_maps(paths, pictures, test_set.masks, prediction.maps))
    if how.mvtec_maps:
        paths = tiff_paths(how.mvtec_maps, run, folder, category, samples)
        how.unwritten.extend(save_tiffs(paths, samples, prediction.maps))
    return prediction


def predict_category(category: str, folder: Path, model: AAND, test_set: TestSet, batch_size: int) -> Prediction:
    """A category's prediction; RunError naming it and the images of which its model makes no finite numbers."""
    try:
        return Prediction.of(model, test_set, batch_size)
    except PredictionError as error:
        raise RunError(f"{category} in {folder}: {error}") from error


def run_info(
    run: Run, scores: Scores, test_files: Mapping[str, Any], how: Scoring
) -> dict[str, Any]:
    """All that results.json says beside the figures."""
    settings = run.config
    gone = ("select", "holdout") if settings["select"] == LAST_EPOCH else ()
    flags = {name: value for name, value in settings.items() if name not in (*TRAINING, *LOCAL_SETTINGS, *gone)}
    training = {name: settings[name] for name in TRAINING if name in settings}
    protocols = published_protocol(run.folder)
    return {
        "seed": settings.get("seed"),
        "protocol": {"epoch": which_epoch(run), **PROTOCOL},
        "settings": flags,
        "published_protocol": {category: protocols[category] for category in scores.rows if category in protocols},
        "training": training,
        "testing": {
            "command": shlex.join(["python", *sys.argv]),
            "code": code_version(),
            "environment": environment(),
            "device": str(how.device),
        },
        "seconds": scores.seconds,
        "models": scores.models,
        "test_files": test_files,
        "skipped": how.skipped,
        "lost_regions": scores.lost,
    }


def write_results(folder: Path, scores: Sequence[Scores], info: Mapping[str, Any]) -> None:
    """results.json and results.csv; with figures at native resolution also results_native.csv."""
    native = [s.native for s in scores]
    if any(native):
        write_csv(folder / NATIVE_CSV, native)
        info = info | {"native": {"protocol": PROTOCOL_NATIVE, **to_json(native)}}
    else:
        (folder / NATIVE_CSV).unlink(missing_ok=True)  # of an earlier scoring
    write_csv(folder / "results.csv", [s.rows for s in scores])
    write_json(folder / RESULTS, [s.rows for s in scores], info)


def format_results(run: Path, folders: Sequence[Path], scores: Sequence[Scores], epoch: str) -> str:
    """The tables to print: the result's, at native resolution where asked for, the published protocol where known."""
    over = f", mean ± standard deviation over {len(folders)} seeds" if len(folders) > 1 else ""
    tables = [printable(f"{run} ({epoch}{over})"), format_table([s.rows for s in scores])]
    if any(s.native for s in scores):
        tables += [f"At native resolution: {PROTOCOL_NATIVE}", format_table([s.native for s in scores])]
    protocols = [published_protocol(folder) for folder in folders]
    common = [category for category in scores[0].rows if all(category in protocol for protocol in protocols)]
    if common:
        tables.append(format_published_protocol([{c: protocol[c] for c in common} for protocol in protocols]))
    return "\n".join(tables)
