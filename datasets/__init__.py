"""The data sets by name, and `open_dataset`, the way in: it finds the layout and the categories of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets.base import DataError, Sample
from datasets.folder import FolderReader
from datasets.folders import list_folders
from datasets.mvtec import MVTec, MVTec3D
from datasets.mvtec_later import MVTecAD2, MVTecLOCO
from datasets.names import misfit_of, printable
from datasets.own import OWN, OwnReader
from datasets.own_folders import Names
from datasets.problems import Problem, raise_errors
from datasets.visa import VisA

DATASETS = {
    "mvtec": MVTec(), "visa": VisA(), "mvtec3d": MVTec3D(), "mvtec_ad2": MVTecAD2(), "mvtec_loco": MVTecLOCO(),
    "folder": FolderReader(), OWN: OwnReader(),
}
# The most particular layout first; without any of them, OWN:
AUTO_ORDER = ("visa", "mvtec3d", "mvtec_ad2", "mvtec_loco", "mvtec", "folder")


@dataclass(frozen=True)
class DataSource:
    """A data set on disk.

    `missing` holds categories that were asked for (or belong to the data set) and are not on disk. `note` says what is
    not certain about a layout decided by looking, and the flag that decides. `names` are those of the layout "own".
    """

    name: str
    root: Path
    categories: tuple[str, ...]
    missing: tuple[str, ...]
    note: str = field(default="", compare=False)
    names: Names = Names()

    @property
    def reader(self) -> Any:
        return OwnReader(self.names) if self.name == OWN else DATASETS[self.name]

    def samples(self, category: str, split: str) -> list[Sample]:
        """The samples of a category's "train" (good images only) or "test" split. Raises DataError as `list_samples`,
        and for errors among the files, e.g. a mask without its image."""
        samples, problems = self.list_samples(category, split)
        raise_errors(f"the {split} images of {category} in {self.root}", problems)
        return samples

    def list_samples(self, category: str, split: str) -> tuple[list[Sample], list[Problem]]:
        """The samples, and the problems of the list; what has errors is in no sample. Raises DataError for an empty
        split, and for an unknown category or split."""
        return self.reader.list_samples(self.root, category, split)

    def list_unused(self) -> list[Problem]:
        """Warnings for images of the data set that belong to no category."""
        return self.reader.list_unused(self.root)


def open_dataset(
    root: str | Path, name: str = "auto", categories: Sequence[str] | None = None, good: Sequence[str] = (),
    bad: Sequence[str] = (),
) -> DataSource:
    """Decide the layout of `root` by what is there (unless `name` gives it) and its categories (all, unless given).

    good, bad: names of the folders of good photographs and of others, for the layout "own". Categories come in the data
    set's own order. Raises DataError if there is no usable data set in `root`, or two that differ, for an unknown
    layout or category, and if none of the categories asked for is on disk.
    """
    root, names = Path(root).expanduser(), Names(tuple(good), tuple(bad))
    if names != Names():
        if name not in ("auto", OWN):
            raise DataError(f"`good` and `bad` name folders of the layout {OWN!r}, not of {name!r}")
        name = OWN
    if name != "auto" and name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; use one of: auto, {', '.join(DATASETS)}")
    check_root(root)
    name, note = _decide(root) if name == "auto" else (name, "")
    reader = DataSource(name, root, (), (), names=names).reader
    try:
        there = reader.find_categories(root)
    except DataError as error:
        raise DataError(f"{error}{_other_layouts(root, name)}") from error
    if not there:
        raise DataError(f"no category of the layout {name!r} in {root} (looked for {reader.LAYOUT}){_hint(root, name)}")
    known = reader.CATEGORIES
    wanted = {*there, *known} if categories is None else set(categories)
    listed = f"{root} ({name}) has: {', '.join(map(printable, there))}"
    unknown = [c for c in categories or () if c not in there and c not in known]
    if unknown:
        others = [other for other in _fitting(root) if other != name]
        having = [other for other in others if unknown[0] in DATASETS[other].find_categories(root)]
        hint = f"; {unknown[0]!r} is of the layout {having[0]!r}: give `dataset` {having[0]}" if having else ""
        raise DataError(f"unknown category {', '.join(map(repr, unknown))}; {listed}{hint}")
    chosen = tuple(c for c in there if c in wanted)
    if not chosen:
        raise DataError(f"none of the categories asked for ({', '.join(categories)}) is on disk; {listed}")
    for category in chosen:
        if reason := misfit_of(category):
            raise DataError(f"no category can be called {printable(category)!r}, as a folder in {root} is: {reason}; "
                            "rename it, or choose others with `categories`")
    return DataSource(name, root, chosen, tuple(c for c in known if c in wanted and c not in there), note, names)


def detect_layout(root: Path) -> str:
    """The name of the layout in `root`. Raises DataError if it is no folder, has no known layout, or fits two."""
    check_root(root)
    return _decide(root)[0]


def check_root(root: Path) -> None:
    """DataError for a data root that is not there, or no folder."""
    if not root.exists():
        raise DataError(f"{root} does not exist; give the folder that holds the categories")
    if not root.is_dir():
        raise DataError(f"{root} is a file; give the folder that holds the categories")


def _decide(root: Path) -> tuple[str, str]:
    """The layout, and a note about what is not certain."""
    fitting = _fitting(root)
    if not fitting:
        if not _near(root) and DATASETS[OWN].matches(root):
            return OWN, _doubt(root, OWN)
        looked_for = "; ".join(f"{name}: {DATASETS[name].LAYOUT}" for name in (*AUTO_ORDER, OWN))
        raise DataError(f"no known data set layout in {root} (looked for {looked_for}){_hint(root)}")
    if fitting[0] != "visa" or len(fitting) == 1:
        return fitting[0], _doubt(root, fitting[0])
    other = fitting[1]
    by_list, reason = DATASETS["visa"].compare_with(root, other)
    if by_list is None:
        raise DataError(f"{root} fits two layouts: {reason}; give `dataset` visa or `dataset` {other}")
    if by_list:
        used = f"{reason}, and is used for that; --dataset {other} goes by the folders"
        return "visa", "; ".join(filter(None, [used, _doubt(root, "visa")]))
    used = f"the folders of the layout {other!r} are used, not VisA's list ({reason}); --dataset visa uses that"
    return other, "; ".join(filter(None, [used, _doubt(root, other)]))


def _fitting(root: Path) -> list[str]:
    return [name for name in AUTO_ORDER if DATASETS[name].matches(root)]


def _doubt(root: Path, name: str) -> str:
    if name == "folder" and DATASETS["mvtec"].is_named_so(root):
        return "not taken for MVTec AD, whose folders and defects are others; --dataset mvtec does"
    return DATASETS[name].explain_doubt(root)


def _hint(root: Path, name: str | None = None) -> str:
    """The end of an error message: which other layout is in `root`, or which data set near it."""
    near = _near(root)
    return _other_layouts(root, name) or (f"; did you mean {' or '.join(near[:3])}?" if near else "")


def _near(root: Path) -> list[str]:
    """Folders of data sets in `root`, or else above it."""
    root = root.resolve()
    inside = [str(path) for path in list_folders(root) if _is_dataset(path)]
    return inside or [str(path) for path in root.parents[:3] if _is_dataset(path, root.relative_to(path).parts[0])]


def _other_layouts(root: Path, name: str | None) -> str:
    """The end of an error message: the layouts that fit, other than `name`."""
    try:
        others = [other for other in _fitting(root) if other != name]
    except DataError:
        return ""
    return f"; it looks like the layout {others[0]!r}: give `dataset` {' or '.join(others)}" if others else ""


def _is_dataset(path: Path, category: str | None = None) -> bool:
    """Tell whether `path` has a known layout and, if given, this category; False if it cannot be looked at."""
    try:
        fitting = _fitting(path)
        return any(category is None or category in DATASETS[name].find_categories(path) for name in fitting)
    except (OSError, DataError):
        return False
