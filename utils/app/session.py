"""Results of the app, and their meaning by the threshold that is set. Nothing here knows of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from datasets.names import csv_line, printable
from datasets.problems import count
from utils.app.regions import percent_of
from utils.data.finding import find_images
from utils.detection.detector import Detector
from utils.detection.files import predict_batches
from utils.detection.rates import images_needed, shortage
from utils.detection.records import COLUMNS, Record
from utils.detection.thresholds import ANOMALOUS, GOOD, LOOK
from utils.system.errors import UsageError

MOST_IMAGES = 500  # in one table: their maps are kept, 256 KB each at 256 px
HEADINGS = ("file", "verdict", "score", "p-value", "error")  # what counts first, for narrow screens
VERDICTS = {ANOMALOUS: "anomalous", LOOK: "look at it", GOOD: "good", None: "no threshold"}
FALSE_ALARMS, SCORE, NONE = "rate of false alarms", "score", "none"  # by what a threshold is set
PERCENT = (0.1, 50.0)  # ends of the slider of false alarms


@dataclass(frozen=True)
class Results:
    """Images in the order given."""

    records: tuple[Record, ...] = ()  # whose paths are the page's names for them
    paths: tuple[Path, ...] = ()  # of their files
    index: int = 0  # of the chosen one

    @property
    def chosen(self) -> Record | None:
        return self.records[self.index] if self.records else None

    @property
    def scores(self) -> list[float]:
        return [record.detection.score for record in self.records if record.detection]

    def choose(self, name: str) -> Results:
        return replace(self, index=[str(record.path) for record in self.records].index(name))


def name_files(paths: Iterable[Path], root: Path | None = None) -> dict[str, Path]:
    """Name files for the page: by their path below `root` or else their own name, numbered where it is taken."""
    named: dict[str, Path] = {}
    for path in paths:
        name, number = printable(path.relative_to(root) if root else Path(path.name)), 2
        unique = name
        while unique in named:
            unique, number = f"{name} ({number})", number + 1
        named[unique] = path
    return named


def images_below(root: Path, folder: str) -> dict[str, Path]:
    """Find the images in and below a folder, given relative to `root`, by their path below `root`; links out of it are
    left out. Raises UsageError where there are none, and in the same words for a folder not there and one not in
    `root`."""
    root = root.resolve()
    below = PurePath(folder)
    if below.is_relative_to(root):
        below = below.relative_to(root)
    outside = below.is_absolute() or ".." in below.parts  # of which nothing is looked at
    inside = None if outside else _below(root, root / below)
    if inside is None or not inside.is_dir():
        raise UsageError(f"there is no folder {folder!r} in {root.name}")
    paths: list[Path] = []
    with suppress(UsageError):  # where there is none
        files = find_images([str(inside)], within=root)
        paths = [*files.paths, *files.unread]
    named = {name: file for name, path in name_files(paths, root).items() if (file := _below(root, path))}
    if not named:
        raise UsageError(f"there are no images in the folder {folder!r}")
    return named


def score_all(
    detector: Detector, named: Mapping[str, Path], workers: int, progress: Callable[[int, int], None] | None = None
) -> Results:
    """Score files, given by their names, and choose the one with the highest score. progress: called with how many are
    done, and of how many. Raises UsageError for more than MOST_IMAGES."""
    if len(named) > MOST_IMAGES:
        raise UsageError(f"{len(named)} images: the app takes {MOST_IMAGES} at a time, scripts/predict.py any number")
    names, records = list(named), []
    for batch in predict_batches(detector, list(named.values()), workers):
        records += [_by_name(record, name) for record, name in zip(batch, names[len(records) :], strict=False)]
        if progress:
            progress(len(records), len(names))
    scores = [record.detection.score if record.detection else float("-inf") for record in records]
    return Results(tuple(records), tuple(named.values()), scores.index(max(scores)) if scores else 0)


def judge_again(results: Results, detector: Detector) -> Results:
    """Judge the same images by the thresholds of `detector`."""
    judged = []
    for record in results.records:
        old = record.detection
        judged.append(replace(record, detection=old and detector.judge(old.model_map, old.score, old.size)))
    return replace(results, records=tuple(judged))


def first_threshold(detector: Detector) -> tuple[str, float, float]:
    """The threshold that the page shows at first: its kind, the false-alarm rate in percent, and a score."""
    thresholds = detector.thresholds
    kind = SCORE if detector.threshold is not None else FALSE_ALARMS if thresholds else NONE
    percent = round(100 * thresholds.wanted_far, 6) if thresholds else PERCENT[0]
    return kind, percent, detector.image_threshold or 0.0


def with_threshold(detector: Detector, kind: str, far: float, score: float) -> Detector:
    """Set the threshold that the page shows: for a false-alarm rate, `far` in percent, or a score; kind NONE: none."""
    if kind == FALSE_ALARMS:
        return replace(detector.at(round(far / 100, 8)), threshold=None)  # 2.9 / 100 is not 0.029
    return replace(detector, threshold=score if kind == SCORE else None)


def explain_threshold(detector: Detector) -> str:
    """Explain the threshold and what it promises, for a person."""
    if detector.image_threshold is None:
        return (
            "This model has no threshold: it gives scores, and no verdict. Set one with: "
            "python scripts/calibrate.py RUN --images DIR, or try one with the slider."
        )
    thresholds, said = detector.thresholds, f"Anomalous above {detector.image_threshold:.4g}"
    if thresholds is None:
        return f"{said}, set by hand. How many good images are above it is not known."
    images = len(thresholds.scores)
    above = sum(score > detector.image_threshold for score in thresholds.scores)
    good = f"{above} of the {count(images, 'good image')} kept aside {'is' if above == 1 else 'are'} above it"
    if detector.threshold is not None:
        return f"{said}, set by hand: {good}."
    if thresholds.setter:
        said += f", the score of {printable(thresholds.setter)}"
    said = f"{said}: {good}, and of new ones on average at most {100 * thresholds.far:.3g} %."
    if thresholds.look_threshold is not None:
        said += f" To be looked at above {thresholds.look_threshold:.4g}: {100 * thresholds.wanted_look:.3g} %."
    if thresholds.names:
        said += f" The highest of those good images: {printable(', '.join(thresholds.highest))}; are they good?"
    if shortage(images, thresholds.wanted_far):
        needed = images_needed(thresholds.wanted_far)
        return f"{said} For at most {100 * thresholds.wanted_far:.3g} % it would take {needed} good images kept aside."
    return said


def explain_view(detector: Detector) -> str:
    """Explain which part of a photograph the model looks at, and in how many windows; "" for all of it at once."""
    view, said = detector.shown or detector.view, []
    if view.region:
        said.append(f"This model has a region of interest, {percent_of(view.region)} % of the photograph: what is "
                    "dimmed beside it gives no alarm.")
    if view.windows > 1:
        said.append(f"It looks at the photograph in {view.rows} x {view.columns} windows that overlap.")
    return " ".join(said)


def table_rows(results: Results) -> list[list[str]]:
    """A row of HEADINGS for each image."""
    rows = []
    for record in results.records:
        if record.detection is None:
            rows.append([str(record.path), "not scored", "", "", record.error])
            continue
        detection, p_value = record.detection, record.detection.p_value
        p_text = "" if p_value is None else f"{p_value:.4f}"
        rows.append([str(record.path), VERDICTS[detection.verdict], f"{detection.score:.4f}", p_text, ""])
    return rows


def csv_of(results: Results) -> str:
    """The table as scripts/predict.py writes it."""
    return csv_line(COLUMNS) + "".join(record.csv_row() for record in results.records)


def score_span(scores: Iterable[float]) -> tuple[float, float, float]:
    """Lowest, highest value and step of a slider: from 0 or below to a quarter above all, in 100..1000 round steps."""
    scores = [0.0, *scores]
    low, span = min(scores), 1.25 * (max(scores) - min(scores)) or 1.0
    step = 10.0 ** (math.floor(math.log10(span)) - 2)
    first, last = math.floor(low / step), math.ceil((low + span) / step)
    return round(first * step, 12), round(last * step, 12), step


def _by_name(record: Record, name: str) -> Record:
    """Put the page's name in place of the file's path, in messages too."""
    error = record.error
    for path in (str(record.path), printable(record.path)):
        error = error and error.replace(path, name)
    return replace(record, path=Path(name), error=error)


def _below(root: Path, path: Path) -> Path | None:
    """Follow a path's links; None if it leads nowhere or out of `root`."""
    try:
        path = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # too long a name, links in a circle, a zero byte
        return None
    return path if path.is_relative_to(root) else None
