"""From a run folder to its report: load the models, look at the test set again, and write the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.anomalies.textures import list_textures
from datasets.base import DataError, Sample
from datasets.files import texture_files, training_files
from datasets.problems import count
from datasets.view import View
from models.aand import AAND
from models.recipes import METHODS
from utils.data.image_store import FileStack
from utils.detection.prediction import load_predictor
from utils.detection.test_set import TestSet, find_lost_regions
from utils.metrics.tables import Statistic
from utils.report.page import CategoryReport, build_page, build_section
from utils.report.stage1 import Stage1Picture, picture_stage1
from utils.results.record import EPOCHS, which_epoch
from utils.results.scoring import Scoring, predict_category, score_run
from utils.results.stored import read_results
from utils.results.test_data import read_test_sets
from utils.runs.checkpoint import model_word
from utils.runs.folder import RESULTS, Run, RunCategory, open_runs
from utils.runs.history import published_protocol, read_metrics
from utils.system.commands import command
from utils.system.files import write_text

STAGE1_EXAMPLES = 4


def write_report(
    path: Path, run: Path, samples: Mapping[str, Sequence[Sample]], root: Path, how: Scoring, most_images: int = 200
) -> None:
    """Write the report of a run over the categories of `samples`, test samples below the data set's `root`, with at
    most so many images of a category in its gallery; scores the run first where it has no results of them.

    With several seeds the table is over all of them, charts and pictures are of the first.
    """
    seeds = open_runs(run)
    if not all(is_scored(one, run, samples) for one in seeds):
        score_run(run, samples, root, how)
    first, size, folders = seeds[0], seeds[0].settings.image_size, [one.folder for one in seeds]
    test_sets = read_test_sets(seeds[:1], samples, how.store(size))
    sections = [
        build_section(look_at(first.category(category), found, test_sets(category), how, most_images))
        for category, found in tqdm(samples.items(), desc="report", unit="category", disable=None)
    ]
    runs = [{category: read_rows(folder, run)[category] for category in samples} for folder in folders]
    page = build_page(
        title=f"AAND report: {run.resolve().name}",
        facts=facts_of(seeds) | unseen(samples, size, how.workers),
        runs=runs,
        gains=published_gains(folders, samples),
        sections=sections,
        commands=[first.settings.command, command("test.py", "--data_root", root, "--run", run)],
    )
    write_text(path, page)


def look_at(
    files: RunCategory, samples: Sequence[Sample], test_set: TestSet, how: Scoring, most_images: int
) -> CategoryReport:
    """Predict a category's test set once more, and gather what its section shows."""
    category, folder = files.name, files.run.folder
    predictor, model, _ = load_predictor(files, how.device, how.batch_size)
    return CategoryReport(
        name=category,
        samples=samples,
        test_set=test_set,
        pictures=test_set.pictures(samples, how.workers),
        prediction=predict_category(files, predictor, test_set),
        records=[record for record in read_metrics(folder) if record["category"] == category],
        stage1=show_stage1(model, files, samples, test_set.view, how),
        most_images=most_images,
    )


def show_stage1(
    model: AAND, files: RunCategory, samples: Sequence[Sample], view: View, how: Scoring
) -> list[Stage1Picture]:
    """What Stage I does to synthetic anomalies on good test images; nothing where the method has no Stage I."""
    paths = [sample.image_path for sample in samples if not sample.label][:STAGE1_EXAMPLES]
    if not files.run.recipe.amplified or not paths:
        return []
    settings = files.run.settings
    size = settings.image_size
    images = training_files(paths, settings.dataset, files.name, None, view)
    good = FileStack(images, size, how.workers)[:]  # (N, S, S, 4)
    textures = FileStack(texture_files(training_textures(settings.aux_path)), size, how.workers)  # few are drawn
    return picture_stage1(model, good[..., :3], good[..., 3], textures, settings.seed or 0)


def training_textures(aux_path: str | None) -> list[Path]:
    """The textures of the training, or those that come with scikit-image where these are no longer there."""
    try:
        return list_textures(aux_path or "builtin")
    except DataError:
        return list_textures("builtin")


def is_scored(seed: Run, run: Path, categories: Iterable[str]) -> bool:
    """Whether a seed of a run has results of all categories, and of the models that are there; earlier results do not
    say of which they are."""
    if not (seed.folder / RESULTS).is_file():
        return False
    results = read_results(seed.folder, run)
    models = results["models"] if isinstance(results.get("models"), dict) else {}
    for category in categories:
        if category not in results["categories"]:
            return False
        if category in models:
            model, _ = seed.category(category).load_model()
            if models[category] != model_word(model, seed.category(category).view):
                return False
    return True


def read_rows(folder: Path, run: Path) -> dict[str, dict[str, float]]:
    """The results of one seed of a run, {category: {metric: value}}; empty where it has not been scored."""
    return read_results(folder, run)["categories"] if (folder / RESULTS).is_file() else {}


def facts_of(runs: Sequence[Run]) -> dict[str, str]:
    """Facts of a run, one a seed, in words."""
    settings = runs[0].config
    seeds = ", ".join(str(run.config.get("seed", "not known")) for run in runs)
    names = {"method": "Method", "backbone": "Teacher", "dataset": "Data set", "image_size": "Image size"}
    facts = {name: str(settings[key]) for key, name in names.items()}
    if "epochs_stage2" in settings:
        stages = [settings["epochs_stage1"]] if runs[0].recipe.amplified else []
        facts["Epochs"] = " + ".join(map(str, [*stages, settings["epochs_stage2"]]))
    if len(METHODS[settings["method"]]) > 1:
        facts["Recipe"] = settings["recipe"]
    facts["Result"] = EPOCHS[which_epoch(runs[0])]
    facts["Seeds" if len(runs) > 1 else "Seed"] = seeds
    if len(runs) > 1:
        facts["Charts and pictures"] = f"of seed {seeds.split(',')[0]}"
    code = settings.get("code") or {}
    if "commit" in code:
        facts["Code"] = code["commit"][:10] + (" with changes" if code["changed"] else "")
    facts["Trained"] = settings["started"]
    return facts


def unseen(samples: Mapping[str, Sequence[Sample]], size: int, workers: int) -> dict[str, str]:
    """Which anomalous regions the pixel metrics do not see, in words; nothing where they see all."""
    lost = [number for found in samples.values() for number in find_lost_regions(found, size, workers).values()]
    regions = f"{count(sum(lost), 'anomalous region')} in {count(len(lost), 'image')}, without a pixel at {size} px"
    return {"Not in pixel metrics": regions} if lost else {}


def published_gains(folders: Sequence[Path], categories: Iterable[str]) -> dict[str, Statistic]:
    """By how much the best test epoch is above the result in image AUROC, where every seed logged it; under "" the mean
    of these categories."""
    protocols = [published_protocol(folder) for folder in folders]
    gains = {
        category: [protocol[category]["gain"]["image_auroc"] for protocol in protocols]
        for category in categories
        if all(category in protocol for protocol in protocols)
    }
    if gains:
        gains[""] = np.mean(list(gains.values()), axis=0).tolist()
    return {category: Statistic.over(values) for category, values in gains.items()}
