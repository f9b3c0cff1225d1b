"""Take in the files that visitors upload: each into a folder of its own, and nothing stays of what breaks off.

Gradio's own handler keeps the fields of a form in memory, however long, leaves what was broken off, and names folders
by their files' content: who has a file could ask whether it was uploaded. Here the name is random, told to its visitor.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from datasets.base import MAX_PIXELS, DataError, Tell
from datasets.names import printable
from datasets.view import View
from utils.app.requests import TOO_LONG, UNREADABLE, Refused

MOST_FILES = 1000  # in one request; the page sends so many at once
MOST_HEADER = 2**13  # bytes of a part's header
MOST_NAME = 200  # bytes of a name
NO_FILE = 400, "Nothing but files can be uploaded."
TOO_MANY = 400, f"More than {MOST_FILES} files cannot be uploaded at once."
NO_ROOM = 507, "The file cannot be kept: there is no room for it."


def is_plain(path: str | PathLike) -> bool:
    """Tell whether a full path leads to a regular file without any link on the way: to be asked before each reading."""
    try:
        return os.path.realpath(path) == str(path) and stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class PlainFiles(View):
    """A view of plain files alone."""

    def load(self, path: Path, most_pixels: int = MAX_PIXELS, tell: Tell | None = None) -> np.ndarray:
        """Load as View does. Raises DataError for what is no plain file (any more)."""
        if not is_plain(path):
            raise DataError(f"{printable(path)} is no file that can be read")
        return super().load(path, most_pixels, tell)


class Uploads:
    """Uploaded files. folder: that takes them; paths: Gradio's set of those that are there; most_bytes: of one."""

    def __init__(self, folder: Path, paths: set[str], most_bytes: int):
        self.folder, self.paths, self.most_bytes = folder, paths, most_bytes

    def __contains__(self, path: object) -> bool:
        """Tell whether it is the path of an upload, letter by letter, and nothing else lies there now."""
        return isinstance(path, str) and path in self.paths and (is_plain(path) or not os.path.lexists(path))

    async def take(self, request: Request) -> list[str]:
        """Keep the files of a multipart body; returns their paths. Raises Refused, and keeps none, for what is
        too large, no file, or ends early."""
        parts = request.stream()
        try:
            with ExitStack() as undo:
                form = _Form(request.headers.get("content-type", ""), self, undo)
                async for part in parts:
                    await asyncio.to_thread(form.write, part)
                if not form.ended:
                    raise Refused(*UNREADABLE)
                undo.pop_all()
        except Refused:
            async for _ in parts:  # or the browser, still sending, would not read the answer
                pass
            raise
        self.paths.update(form.paths)
        return form.paths


class _Form:
    """The files of a multipart body, written as it comes; undo: closes and deletes them."""

    def __init__(self, content_type: str, uploads: Uploads, undo: ExitStack):
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise Refused(*UNREADABLE)
        self.uploads, self.undo = uploads, undo
        self.paths: list[str] = []
        self.file: BinaryIO | None = None
        self.field = self.value = self.disposition = b""
        self.header_bytes, self.size, self.ended = 0, 0, False
        callbacks = {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}
        try:
            self.parser = MultipartParser(options[b"boundary"], callbacks)
        except ValueError:  # too long a boundary
            raise Refused(*UNREADABLE) from None

    def write(self, body: bytes) -> None:
        try:
            self.parser.write(body)
        except OSError:
            raise Refused(*NO_ROOM) from None
        except ValueError:
            raise Refused(*UNREADABLE) from None

    # Events of the parser, some with a part of its data

    def on_part_begin(self) -> None:
        self.disposition, self.header_bytes, self.size = b"", 0, 0

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.field += self._header(data[start:end])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += self._header(data[start:end])

    def on_header_end(self) -> None:
        if self.field.lower() == b"content-disposition":
            self.disposition = self.value
        self.field = self.value = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self.disposition)
        if options.get(b"name") != b"files" or b"filename" not in options:
            raise Refused(*NO_FILE)
        if len(self.paths) == MOST_FILES:
            raise Refused(*TOO_MANY)
        folder = self.uploads.folder / secrets.token_hex(16)  # 128 bits: what is in it can be asked for by this name
        folder.mkdir(mode=0o700)
        self.undo.callback(shutil.rmtree, folder, ignore_errors=True)
        path = folder / name_of(options[b"filename"])
        self.file = self.undo.enter_context(path.open("xb"))
        self.paths.append(str(path))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.size += end - start
        if self.size > self.uploads.most_bytes:
            raise Refused(413, f"File size exceeded maximum allowed size of {self.uploads.most_bytes} bytes.")
        self.file.write(data[start:end])

    def on_part_end(self) -> None:
        self.file.close()

    def on_end(self) -> None:
        self.ended = True

    def _header(self, part: bytes) -> bytes:
        self.header_bytes += len(part)
        if self.header_bytes > MOST_HEADER:
            raise Refused(*TOO_LONG)
        return part


def name_of(sent: bytes) -> str:
    """A file's own name, of one that was sent, which may be a path: printable, and not too long for any file system."""
    try:
        text = sent.decode()
    except UnicodeDecodeError:
        text = sent.decode("latin-1")
    text = text.replace("\\", "/").rsplit("/", 1)[-1]
    name = Path("".join(character if character.isprintable() else "_" for character in text).strip(". ") or "file")
    suffix = _cut(name.suffix, MOST_NAME // 2)
    return _cut(name.stem, MOST_NAME - len(suffix.encode())) + suffix


def _cut(text: str, most: int) -> str:
    """The beginning of a text, of at most so many bytes."""
    return text.encode()[:most].decode(errors="ignore")
