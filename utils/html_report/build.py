"""From a run folder to its report: load the models, look at the test set again, and write the page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.base import DataError, Sample
from datasets.loading import load_foregrounds, load_stack
from datasets.synthesis import list_textures
from models.amplification import AmplifiedTeacher
from utils.checkpoint import load_model
from utils.evaluation import Prediction, TestSet
from utils.html_report.page import CategoryReport, build_page, build_section
from utils.html_report.pictures import Stage1Picture, picture_stage1
from utils.misc import write_text
from utils.report import Statistic
from utils.runs import RESULTS, published_protocol, read_config, read_metrics, seed_folders
from utils.scoring import Scoring, score_run

STAGE1_EXAMPLES = 4


@dataclass(frozen=True)
class ReportOptions:
    """What goes into a report, and how it is computed."""

    device: torch.device
    batch_size: int = 16
    workers: int = 1  # threads that read files
    most_images: int = 200  # of a category in its gallery


def write_report(
    path: Path, run: Path, samples: Mapping[str, Sequence[Sample]], root: Path, how: ReportOptions
) -> None:
    """Write the report of a run over the categories of `samples`, test samples below the data set's `root`; scores the
    run first where it has no results of them.

    With several seeds the table is over all of them, charts and pictures are of the first.
    """
    folders = seed_folders(run)
    if any(category not in rows for rows in map(read_rows, folders) for category in samples):
        score_run(run, samples, root, Scoring(how.device, how.batch_size, how.workers))
    shown, settings = folders[0], read_config(folders[0])
    textures = load_textures(settings, how.workers) if settings["method"] == "aand" else None
    sections = [
        build_section(look_at(shown, category, found, settings, textures, how))
        for category, found in tqdm(samples.items(), desc="report", unit="category", disable=None)
    ]
    runs = [{category: read_rows(folder)[category] for category in samples} for folder in folders]
    page = build_page(
        title=f"AAND report: {run.resolve().name}",
        facts=facts_of(settings, folders),
        runs=runs,
        gains=published_gains(folders, samples),
        sections=sections,
        commands=[settings["command"], f"python test.py --data_root {root} --run {run}"],
    )
    write_text(path, page)


def look_at(
    folder: Path, category: str, samples: Sequence[Sample], settings: Mapping[str, Any], textures: Tensor | None,
    how: ReportOptions,
) -> CategoryReport:  # fmt: skip
    """Predict a category's test set once more, and gather what its section shows."""
    model, _ = load_model(folder, category, settings)
    model = model.to(how.device, memory_format=torch.channels_last)
    test_set = TestSet.load(samples, settings["image_size"], how.workers)
    stage1: list[Stage1Picture] = []
    if isinstance(model.teacher, AmplifiedTeacher):
        chosen = [index for index, sample in enumerate(samples) if not sample.label][:STAGE1_EXAMPLES]
        if chosen:
            paths, images = zip(*((samples[i].image_path, test_set.images[i].numpy()) for i in chosen), strict=True)
            size = settings["image_size"]
            foregrounds, _ = load_foregrounds(paths, settings["dataset"], category, None, size, how.workers)
            stage1 = picture_stage1(model, images, foregrounds.numpy(), textures, settings.get("seed", 0))
    return CategoryReport(
        name=category,
        samples=samples,
        test_set=test_set,
        prediction=Prediction.of(model, test_set, how.batch_size),
        records=[record for record in read_metrics(folder) if record["category"] == category],
        stage1=stage1,
        most_images=how.most_images,
    )


def load_textures(settings: Mapping[str, Any], workers: int) -> Tensor:
    """The textures of the training, or those that come with scikit-image where these are no longer there."""
    try:
        paths = list_textures(settings.get("aux_path") or "builtin")
    except DataError:
        paths = list_textures("builtin")
    return load_stack(paths, settings["image_size"], workers)


def read_rows(folder: Path) -> dict[str, dict[str, float]]:
    """The results of one seed, {category: {metric: value}}; empty where it has not been scored."""
    path = folder / RESULTS
    return json.loads(path.read_text(encoding="utf-8"))["categories"] if path.is_file() else {}


def facts_of(settings: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, str]:
    """What the run is, in words."""
    seeds = ", ".join(str(read_config(folder).get("seed", "not known")) for folder in folders)
    names = {"method": "Method", "backbone": "Teacher", "dataset": "Data set", "image_size": "Image size"}
    facts = {name: str(settings[key]) for key, name in names.items()}
    if "epochs_stage2" in settings:
        stages = [settings["epochs_stage1"]] if settings["method"] == "aand" else []
        facts["Epochs"] = " + ".join(map(str, [*stages, settings["epochs_stage2"]]))
    facts["Seeds" if len(folders) > 1 else "Seed"] = seeds
    if len(folders) > 1:
        facts["Charts and pictures"] = f"of seed {seeds.split(',')[0]}"
    code = settings.get("code") or {}
    if "commit" in code:
        facts["Code"] = code["commit"][:10] + (" with changes" if code["changed"] else "")
    facts["Trained"] = settings["started"]
    return facts


def published_gains(folders: Sequence[Path], categories: Iterable[str]) -> dict[str, Statistic]:
    """By how much the best test epoch is above the last in image AUROC, where every seed logged it; under "" the mean
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
