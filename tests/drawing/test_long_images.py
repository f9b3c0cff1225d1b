"""Heat maps and masks of images that are longer than a PNG file of ours can be: an error of that image."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.marks import FOREGROUND, MOST_SIDE, png_bytes
from tests.detection.test_detector import brightness
from tests.support.raw_files import write_png
from tests.support.trees import write_image
from utils.data.finding import find_images
from utils.detection.files import predict_files
from utils.detection.output import picture_targets, writer_for
from utils.detection.pictures import HEAT_MAPS, Pictures


def test_a_map_that_is_too_long_does_not_end_the_others(tmp_path):
    (tmp_path / "images").mkdir()
    long = write_png(tmp_path / "images/a.png", np.zeros((MOST_SIDE + 1, 1), np.uint8))
    write_image(tmp_path / "images/b.png", np.zeros((8, 8, 3), np.uint8))
    found = find_images([str(tmp_path / "images")])
    maps = Pictures(picture_targets(found.paths, {HEAT_MAPS: tmp_path / "maps"}))
    summary = predict_files(brightness(32), found, writer_for(tmp_path / "found.csv"), maps, workers=1)
    assert (summary.scored, summary.without_pictures) == (2, 1)
    assert f"no heat map of {long}" in summary.first_errors[0] and "1,000,000 pixels" in summary.first_errors[0]
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["b.png.png"]


def test_the_longest_png():
    assert png_bytes(np.zeros((MOST_SIDE, 1), np.uint8), FOREGROUND).startswith(b"\x89PNG")
    with pytest.raises(OSError, match="1,000,000 pixels"):
        png_bytes(np.zeros((1, MOST_SIDE + 1), np.uint8), FOREGROUND)
