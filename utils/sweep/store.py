"""Files in any storage that fsspec opens: a folder, s3://BUCKET/PREFIX, memory:// (of one process, for tests), ...

A file is seen whole or not at all. Object stores promise that of every PUT; in a folder a file is written under another
name, flushed, and moved. There only regular files are read, and links that lead out are refused.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from datasets.names import printable
from datasets.plain_json import MAX_BYTES, parse_json
from utils.system.errors import MissingPackage, StoreError, UsageError
from utils.system.files import EARLIER_TEMPORARY, TEMPORARY, atomic_write
from utils.system.packages import CLUSTER, require

Content = dict[str, Any]


class Store:
    """The files below a path or URL, each named by its path from there, with forward slashes.

    Raises UsageError for a URL that cannot be used, MissingPackage where the driver of its protocol is not installed;
    every method StoreError where the storage does not do as asked.
    """

    def __init__(self, url: str):
        self.url = url
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise UsageError("`store`: a URL with a user or password in it is refused; give these in the environment")
        fsspec = require("fsspec", f"`store` {url}", CLUSTER)
        try:
            self.files, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)  # others write too
        except ImportError as error:
            raise MissingPackage(f"`store` {url}: {error}; for s3://: {CLUSTER}") from error
        except ValueError as error:
            raise UsageError(f"`store` {url}: {error}") from error
        protocols = self.files.protocol
        self.protocol: str = protocols if isinstance(protocols, str) else protocols[0]
        self.is_folder = self.protocol in ("file", "local")  # of this machine
        if self.is_folder:
            self.url = self.root  # absolute: the same for other processes
        if not self.root.strip("/") and self.protocol != "memory":
            raise UsageError(f"`store` {url} names no folder or bucket")

    def url_of(self, name: str = "") -> str:
        """A file of the store as one would name it elsewhere."""
        return "/".join(part for part in (self.url.rstrip("/"), name) if part)

    def put(self, local: Path, name: str) -> None:
        """Write a file like a local one, in place of any that was there."""
        with self._errors("write", name):
            if self.is_folder:
                with atomic_write(self._own_path(name)) as temporary:
                    shutil.copyfile(local, temporary)
            else:
                self.files.put_file(str(local), self._path(name))

    def get(self, name: str, local: Path) -> None:
        """Read a file to a local path; its folder is made if missing."""
        local.parent.mkdir(parents=True, exist_ok=True)
        with self._errors("read", name):
            self.files.get_file(self._own_path(name), str(local))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write plain built-ins."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, "content.json")
            local.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            self.put(local, name)

    def read_json(self, name: str) -> Content | None:
        """The content of a file of `write_json`; None if there is none, or it holds something else, or too much."""
        content = None
        with self._errors("read", name), suppress(FileNotFoundError, ValueError):
            path = self._own_path(name)
            if self.files.info(path)["size"] <= MAX_BYTES:
                content = parse_json(self.files.cat_file(path).decode())
        return content if isinstance(content, dict) else None

    def names(self, below: str = "") -> list[str]:
        """Every file below a path, sorted; none if there is no such path."""
        paths, start = [], len(self._path("")) + 1
        with self._errors("list", below), suppress(FileNotFoundError):
            paths = self.files.find(self._path(below))
        unfinished = (TEMPORARY, EARLIER_TEMPORARY)
        return sorted(p[start:] for p in paths if not any(u.fullmatch(p.rpartition("/")[2]) for u in unfinished))

    def remove(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there are no error."""
        for name in names:
            with self._errors("delete", name), suppress(FileNotFoundError):
                self.files.rm_file(self._own_path(name))

    def _path(self, name: str) -> str:
        return "/".join(part for part in (self.root.rstrip("/"), name) if part)

    def _own_path(self, name: str) -> str:
        """The path of a file that is about to be used. Raises OSError for what is no file in the store."""
        path = self._path(name)
        if not self.is_folder:
            return path
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root)):
            raise OSError("it is a link that leads out of the store")
        if os.path.lexists(path) and not os.path.isfile(path):
            raise OSError("it is no regular file")
        return path

    @contextmanager
    def _errors(self, what: str, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # drivers raise many unrelated types
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(f"cannot {what} {printable(self.url_of(name))}: {reason[:300]}") from error
