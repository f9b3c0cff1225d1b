"""Folders with images of any names: whose photographs they hold, good ones or others, or masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from datasets.base import DataError
from datasets.folders import list_images, walk
from datasets.good import DEFECT, GOOD, UNCLEAR, kind_of, simplify
from datasets.names import printable
from datasets.problems import Problem, count, error, warning

TRAIN_FOLDERS = frozenset(("train", "training"))
TEST_FOLDERS = frozenset(("test", "tests", "testing", "val", "valid", "validation"))
MASK_FOLDERS = frozenset(("groundtruth", "mask", "masks", "gt", "segmentation", "segmentations"))
NO_NAMES = TRAIN_FOLDERS | TEST_FOLDERS | MASK_FOLDERS  # of folders that name no category and no defect
MOST_NAMED = 6  # folders that a message names
UNUSED = "folder is neither of good photographs nor of others beside such; its images are never used"
ASK = "is this good or a defect? Name it after `good` or `bad`"


class Place(NamedTuple):
    """A folder with images: whose they are, and what. `kind` is the folder below the category that says what they show,
    `inner` the folders below that."""

    path: Path
    words: frozenset[str]  # simplified names of the folders that lead to it
    category: tuple[str, ...]
    kind: str
    inner: tuple[str, ...]
    is_good: bool

    @property
    def is_mask(self) -> bool:
        return bool(self.words & MASK_FOLDERS)

    @property
    def key(self) -> tuple[str, ...]:
        return (self.kind, *self.inner) if self.kind else ()


@dataclass(frozen=True)
class Names:
    """Names of the folders of good photographs and of others, or their paths in the data root (".": the root itself).

    Without names of good ones they are guessed; without those of others, all folders beside good ones are of others.
    """

    good: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()

    def divide(self, root: Path, most: int | None = None) -> tuple[list[Place], list[Problem]]:
        """All folders with images that are used, the first `most` looked into, and problems with the others."""
        folders, problems = _image_folders(root, most)
        self._check_names(root, folders)
        places = [place for path, parts in folders.items() if (place := self._good_place(path, parts))]
        if not places:
            return self._without_names(root, folders), problems
        heads, known = {place.category for place in places}, {place.path for place in places}
        for path, parts in folders.items():
            if path in known:
                continue
            place = _other_place(path, parts, heads)
            if place is None or not self._is_bad(place, parts):
                problems.append(warning(UNUSED, path, details=count(len(list_images(path)), "image")))
            elif not self.bad and not place.is_mask and kind_of(place.kind) != DEFECT:
                problems.append(error(ASK, path))
            else:
                places.append(place)
        return places, problems

    def _good_place(self, path: Path, parts: tuple[str, ...]) -> Place | None:
        words = frozenset(map(simplify, parts))
        if words & MASK_FOLDERS:
            return None
        if self.good:
            end = _end_of_any(self.good, parts)
        else:
            end = next((place for place, part in enumerate(parts, 1) if kind_of(part) == GOOD), None)
        if end is None:
            return None
        kind = parts[end - 1] if end else ""
        return Place(path, words, _plain(parts[: max(end - 1, 0)]), kind, _plain(parts[end:]), is_good=True)

    def _is_bad(self, place: Place, parts: tuple[str, ...]) -> bool:
        return place.is_mask or not self.bad or _end_of_any(self.bad, parts) is not None

    def _check_names(self, root: Path, folders: dict[Path, tuple[str, ...]]) -> None:
        for flag, names in (("good", self.good), ("bad", self.bad)):
            for name in names:
                if all(_end_of(name, parts) is None for parts in folders.values()):
                    there = f"; there are: {list_names(root, [*folders])}" if folders else ""
                    raise DataError(f"`{flag}` {printable(name)}: {root} has no such folder with images{there}")

    def _without_names(self, root: Path, folders: dict[Path, tuple[str, ...]]) -> list[Place]:
        """A flat folder of photographs, all of them good; DataError where it must be said which are."""
        if list(folders) == [root]:
            return [Place(root, frozenset(), (), "", (), is_good=True)]
        if not folders:
            return []
        unclear = [path for path, parts in folders.items() if UNCLEAR in map(kind_of, parts)]
        asked = f"; are those in {list_names(root, unclear)} good?" if unclear else ""
        raise DataError(
            f"{root} has images in {list_names(root, [*folders])}, and no folder's name says that they are good"
            f"{asked}; name the folders of good photographs after `good`"
        )


def _image_folders(root: Path, most: int | None) -> tuple[dict[Path, tuple[str, ...]], list[Problem]]:
    """The folders with images, each with the names that lead to it, sorted; errors for what cannot be looked into."""
    folders, problems = {}, []
    for folder, contents in islice(walk(root), most):
        if isinstance(contents, DataError):
            problems.append(error("folder cannot be used", folder, details=str(contents)))
            continue
        parts = folder.relative_to(root).parts
        drawn = not MASK_FOLDERS.isdisjoint(map(simplify, parts)) and any(p.suffix == ".json" for p in contents.others)
        if drawn or any(not path.is_dir() for path in contents.images):
            folders[folder] = parts
    return dict(sorted(folders.items())), problems


def _other_place(path: Path, parts: tuple[str, ...], heads: set[tuple[str, ...]]) -> Place | None:
    """The place of a folder below the innermost category that holds it; None where there is none, or it is that."""
    plain, words = _plain(parts), frozenset(map(simplify, parts))
    head = next((plain[:end] for end in range(len(plain), -1, -1) if plain[:end] in heads), None)
    if head is None:
        return None
    kind, *inner = plain[len(head) :] or ("",)
    return Place(path, words, head, kind, tuple(inner), is_good=False) if kind or words & MASK_FOLDERS else None


def _plain(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part for part in parts if simplify(part) not in NO_NAMES)


def _end_of_any(names: Sequence[str], parts: tuple[str, ...]) -> int | None:
    return next((end for name in names if (end := _end_of(name, parts)) is not None), None)


def _end_of(name: str, parts: tuple[str, ...]) -> int | None:
    """The number of parts of a folder's path up to where it is called `name`, which may be a path of several."""
    wanted, simple = [simplify(part) for part in Path(name).parts], [simplify(part) for part in parts]
    if not wanted:
        return None if parts else 0
    if len(wanted) > 1:
        return len(wanted) if simple[: len(wanted)] == wanted else None
    return simple.index(wanted[0]) + 1 if wanted[0] in simple else None


def list_names(root: Path, folders: Sequence[Path]) -> str:
    """The names of folders below `root`, the first of many."""
    names = [printable(folder.relative_to(root).as_posix()) for folder in folders]
    more = f" and {count(len(names) - MOST_NAMED, 'other')}" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"
