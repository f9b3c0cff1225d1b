"""Hostile images and folders for fuzzing.py: damaged and valid files of every kind, odd names, special files."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from datasets import open_dataset
from datasets.base import IMAGE_SUFFIXES, DataError, load_image, load_mask, read_size
from datasets.names import printable
from tests.support.damage import fuzz, mutated, nothing_else_written
from tests.support.hostile_folders import Entry, entries, make
from tests.support.structures import Drawn, drawn_files


def fuzz_images(folder: Path) -> int:
    """Damaged PNG, JPEG and TIFF files as images and as masks."""
    rng = np.random.default_rng(0)
    colours, deep = rng.integers(0, 256, (12, 16, 3), np.uint8), rng.integers(0, 2**16, (12, 16), np.uint16)
    originals: dict[str, list[bytes]] = {".png": [], ".jpg": [], ".tif": []}
    turned = Image.Exif()
    turned[0x0112] = 6
    for pixels, formats in ((colours, originals), (deep, (".png", ".tif")), (colours[..., 0], originals)):
        for suffix in formats:
            packed = {"compression": "tiff_lzw"} if suffix == ".tif" else {"optimize": True}
            for options in ({}, {"exif": turned}, packed):
                Image.fromarray(pixels).save(folder / f"original{suffix}", **options)
                originals[suffix].append((folder / f"original{suffix}").read_bytes())

    def read_damaged_image(suffix: str, data: st.DataObject) -> None:
        path = folder / f"damaged{suffix}"
        path.write_bytes(data.draw(mutated(originals[suffix])))
        for read in (load_image, load_mask, read_size):
            try:
                read(path)
            except DataError as error:
                assert str(path) in str(error)

    return fuzz("images", {"suffix": st.sampled_from(sorted(originals)), "data": st.data()}, read_damaged_image)


def fuzz_structures(folder: Path) -> int:
    """Valid depths, tags, chunks and EXIF blocks: what is read has the order of the values, and the size."""

    def read_drawn_image(drawn: Drawn) -> None:
        try:
            image, mask = load_image(drawn.path), load_mask(drawn.path)
        except DataError as error:
            assert drawn.orientation is None, error  # of these nothing is damaged
            assert str(drawn.path) in str(error)
            return
        assert image.shape[:2] == mask.shape == read_size(drawn.path)
        assert set(np.unique(mask)) <= {0, 1}
        if drawn.orientation is not None:
            stored = turn(image, drawn.orientation)[..., 0].astype(int)
            order = np.argsort(drawn.values, axis=None)
            steps = np.diff(stored.reshape(-1)[order])
            assert (steps <= 0 if drawn.white_is_zero else steps >= 0).all()
            assert (image == image[..., :1]).all()

    return fuzz("structures", {"drawn": drawn_files(folder)}, read_drawn_image)


def fuzz_folders(folder: Path) -> int:
    """Names and special files: every image that is there is used or named, and no message holds what cannot be seen."""
    from utils.data.check import check_source
    from utils.data.finding import find_images

    root = folder / "data"
    image = folder / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)).save(image)

    def look_at_drawn_folder(drawn: list[Entry]) -> None:
        make(root / "part", drawn, image)
        there = {p for p in (root / "part").rglob("*") if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES}
        there = {p for p in there if not any(name.startswith(".") for name in p.relative_to(root).parts)}  # hidden ones
        try:
            with redirect_stderr(io.StringIO()):
                checked = check_source(open_dataset(root), workers=1, cache_dir=folder / "cache")
        except DataError as error:
            assert all(line.isprintable() for line in str(error).splitlines())
        else:
            said = [str(problem) for problem in checked.problems]
            assert all(line.isprintable() for line in said)
            used = {s.image_path for parts in checked.samples["part"].values() for s in parts}
            used |= {s.mask_path for parts in checked.samples["part"].values() for s in parts}
            refused = any(problem.message == "category cannot be used" for problem in checked.problems)
            for path in () if refused else there - used:
                assert any(printable(place) in line for place in (path, path.parent) for line in said), path
        found = find_images([str(root)])
        named = {os.path.realpath(path) for path in [*found.paths, *found.unread, *found.no_images]}
        assert not {p for p in there if os.path.realpath(p) not in named}
        for path in found.paths:
            try:
                load_image(path)
            except DataError as error:
                assert str(error).isprintable()

    with nothing_else_written(folder, root, folder / "cache"):
        return fuzz("folders", {"drawn": entries()}, look_at_drawn_folder)


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """An upright image as it is stored."""
    image = image[::-1] if orientation in (3, 4, 7, 8) else image
    image = image[:, ::-1] if orientation in (2, 3, 6, 7) else image
    return image.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else image
