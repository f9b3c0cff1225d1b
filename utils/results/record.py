"""The record of a scored run: results.json, results.csv and printed tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets.names import printable
from utils.metrics.tables import format_published_protocol, format_table, to_json, write_csv, write_json
from utils.results.image_scores import ImageScore
from utils.runs.folder import RESULTS, Run
from utils.runs.history import published_protocol
from utils.runs.settings import LAST_EPOCH, OFFICIAL, RATED_EPOCH
from utils.system.environment import code_version, environment

EPOCHS = {  # of earlier versions' runs, or of converted checkpoints, it may be another than the last
    LAST_EPOCH: "last epoch",
    RATED_EPOCH: "epoch chosen on synthetic anomalies",
    OFFICIAL: "epoch that the public code kept",
}
RESULTS_CSV, NATIVE_CSV = "results.csv", "results_native.csv"
PROTOCOL = {
    "image_score": "maximum of the smoothed anomaly map",
    "pixels": "maps and masks at image_size",
    "aupro": "MVTec's: whole test set, 8-connected regions, all thresholds, FPR limit 0.3",
    "aupro_per_image": "each anomalous image on its own, 200 thresholds; for comparison with published tables only",
}
PROTOCOL_NATIVE = "masks as their files have them, maps enlarged bilinearly"
TRAINING = ("command", "started", "code", "environment")  # of config.json: how a run was made, not what it is
LOCAL_SETTINGS = ("data_root", "aux_path", "checkpoints")  # paths of one machine stay out of results.json


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


def seed_record(scores: Scores, tested: Mapping[str, Any], command: str, device: str) -> dict[str, Any]:
    """All that results.json of one seed says beside the figures.

    tested: what is the same for all seeds; command and device: of the scoring.
    """
    settings, protocols = scores.run.config, published_protocol(scores.run.folder)
    gone = ("select", "holdout") if settings["select"] == LAST_EPOCH else ()
    return {
        "seed": settings.get("seed"),
        "protocol": {"epoch": which_epoch(scores.run), **PROTOCOL},
        "settings": {name: settings[name] for name in settings if name not in (*TRAINING, *LOCAL_SETTINGS, *gone)},
        "published_protocol": {category: protocols[category] for category in scores.rows if category in protocols},
        "training": {name: settings[name] for name in TRAINING if name in settings},
        "testing": {"command": command, "code": code_version(), "environment": environment(), "device": device},
        "seconds": scores.seconds,
        "models": scores.models,
        **tested,
    }


def write_results(folder: Path, scores: Sequence[Scores], record: Mapping[str, Any]) -> None:
    """Write results.json and results.csv; with figures at native resolution also results_native.csv."""
    native = [seed.native for seed in scores]
    if any(native):
        write_csv(folder / NATIVE_CSV, native)
        record = record | {"native": {"protocol": PROTOCOL_NATIVE, **to_json(native)}}
    else:
        (folder / NATIVE_CSV).unlink(missing_ok=True)  # of an earlier scoring
    write_csv(folder / RESULTS_CSV, [seed.rows for seed in scores])
    write_json(folder / RESULTS, [seed.rows for seed in scores], record)


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
