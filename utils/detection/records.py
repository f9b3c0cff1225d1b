"""The line of an image file in a table of predictions."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets.names import csv_line, printable
from utils.detection.detector import Detection, Remarks

COLUMNS = ("path", "score", "p_value", "anomalous", "verdict", "regions", "error")


@dataclass(frozen=True)
class Record:
    """A file and its detection, or why it could not be read; with both, which pictures of it could not be written."""

    path: Path
    detection: Detection | None
    error: str | None = None
    remarks: Remarks = ()  # on what may be wrong with a file that was scored

    def to_dict(self) -> dict[str, object]:
        """Plain values by COLUMNS; None for what is not known."""
        values = dict.fromkeys(COLUMNS) | {"path": printable(self.path), "error": self.error and printable(self.error)}
        if one := self.detection:
            values |= {"score": one.score, "p_value": one.p_value, "anomalous": one.is_anomalous,
                       "verdict": one.verdict, "regions": [asdict(region) for region in one.regions]}
        return values

    def line(self) -> str:
        """The record in a line for a person."""
        if self.detection is None:
            return f"error      {printable(self.error)}"
        verdict = self.detection.verdict or "-"
        p_value = "" if self.detection.p_value is None else f"  p {self.detection.p_value:.4f}"
        return f"{verdict:<9}  {self.detection.score:.6f}{p_value}  {printable(self.path)}"

    def csv_row(self) -> str:
        """The values of COLUMNS as a line of a CSV file; regions are JSON."""
        values = self.to_dict()
        regions = None if values["regions"] is None else json.dumps(values["regions"])
        return csv_line((values | {"regions": regions}).values())
