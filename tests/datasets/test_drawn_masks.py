"""Masks drawn as shapes: which pixels they are, whose image they belong to, and files that are no such masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import open_dataset
from datasets.base import DataError, load_mask, read_mask
from utils.data.check import check_source


def labelme(path: Path, *shapes: dict, size: tuple[int, int] = (8, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.0", "flags": {}, "shapes": [{"label": "x"} | shape for shape in shapes],
               "imagePath": f"{path.stem}.png", "imageData": None, "imageHeight": size[0], "imageWidth": size[1]}
    path.write_text(json.dumps(content))
    return path


def coco(path: Path, images: list[str], annotations: list[dict], size: tuple[int, int] = (8, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [{"id": 10 + place, "file_name": name, "height": size[0], "width": size[1], "license": 1}
              for place, name in enumerate(images)]
    path.write_text(json.dumps({"info": {}, "images": listed, "annotations": annotations, "categories": []}))
    return path


def photograph(path: Path, size: tuple[int, int] = (8, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.as_posix())).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def rectangle(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((8, 10), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


SHAPES = {
    "polygon": ({"points": [[2, 1], [6, 1], [6, 4], [2, 4]]}, rectangle(1, 4, 2, 6)),
    "between pixels": ({"points": [[2.4, 1.4], [5.6, 1.4], [5.6, 3.6], [2.4, 3.6]]}, rectangle(1, 4, 2, 6)),
    "rectangle": ({"points": [[6, 4], [2, 1]], "shape_type": "rectangle"}, rectangle(1, 4, 2, 6)),
    "beyond the image": ({"points": [[7, 5], [30, 5], [30, 50], [7, 50]]}, rectangle(5, 8, 7, 10)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_labelme(tmp_path, name):
    shape, expected = SHAPES[name]
    mask = load_mask(labelme(tmp_path / "a.json", shape))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected)


def test_a_circle_and_several_shapes(tmp_path):
    circle = {"points": [[5, 4], [5, 6.5]], "shape_type": "circle"}
    rows, columns = np.mgrid[:8, :10] + 0.5
    expected = (rows - 4) ** 2 + (columns - 5) ** 2 < 2.5**2
    corner = {"points": [[0, 0], [1, 0], [1, 1], [0, 1]]}
    mask = load_mask(labelme(tmp_path / "a.json", circle, corner))
    expected[0, 0] = True
    np.testing.assert_array_equal(mask, expected)
    assert not load_mask(labelme(tmp_path / "none.json")).any()


def test_segmentations_of_coco(tmp_path):
    runs = {"size": [8, 10], "counts": [8 * 2 + 1, 3, 5, 3, 80 - 28]}  # columns 2 and 3, rows 1 to 3
    path = coco(tmp_path / "all.json", ["a.png", "b.png", "c.png", "d.png"], [
        {"image_id": 10, "segmentation": [[2, 1, 6, 1, 6, 4, 2, 4], [8, 6, 10, 6, 10, 8, 8, 8]], "bbox": [0, 0, 10, 8]},
        {"image_id": 11, "segmentation": runs},
        {"image_id": 12, "segmentation": [], "bbox": [2, 1, 4, 3]},
    ])
    expected = [rectangle(1, 4, 2, 6) | rectangle(6, 8, 8, 10), rectangle(1, 4, 2, 4), rectangle(1, 4, 2, 6),
                rectangle(0, 0, 0, 0)]
    for number, mask in enumerate(expected, 10):
        np.testing.assert_array_equal(load_mask(path / str(number)), mask)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "a.json"),
        ("{}", "no Labelme file: it has no shapes"),
        ('{"shapes": []}', "does not say how large its image is"),
        ('{"shapes": [], "imageHeight": 8, "imageWidth": 0}', "width: expected"),
        ('{"shapes": [{"points": [[1, 1]]}], "imageHeight": 8, "imageWidth": 9}', "fewer than three points"),
        ('{"shapes": [{"points": [[1, 1], [2, 2]], "shape_type": "line"}], "imageHeight": 8, "imageWidth": 9}',
         "a shape is a line, which has no area"),
        ('{"shapes": [{"points": [[1, 1], [2, 2]], "shape_type": "mask", "mask": "x"}], "imageHeight": 8, '
         '"imageWidth": 9}', "a shape is a bitmap; save it as a polygon"),
        ('{"shapes": [{"points": [[1, "x"]]}], "imageHeight": 8, "imageWidth": 9}', "points"),
    ],
)
def test_what_is_no_labelme_file_is_an_error_naming_it(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match="a.json.*") as caught:
        read_mask(tmp_path / "a.json")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"segmentation": {"size": [8, 10], "counts": "abc"}}, "is compressed; export polygons, or masks as PNG"),
        ({"segmentation": {"size": [8, 10], "counts": [3]}}, "not as many pixels as its image has"),
        ({"segmentation": {"size": [9, 10], "counts": [90]}}, "not as many pixels"),
        ({"segmentation": [[1, 2, 3]]}, "an odd number of coordinates"),
        ({"segmentation": [[1, 2, 3, 4]]}, "fewer than three points"),
        ({"segmentation": []}, "neither a segmentation nor a bbox"),
    ],
)
def test_what_is_no_segmentation_is_an_error(tmp_path, annotation, message):
    path = coco(tmp_path / "all.json", ["a.png"], [{"image_id": 10} | annotation])
    with pytest.raises(DataError) as caught:
        load_mask(path / "10")
    assert message in str(caught.value) and "all.json" in str(caught.value)
    with pytest.raises(DataError, match="it has no image 99"):
        load_mask(path / "99")


def test_photographs_with_labelmes_files_beside_them(tmp_path):
    root = tmp_path / "caps"
    photograph(root / "ok/a.png")
    for name in ("b", "c"):
        photograph(root / f"chip/{name}.png")
    labelme(root / "chip/b.json", SHAPES["polygon"][0])
    labelme(root / "masks/chip/c.json", SHAPES["polygon"][0])
    samples, problems = open_dataset(root).list_samples("caps", "test")
    masks = {sample.image_path.name: sample.mask_path for sample in samples if sample.label}
    assert masks == {"b.png": root / "chip/b.json", "c.png": root / "masks/chip/c.json"} and not problems
    checked = check_source(open_dataset(root), workers=1, cache_dir=tmp_path / "cache")
    assert not [problem for problem in checked.problems if problem.severity == "error"]


@pytest.mark.parametrize("place", ["all.json", "annotations/all.json", "chip/all.json"])
def test_photographs_with_a_coco_file(tmp_path, place):
    root = tmp_path / "caps"
    photograph(root / "ok/a.png")
    for name in ("chip/b.png", "chip/lot/c.png", "dirt/b.png"):
        photograph(root / name)
    coco(root / place, ["chip/b.png", "c.png", "dirt/b.png", "unknown.png"], [
        {"image_id": 10, "segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]}, {"image_id": 11, "bbox": [0, 0, 2, 2]},
        {"image_id": 12, "bbox": [0, 0, 1, 1]},
    ])
    samples, problems = open_dataset(root).list_samples("caps", "test")
    sums = {sample.name: int(load_mask(sample.mask_path).sum()) for sample in samples if sample.label}
    assert sums == {"chip/b": 12, "chip/lot/c": 4, "dirt/b": 1} and not problems
    checked = check_source(open_dataset(root), workers=1, cache_dir=tmp_path / "cache")
    assert not [problem for problem in checked.problems if problem.severity == "error"]


def test_a_damaged_coco_file_is_named(tmp_path):
    photograph(tmp_path / "caps/ok/a.png")
    photograph(tmp_path / "caps/chip/b.png")
    (tmp_path / "caps/notes.json").write_text('["no COCO file"]')
    assert not open_dataset(tmp_path / "caps").list_samples("caps", "test")[0][-1].mask_path
    (tmp_path / "caps/all.json").write_text('{"images": [{"id": 1}], "annotations": []}')
    with pytest.raises(DataError, match="annotations .*caps/all.json cannot be used: .*file_name"):
        open_dataset(tmp_path / "caps").list_samples("caps", "test")
