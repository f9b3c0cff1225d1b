"""A run folder: its settings, its log, and how the newest one of a data set is found.

    runs/NAME/config.json      the settings of train.py
    runs/NAME/log.txt          one line an epoch
    runs/NAME/metrics.jsonl    one JSON object an epoch
    runs/NAME/checkpoints/     see utils/checkpoint.py
    runs/NAME/results.csv, results.json, maps/    written by test.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.checkpoint import stage_path
from utils.misc import write_text
from utils.report import align_columns

CONFIG = "config.json"
NEEDED_SETTINGS = ("method", "backbone", "image_size", "dataset", "data_root", "command", "started")
FREE_SETTINGS = ("categories", "device", "workers", "eval_every", "started", "command")  # may differ when a run goes on


class RunError(RuntimeError):
    """A run folder that cannot be used; the message names it and says what helps."""


def open_run(folder: Path, settings: Mapping[str, Any]) -> None:
    """Start a run folder, or go on with one that was started with the same settings.

    Raises RunError listing the differences if the folder holds a run with other settings.
    """
    if not (folder / CONFIG).is_file():
        write_text(folder / CONFIG, json.dumps(settings, indent=2) + "\n")
        return
    before = read_config(folder)
    names = [name for name in {**before, **settings} if name not in FREE_SETTINGS]
    differences = [f"{n}: {before.get(n)} -> {settings.get(n)}" for n in names if before.get(n) != settings.get(n)]
    if differences:
        raise RunError(f"{folder} holds a run with other settings ({'; '.join(differences)}); choose another --output")


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of a run; RunError if there are none to read, or what every run has is missing."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} is not a run folder of train.py: {CONFIG} cannot be read ({error})") from error
    missing = [name for name in NEEDED_SETTINGS if not isinstance(config, dict) or name not in config]
    if missing:
        raise RunError(f"{folder} is not a run folder of train.py: {CONFIG} has no {', '.join(missing)}")
    return config


def trained_categories(folder: Path) -> list[str]:
    """The categories of a run whose last stage is finished, sorted."""
    stage2 = stage_path(folder, "*", 2)
    return sorted(path.parent.name for path in folder.glob(str(stage2.relative_to(folder))))


def newest_run(data_root: Path, runs: Path = Path("runs")) -> Path:
    """The run of the data set in `data_root` that was started last and has a trained category.

    A folder whose config.json cannot be read is passed over. Raises RunError saying which runs there are if none fits.
    """
    found = []
    others = []
    for config_path in runs.glob(f"*/{CONFIG}"):
        folder = config_path.parent
        try:
            config = read_config(folder)
        except RunError:
            continue
        if config["data_root"] != str(data_root.resolve()):
            others.append(f"{folder} (of {config['data_root']})")
        elif trained_categories(folder):
            found.append((config["started"], folder))
    if not found:
        there = f"; there are: {', '.join(sorted(others))}; choose one with --run" if others else ""
        raise RunError(f"no trained run of {data_root} in {runs}/{there or '; train one with train.py'}")
    return max(found)[1]


class RunLog:
    """Lines for the person at the screen and in log.txt, and a JSON object an epoch in metrics.jsonl."""

    def __init__(self, folder: Path):
        self.folder = folder

    def say(self, text: str) -> None:
        tqdm.write(text)
        self._append("log.txt", f"{_now()} {text}")

    @contextmanager
    def stage(self, category: str, stage: int, epochs: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
        """A progress bar over a stage's epochs; yields the function that logs an epoch and its figures.

        Figures are the losses and gate figures of training, and test metrics where they were asked for.
        """
        with tqdm(total=epochs, desc=f"{category} stage {stage}", unit="epoch", dynamic_ncols=True) as bar:

            def on_epoch(epoch: int, figures: dict[str, float]) -> None:
                shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
                self._append("log.txt", f"{_now()} {category} stage {stage} epoch {epoch}/{epochs}  {shown}")
                record = {"category": category, "stage": stage, "epoch": epoch, **figures}
                self._append("metrics.jsonl", json.dumps(record))
                bar.set_postfix_str(shown, refresh=False)
                bar.update()

            yield on_epoch

    def published_protocol(self) -> str:
        """A table of the test metrics that --eval_every logged: at the last epoch, and at the best one.

        The best epoch is the one with the highest image AUROC on the test set, as many publications choose it.
        """
        curves: dict[str, dict[int, dict[str, float]]] = {}
        for line in (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "image_auroc" in record:
                curves.setdefault(record["category"], {})[record["epoch"]] = record
        cells = [["Category", "I-AUROC last", "I-AUROC published protocol", "at epoch", "published minus last"]]
        for category, curve in curves.items():
            last = curve[max(curve)]["image_auroc"]
            best_epoch = max(curve, key=lambda epoch: curve[epoch]["image_auroc"])
            best = curve[best_epoch]["image_auroc"]
            shown = [f"{100 * value:.2f}" for value in (last, best, best - last)]
            cells.append([category, *shown[:2], str(best_epoch), shown[2]])
        return "\n".join(align_columns(cells))

    def _append(self, name: str, line: str) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _now() -> str:
    return f"{datetime.now():%Y-%m-%d %H:%M:%S}"
