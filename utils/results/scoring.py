"""Score a run on the test set: tables, results.csv, results.json and scores.csv, heat maps, maps for MVTec's
evaluation.

A run of several seeds holds one run folder a seed; each gets its own results, and the run their mean and standard
deviation.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from datasets.base import Sample
from datasets.marks import ANOMALY_MAP
from utils.data.decoded_files import DecodedFiles
from utils.data.image_store import ImageStore
from utils.data.preflight import Skipped
from utils.detection.prediction import Prediction, Predictor, load_predictor
from utils.detection.test_set import TestSet, find_lost_regions, fingerprint, warn_of_lost_regions
from utils.detection.thresholds import read_thresholds
from utils.results import record
from utils.results.image_scores import SCORES, image_scores, write_scores
from utils.results.maps import (
    heat_map_paths,
    is_heat_map,
    refuse_other_maps,
    save_heat_maps,
    save_tiffs,
    tiff_paths,
)
from utils.results.record import PROTOCOL, Scores, format_results, seed_record, which_epoch, write_results
from utils.results.test_data import Samples, read_test_sets
from utils.runs.folder import RESULTS, Run, RunCategory, open_runs
from utils.runs.settings import OFFICIAL
from utils.system.errors import PredictionError, RunError
from utils.system.own_files import RESULTS_CSV, RESULTS_JSON, SCORES_CSV, bears, begins_as, refuse_foreign


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """The way runs are scored, and what is written beside the results."""

    device: torch.device
    command: str  # that results.json keeps
    batch_size: int = 16
    workers: int = 1  # threads that read files
    cache: str = "ram"
    cache_dir: Path = Path("cache")
    native: bool = False  # also at the masks' own resolution
    heat_maps: bool = False
    mvtec_maps: Path | None = None  # folder of TIFF maps
    skipped: Skipped = field(default_factory=dict)  # files left out of the samples
    decoded: DecodedFiles = field(default_factory=DecodedFiles)  # files that the check has opened

    def store(self, size: int) -> ImageStore:
        return ImageStore(size, self.workers, self.cache, self.cache_dir, self.decoded)


class Scored(NamedTuple):
    """The tables to print, and a line for each map that could not be written."""

    tables: str
    unwritten: list[str]


def score_run(run: Path, samples: Samples, root: Path, options: Scoring) -> Scored:
    """Score the categories of `samples` (test samples below the data set's `root`), and write the results.

    Every seed of the run must have these categories trained. Raises RunError, CheckpointError and DataError for what
    cannot be used, UsageError for files of others where results or maps are to be written.
    """
    runs = open_runs(run)
    refuse_other_files(run, runs, samples, root, options)
    seeds, size = [Scores(one) for one in runs], runs[0].settings.image_size
    for one, category in product(runs, samples):
        read_thresholds(one.folder, category)  # those that cannot be read are an error now
    test_sets = read_test_sets(runs, samples, options.store(size))
    lost, unwritten = {}, []
    for category, tests in tqdm(samples.items(), desc="scoring", unit="category", disable=None):
        test_set = test_sets(category)
        if regions := find_lost_regions(tests, size, options.workers, options.decoded.mask):
            lost[category] = regions
        for scores in seeds:
            files = scores.run.category(category)
            prediction = score_category(files, tests, test_set, root, scores, options)
            unwritten += save_maps(files, tests, test_set, prediction, run, options)
    options.decoded.drop()
    warn_of_lost_regions(lost, size)
    tested = {
        "test_files": {category: fingerprint(tests, root) for category, tests in samples.items()},
        "skipped": options.skipped,
    }
    for scores in seeds:
        write_scores(scores.run.folder / SCORES, scores.images)
        of_seed = seed_record(scores, tested | {"lost_regions": lost}, options.command, str(options.device))
        write_results(scores.run.folder, [scores], of_seed)
    if runs != [Run(run)]:
        of_run = {"seeds": [one.settings.seed for one in runs]}
        of_run |= {"protocol": {"epoch": which_epoch(runs[0]), **PROTOCOL}} | tested  # the same of all seeds
        write_results(run, seeds, of_run)
    return Scored(format_results(run, seeds), unwritten)


def refuse_other_files(run: Path, runs: Sequence[Run], samples: Samples, root: Path, options: Scoring) -> None:
    """Raise UsageError if results or maps would be written over files that this program did not write."""
    folders, size = [one.folder for one in runs], runs[0].settings.image_size
    tables = {
        RESULTS: RESULTS_JSON, record.RESULTS_CSV: RESULTS_CSV, record.NATIVE_CSV: RESULTS_CSV, SCORES: SCORES_CSV
    }
    for name, pattern in tables.items():
        paths = [folder / name for folder in dict.fromkeys([run, *folders])]
        refuse_foreign(paths, begins_as(pattern), "move it away")
    for folder, (category, tests) in product(folders, samples.items()):
        if options.heat_maps:
            refuse_other_maps(heat_map_paths(folder, category, tests), tests, root / category, is_heat_map(size))
        if options.mvtec_maps:
            paths = tiff_paths(options.mvtec_maps, run, folder, category, tests)
            refuse_other_maps(paths, tests, root / category, bears(ANOMALY_MAP))


def score_category(
    files: RunCategory, samples: Sequence[Sample], test_set: TestSet, root: Path, scores: Scores, options: Scoring
) -> Prediction:
    """Evaluate one trained category of one seed."""
    started, category = time.perf_counter(), files.name
    predictor, _, training_seconds = load_predictor(files, options.device, options.batch_size)
    thresholds = read_thresholds(files.run.folder, category, predictor.word)  # refuses those of another model
    prediction = predict_category(files, predictor, test_set)
    scores.models[category] = predictor.word
    scores.rows[category] = test_set.evaluate(prediction)
    if options.native:
        scores.native[category] = test_set.evaluate_native(prediction, samples)
    trained = {} if which_epoch(files.run) == OFFICIAL else {"training": training_seconds}  # theirs is not known
    scores.seconds[category] = trained | {"testing": time.perf_counter() - started}
    scores.images += image_scores(category, samples, root, prediction.scores, thresholds)
    return prediction


def save_maps(
    files: RunCategory, samples: Sequence[Sample], test_set: TestSet, prediction: Prediction, run: Path,
    options: Scoring,
) -> list[str]:
    """Write the maps asked for of one category of one seed; returns a line for each that could not be written."""
    category, folder, unwritten = files.name, files.run.folder, []
    if options.heat_maps:
        pictures = test_set.pictures(samples, options.workers)
        paths = heat_map_paths(folder, category, samples)
        unwritten += save_heat_maps(paths, pictures, test_set.masks, prediction.maps)
    if options.mvtec_maps:
        paths = tiff_paths(options.mvtec_maps, run, folder, category, samples)
        unwritten += save_tiffs(paths, samples, prediction.maps)
    return unwritten


def predict_category(files: RunCategory, predictor: Predictor, test_set: TestSet) -> Prediction:
    """A category's prediction; RunError naming it and the images of which its model makes no finite numbers."""
    try:
        return predictor.maps(test_set.images, test_set.paths)
    except PredictionError as error:
        raise RunError(f"{files.name} in {files.run.folder}: {error}") from error
