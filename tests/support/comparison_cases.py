"""Scored runs for the tests of comparisons: results.json as test.py writes it, with what these tests vary."""

from __future__ import annotations

import json
from pathlib import Path

from utils.results.comparison import Run

HEADLINE = ["image_auroc", "pixel_auroc", "aupro"]


def scored(seed=0, categories=None, *, settings=None, sha256=None, gains=None, **parts):
    """The results.json of one seed; `gains` {category: gain of the published protocol}, sha256 {category: sha256}."""
    categories = {"tile": {"image_auroc": 0.5}} if categories is None else categories
    made = {"code": {"commit": "0123456789abcdef", "changed": False}, "environment": {"torch": "2.4.0"}}
    flags = {"method": "aand", "lr": 0.005, "seed": seed, "categories": list(categories), "workers": 1}
    files = {name: {"count": 2, "sha256": (sha256 or {}).get(name, "same")} for name in categories}
    chosen = {name: {"epoch": 1, "metrics": {}, "gain": {"image_auroc": gain}} for name, gain in (gains or {}).items()}
    return {
        "categories": categories, "mean": {}, "seed": seed, "protocol": {"epoch": "last"},
        "settings": flags | (settings or {}), "published_protocol": chosen, "training": made, "testing": made,
        "test_files": files, **parts,
    }


def write_run(folder: Path, *seeds: dict) -> Path:
    """A results folder, of one seed or of several."""
    for one in seeds:
        place = folder if len(seeds) == 1 else folder / f"seed{one['seed']}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "results.json").write_text(json.dumps(one), encoding="utf-8")
    return folder


def seeds_of(metric: str, *values: float, category: str = "tile") -> list[dict]:
    return [scored(seed, {category: {metric: value}}) for seed, value in enumerate(values)]


def entry_of(comparison, category, metric):
    [entry] = [e for e in [*comparison.entries, *comparison.means] if (e.category, e.metric) == (category, metric)]
    return entry


def two_runs() -> list[Run]:
    """Two seeds each; PRO is missing for wood, and for one seed of the second run's tile."""
    first = [
        scored(0, {"tile": {"image_auroc": 0.5, "pixel_auroc": 0.9, "aupro": 0.5}, "wood": {"image_auroc": 0.9}}),
        scored(1, {"tile": {"image_auroc": 0.6, "pixel_auroc": 0.9, "aupro": 0.5}, "wood": {"image_auroc": 1.0}}),
    ]
    second = [
        scored(0, {"tile": {"image_auroc": 0.7, "pixel_auroc": 0.95, "aupro": 0.5}, "wood": {"image_auroc": 0.95}}),
        scored(1, {"tile": {"image_auroc": 0.8, "pixel_auroc": 0.95}, "wood": {"image_auroc": 0.93}}),
    ]
    return [Run("base", first), Run("ours", second)]
