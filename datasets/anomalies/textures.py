"""Textures of synthetic anomalies: DTD, any folder of images, or photographs of scikit-image."""

from __future__ import annotations

import os
from pathlib import Path

from datasets.base import DataError
from datasets.folders import walk

# The photographs inside the scikit-image package. Its brick, grass and gravel are not used: the demo data set is cut
# from them, and a normal image must not serve as its own anomaly.
BUILTIN_TEXTURES = (
    "astronaut.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "hubble_deep_field.jpg",
    "ihc.png", "microaneurysms.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png", "retina.jpg",
    "rocket.jpg",
)


def list_textures(aux_path: Path | str) -> list[Path]:
    """All images in a folder and those below, links followed, sorted by path; "builtin": scikit-image's photographs.
    Raises DataError if the folder is missing, one cannot be looked into, or there is no image."""
    if str(aux_path) == "builtin":
        import skimage.data

        folder = Path(skimage.data.__file__).parent
        paths = [folder / name for name in BUILTIN_TEXTURES if (folder / name).is_file()]
        if not paths:
            raise DataError(f"scikit-image ships no photographs in {folder}: give `aux_path` DTD_IMAGES")
        return paths
    folder = Path(aux_path)
    if not folder.is_dir():
        raise DataError(f"no texture folder {folder}; `aux_path` takes the images folder of DTD, or builtin")
    paths = []
    for _, contents in walk(folder):
        if isinstance(contents, DataError):
            raise contents
        paths += contents.images
    if not paths:
        raise DataError(f"no texture image below {folder}; `aux_path` takes the images folder of DTD, or builtin")
    return sorted(paths)


def find_aux_path(data_root: Path) -> Path:
    """The images folder of DTD beside a data set's root. Raises DataError with the places looked at."""
    parents = dict.fromkeys((Path(os.path.abspath(data_root)).parent, Path(data_root).resolve().parent))  # links
    places = [parent / name for parent in parents for name in ("dtd/images", "DRAEM_dtd/dtd/images")]
    for place in places:
        if place.is_dir():
            return place
    looked_at = ", ".join(str(place) for place in places)
    raise DataError(f"no texture images in {looked_at}; give `aux_path` DTD_IMAGES or `aux_path` builtin")
