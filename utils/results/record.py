"""The record of a scored run: results.json, results.csv, scores.csv and printed tables, and results.json read again,
checked as far as programs read it. No torch is imported for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from msgspec import Meta, Struct

from datasets.base import Sample
from datasets.names import csv_line, printable
from datasets.plain_json import read_json, read_text, typed
from utils.metrics.tables import format_published_protocol, format_table, mean_row, to_json, write_csv, write_json
from utils.runs.folder import RESULTS, Run, list_seeds
from utils.runs.history import published_protocol
from utils.runs.settings import CONFIG, EARLIER, LAST_EPOCH, OFFICIAL, RATED_EPOCH, Code, describe
from utils.system.environment import code_version, environment
from utils.system.errors import RunError, command
from utils.system.files import write_text

if TYPE_CHECKING:
    from utils.detection.thresholds import Thresholds

EPOCHS = {  # of earlier versions' runs, or of converted checkpoints, it may be another than the last
    LAST_EPOCH: "last epoch",
    RATED_EPOCH: "epoch chosen on synthetic anomalies",
    OFFICIAL: "epoch that the public code kept",
}
RESULTS_CSV, NATIVE_CSV, SCORES = "results.csv", "results_native.csv", "scores.csv"
PROTOCOL = {
    "image_score": "maximum of the smoothed anomaly map",
    "pixels": "maps and masks at image_size",
    "aupro": "MVTec's: whole test set, 8-connected regions, all thresholds, FPR limit 0.3",
    "aupro_per_image": "each anomalous image on its own, 200 thresholds; for comparison with published tables only",
}
PROTOCOL_EXTRA = {  # of metrics that single data sets define
    "spro_mean": "MVTec LOCO AD's saturated PRO: logical and structural anomalies apart, each with all good images; "
                 "regions are mask files, saturation thresholds shares of them as the files have them; FPR limit 0.05",
    "aupro_005": "as aupro, FPR limit 0.05",
    "segf1": "MVTec AD 2's: pixels above mean + 3 standard deviations of the validation images' maps at image_size",
}
PROTOCOL_WINDOWS = "image score: the highest of the windows; maps and masks at the size that these cover"
PROTOCOL_NATIVE = "masks as their files have them, maps enlarged bilinearly"
TRAINING = ("command", "started", "code", "environment")  # of config.json: how a run was made, not what it is
LOCAL_SETTINGS = ("data_root", "aux_path", "checkpoints")  # paths of one machine stay out of results.json


class ImageScore(NamedTuple):
    """A line of scores.csv; without thresholds there is neither a p-value nor a verdict."""

    path: str  # below the data set's root, with forward slashes
    category: str
    defect: str
    label: int  # 1 = anomalous
    score: float
    p_value: float | None
    anomalous: bool | None


@dataclass
class Scores:
    """The figures of one seed, category by category."""

    run: Run
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    native: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)  # which they are of
    images: list[ImageScore] = field(default_factory=list)


def which_epoch(run: Run) -> str:
    """The epoch whose models a run holds, one of EPOCHS."""
    return OFFICIAL if run.settings.weights == OFFICIAL else run.settings.select


def protocol_of(scores: Scores) -> dict[str, str]:
    """The way the figures of a seed came about."""
    found = {metric for row in scores.rows.values() for metric in row}
    extra = {metric: text for metric, text in PROTOCOL_EXTRA.items() if metric in found}
    if scores.run.config["tiles"] != 1:
        extra["windows"] = PROTOCOL_WINDOWS
    return {"epoch": which_epoch(scores.run), **PROTOCOL, **extra}


def seed_record(scores: Scores, tested: Mapping[str, Any], called: str, device: str) -> dict[str, Any]:
    """All that results.json of one seed says beside the figures.

    tested: what is the same for all seeds; called, device: command and device of the scoring.
    """
    settings, protocols = scores.run.config, published_protocol(scores.run.folder)
    gone = ("select", "holdout") if settings["select"] == LAST_EPOCH else ()
    kept = {name: settings[name] for name in settings if name not in (*TRAINING, *LOCAL_SETTINGS, *gone)}
    return {
        "seed": settings.get("seed"),
        "protocol": protocol_of(scores),
        "settings": kept | {"roi": settings["roi"] and Path(settings["roi"]).name},  # the rest is of one machine
        "published_protocol": {category: protocols[category] for category in scores.rows if category in protocols},
        "training": {name: settings[name] for name in TRAINING if name in settings},
        "testing": {"command": called, "code": code_version(), "environment": environment(), "device": device},
        "seconds": scores.seconds,
        "models": scores.models,
        **tested,
    }


def write_results(folder: Path, scores: Sequence[Scores], record: Mapping[str, Any]) -> None:
    """Write results.json and results.csv; with figures at native resolution also results_native.csv."""
    rows, native = [seed.rows for seed in scores], [seed.native for seed in scores]
    if any(native):
        write_csv(folder / NATIVE_CSV, native)
        record = record | {"native": {"protocol": PROTOCOL_NATIVE, **to_json(native)}}
    else:
        (folder / NATIVE_CSV).unlink(missing_ok=True)  # of an earlier scoring
    write_csv(folder / RESULTS_CSV, rows)
    write_json(folder / RESULTS, rows, record)


def format_results(run: Path, scores: Sequence[Scores]) -> str:
    """The tables to print: the result's, at native resolution where asked for, the published protocol where known."""
    over = f", mean ± standard deviation over {len(scores)} seeds" if len(scores) > 1 else ""
    title = printable(f"{run} ({EPOCHS[which_epoch(scores[0].run)]}{over})")
    tables = [title, format_table([seed.rows for seed in scores])]
    if any(seed.native for seed in scores):
        tables += [f"At native resolution: {PROTOCOL_NATIVE}", format_table([seed.native for seed in scores])]
    protocols = [published_protocol(seed.run.folder) for seed in scores]
    common = [category for category in scores[0].rows if all(category in protocol for protocol in protocols)]
    if common:
        tables.append(format_published_protocol([{c: protocol[c] for c in common} for protocol in protocols]))
    return "\n".join(tables)


def image_scores(
    category: str, samples: Sequence[Sample], root: Path, scores: np.ndarray, thresholds: Thresholds | None
) -> list[ImageScore]:
    """The lines of a category's test images, whose scores (N,) are in their order."""
    rows = []
    for sample, score in zip(samples, scores.tolist(), strict=True):
        names = map(printable, (sample.image_path.relative_to(root).as_posix(), category, sample.defect))
        verdict = (thresholds.p_value(score), score > thresholds.image_threshold) if thresholds else (None, None)
        rows.append(ImageScore(*names, sample.label, score, *verdict))
    return rows


def write_scores(path: Path, rows: Iterable[ImageScore]) -> None:
    """Write scores in full precision."""
    write_text(path, "".join(map(csv_line, [ImageScore._fields, *rows])))


def merge_scores(paths: Sequence[Path], target: Path) -> None:
    """The lines of several such files, of which any may be missing, in one; nothing where all are."""
    if parts := [read_text(path).partition("\n") for path in paths if path.is_file()]:
        write_text(target, f"{parts[0][0]}\n" + "".join(lines for _, _, lines in parts))


class Gain(Struct):
    image_auroc: Annotated[float, Meta(ge=-1, le=1)]


class Chosen(Struct):
    gain: Gain


class Versions(Struct):
    code: Code | None = None
    environment: dict[str, Any] | None = None


class TestFiles(Struct):
    sha256: str


class Results(Struct):
    """The part of results.json that is compared; figures are fractions."""

    categories: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    training: Versions
    testing: Versions
    test_files: dict[str, TestFiles]
    published_protocol: dict[str, Chosen] = {}


def result_folders(run: Path) -> list[Path]:
    if not run.is_dir():
        raise RunError(f"there is no run folder {run}")
    return [run] if (run / CONFIG).is_file() else list_seeds(run) or [run]


def read_results(folder: Path, run: Path) -> dict[str, Any]:
    """results.json of one seed's folder in a run. Raises RunError if there is none, it cannot be used, or it is of
    another seed or start than the config.json beside it."""
    path = folder / RESULTS
    advice = f"write it with: {command('test.py', '--data_root', 'DIR', '--run', run)}"
    try:
        results = read_json(path)
    except FileNotFoundError:
        raise RunError(f"{folder} has no {RESULTS}; {advice}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); {advice}") from error
    try:
        checked = typed(results, Results)
        mean_row(results["categories"])
        if others := checked.categories.keys() - checked.test_files.keys():
            raise ValueError(f"test_files: none of {', '.join(sorted(others))}")
    except ValueError as error:
        raise RunError(f"{path} is broken, or of another version ({error}); {advice}") from error
    config = None
    with suppress(OSError, ValueError):  # results alone will do
        config = read_json(folder / CONFIG)
    said = {"seed": results.get("seed"), "started": results["training"].get("started")}
    for name, value in said.items() if isinstance(config, dict) else ():
        if value is not None and config.get(name) not in (None, value):
            differs = f"{name} {describe(value)}, not {describe(config[name])}"
            raise RunError(f"{path} is of another run than {folder / CONFIG}: {differs}; {advice}")
    return results | {"settings": EARLIER | results["settings"]}
