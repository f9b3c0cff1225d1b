"""Build the report of a run folder: load the models, predict the test set again, and write the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.anomalies.textures import list_textures
from datasets.base import DataError, Sample
from datasets.files import texture_files, training_files
from datasets.problems import count
from datasets.sizes import height_width, in_words
from datasets.view import View
from models.aand import AAND
from models.recipes import METHODS
from utils.data.image_store import FileStack
from utils.detection.prediction import load_predictor
from utils.detection.test_set import TestSet, find_lost_regions
from utils.detection.thresholds import read_thresholds
from utils.metrics.tables import Statistic
from utils.report.page import CategoryReport, build_page, build_section
from utils.report.stage1 import Stage1Picture, picture_stage1
from utils.results.record import EPOCHS, read_results, which_epoch
from utils.results.scoring import Scoring, predict_category, read_test_sets, score_run
from utils.runs.checkpoint import model_word
from utils.runs.folder import RESULTS, Run, RunCategory, open_runs
from utils.runs.history import published_protocol, read_metrics
from utils.system.errors import command
from utils.system.files import write_text

STAGE1_EXAMPLES = 4


def write_report(
    path: Path, run: Path, samples: Mapping[str, Sequence[Sample]], root: Path, scoring: Scoring,
    most_images: int = 200,
) -> None:
    """Write the report of a run over the categories of `samples`, test samples below the data set's `root`, with at
    most so many images of a category in its gallery; score the run first where it has no results of them.

    With several seeds the table is over all of them, charts and pictures are of the first.
    """
    seeds = open_runs(run)
    for category in samples:
        read_thresholds(seeds[0].folder, category)  # those that cannot be read are an error now
    if not all(is_scored(seed, run, samples) for seed in seeds):
        score_run(run, samples, root, scoring)
    first, folders = seeds[0], [seed.folder for seed in seeds]
    test_sets = read_test_sets(seeds[:1], samples, scoring.store(first.settings.image_size))
    sections = [
        build_section(
            report_category(first.category(category), images, test_sets(category), scoring, most_images),
            is_open=len(samples) == 1,
        )
        for category, images in tqdm(samples.items(), desc="report", unit="category", disable=None)
    ]
    results = [read_results(folder, run)["categories"] for folder in folders]
    page = build_page(
        title=f"AAND report: {run.resolve().name}",
        facts=describe_runs(seeds) | lost_regions(first, samples, scoring.workers),
        runs=[{category: rows[category] for category in samples} for rows in results],
        gains=published_gains(folders, samples),
        sections=sections,
        commands=[first.settings.command, command("test.py", "--data_root", root, "--run", run)],
    )
    write_text(path, page)


def report_category(
    files: RunCategory, samples: Sequence[Sample], test_set: TestSet, scoring: Scoring, most_images: int
) -> CategoryReport:
    """Predict a category's test set once more, and gather what its section needs."""
    category, folder = files.name, files.run.folder
    predictor, model, _ = load_predictor(files, scoring.device, scoring.batch_size)
    thresholds = read_thresholds(folder, category, predictor.word)  # refuses those of another model
    return CategoryReport(
        name=category,
        samples=samples,
        test_set=test_set,
        pictures=test_set.pictures(samples, scoring.workers),
        prediction=predict_category(files, predictor, test_set),
        records=[record for record in read_metrics(folder) if record["category"] == category],
        stage1=picture_examples(model, files, samples, test_set.view, scoring.workers),
        most_images=most_images,
        thresholds=thresholds,
    )


def picture_examples(
    model: AAND, files: RunCategory, samples: Sequence[Sample], view: View, workers: int
) -> list[Stage1Picture]:
    """Picture what Stage I does to synthetic anomalies on good test images; nothing where the method has no Stage I."""
    paths = [sample.image_path for sample in samples if not sample.label][:STAGE1_EXAMPLES]
    if not files.run.recipe.amplified or not paths:
        return []
    settings = files.run.settings
    images = training_files(paths, settings.dataset, files.name, None, view)
    good = FileStack(images, settings.image_size, workers)[:STAGE1_EXAMPLES]  # (N, h, w, 4)
    try:
        texture_paths = list_textures(settings.aux_path or "builtin")
    except DataError:  # those of the training are no longer there
        texture_paths = list_textures("builtin")
    textures = FileStack(texture_files(texture_paths), settings.image_size, workers)
    return picture_stage1(model, good[..., :3], good[..., 3], textures, settings.seed or 0)


def is_scored(seed: Run, run: Path, categories: Iterable[str]) -> bool:
    """Tell whether a seed of a run has results of all categories, and of the models that are there; earlier results do
    not say of which they are."""
    if not (seed.folder / RESULTS).is_file():
        return False
    results = read_results(seed.folder, run)
    models = results["models"] if isinstance(results.get("models"), dict) else {}
    return all(
        one.name in results["categories"]
        and (one.name not in models or models[one.name] == model_word(one.load_model()[0], one.view))
        for one in map(seed.category, categories)
    )


def describe_runs(runs: Sequence[Run]) -> dict[str, str]:
    """Facts of a run, one a seed, in words."""
    settings = runs[0].config
    seeds = ", ".join(str(run.config.get("seed", "not known")) for run in runs)
    names = {"method": "Method", "backbone": "Teacher", "dataset": "Data set"}
    facts = {name: str(settings[key]) for key, name in names.items()}
    facts["Image size"] = in_words(settings["image_size"])
    if settings["tiles"] != 1:
        facts["Windows"] = " x ".join(map(str, height_width(settings["tiles"])))
    if settings["roi"]:
        facts["Region of interest"] = settings["roi"]
    if "epochs_stage2" in settings:
        stages = [settings["epochs_stage1"]] if runs[0].recipe.amplified else []
        facts["Epochs"] = " + ".join(map(str, [*stages, settings["epochs_stage2"]]))
    if len(METHODS[settings["method"]]) > 1:
        facts["Recipe"] = settings["recipe"]
    facts["Result"] = EPOCHS[which_epoch(runs[0])]
    if len(runs) > 1:
        facts |= {"Seeds": seeds, "Charts and pictures": f"of seed {seeds.split(',')[0]}"}
    else:
        facts["Seed"] = seeds
    code = settings.get("code") or {}
    if "commit" in code:
        facts["Code"] = code["commit"][:10] + (" with changes" if code["changed"] else "")
    facts["Trained"] = settings["started"]
    return facts


def lost_regions(run: Run, samples: Mapping[str, Sequence[Sample]], workers: int) -> dict[str, str]:
    """The number of anomalous regions that the pixel metrics do not see, in words; nothing where they see all."""
    sizes = {category: run.category(category).view.map_size(run.settings.image_size) for category in samples}
    lost = [
        number for category, images in samples.items()
        for number in find_lost_regions(images, sizes[category], workers).values()
    ]
    at = ", ".join(dict.fromkeys(map(in_words, sizes.values())))
    regions = f"{count(sum(lost), 'anomalous region')} in {count(len(lost), 'image')}, without a pixel at {at} px"
    return {"Not in pixel metrics": regions} if lost else {}


def published_gains(folders: Sequence[Path], categories: Iterable[str]) -> dict[str, Statistic]:
    """Gain in image AUROC of the best test epoch over the result, where every seed logged it; under "" its mean over
    these categories."""
    protocols = [published_protocol(folder) for folder in folders]
    gains = {
        category: [protocol[category]["gain"]["image_auroc"] for protocol in protocols]
        for category in categories
        if all(category in protocol for protocol in protocols)
    }
    if gains:
        gains[""] = np.mean(list(gains.values()), axis=0).tolist()
    return {category: Statistic.over(values) for category, values in gains.items()}
