"""Anomalous regions without a pixel at the image size are named wherever pixel metrics are: training, test, report."""

from __future__ import annotations

import re

import numpy as np

from tests.support.commands import OWN, run_report, run_test, run_train
from tests.support.trees import make_folder, write_image

SAID = "widget: 1 anomalous region in 1 image (e.g. hole/000) have no pixel left at 32 px"


def test_regions_without_a_pixel_are_said_by_every_program(tmp_path):
    """Of 64 pixels in a row, 32 take every second one, from the second on."""
    root = make_folder(tmp_path / "data", train=4, size=64)
    mask = np.zeros((64, 64), np.uint8)
    mask[20, 20], mask[40:50, 40:50] = 255, 255
    write_image(root / "widget/ground_truth/hole/000_mask.png", mask)
    small = (*OWN, "--image_size", 32, "--method", "rd4ad", "--eval_every", 1)
    trained = run_train(tmp_path, "--data_root", root, *small, "--output", "run")
    assert trained.status == 0 and SAID in trained.err
    assert SAID in run_test(tmp_path, "--data_root", root, "--run", "run").err
    assert run_report(tmp_path, "run", "--data_root", root, "--output", "report.html").status == 0
    page = (tmp_path / "report.html").read_text()
    assert re.search(r"Not in pixel metrics</dt><dd>1 anomalous region in 1 image, without a pixel at 32 px", page)
