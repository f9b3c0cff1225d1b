"""Image files that the arguments of a program name: files, folders with those in them, and patterns.

Nothing is passed over silently: what is in a folder and may be an image is among the paths, for reading it will tell.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from datasets.base import IMAGE_SUFFIXES, DataError
from datasets.folders import is_passed_over, walk
from datasets.formats import NO_IMAGES
from datasets.names import printable
from datasets.problems import MOST_SHOWN, count
from utils.system.errors import UsageError

EXAMPLES = 3  # files that a note names


@dataclass
class ImageFiles:
    """Image files, each once; folders and patterns that could not be used, with why; and files that are no images."""

    paths: list[Path] = field(default_factory=list)
    unread: dict[Path, str] = field(default_factory=dict)
    no_images: list[Path] = field(default_factory=list)

    def all_paths(self) -> list[Path]:
        """The image files. Raises DataError if there may be more, in folders that could not be used."""
        if self.unread:
            reasons = list(self.unread.values())[:MOST_SHOWN]
            raise DataError(f"{count(len(self.unread), 'argument or folder')} cannot be used:", *reasons)
        return self.paths

    def note(self) -> str:
        """A line about the files that are no images; "" if there are none."""
        if not self.no_images:
            return ""
        names = ", ".join(map(printable, self.no_images[:EXAMPLES]))
        more = ", ..." if len(self.no_images) > EXAMPLES else ""
        return f"passed over as no images: {count(len(self.no_images), 'file')} ({names}{more})"


def find_images(arguments: Iterable[str], within: Path | None = None) -> ImageFiles:
    """The image files that arguments name, each once.

    Those are files, what is in folders and those below, and what patterns match; links to folders are followed, each
    real folder once for each argument. A file that is named is taken whatever it is called, and whether or not it is
    there; in a folder all are but hidden ones and those that are certainly no images. With `within`, links that lead
    out of it are not followed. Raises UsageError if there is no image.
    """
    arguments, files, paths, empty = list(arguments), ImageFiles(), {}, []
    for argument in arguments:
        for path in _matches(argument, files):
            images = list(_images_in(path, files, within))
            for image in images:
                paths.setdefault(os.path.abspath(image), image)
            empty += [] if images else [path]
    files.paths = list(paths.values())
    if not files.paths:
        reasons = "; ".join(["", *list(files.unread.values())[:MOST_SHOWN]])
        raise UsageError(f"no images in {', '.join(map(printable, arguments))} ({', '.join(IMAGE_SUFFIXES)}){reasons}")
    for path in empty:
        files.unread.setdefault(path, f"no images in the folder {printable(path)}")
    return files


def _matches(argument: str, files: ImageFiles) -> list[Path]:
    """Paths that an argument names: itself, if it is there or no pattern, or what the pattern matches."""
    try:
        path = Path(argument).expanduser()
    except RuntimeError as error:  # ~name of nobody
        raise UsageError(f"{printable(argument)}: {error}") from error
    if os.path.lexists(path):
        return [path]
    start, names = (Path(path.anchor), path.parts[1:]) if path.anchor else (Path(), path.parts)
    return sorted(dict.fromkeys(_expand(start, names, files))) or [path]


def _expand(folder: Path, names: tuple[str, ...], files: ImageFiles) -> Iterator[Path]:
    """Paths below `folder` by names that may be patterns; ** is any folders, each real one once."""
    if not names:
        yield folder
        return
    name, rest = names[0], names[1:]
    if name == "**" and not rest:
        yield folder
    elif name == "**":
        for below, contents in walk(folder):
            if isinstance(contents, DataError):
                files.unread[below] = str(contents)
            else:
                yield from _expand(below, rest, files)
    elif glob.has_magic(name):
        for entry in _entries(folder, files):
            hidden = is_passed_over(entry) and not name.startswith(".")
            if not hidden and fnmatch(entry, name):
                yield from _expand(folder / entry, rest, files)
    elif os.path.lexists(folder / name):
        yield from _expand(folder / name, rest, files)


def _entries(folder: Path, files: ImageFiles) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        files.unread[folder] = f"cannot look into the folder {printable(folder)}: {error.strerror}"
        return []


def _images_in(path: Path, files: ImageFiles, within: Path | None) -> Iterator[Path]:
    """A file itself, or the images in a folder and those below; an empty folder named like an image, too."""
    if not os.path.isdir(path):
        yield path
        return
    root = within and os.path.realpath(within)
    for folder, contents in walk(path, lambda folder: not root or Path(os.path.realpath(folder)).is_relative_to(root)):
        if isinstance(contents, DataError):
            files.unread[folder] = str(contents)
            continue
        inside = sorted([file for file in contents.images if not file.is_dir()] + contents.others)
        yield from (file for file in inside if file.suffix.lower() not in NO_IMAGES)
        files.no_images += [file for file in inside if file.suffix.lower() in NO_IMAGES]
        if not any(contents) and folder.suffix.lower() in IMAGE_SUFFIXES:
            yield folder
