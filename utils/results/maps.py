"""The maps that test.py writes: heat maps in the run folder, and float TIFFs for MVTec's evaluation scripts.

    paths = heat_map_paths(run, "bottle", samples)
    refuse_other_maps(paths, samples, root / "bottle", is_heat_map(256))     # before anything is computed
    problems = save_heat_maps(paths, pictures, masks, maps)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.base import DataError, Sample, read_size
from datasets.marks import ANOMALY_MAP, HEAT_MAP, mark_of, tiff_bytes
from datasets.view import enlarge
from utils.data.image_store import Stack
from utils.detection.output import map_paths
from utils.drawing.heat_maps import map_limits, save_heat_map
from utils.system.errors import UsageError
from utils.system.files import atomic_write
from utils.system.own_files import IsOurs, has_form, refuse_foreign


def heat_map_paths(folder: Path, category: str, samples: Sequence[Sample]) -> list[Path]:
    return map_paths(folder / "maps" / category, [f"{sample.name}.png" for sample in samples])


def tiff_paths(maps: Path, run: Path, folder: Path, category: str, samples: Sequence[Sample]) -> list[Path]:
    """Paths as MVTec's scripts read them, given the folder that holds <object>/test/: of several seeds, one a seed."""
    return map_paths(maps / folder.relative_to(run) / category / "test", [f"{sample.name}.tiff" for sample in samples])


def is_heat_map(size: int) -> IsOurs:
    """A test whether a file in a run's maps/ is a heat map of this image size: earlier versions gave them no mark."""
    return lambda path: mark_of(path) == HEAT_MAP or has_form(path, "RGB", (2 * size, size))


def refuse_other_maps(paths: Sequence[Path], samples: Sequence[Sample], category: Path, is_ours: IsOurs) -> None:
    """Raise UsageError if maps would be written over files of others, or into the category's folder of the data set."""
    data = {sample.image_path.parent.resolve() for sample in samples} | {category.resolve()}
    for folder in {path.parent.resolve() for path in paths}:
        if any(folder.is_relative_to(images) for images in data):
            raise UsageError(f"maps in {folder} would lie among the images of the data set: choose another folder")
    refuse_foreign(paths, is_ours, "choose another folder for the maps, or move it away")


def save_heat_maps(
    paths: Sequence[Path], pictures: Stack, masks: np.ndarray | None, maps: np.ndarray
) -> list[str]:
    """Write them, and return a line for each that could not be written."""
    limits, problems = map_limits(maps), []
    for index, path in enumerate(tqdm(paths, desc="heat maps", unit="image", leave=False)):
        mask = masks[index] if masks is not None else None
        try:
            save_heat_map(path, pictures[index].numpy(), maps[index], mask, limits)
        except OSError as error:
            problems.append(str(error))
    return problems


def save_tiffs(paths: Sequence[Path], samples: Sequence[Sample], maps: np.ndarray) -> list[str]:
    """Each map at its image's own size as a float32 TIFF; returns a line for each that could not be written."""
    problems = []
    for path, sample, anomaly_map in zip(paths, samples, maps, strict=True):
        try:
            content = tiff_bytes(enlarge(anomaly_map, read_size(sample.image_path)), ANOMALY_MAP)
            with atomic_write(path) as temporary:
                temporary.write_bytes(content)
        except (OSError, DataError) as error:
            problems.append(str(error))
    return problems
