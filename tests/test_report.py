"""Tables and files of results: what is in them, what a missing metric becomes, and that they appear whole."""

from __future__ import annotations

import csv
import json
import os
import stat

import numpy as np
import pytest

from utils.misc import atomic_write
from utils.report import environment, format_table, mean_row, write_csv, write_json

ROWS = {
    "bottle": {"image_auroc": 1.0, "pixel_auroc": 0.98765432109876, "aupro": 1 / 3},
    "magnetic_tile": {"image_auroc": 0.5, "pixel_auroc": 0.9, "aupro": 2 / 3},
}
PARTIAL = {"bottle": {"image_auroc": 1.0, "aupro": 0.9}, "tire": {"image_auroc": 0.5}, "foam": {"image_auroc": 0.75}}


def test_mean_row():
    assert mean_row(ROWS) == {"image_auroc": 0.75, "pixel_auroc": (0.98765432109876 + 0.9) / 2, "aupro": 0.5}
    assert mean_row(PARTIAL) == {"image_auroc": 0.75, "aupro": 0.9}
    assert mean_row({"tire": {}}) == mean_row({}) == {}


def test_table():
    assert format_table(ROWS).splitlines() == [
        "Category       I-AUROC  P-AUROC    PRO",
        "--------------------------------------",
        "bottle          100.00    98.77  33.33",
        "magnetic_tile    50.00    90.00  66.67",
        "--------------------------------------",
        "Mean             75.00    94.38  50.00",
    ]


def test_table_shows_absent_metrics_as_a_dash_and_says_what_a_mean_is_over():
    assert format_table(PARTIAL).splitlines() == [
        "Category  I-AUROC  P-AUROC    PRO",
        "---------------------------------",
        "bottle     100.00        –  90.00",
        "tire        50.00        –      –",
        "foam        75.00        –      –",
        "---------------------------------",
        "Mean        75.00        –  90.00",
        "Mean PRO is over 1 of 3 categories.",
    ]


def test_csv_keeps_full_precision(tmp_path):
    rows = ROWS | {"tire": {"image_auroc": np.float32(0.1)}}
    write_csv(tmp_path / "results.csv", rows)
    header, *lines = list(csv.reader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert header == ["category", "image_auroc [0..1]", "pixel_auroc [0..1]", "aupro [0..1]"]
    assert [line[0] for line in lines] == ["bottle", "magnetic_tile", "tire", "Mean"]
    assert [float(value) for value in lines[0][1:]] == list(ROWS["bottle"].values())
    assert lines[2] == ["tire", str(float(np.float32(0.1))), "", ""]
    assert [float(value) for value in lines[3][1:]] == list(mean_row(rows).values())


def test_json_holds_categories_mean_and_info(tmp_path):
    rows = PARTIAL | {"tile": {"image_auroc": np.float32(0.5)}}
    write_json(tmp_path / "results.json", rows, {"seed": 0, "name": "Flügel"})
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results == {"categories": rows, "mean": mean_row(rows), "seed": 0, "name": "Flügel"}
    write_json(tmp_path / "results.json", ROWS, {})
    assert json.loads((tmp_path / "results.json").read_text())["categories"] == ROWS


def test_failed_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, ROWS, {"seed": 0})
    before = path.read_bytes()
    for info, error in (({"mean": 1}, ValueError), ({"loss": float("nan")}, ValueError), ({"a": {1}}, TypeError)):
        with pytest.raises(error):
            write_json(path, ROWS, info)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [mean_row, format_table, lambda rows: write_csv("never.csv", rows)])
def test_wrong_rows_are_named(write):
    for row, message in (
        ({"image_auroc": 99.8}, "bottle: image_auroc must be a fraction in 0..1, got 99.8"),
        ({"aupro": float("nan")}, "bottle: aupro must be a fraction in 0..1, got nan"),
        ({"I-AUROC": 0.9}, "bottle: unknown metric 'I-AUROC', expected one of image_auroc, pixel_auroc, aupro"),
    ):
        with pytest.raises(ValueError, match=message):
            write({"bottle": row})


def test_environment_is_plain_and_names_no_host():
    found = environment()
    assert {"python", "torch", "torchvision", "timm", "numpy", "system", "machine", "cores"} <= found.keys()
    assert found["numpy"] == np.__version__
    assert found["cores"] >= 1
    text = json.dumps(found)
    assert os.path.expanduser("~") not in text
    assert os.uname().nodename not in text.split('"')


def test_atomic_write_replaces_only_on_success(tmp_path):
    path = tmp_path / "new" / "stage1.pt"
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"first")
        assert not path.exists()
        assert (temporary.parent, temporary.suffix) == (path.parent, path.suffix)
    assert path.read_bytes() == b"first"
    with atomic_write(str(path)) as temporary:
        temporary.write_bytes(b"second")
        assert path.read_bytes() == b"first"
    assert path.read_bytes() == b"second"
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError), atomic_write(path):
        pass
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_write_keeps_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with atomic_write(tmp_path / "atomic") as temporary:
        temporary.write_bytes(b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")}
    assert len(modes) == 1
