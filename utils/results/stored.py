"""The results.json that test.py leaves in a run folder, checked as far as programs read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from datasets.plain_json import read_json, typed
from utils.metrics.tables import mean_row
from utils.runs.folder import RESULTS, list_seeds
from utils.runs.settings import CONFIG, EARLIER, Code, describe
from utils.system.errors import RunError, command


class Gain(Struct):
    """Gain of choosing the epoch on the test set, over a category's result."""

    image_auroc: Annotated[float, Meta(ge=-1, le=1)]


class Chosen(Struct):
    """A category's entry in the published protocol."""

    gain: Gain


class Versions(Struct):
    """Versions that a run was trained or scored with."""

    code: Code | None = None
    environment: dict[str, Any] | None = None


class TestFiles(Struct):
    """The test images of a category, as one word."""

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
    """results.json of one seed's folder in a run. Raises RunError if there is none, or it cannot be used."""
    path = folder / RESULTS
    advice = f"write it with: {command('test.py', '--data_root', 'DIR', '--run', run)}"
    try:
        results = read_json(path)
    except FileNotFoundError:
        raise RunError(f"{folder} has no {RESULTS}; {advice}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); {advice}") from error
    try:
        found = typed(results, Results)
        mean_row(results["categories"])
        if others := found.categories.keys() - found.test_files.keys():
            raise ValueError(f"test_files: none of {', '.join(sorted(others))}")
    except ValueError as error:
        raise RunError(f"{path} is broken, or of another version ({error}); {advice}") from error
    _refuse_other_run(path, results, folder, advice)
    return results | {"settings": EARLIER | results["settings"]}


def _refuse_other_run(path: Path, results: Mapping[str, Any], folder: Path, advice: str) -> None:
    """RunError for results beside the settings of another run: of another seed, or started at another time."""
    try:
        config = read_json(folder / CONFIG)
    except (OSError, ValueError):
        return  # results alone will do
    said = {"seed": results.get("seed"), "started": results["training"].get("started")}
    for name, value in said.items() if isinstance(config, dict) else ():
        if value is not None and config.get(name) not in (None, value):
            differs = f"{name} {describe(value)}, not {describe(config[name])}"
            raise RunError(f"{path} is of another run than {folder / CONFIG}: {differs}; {advice}")
