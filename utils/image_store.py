"""Decode once: images, masks, foregrounds and textures are read in parallel, resized, and kept as uint8.

    store = ImageStore(size=256, workers=2, cache="disk", folder=Path("cache"))
    stacks = store.open({"bottle": [image_files(train_paths), mask_files(mask_paths)]})   # every file is read here
    images, masks = stacks("bottle")                                                      # (N, S, S, 3), (M, S, S)

What `stacks` returns is indexed like a tensor whose first dimension runs over the files.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from datasets.base import DataError
from datasets.loading import Files
from datasets.problems import MOST_SHOWN
from utils.execution import LARGEST_SHARE, available_memory
from utils.misc import atomic_write, in_parallel, reserve

DECODER = 2  # of cache files: another number when the code makes other pixels of the same file


class FileStack:
    """Files that are decoded each time they are asked for: the stand-in for a tensor where nothing is kept."""

    dtype = torch.uint8

    def __init__(self, files: Files, size: int, workers: int):
        self.files, self.size, self.workers = files, size, workers
        self.shape = torch.Size(files.shape(size))

    def __len__(self) -> int:
        return len(self.files.paths)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Decode the files at a position, a slice, or a tensor of positions."""
        positions = torch.arange(len(self))[index]
        paths = [self.files.paths[position] for position in positions.reshape(-1).tolist()]
        stack = torch.empty(len(paths), *self.shape[1:], dtype=torch.uint8)
        decoded = in_parallel(lambda path: self.files.load(path, self.size), paths, self.workers)
        for place, content in enumerate(decoded):
            stack.numpy()[place] = content
        return stack.view(*positions.shape, *self.shape[1:])


Stack = Tensor | FileStack


class ImageStore:
    """Where decoded files stay.

    cache: "ram"; "disk", memory-mapped files in `folder` that later runs and other processes share; "none".
    """

    def __init__(self, size: int, workers: int, cache: str = "ram", folder: Path = Path("cache")):
        self.size, self.workers, self.cache, self.folder = size, workers, cache, folder

    def open(
        self, groups: Mapping[Hashable, Sequence[Files]], unused: Sequence[Files] = ()
    ) -> Callable[[Hashable], list[Stack]]:
        """Read every file of all groups, and of `unused` to see that it can be done; returns a function that gives the
        stacks of one group.

        Where they do not fit into half of the available memory, all are read once to be checked, and again group by
        group. Raises DataError listing the files that cannot be used.
        """
        files = [part for group in groups.values() for part in group]
        needed = sum(math.prod(part.shape(self.size)) for part in files)  # bytes
        fits = needed <= LARGEST_SHARE * available_memory(torch.device("cpu"))
        if self.cache == "disk":
            stacks = self._map_all([*files, *unused])
        elif self.cache == "ram" and fits:
            stacks = [torch.empty(part.shape(self.size), dtype=torch.uint8) for part in files]
            self._read([*files, *unused], [*stacks, *[None] * len(unused)])
        else:
            self._read([*files, *unused], [None] * (len(files) + len(unused)))
            stacks = [FileStack(part, self.size, self.workers) for part in files]
        remaining = iter(stacks)
        opened = {name: [next(remaining) for _ in group] for name, group in groups.items()}
        if self.cache == "ram" and not fits:
            tqdm.write(
                f"{needed / 1e9:.1f} GB of decoded images are more than half of the free memory: files are read again "
                "in their turn (--cache disk decodes them once)"
            )
            return lambda name: [stack[:] for stack in opened[name]]
        return opened.__getitem__

    def _read(self, files: Sequence[Files], targets: Sequence[Tensor | None]) -> None:
        """Decode all files into their stacks (None: only to see that it can be done)."""

        def read(job: tuple[Files, Tensor | None, int]) -> str | None:
            part, target, place = job
            try:
                content = part.load(part.paths[place], self.size)
            except DataError as error:
                return str(error)
            if target is not None:
                target.numpy()[place] = content  # Pillow's arrays are read-only, which torch does not like
            return None

        jobs = [
            (part, target, place)
            for part, target in zip(files, targets, strict=True)
            for place in range(len(part.paths))
        ]
        found = in_parallel(read, jobs, self.workers)
        problems = [p for p in tqdm(found, total=len(jobs), desc="reading files", unit="file", leave=False) if p]
        if problems:
            raise DataError(f"{len(problems)} of {len(jobs)} files cannot be used:", *problems[:MOST_SHOWN])

    def _map_all(self, files: Sequence[Files]) -> list[Tensor]:
        """Memory-mapped stacks; those that are not in the folder yet are read, all or none, and moved into place."""
        paths = [self.folder / f"{part.kind}-{self.size}px-{_key(part)}.npy" for part in files]
        missing = {path: part for part, path in zip(files, paths, strict=True) if part.paths and not path.is_file()}
        with ExitStack() as writing:
            mapped = []
            for path, part in missing.items():
                temporary = writing.enter_context(atomic_write(path))
                mapped.append(np.lib.format.open_memmap(temporary, "w+", np.uint8, part.shape(self.size)))
                with temporary.open("rb+") as file:
                    reserve(file)
            self._read(list(missing.values()), [torch.from_numpy(array) for array in mapped])
            for array in mapped:
                array.flush()
        return [self._map(part, path) for part, path in zip(files, paths, strict=True)]

    def _map(self, part: Files, path: Path) -> Tensor:
        shape = part.shape(self.size)
        if not part.paths:
            return torch.empty(shape, dtype=torch.uint8)
        try:
            array = np.load(path, mmap_mode="c")  # copy on write: torch wants memory that it could write to
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"cannot read the cache file {path} ({error}); delete it, and it is made anew") from error
        if array.shape != shape or array.dtype != np.uint8:
            raise DataError(f"the cache file {path} holds {array.dtype} {array.shape}, not uint8 {shape}; delete it")
        return torch.from_numpy(array)


def _key(part: Files) -> str:
    """What the decoded files depend on, as a name: paths, sizes, times of change, and what decodes them."""

    def state(path: Path) -> list:
        try:
            status = path.stat()
        except OSError:  # reading it will say why
            return [str(path), None, None]
        return [os.path.abspath(path), status.st_size, status.st_mtime_ns]

    content = [DECODER, Image.__version__, part.depends_on, *(state(path) for path in (*part.paths, *part.other_paths))]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
