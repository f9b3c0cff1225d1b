"""Masks that were drawn as shapes: Labelme's JSON files, one an image, and COCO's, one for many images.

A mask in a COCO file has the path `annotations.json/<number of the image>`: of a file that is no folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct

from datasets.names import printable
from datasets.plain_json import read_json, typed

SUFFIX = ".json"
Size = Annotated[int, Meta(ge=1, le=100_000)]  # pixels
Point = tuple[float, float]


class Shape(Struct):
    """A shape of Labelme: points (x, y), and of a circle its centre and one on its line."""

    points: list[Point]
    shape_type: str = "polygon"
    mask: str | None = None


class Labelme(Struct):
    shapes: list[Shape]
    height: Size = 0
    width: Size = 0


class CocoImage(Struct):
    id: int
    file_name: str
    height: Size
    width: Size


class Runs(Struct):
    """Lengths of runs of background and anomaly in turn, column by column; `size`: height, width."""

    counts: list[int]
    size: tuple[Size, Size]


class Annotation(Struct):
    image_id: int
    segmentation: Any = None
    bbox: tuple[float, float, float, float] | None = None  # left, top, width, height


class Coco(Struct):
    images: list[CocoImage]
    annotations: list[Annotation]


def is_drawn(path: Path) -> bool:
    """Tell whether a mask is in a JSON file."""
    return SUFFIX in (path.suffix.lower(), path.parent.suffix.lower())


def file_behind(path: Path) -> Path:
    """The file that a mask is in."""
    return path.parent if path.parent.suffix.lower() == SUFFIX and not path.exists() else path


def state_of(path: Path) -> tuple[int, int]:
    """Bytes and time of the last change (ns) of a file, of that in which a mask is drawn, or of a folder's together.
    Raises OSError."""
    if path.is_dir():
        states = [part.stat() for part in sorted(path.iterdir())]
        return sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)
    status = file_behind(path).stat()
    return status.st_size, status.st_mtime_ns


def draw_mask(path: Path) -> np.ndarray:
    """The mask uint8 (H, W) of 0 and 1. Raises OSError or ValueError for a file that cannot be read, or what has no
    area in it."""
    file = file_behind(path)
    if file == path:
        return _draw_labelme(file)
    coco = read_coco(file, file.stat().st_mtime_ns)
    if coco is None:
        raise ValueError("it is no COCO file")
    image = next((image for image in coco.images if str(image.id) == path.name), None)
    if image is None:
        raise ValueError(f"it has no image {path.name}")
    mask = np.zeros((image.height, image.width), np.uint8)
    for annotation in coco.annotations:
        if annotation.image_id == image.id:
            _draw_annotation(mask, annotation)
    return mask


def masks_in_coco(files: Iterable[Path], images: Sequence[Path]) -> dict[Path, Path]:
    """The masks of images by COCO files: those whose file names end as an image's path does, or the one image of this
    name. Files that are no COCO files are passed over. Raises ValueError naming one that is damaged."""
    masks, by_name = {}, {}
    for image in images:
        by_name.setdefault(image.name, []).append(image)
    for file in files:
        try:
            coco = read_coco(file, file.stat().st_mtime_ns)
        except ValueError as reason:
            raise ValueError(f"annotations {printable(file)} cannot be used: {reason}") from reason
        for listed in coco.images if coco else ():
            name = PurePath(listed.file_name.replace("\\", "/"))
            alike = by_name.get(name.name, [])
            fitting = [image for image in alike if image.parts[-len(name.parts) :] == name.parts] or alike
            if len(fitting) == 1:
                masks[fitting[0]] = file / str(listed.id)
    return masks


@lru_cache(maxsize=8)
def read_coco(path: Path, changed: int) -> Coco | None:
    """The content of a COCO file as it is since `changed`; None for any other file. Raises ValueError for one that is
    damaged."""
    content = read_json(path)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        return None
    return typed(content, Coco)


def _draw_labelme(path: Path) -> np.ndarray:
    content = read_json(path)
    if not isinstance(content, dict) or "shapes" not in content:
        raise ValueError("it is no Labelme file: it has no shapes")
    sizes = {"height": content.get("imageHeight"), "width": content.get("imageWidth")}
    if None in sizes.values():
        raise ValueError("it does not say how large its image is (imageHeight, imageWidth)")
    labelme = typed({"shapes": content["shapes"], **sizes}, Labelme)
    mask = np.zeros((labelme.height, labelme.width), np.uint8)
    for shape in labelme.shapes:
        _draw_shape(mask, shape)
    return mask


def _draw_shape(mask: np.ndarray, shape: Shape) -> None:
    points = np.array(shape.points, np.float64).reshape(-1, 2)
    if shape.mask is not None or shape.shape_type == "mask":
        raise ValueError("a shape is a bitmap; save it as a polygon, or the mask as PNG")
    if shape.shape_type == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    elif shape.shape_type == "circle" and len(points) == 2:
        radius = np.hypot(*(points[1] - points[0]))
        angles = np.linspace(0, 2 * np.pi, 73)
        points = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    elif shape.shape_type not in ("polygon", "rectangle", "rotation"):
        raise ValueError(f"a shape is a {shape.shape_type}, which has no area; draw polygons, rectangles or circles")
    _fill(mask, points)


def _draw_annotation(mask: np.ndarray, annotation: Annotation) -> None:
    drawn = annotation.segmentation
    if isinstance(drawn, list) and drawn:
        for polygon in typed(drawn, list[list[float]], "segmentation"):
            if len(polygon) % 2:
                raise ValueError("a polygon has an odd number of coordinates")
            _fill(mask, np.array(polygon).reshape(-1, 2))
    elif isinstance(drawn, dict):
        if isinstance(drawn.get("counts"), str):
            raise ValueError("a segmentation is compressed; export polygons, or masks as PNG")
        runs = typed(drawn, Runs, "segmentation")
        if runs.size != mask.shape or sum(runs.counts) != mask.size or min(runs.counts, default=0) < 0:
            raise ValueError("the runs of a segmentation are not as many pixels as its image has")
        flat = np.repeat(np.arange(len(runs.counts)) % 2, runs.counts)
        mask |= flat.reshape(mask.shape[::-1]).T.astype(np.uint8)
    elif annotation.bbox is not None:
        left, top, width, height = annotation.bbox
        _fill(mask, np.array([(left, top), (left + width, top), (left + width, top + height), (left, top + height)]))
    else:
        raise ValueError("an annotation has neither a segmentation nor a bbox")


def _fill(mask: np.ndarray, points: np.ndarray) -> None:
    """Fill a polygon (P, 2) of x and y, pixel edges being whole numbers: a pixel counts whose centre is inside."""
    if len(points) < 3 or not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        raise ValueError("a polygon has fewer than three points, or points far away")
    from skimage.draw import polygon  # late: few need it

    mask[polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, mask.shape)] = 1
