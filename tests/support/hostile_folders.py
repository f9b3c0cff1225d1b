"""Folders as strangers leave them, drawn by hypothesis: names of every kind, special files, links, nested folders."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from hypothesis import strategies as st

SUFFIXES = [
    ".png", ".PNG", ".jpg", ".jfif", ".tif", ".gif", ".heic", ".dng", ".txt", ".json", "", ".png.png", "_mask.png",
]
ODD_NAMES = [
    "a", "good", "OK", "NG", "train", "000", " ", "-x", "=1+1", "a\nerror: b", "\x1b[2J", "\u202egnp", "x" * 240,
    "[a]*?",
]
LETTERS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
KINDS = [
    "image", "image", "image", "empty", "text", "heic", "folder", "fifo", "socket", "broken link", "link to itself",
    "link to a device", "link up", "link to an image",
]
FOLDERS = ["train/good", "train/OK", "test/good", "test/NG", "test/crack", "ground_truth/crack", "good", "train", "."]

Entry = tuple[str, str, str]  # folder, name, kind


def entries() -> st.SearchStrategy[list[Entry]]:
    """What lies in a category's folders."""
    names = (st.sampled_from(ODD_NAMES) | LETTERS).filter(lambda name: name not in (".", ".."))
    one = st.tuples(st.sampled_from(FOLDERS), st.tuples(names, st.sampled_from(SUFFIXES)).map("".join))
    return st.lists(st.tuples(one, st.sampled_from(KINDS)).map(lambda pair: (*pair[0], pair[1])), max_size=8)


def make(category: Path, drawn: list[Entry], image: Path) -> None:
    """Write the entries below a category's folder, which is made anew; `image`: a file that any image is a copy of."""
    shutil.rmtree(category, ignore_errors=True)
    (category / "train/good").mkdir(parents=True)
    shutil.copy(image, category / "train/good/first.png")
    for folder, name, kind in drawn:
        path = category / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) or len(os.fsencode(name)) > 255:
            continue
        _make_one(path, kind, image)


def _make_one(path: Path, kind: str, image: Path) -> None:
    links = {
        "broken link": "absent", "link to itself": path.name, "link to a device": "/dev/zero", "link up": "..",
        "link to an image": str(image),
    }
    contents = {"empty": b"", "text": b"no image", "heic": b"\0\0\0\x1cftypheic" + bytes(40)}
    if kind in links:
        path.symlink_to(links[kind])
    elif kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "folder":
        path.mkdir()
        shutil.copy(image, path / "inside.png")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        _make_socket(path)
    else:
        shutil.copy(image, path)


def _make_socket(path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)  # an address may have 100 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name[:100])
    except OSError:  # a name that is none for a socket
        return
    finally:
        os.chdir(here)
        os.close(here)
