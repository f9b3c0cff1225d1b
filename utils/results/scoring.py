"""Score a run on the test set: tables, results.csv, results.json and scores.csv, heat maps in the run folder, and float
TIFFs for MVTec's evaluation scripts. Each of several seeds gets its own results, the run mean and standard deviation.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from datasets import DataSource
from datasets.base import DataError, Sample, read_size
from datasets.files import evaluation_files
from datasets.marks import ANOMALY_MAP, HEAT_MAP, mark_of, tiff_bytes
from datasets.names import printable
from datasets.sizes import Size, height_width
from datasets.view import enlarge
from utils.data.decoded_files import DecodedFiles
from utils.data.image_store import ImageStore
from utils.data.preflight import Skipped, usable_samples
from utils.detection.output import map_paths
from utils.detection.prediction import Prediction, Predictor, load_predictor
from utils.detection.test_set import TestSet, find_lost_regions, fingerprint, warn_of_lost_regions
from utils.detection.thresholds import read_thresholds
from utils.drawing.heat_maps import map_limits, save_heat_map
from utils.metrics import evaluate
from utils.results import record
from utils.results.extra_metrics import EXTRA_METRICS, ExtraMetrics, Samples
from utils.results.record import SCORES, Scores
from utils.runs.folder import RESULTS, Run, RunCategory, open_runs, trained_categories
from utils.runs.settings import OFFICIAL
from utils.system import own_files
from utils.system.errors import PredictionError, RunError, UsageError
from utils.system.files import atomic_write
from utils.system.own_files import IsOurs, bears, begins_as, has_form, refuse_foreign


class TestData(NamedTuple):
    """A data set, the test samples of each category, and the files that were left out of them, with why."""

    source: DataSource
    samples: Samples
    skipped: Skipped
    decoded: DecodedFiles  # files that the check has opened


def open_test_data(
    run: Path, data_root: Path, *, categories: Sequence[str] | None, workers: int, cache_dir: Path, skip_bad: bool
) -> TestData:
    """Open the data set of a run, and check the test files of the categories asked for, or all that were trained.

    A trained category that is not in `data_root` is left out with a notice on stderr. Raises RunError for categories
    that the run has not trained, DataError for those without test images and for all errors in the test images.
    """
    trained, first = trained_categories(run), open_runs(run)[0]
    if not trained:
        raise RunError(f"{run} has no category yet that is trained")
    if untrained := [category for category in categories or [] if category not in trained]:
        raise RunError(f"{run} has no trained {', '.join(untrained)}; it has: {', '.join(trained)}")
    source = first.settings.open_data(categories or trained, data_root)
    if source.missing:
        print(printable(f"trained, but not in {data_root}: {', '.join(source.missing)}"), file=sys.stderr)
    # The training images are not checked: scoring needs none, and a copy among them was refused in training.
    levels = {category: first.category(category).view.levels for category in source.categories}
    usable = usable_samples(source, ["test"], workers=workers, cache_dir=cache_dir, skip_bad=skip_bad, levels=levels)
    samples = {category: parts["test"] for category, parts in usable.samples.items()}
    if empty := [category for category, tests in samples.items() if not tests]:
        raise DataError(f"no test images of {', '.join(empty)} in {source.root}; there is nothing to score")
    return TestData(source, samples, usable.skipped, usable.decoded)


def read_test_sets(runs: Sequence[Run], samples: Samples, store: ImageStore) -> Callable[[str], TestSet]:
    """Read the files of all categories as the models of `runs` are shown them; the result gives a category's test set.

    Raises RunError if the seeds are not shown the same, DataError listing the files that cannot be read.
    """
    first = {category: runs[0].category(category) for category in samples}
    views = {category: files.view for category, files in first.items()}
    for files in (run.category(category) for run, category in product(runs[1:], samples)):
        if files.view != views[files.name]:
            other = first[files.name].view_file
            raise RunError(f"{files.view_file} differs from {other}: the seeds were not trained alike")
    stacks = store.open({category: evaluation_files(tests, views[category]) for category, tests in samples.items()})
    store.decoded.drop("image")
    return lambda category: TestSet.of(samples[category], stacks(category), views[category])


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

    def store(self, size: Size) -> ImageStore:
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
    seeds = [Scores(one) for one in runs]
    for one, category in product(runs, samples):
        read_thresholds(one.folder, category)  # those that cannot be read are an error now
    size = runs[0].settings.image_size
    test_sets = read_test_sets(runs, samples, options.store(size))
    extra = EXTRA_METRICS.get(runs[0].settings.dataset, ExtraMetrics)(runs[0], samples, root, options.store(size))
    lost, sizes, unwritten = {}, {}, []
    for category, tests in tqdm(samples.items(), desc="scoring", unit="category", disable=None):
        test_set = test_sets(category)
        sizes[category] = test_set.map_size
        if regions := find_lost_regions(tests, test_set.map_size, options.workers, options.decoded.mask):
            lost[category] = regions
        for scores in seeds:
            files = scores.run.category(category)
            prediction = score_category(files, tests, test_set, root, scores, extra, options)
            unwritten += save_maps(files, tests, test_set, prediction, run, options)
    options.decoded.drop()
    warn_of_lost_regions(lost, sizes)
    tested = {  # the same of all seeds
        "test_files": {category: fingerprint(tests, root) for category, tests in samples.items()},
        "skipped": options.skipped,
    }
    for scores in seeds:
        record.write_scores(scores.run.folder / SCORES, scores.images)
        of_seed = record.seed_record(scores, tested | {"lost_regions": lost}, options.command, str(options.device))
        record.write_results(scores.run.folder, [scores], of_seed)
    if runs != [Run(run)]:
        of_run = {
            "seeds": [one.settings.seed for one in runs],
            "protocol": record.protocol_of(seeds[0]),
            **tested,
        }
        record.write_results(run, seeds, of_run)
    return Scored(record.format_results(run, seeds), unwritten)


def refuse_other_files(run: Path, runs: Sequence[Run], samples: Samples, root: Path, options: Scoring) -> None:
    """Raise UsageError if results or maps would be written over files that this program did not write."""
    folders, (height, width) = [one.folder for one in runs], height_width(runs[0].settings.image_size)
    earlier = 2 * width, height
    tables = {
        RESULTS: own_files.RESULTS_JSON, record.RESULTS_CSV: own_files.RESULTS_CSV,
        record.NATIVE_CSV: own_files.RESULTS_CSV, SCORES: own_files.SCORES_CSV,
    }
    for name, pattern in tables.items():
        paths = [folder / name for folder in dict.fromkeys([run, *folders])]
        refuse_foreign(paths, begins_as(pattern), "move it away")
    for folder, (category, tests) in product(folders, samples.items()):
        if options.heat_maps:
            refuse_other_maps(
                heat_map_paths(folder, category, tests), tests, root / category,
                lambda path: mark_of(path) == HEAT_MAP or has_form(path, "RGB", earlier),  # these were without marks
            )
        if options.mvtec_maps:
            paths = tiff_paths(options.mvtec_maps, run, folder, category, tests)
            refuse_other_maps(paths, tests, root / category, bears(ANOMALY_MAP))


def refuse_other_maps(paths: Sequence[Path], samples: Sequence[Sample], category: Path, is_ours: IsOurs) -> None:
    """Raise UsageError if maps would be written over files of others, or into the category's folder of the data set."""
    data = {sample.image_path.parent.resolve() for sample in samples} | {category.resolve()}
    for folder in {path.parent.resolve() for path in paths}:
        if any(folder.is_relative_to(images) for images in data):
            raise UsageError(f"maps in {folder} would lie among the images of the data set: choose another folder")
    refuse_foreign(paths, is_ours, "choose another folder for the maps, or move it away")


def heat_map_paths(folder: Path, category: str, samples: Sequence[Sample]) -> list[Path]:
    return map_paths(folder / "maps" / category, [f"{sample.name}.png" for sample in samples])


def tiff_paths(maps: Path, run: Path, folder: Path, category: str, samples: Sequence[Sample]) -> list[Path]:
    """Paths as MVTec's scripts read them, given the folder that holds <object>/test/: of several seeds, one a seed."""
    return map_paths(maps / folder.relative_to(run) / category / "test", [f"{sample.name}.tiff" for sample in samples])


def score_category(
    files: RunCategory, samples: Sequence[Sample], test_set: TestSet, root: Path, scores: Scores, extra: ExtraMetrics,
    options: Scoring,
) -> Prediction:
    """Evaluate one trained category of one seed."""
    started, category = time.perf_counter(), files.name
    predictor, _, training_seconds = load_predictor(files, options.device, options.batch_size)
    thresholds = read_thresholds(files.run.folder, category, predictor.word)  # refuses those of another model
    prediction = predict_category(files, predictor, test_set)
    scores.models[category] = predictor.word
    measure = extra.measure(category, predictor, prediction)
    scores.rows[category] = test_set.evaluate(prediction) | measure(test_set.masks, prediction.maps, False)
    if options.native:
        masks, maps = test_set.at_native(prediction, samples)
        scores.native[category] = evaluate(test_set.labels, prediction.scores, masks, maps) | measure(masks, maps, True)
    trained = {} if record.which_epoch(files.run) == OFFICIAL else {"training": training_seconds}  # theirs is not known
    scores.seconds[category] = trained | {"testing": time.perf_counter() - started}
    scores.images += record.image_scores(category, samples, root, prediction.scores, thresholds)
    return prediction


def save_maps(
    files: RunCategory, samples: Sequence[Sample], test_set: TestSet, prediction: Prediction, run: Path,
    options: Scoring,
) -> list[str]:
    """Write the maps asked for of one category of one seed; returns a line for each that could not be written."""
    category, folder, maps, masks, unwritten = files.name, files.run.folder, prediction.maps, test_set.masks, []
    if options.heat_maps:
        pictures, limits = test_set.pictures(samples, options.workers), map_limits(maps)
        weight = files.view.weight(maps.shape[1:])
        paths = heat_map_paths(folder, category, samples)
        for index, path in enumerate(tqdm(paths, desc="heat maps", unit="image", leave=False)):
            mask = None if masks is None else masks[index]
            try:
                save_heat_map(path, pictures[index].numpy(), maps[index], mask, limits, weight)
            except OSError as error:
                unwritten.append(str(error))
    if options.mvtec_maps:
        paths = tiff_paths(options.mvtec_maps, run, folder, category, samples)
        for path, sample, anomaly_map in zip(paths, samples, maps, strict=True):
            try:
                content = tiff_bytes(enlarge(anomaly_map, read_size(sample.image_path)), ANOMALY_MAP)
                with atomic_write(path) as temporary:
                    temporary.write_bytes(content)
            except (OSError, DataError) as error:
                unwritten.append(str(error))
    return unwritten


def predict_category(files: RunCategory, predictor: Predictor, test_set: TestSet) -> Prediction:
    """A category's prediction; RunError naming it and the images of which its model makes no finite numbers."""
    try:
        return predictor.maps(test_set.images, test_set.paths)
    except PredictionError as error:
        raise RunError(f"{files.name} in {files.run.folder}: {error}") from error
