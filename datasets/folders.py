"""Contents of folders: images, other files and folders. What cannot be looked into is an error, never empty.

Hidden files and folders, and what file managers and systems leave behind, are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from datasets.base import IMAGE_SUFFIXES, DataError
from datasets.good import simplify
from datasets.names import printable

LEFTOVERS = (
    "thumbs.db", "ehthumbs.db", "desktop.ini", "lost+found", "$recycle.bin", "system volume information", "@eadir",
    "__macosx",
)


class Contents(NamedTuple):
    """Contents of a folder itself, each part sorted by name; a folder named like an image is among the images too."""

    images: list[Path]
    others: list[Path]
    folders: list[Path]


def look_into(folder: Path) -> Contents:
    """The contents of a folder, nothing if there is none. Raises DataError if it cannot be looked into."""
    contents = Contents([], [], [])
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return contents
    except OSError as error:
        raise DataError(f"cannot look into the folder {printable(folder)}: {error.strerror}") from error
    for entry in entries:
        if is_passed_over(entry.name):
            continue
        path, is_folder = folder / entry.name, _is_folder(entry)
        if is_folder:
            contents.folders.append(path)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            contents.images.append(path)
        elif not is_folder:
            contents.others.append(path)
    return contents


def is_passed_over(name: str) -> bool:
    """Tell whether a file or folder of this name is hidden, or left by a file manager or the system."""
    return name.startswith(".") or name.lower() in LEFTOVERS


def list_images(folder: Path) -> list[Path]:
    """The images directly in `folder`, sorted by name; none without it. Raises DataError for two whose names differ
    only in the suffix: masks and outputs are paired by stem."""
    by_stem: dict[str, Path] = {}
    for path in look_into(folder).images:
        if path.stem in by_stem:
            pair = f"{printable(by_stem[path.stem])} and {printable(path)}"
            raise DataError(f"{pair} have the same name up to the suffix; rename one of them")
        by_stem[path.stem] = path
    return list(by_stem.values())


def list_folders(folder: Path) -> list[Path]:
    """The folders directly in `folder`, sorted by name; empty if there is no such folder."""
    return look_into(folder).folders


def find_place(folder: Path, *names: str) -> Path:
    """The folder that the names, one in the other, lead to from `folder`, each as it is spelt on disk (Train) or, where
    it is not there, as it is given. Raises DataError where one name could mean two folders.
    """
    for name in names:
        if os.path.isdir(folder / name):
            folder = folder / name
            continue
        alike = [path for path in list_folders(folder) if simplify(path.name) == simplify(name)]
        if len(alike) > 1:
            listed = " and ".join(printable(path) for path in alike)
            raise DataError(f"{listed} could both be meant by {name}; join them, or rename one")
        folder = next(iter(alike), folder / name)
    return folder


def walk(top: Path, enter: Callable[[Path], bool] = lambda folder: True) -> Iterator[tuple[Path, Contents | DataError]]:
    """A folder and those below it that `enter` lets in, links followed, each real folder once, so that loops of links
    end. In place of the contents there is a DataError where they cannot be looked into.

    A link to a folder that `top` lies in is not followed: it would lead to all that is beside it.
    """
    real_top, seen, waiting, links = os.path.realpath(top), set(), [top], []
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        if real != real_top and Path(real_top).is_relative_to(real):
            yield folder, DataError(f"{printable(folder)} is a link to a folder that it lies in, and is not followed")
            continue
        try:
            contents = look_into(folder)
        except DataError as error:
            yield folder, error
            continue
        yield folder, contents
        below = [path for path in contents.folders if enter(path)]
        waiting += [path for path in reversed(below) if not path.is_symlink()]
        links += [path for path in below if path.is_symlink()]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder without permission
        return False
