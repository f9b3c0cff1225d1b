"""defects_config.json of MVTec LOCO AD, and regions with their shares."""

from __future__ import annotations

import json

import numpy as np
import pytest

from datasets import open_dataset
from datasets.base import DataError, load_mask
from datasets.saturation import Saturation, read_regions, read_saturations
from tests.support.trees import LOCO_DEFECTS, make_mvtec_loco, write_image
from utils.data.check import check_source

ENTRY = LOCO_DEFECTS[0]
SATURATIONS = {255: Saturation(255, 40, False), 254: Saturation(254, 0.5, True)}


def draw(path, value: int, height: int, width: int) -> None:
    mask = np.zeros((20, 40), np.uint8)
    mask[2 : 2 + height, 3 : 3 + width] = value
    write_image(path, mask)


def test_entries_are_read_by_grey_value(tmp_path):
    path = tmp_path / "defects_config.json"
    path.write_text(json.dumps([*LOCO_DEFECTS, LOCO_DEFECTS[0]]))
    assert read_saturations(path) == SATURATIONS


@pytest.mark.parametrize(("content", "reason"), [
    ("[{", "truncated"),
    ("{}", "expected array"),
    (json.dumps([{"pixel_value": 255}]), r"\[0\].*saturation_threshold"),
    (json.dumps([ENTRY | {"pixel_value": 0}]), "pixel_value.*>= 1"),
    (json.dumps([ENTRY | {"pixel_value": "255"}]), "pixel_value.*int"),
    (json.dumps([ENTRY | {"saturation_threshold": 0}]), "saturation_threshold.*> 0"),
    (json.dumps([ENTRY | {"relative_saturation": True}]), r"\[0\].*at most 1, not 40"),
    (json.dumps([ENTRY, ENTRY | {"saturation_threshold": 7}]), "255 has two thresholds"),
])
def test_what_is_wrong_with_it_is_said(tmp_path, content, reason):
    path = tmp_path / "defects_config.json"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"cannot read .*defects_config.json: .*{reason}"):
        read_saturations(path)


def test_regions_saturate_at_the_threshold_or_their_area(tmp_path):
    draw(tmp_path / "000.png", 255, 10, 8)  # 80 pixels, of which 40 are enough
    draw(tmp_path / "001.png", 255, 3, 4)  # smaller than the threshold: to be found whole
    draw(tmp_path / "002.png", 254, 4, 4)  # half of it
    draw(tmp_path / "003.png", 254, 0, 0)
    regions = read_regions(tmp_path, SATURATIONS)
    assert [region.share for region in regions] == [0.5, 1.0, 0.5]
    assert [region.pixels.size for region in regions] == [80, 12, 16]
    np.testing.assert_array_equal(regions[2].pixels[:5], [83, 84, 85, 86, 123])


def test_at_another_size_the_share_stays(tmp_path):
    draw(tmp_path / "000.png", 255, 10, 8)
    draw(tmp_path / "001.png", 254, 1, 1)
    whole, lost = read_regions(tmp_path, SATURATIONS, size=10)  # every other row, every fourth column
    assert (whole.share, lost.share, lost.pixels.size) == (0.5, 0.5, 0)
    np.testing.assert_array_equal(whole.pixels, np.flatnonzero(load_mask(tmp_path / "000.png", 10)))
    assert whole.pixels.size == 5 * 2


def test_a_grey_value_that_is_not_listed_is_named(tmp_path):
    draw(tmp_path / "000.png", 253, 2, 2)
    with pytest.raises(DataError, match=r"000.png has the grey levels 253; .* lists \(254, 255\)"):
        read_regions(tmp_path, SATURATIONS)
    mask = np.zeros((8, 8), np.uint8)
    mask[:3], mask[5:] = 254, 255
    write_image(tmp_path / "000.png", mask)
    with pytest.raises(DataError, match="grey levels 254, 255; a mask has one"):
        read_regions(tmp_path, SATURATIONS)


def test_a_missing_file_is_a_warning_and_a_damaged_one_an_error(tmp_path):
    root = make_mvtec_loco(tmp_path / "data", ["pushpins", "screw_bag"])
    (root / "pushpins/defects_config.json").write_text("[")
    (root / "screw_bag/defects_config.json").unlink()
    damaged, missing = check_source(open_dataset(root), workers=1, cache_dir=tmp_path / "cache").problems
    assert (damaged.severity, damaged.split, missing.severity) == ("error", "test", "warning")
    assert damaged.skips == root / "pushpins/defects_config.json"
    assert str(missing) == f"category without defects_config.json gets no saturated PRO: {root / 'screw_bag'}"
