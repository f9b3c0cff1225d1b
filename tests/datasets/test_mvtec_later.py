"""MVTec AD 2 and MVTec LOCO AD: what only these have; the rest is in test_readers.py."""

from __future__ import annotations

import numpy as np
import pytest

from datasets import open_dataset
from datasets.base import DataError, load_mask
from tests.support.trees import make_mvtec_ad2, make_mvtec_loco, write_image
from utils.data.check import check_source


def test_all_masks_of_an_image_count_together(tmp_path):
    root = make_mvtec_loco(tmp_path)
    folder = root / "pushpins/ground_truth/logical_anomalies/000"
    samples = open_dataset(root).samples("pushpins", "test")
    assert {sample.mask_path for sample in samples} >= {folder}
    halves = np.zeros((2, 32, 32), np.uint8)
    halves[0, 3:5, 4:6] = halves[1, 20:23, 10:11] = 255
    for number, half in enumerate(halves):
        write_image(folder / f"{number:03}.png", half)
    np.testing.assert_array_equal(load_mask(folder), halves.max(axis=0) > 0)
    write_image(folder / "002.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match="logical_anomalies/000 does not hold masks of one size"):
        load_mask(folder)


@pytest.mark.parametrize("maker", [make_mvtec_ad2, make_mvtec_loco])
def test_what_is_beside_the_public_splits_is_passed_over(tmp_path, maker):
    source = open_dataset(maker(tmp_path))
    checked = check_source(source, workers=1, cache_dir=tmp_path / "cache")
    assert not checked.problems, [str(problem) for problem in checked.problems]
