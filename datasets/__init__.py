"""The data sets by name, and `open_dataset`, the way in: it finds the layout and the categories of a folder.

    source = open_dataset("data/mvtec")                       # layout decided by looking
    for category in source.categories:
        train = source.samples(category, "train")             # list of datasets.base.Sample
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from datasets import folder, mvtec, mvtec3d, visa
from datasets.base import DataError, Sample, list_folders
from datasets.names import misfit_of, printable
from datasets.problems import Problem, raise_errors

DATASETS: dict[str, ModuleType] = {"mvtec": mvtec, "visa": visa, "mvtec3d": mvtec3d, "folder": folder}
AUTO_ORDER = ("visa", "mvtec3d", "mvtec", "folder")  # the most particular layout first


@dataclass(frozen=True)
class DataSource:
    """A data set on disk: its layout, where it is, and which categories are used.

    `missing` holds categories that were asked for (or belong to the data set) and are not on disk.
    """

    name: str
    root: Path
    categories: tuple[str, ...]
    missing: tuple[str, ...]

    def samples(self, category: str, split: str) -> list[Sample]:
        """The samples of a category's "train" (good images only) or "test" split.

        Raises DataError as `list_samples`, and for errors in the list of files, e.g. a mask without its image.
        """
        samples, problems = self.list_samples(category, split)
        raise_errors(f"the {split} images of {category} in {self.root}", problems)
        return samples

    def list_samples(self, category: str, split: str) -> tuple[list[Sample], list[Problem]]:
        """As `samples`, with the problems of the list in place of an error; what has errors is in no sample.

        Raises DataError for an empty split, and for an unknown category or split.
        """
        return DATASETS[self.name].list_samples(self.root, category, split)


def open_dataset(root: str | Path, name: str = "auto", categories: Sequence[str] | None = None) -> DataSource:
    """Look at `root` and decide its layout (unless `name` gives it) and its categories (all, unless given).

    Categories come in the data set's own order. Raises DataError if there is no usable data set in `root`, for an
    unknown layout name, for an unknown category, and if none of the categories asked for is on disk.
    """
    root = Path(root).expanduser()
    if name != "auto" and name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; use one of: auto, {', '.join(DATASETS)}")
    if name == "auto":
        name = detect_layout(root)
    _check_root(root)
    found = DATASETS[name].find_categories(root)
    if not found:
        looked_for = _looked_for(name)
        raise DataError(f"no category of the layout {name!r} in {root} (looked for {looked_for}){_hint(root, name)}")
    known = DATASETS[name].CATEGORIES
    if categories is None:
        _check_names(root, found)
        return DataSource(name, root, tuple(found), tuple(c for c in known if c not in found))
    there = f"{root} ({name}) has: {', '.join(found)}"
    unknown = [c for c in categories if c not in found and c not in known]
    if unknown:
        raise DataError(f"unknown category {', '.join(map(repr, unknown))}; {there}")
    chosen = tuple(c for c in found if c in categories)
    if not chosen:
        raise DataError(f"none of the categories asked for ({', '.join(categories)}) is on disk; {there}")
    _check_names(root, chosen)
    return DataSource(name, root, chosen, tuple(c for c in known if c in categories and c not in found))


def detect_layout(root: Path) -> str:
    """The name of the layout in `root`, decided by what is there, never by the path's name.

    Raises DataError if `root` is not a folder or has no known layout, with what was looked for.
    """
    _check_root(root)
    layout = _layout(root)
    if layout is None:
        looked_for = "; ".join(f"{name}: {_looked_for(name)}" for name in AUTO_ORDER)
        raise DataError(f"no known data set layout in {root} (looked for {looked_for}){_hint(root)}")
    return layout


def _check_names(root: Path, categories: Sequence[str]) -> None:
    for category in categories:
        if reason := misfit_of(category):
            raise DataError(f"no category can be called {printable(category)!r}, as a folder in {root} is: {reason}; "
                            "rename it, or choose others with --categories")  # fmt: skip


def _check_root(root: Path) -> None:
    if not root.exists():
        raise DataError(f"{root} does not exist; give the folder that holds the categories")
    if not root.is_dir():
        raise DataError(f"{root} is a file; give the folder that holds the categories")


def _layout(root: Path) -> str | None:
    return next((name for name in AUTO_ORDER if DATASETS[name].matches(root)), None)


def _looked_for(name: str) -> str:
    return DATASETS[name].LAYOUT


def _hint(root: Path, name: str | None = None) -> str:
    """The end of an error message: what other layout than `name` is in `root`, or which data set is near it."""
    layout = _layout(root)
    if layout not in (None, name):
        return f"; it looks like the layout {layout!r}"
    inside = [str(path) for path in list_folders(root) if _is_dataset(path)]
    root = root.resolve()
    above = [str(path) for path in root.parents[:3] if _is_dataset(path, root.relative_to(path).parts[0])]
    options = inside or above
    return f"; did you mean {' or '.join(options[:3])}?" if options else ""


def _is_dataset(path: Path, category: str | None = None) -> bool:
    """Whether `path` has a known layout and, if given, this category; False if it cannot be looked at."""
    try:
        layout = _layout(path)
        return layout is not None and (category is None or category in DATASETS[layout].find_categories(path))
    except (OSError, DataError):
        return False
