"""Decode once: images, masks, foregrounds and textures are read in parallel, resized, and kept as uint8."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from datasets.base import FROM_DISK, DataError, Reader
from datasets.drawn_masks import state_of
from datasets.files import Files
from datasets.problems import MOST_SHOWN
from datasets.sizes import Size, in_words
from utils.data.mapped_files import MappedFile
from utils.system.files import atomic_write, in_parallel
from utils.system.memory import LARGEST_SHARE, available_memory

DECODER = 5  # of cache files: another number when the code makes other pixels of the same file, or other files


class FileStack:
    """Files that are decoded each time they are asked for, indexed like the tensor uint8 that would hold them."""

    dtype = torch.uint8

    def __init__(self, files: Files, size: Size, workers: int, reader: Reader = FROM_DISK):
        self.files, self.size, self.workers, self.reader = files, size, workers, reader
        self.shape = torch.Size(files.shape(size))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Decode the files at a position, a slice, or a tensor of positions; of windows, those at these positions."""
        positions = torch.arange(len(self))[index]
        places: dict[int, list[int]] = {}  # in the result, of each file
        for place, position in enumerate(positions.reshape(-1).tolist()):
            places.setdefault(position // self.files.windows, []).append(place)
        windows = (positions % self.files.windows).reshape(-1).numpy()
        stack = torch.empty(positions.numel(), *self.shape[1:], dtype=torch.uint8)
        paths = [self.files.paths[number] for number in places]
        decoded = in_parallel(lambda path: self.files.decode(path, self.size, self.reader), paths, self.workers)
        for own, content in zip(places.values(), decoded, strict=True):
            content = content.reshape(self.files.windows, *self.shape[1:])
            stack.numpy()[own] = content[windows[own]]  # Pillow's arrays are read-only, which torch does not like
        return stack.view(*positions.shape, *self.shape[1:])


def put_into(stack: np.ndarray, windows: int, place: int, content: np.ndarray) -> None:
    """Put the windows of the file at a place into the stack of all."""
    stack[place * windows : (place + 1) * windows] = content


Stack = Tensor | FileStack
Cached = tuple[MappedFile, Files]
Put = Callable[[int, np.ndarray], None]  # of a decoded file and its place


class ImageStore:
    """Keep decoded files.

    cache: "ram"; "disk", memory-mapped files in `folder` that later runs and other processes share; "none". decoded:
    where files are taken from, e.g. DecodedFiles.
    """

    def __init__(
        self, size: Size, workers: int, cache: str = "ram", folder: Path = Path("cache"), decoded: Reader = FROM_DISK
    ):
        self.size, self.workers, self.cache, self.folder, self.decoded = size, workers, cache, folder, decoded
        self.whole: dict[Path, tuple[int, ...]] = {}  # cache files that were looked at, as they were then

    def open(
        self, groups: Mapping[Hashable, Sequence[Files]], unused: Sequence[Files] = (), last: bool = True
    ) -> Callable[[Hashable], list[Stack]]:
        """Read every file of all groups, and of `unused` to see that it can be done; returns a function that gives the
        stacks of one group. last: the images are not asked for again.

        Where they do not fit into half of the available memory, all are read once to be checked, and again group by
        group. Cache files are mapped when their group is asked for, so that few are open at a time. Raises DataError
        listing the files that cannot be used.
        """
        files = [part for group in groups.values() for part in group]
        needed = sum(math.prod(part.shape(self.size)) for part in files)  # bytes
        fits = needed <= LARGEST_SHARE * (available_memory() + self.decoded.size)
        reader = self.decoded.last if last else self.decoded
        if self.cache == "disk":
            cached = {name: self._cached(group) for name, group in groups.items()}
            self._complete(chain(*cached.values(), self._cached(unused)), reader)
            return lambda name: self._map(cached[name])
        if self.cache == "ram" and fits:
            stacks = [torch.empty(part.shape(self.size), dtype=torch.uint8) for part in files]
            puts = [partial(put_into, stack.numpy(), part.windows) for stack, part in zip(stacks, files, strict=True)]
        else:
            stacks = [FileStack(part, self.size, self.workers, reader) for part in files]
            puts = []
        self._read(zip_longest([*files, *unused], puts), reader)
        remaining = iter(stacks)
        opened = {name: [next(remaining) for _ in group] for name, group in groups.items()}
        if self.cache == "ram" and not fits:
            tqdm.write(
                f"{needed / 1e9:.1f} GB of decoded images are more than half of the free memory: files are read again "
                "in their turn (--cache disk decodes them once)"
            )
            return lambda name: [stack[:] for stack in opened[name]]
        return opened.__getitem__

    def _read(self, jobs: Iterable[tuple[Files, Put | None]], reader: Reader) -> None:
        """Decode all files and put each in its place (None: only to see that it can be done)."""

        def read(job: tuple[Files, Put | None, int]) -> str | None:
            part, put, place = job
            try:
                content = part.decode(part.paths[place], self.size, reader)
            except DataError as error:
                return str(error)
            if put:
                put(place, content)
            return None

        places = [(part, put, place) for part, put in jobs for place in range(len(part.paths))]
        reasons = in_parallel(read, places, self.workers)
        reasons = tqdm(reasons, total=len(places), desc="reading files", unit="file", leave=False)
        problems = [reason for reason in reasons if reason]
        if problems:
            raise DataError(f"{len(problems)} of {len(places)} files cannot be used:", *problems[:MOST_SHOWN])

    def _complete(self, cached: Iterable[Cached], reader: Reader = FROM_DISK) -> None:
        """Make the cache files that are not in the folder, or damaged: all of them are read, and moved into place, or
        none."""
        missing = {file: part for file, part in cached if part.paths and not self._is_whole(file)}
        if not missing:
            return
        with ExitStack() as writing:
            made = [replace(file, path=writing.enter_context(atomic_write(file.path))) for file in missing]
            for temporary in made:
                temporary.create()
            self._read([(part, file.write) for file, part in zip(made, missing.values(), strict=True)], reader)
            for temporary, file in zip(made, missing, strict=True):
                temporary.seal(file.path.name)
        self.whole |= {file.path: _state(file.path) for file in missing}

    def _is_whole(self, file: MappedFile) -> bool:
        """Tell whether a cache file can be used; of a damaged one stderr says so."""
        try:
            state = _state(file.path)
        except FileNotFoundError:
            return False
        if self.whole.get(file.path) == state:
            return True
        if reason := file.damage():
            print(f"the cache file {file.path} is damaged ({reason}); it is made anew", file=sys.stderr)
            return False
        self.whole[file.path] = state
        return True

    def _map(self, cached: Sequence[Cached]) -> list[Tensor]:
        self._complete(cached)  # the cache may have been deleted
        return [file.map() for file, _ in cached]

    def _cached(self, files: Sequence[Files]) -> list[Cached]:
        """Cache files, named by all that the pixels in them depend on: paths, sizes, times of change, and what decodes
        them."""

        def state(path: Path) -> list:
            try:
                return [os.path.abspath(path), *state_of(path)]
            except OSError:  # reading it will say why
                return [str(path), None, None]

        cached = []
        for part in files:
            states = [state(path) for path in (*part.paths, *part.other_paths)]
            content = json.dumps([DECODER, Image.__version__, part.depends_on, *states])
            digest = hashlib.sha256(content.encode()).hexdigest()[:24]
            name = f"{part.kind}-{in_words(self.size).replace(' ', '')}px-{digest}.npy"
            cached.append((MappedFile(self.folder / name, part.shape(self.size)), part))
        return cached


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
