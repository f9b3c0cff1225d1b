"""The history of a run: lines for the person at the screen and in log.txt, and a JSON object an epoch in metrics.jsonl.

metrics.jsonl is the same whether a run was resumed or not; log.txt tells what happened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from tqdm import tqdm

from datasets.names import printable
from datasets.plain_json import parse_json, read_text, typed
from utils.metrics import METRICS
from utils.metrics.tables import COLUMNS
from utils.runs.board import StageBoard
from utils.runs.settings import Count
from utils.system.errors import RunError
from utils.system.files import naming, write_text

LOG, EPOCHS = "log.txt", "metrics.jsonl"
SYNTHETIC = "synthetic_"  # prefix of the metrics that rated an epoch in earlier versions
Share = Annotated[float, Meta(ge=0, le=1)]
Figure = Annotated[float, Meta(ge=-3.4e38, le=3.4e38)]  # float32 has none larger


class Epoch(Struct):
    """The epoch that a line of metrics.jsonl is of; its figures are beside these."""

    category: str
    stage: Count
    epoch: Count


class RunLog:
    """Write a run's log.txt and metrics.jsonl, and with `board` what TensorBoard reads; only rank 0 sets `writes`."""

    def __init__(self, folder: Path, writes: bool = True, board: bool = False):
        self.folder, self.writes, self.board = folder, writes, board and writes

    def say(self, *lines: str) -> None:
        """Print lines, and keep them; that they cannot be printed stops no training."""
        self.note(*lines)
        with suppress(OSError):
            tqdm.write("\n".join(map(printable, lines)))

    def note(self, *lines: str) -> None:
        """Keep lines that nobody needs to see now."""
        self.append(LOG, f"{datetime.now():%Y-%m-%d %H:%M:%S} " + "\n".join(map(printable, lines)))

    @contextmanager
    def stage(
        self, category: str, stage: int, epochs: int, first: int = 1, steps: int = 1, done: int = 0
    ) -> Iterator[StageLog]:
        """A progress bar over the steps of a stage, so many an epoch, from epoch `first` on, of which some steps are
        `done`; yields what logs an epoch and its figures."""
        board = StageBoard(self.folder, category, stage, first) if self.board else None
        begun, name = (first - 1) * steps + done, printable(f"{category} stage {stage}")
        bar = tqdm(total=epochs * steps, initial=begun, desc=name, unit="step", dynamic_ncols=True)
        with closing(board) if board else nullcontext(), bar:
            yield StageLog(self, category, stage, epochs, steps, bar, board)

    def show(self, category: str, stage: int, epoch: int, pictures: np.ndarray) -> None:
        """Add pictures uint8 (N, H, W, 3) to what TensorBoard reads."""
        with closing(StageBoard(self.folder, category, stage)) as board:
            board.show(epoch, pictures)

    def rewind(self, category: str, stage: int, epoch: int) -> None:
        """Forget what metrics.jsonl says of a category from an epoch of a stage on, because it is trained again, and a
        last line that was not written to its end. Raises RunError for a line that no epoch leaves."""
        path = self.folder / EPOCHS
        if not self.writes or not path.is_file():
            return
        try:
            text = read_text(path)
            whole = text[: text.rfind("\n") + 1].splitlines(keepends=True)
            rows = [(line, parse_epoch(line)) for line in whole]
            kept = "".join(t for t, r in rows if r["category"] != category or (r["stage"], r["epoch"]) < (stage, epoch))
        except ValueError as error:
            raise RunError(f"{path} cannot be read ({error}); repair it, or choose another `output`") from error
        if kept != text:
            write_text(path, kept)

    def append(self, name: str, line: str) -> None:
        """Add a line to a file of the run, flushed to disk: no progress of training may be kept without it."""
        if not self.writes:
            return
        path = self.folder / name
        with naming(path), path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class StageLog:
    """Log the epochs of a stage, and move its bar."""

    log: RunLog
    category: str
    stage: int
    epochs: int
    steps: int  # of an epoch
    bar: tqdm
    board: StageBoard | None

    def __call__(self, epoch: int, figures: dict[str, float]) -> None:
        """Log an epoch that is finished."""
        texts = {name: f"{name} {value:.4f}" for name, value in figures.items()}
        where = f"epoch {epoch}/{self.epochs}"
        self.log.note(f"{self.category} stage {self.stage} {where}  {'  '.join(texts.values())}")
        record = {"category": self.category, "stage": self.stage, "epoch": epoch, **figures}
        self.log.append(EPOCHS, json.dumps(record))
        if self.board:
            self.board.add(epoch, figures)
        short = [text for name, text in texts.items() if name in COLUMNS or name not in METRICS]
        self.bar.set_postfix_str("  ".join([where, *short]), refresh=False)
        self.bar.update(epoch * self.steps - self.bar.n)

    def tick(self) -> None:
        """Move the bar by a step; what came before the first one does not count in the time that is left."""
        if self.bar.n == self.bar.initial:
            self.bar.unpause()
        self.bar.update()


def parse_epoch(line: str) -> dict[str, Any]:
    """The record in a line of metrics.jsonl; ValueError naming the field if it is not what an epoch leaves."""
    record = parse_json(line)
    typed(record, Epoch)
    for name, value in record.items():
        if name not in Epoch.__struct_fields__:
            typed(value, Share if name.removeprefix(SYNTHETIC) in METRICS else Figure, name)
    return record


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, an epoch each; of an epoch that was run twice the later one. Empty without a file.

    Raises RunError for a line that no epoch leaves.
    """
    path = folder / EPOCHS
    records: dict[tuple, dict[str, Any]] = {}
    try:
        for record in map(parse_epoch, read_text(path).splitlines() if path.is_file() else []):
            key = record["category"], record["stage"], record["epoch"]
            records.pop(key, None)
            records[key] = record
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); remove its last line if it is not whole") from error
    return list(records.values())


def published_protocol(folder: Path) -> dict[str, dict[str, Any]]:
    """Figures of the epoch chosen on the test set, by category: {"epoch", "metrics", "gain"}.

    The epoch with the highest image AUROC on the test set among those that --eval_every logged, as many publications
    choose it; of equal ones the first. "metrics" are those of this epoch, "gain" how much they are above the result's,
    which is the last epoch or, of earlier versions, the one with the highest mean on synthetic anomalies where they
    were logged. Categories without logged test metrics of both are absent.
    """
    curves: dict[str, dict[int, dict[str, float]]] = {}
    ratings: dict[str, dict[int, float]] = {}
    for record in read_metrics(folder):
        category, epoch = record["category"], record["epoch"]
        if "image_auroc" in record:
            curves.setdefault(category, {})[epoch] = {m: record[m] for m in METRICS if m in record}
        if rated := [value for name, value in record.items() if name.startswith(SYNTHETIC)]:
            ratings.setdefault(category, {})[epoch] = fmean(rated)
    chosen = {}
    for category, curve in curves.items():
        rated = ratings.get(category)
        result = curve.get(max(rated, key=rated.get) if rated else max(curve))
        if result is None:
            continue
        epoch = max(sorted(curve), key=lambda epoch: curve[epoch]["image_auroc"])
        gain = {metric: value - result[metric] for metric, value in curve[epoch].items() if metric in result}
        chosen[category] = {"epoch": epoch, "metrics": curve[epoch], "gain": gain}
    return chosen
