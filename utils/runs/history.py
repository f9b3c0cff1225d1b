"""The log of a run: lines for the person at the screen and in log.txt, and a JSON object an epoch in metrics.jsonl.

metrics.jsonl is the same whether a run was stopped and went on or not; log.txt tells what happened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from tqdm import tqdm

from datasets.names import printable
from datasets.plain_json import parse_json, read_text
from utils.metrics import METRICS
from utils.metrics.tables import COLUMNS
from utils.runs.settings import check_record
from utils.system.errors import RunError
from utils.system.files import naming, write_text

LOG, EPOCHS = "log.txt", "metrics.jsonl"


class RunLog:
    """Of the run in `folder`; `writes`: whether anything is written."""

    def __init__(self, folder: Path, writes: bool = True):
        self.folder, self.writes = folder, writes

    def say(self, *lines: str) -> None:
        """Show lines, and keep them; that they cannot be shown stops no training."""
        self.note(*lines)
        with suppress(OSError):
            tqdm.write("\n".join(map(printable, lines)))

    def note(self, *lines: str) -> None:
        """Keep lines that nobody needs to see now."""
        self._append(LOG, f"{datetime.now():%Y-%m-%d %H:%M:%S} " + "\n".join(map(printable, lines)))

    @contextmanager
    def stage(
        self, category: str, stage: int, epochs: int, first: int = 1
    ) -> Iterator[Callable[[int, dict[str, float]], None]]:
        """A progress bar over a stage's epochs from `first` on; yields the function that logs an epoch and its figures.

        Figures are the losses and gate figures of training, and test metrics where they were asked for.
        """
        name = f"{category} stage {stage}"
        with tqdm(total=epochs, initial=first - 1, desc=printable(name), unit="epoch", dynamic_ncols=True) as bar:

            def on_epoch(epoch: int, figures: dict[str, float]) -> None:
                shown = {name: f"{name} {value:.4f}" for name, value in figures.items()}
                self.note(f"{category} stage {stage} epoch {epoch}/{epochs}  {'  '.join(shown.values())}")
                record = {"category": category, "stage": stage, "epoch": epoch, **figures}
                self._append(EPOCHS, json.dumps(record))
                short = [text for name, text in shown.items() if name in COLUMNS or name not in METRICS]
                bar.set_postfix_str("  ".join(short), refresh=False)
                bar.update()

            yield on_epoch

    def rewind(self, category: str, stage: int, epoch: int) -> None:
        """Forget what metrics.jsonl says of a category from an epoch of a stage on, because it is trained again, and a
        last line that was not written to its end. Raises RunError for a line that no epoch leaves."""
        path = self.folder / EPOCHS
        if not self.writes or not path.is_file():
            return
        try:
            text = read_text(path)
            whole = text[: text.rfind("\n") + 1].splitlines(keepends=True)
            kept = "".join(line for line in whole if not _is_from(line, category, stage, epoch))
        except ValueError as error:
            raise RunError(f"{path} cannot be read ({error}); repair it, or choose another --output") from error
        if kept != text:
            write_text(path, kept)

    def _append(self, name: str, line: str) -> None:
        """Flushed to disk: no progress of training may be kept without it."""
        if not self.writes:
            return
        path = self.folder / name
        with naming(path), path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def _is_from(line: str, category: str, stage: int, epoch: int) -> bool:
    record = check_record(parse_json(line))
    return record["category"] == category and (record["stage"], record["epoch"]) >= (stage, epoch)
