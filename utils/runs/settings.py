"""What config.json and metrics.jsonl of a run may hold: each value of a kind that the programs can use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from datasets import DATASETS
from models import MAX_IMAGE_SIZE
from models.recipes import METHODS, RECIPES
from utils.metrics import METRICS

LAST_EPOCH, RATED_EPOCH = "last", "synthetic"  # "select" of earlier versions: which epoch is the result
SYNTHETIC = "synthetic_"  # prefix of the metrics that rated an epoch in these
MAX_FIGURE = 3.4e38  # float32 has none larger

Rule = tuple[Callable[[Any], bool], str]  # whether a value will do, and what will


def _one_of(names: Collection[str]) -> Rule:
    return lambda value: isinstance(value, str) and value in names, f"one of {', '.join(names)}"


def _integer(lowest: int) -> Rule:
    return lambda value: _is_integer(value) and value >= lowest, f"a whole number from {lowest} on"


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_code(value: Any) -> bool:
    """Whether it is as `utils.system.environment.code_version` gives it, or absent."""
    if not isinstance(value, dict | None):
        return False
    return not value or (isinstance(value.get("commit"), str) and isinstance(value.get("changed"), bool))


TEXT: Rule = (lambda value: isinstance(value, str), "a text")
SETTINGS: dict[str, Rule] = {
    "method": _one_of(METHODS),
    "recipe": _one_of(RECIPES),
    "select": _one_of((LAST_EPOCH, RATED_EPOCH)),
    "dataset": _one_of(DATASETS),
    "backbone": TEXT,
    "data_root": TEXT,
    "command": TEXT,
    "started": TEXT,
    "image_size": (
        lambda value: _is_integer(value) and 32 <= value <= MAX_IMAGE_SIZE and value % 32 == 0,
        f"a multiple of 32 up to {MAX_IMAGE_SIZE}",
    ),
    "seed": _integer(0),
    "epochs_stage1": _integer(1),
    "epochs_stage2": _integer(1),
    "aux_path": (lambda value: isinstance(value, str | None), "a text or null"),
    "code": (_is_code, "a commit, and whether it was changed"),
}


def check_values(settings: Mapping[str, Any]) -> None:
    """ValueError for the first setting of another kind, of those that programs read; others may be anything."""
    for name, (fits, expected) in SETTINGS.items():
        if name in settings and not fits(settings[name]):
            raise ValueError(f"{name} must be {expected}, not {describe(settings[name])}")


def check_record(record: Any) -> dict[str, Any]:
    """A line of metrics.jsonl as it is; ValueError if it is not what an epoch leaves."""
    if not isinstance(record, dict):
        raise ValueError(f"an epoch is an object, not {describe(record)}")
    for name, (fits, expected) in {"category": TEXT, "stage": _integer(1), "epoch": _integer(1)}.items():
        if name not in record or not fits(record[name]):
            raise ValueError(f"{name} must be {expected}, not {describe(record.get(name))}")
    for name, value in record.items():
        if name == "category":
            continue
        lowest, highest = (0, 1) if name.removeprefix(SYNTHETIC) in METRICS else (-MAX_FIGURE, MAX_FIGURE)
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
            raise ValueError(f"{name} must be a number in {lowest:g}..{highest:g}, not {describe(value)}")
    return record


def describe(value: Any) -> str:
    """A value for a message: short, whatever it is."""
    return repr(value)[:80] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
