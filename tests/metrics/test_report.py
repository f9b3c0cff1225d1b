"""Tables and files of results: what is in them, what a missing metric becomes, and that they appear whole."""

from __future__ import annotations

import csv
import json
import stat

import numpy as np
import pytest

from utils.metrics import METRICS
from utils.metrics.tables import (
    EXTRA_HEADINGS,
    HEADINGS,
    Statistic,
    format_published_protocol,
    format_table,
    headings_of,
    mean_row,
    summarise,
    to_json,
    write_csv,
    write_json,
)
from utils.system.files import atomic_write

ROWS = {
    "bottle": {"image_auroc": 1.0, "pixel_auroc": 0.98765432109876, "aupro": 1 / 3},
    "magnetic_tile": {"image_auroc": 0.5, "pixel_auroc": 0.9, "aupro": 2 / 3},
}
PARTIAL = {"bottle": {"image_auroc": 1.0, "aupro": 0.9}, "tire": {"image_auroc": 0.5}, "foam": {"image_auroc": 0.75}}
# Two seeds. Standard deviations of two values are |a - b| / sqrt(2): 0.0848528 of 0.6 and 0.72, 0.0141421 of 0.9 and
# 0.92, 0.0353553 of the means 0.8 and 0.85.
SEEDS = [
    {"tile": {"image_auroc": 0.6, "aupro": 0.5}, "wood": {"image_auroc": 1.0, "pixel_ap": 0.9}},
    {"tile": {"image_auroc": 0.72}, "wood": {"image_auroc": 0.98, "pixel_ap": 0.92}},
]
COLUMN_ORDER = ["image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro",
                "aupro_per_image"]


def test_every_metric_has_a_heading():
    assert list(HEADINGS) == [*COLUMN_ORDER, *EXTRA_HEADINGS]
    assert list(METRICS) == COLUMN_ORDER
    assert len(set(HEADINGS.values())) == len(HEADINGS)


def test_mean_row():
    assert mean_row(ROWS) == {"image_auroc": 0.75, "pixel_auroc": (0.98765432109876 + 0.9) / 2, "aupro": 0.5}
    assert mean_row(PARTIAL) == {"image_auroc": 0.75, "aupro": 0.9}
    assert mean_row({"tire": {}}) == mean_row({}) == {}


def test_table():
    assert format_table([ROWS]).splitlines() == [
        "Category       I-AUROC  P-AUROC    PRO",
        "--------------------------------------",
        "bottle          100.00    98.77  33.33",
        "magnetic_tile    50.00    90.00  66.67",
        "--------------------------------------",
        "Mean             75.00    94.38  50.00",
    ]


def test_table_shows_absent_metrics_as_a_dash_and_says_what_a_mean_is_over():
    assert format_table([PARTIAL]).splitlines() == [
        "Category  I-AUROC  P-AUROC    PRO",
        "---------------------------------",
        "bottle     100.00        –  90.00",
        "tire        50.00        –      –",
        "foam        75.00        –      –",
        "---------------------------------",
        "Mean        75.00        –  90.00",
        "Mean PRO is over 1 of 3 categories.",
    ]


def test_extra_metrics_are_in_a_table_of_their_own():
    rows = {"can": {"image_auroc": 0.5, "segf1": 0.25}, "vial": {"image_auroc": 1.0, "segf1": 0.5, "aupro_005": 0.125}}
    assert format_table([rows]).splitlines()[6:] == [
        "Category  PRO 0.05  SegF1",
        "-------------------------",
        "can              –  25.00",
        "vial         12.50  50.00",
        "-------------------------",
        "Mean         12.50  37.50",
        "Mean PRO 0.05 is over 1 of 2 categories.",
    ]
    assert list(headings_of(rows.values())) == [*METRICS, "aupro_005", "segf1"]
    assert list(headings_of(PARTIAL.values())) == list(METRICS)


def test_statistic_is_the_sample_standard_deviation():
    assert Statistic.over([0.25]) == (0.25, None)
    assert Statistic.over([0.1, 0.2, 0.6]) == (pytest.approx(0.3), pytest.approx(0.07**0.5))  # n - 1 = 2
    assert Statistic.over([0.75] * 3) == (0.75, 0)
    assert Statistic(2 / 3, None).percent() == "66.67"
    assert Statistic(2 / 3, 0.00708).percent() == "66.67 ± 0.71"
    assert Statistic(1, 0.0).percent() == "100.00 ± 0.00"


def test_summary_over_seeds():
    categories, means = summarise(SEEDS)
    assert categories["tile"] == {"image_auroc": (pytest.approx(0.66), pytest.approx(0.0848528137))}  # PRO: one seed
    assert categories["wood"]["pixel_ap"] == (pytest.approx(0.91), pytest.approx(0.0141421356))
    assert means["image_auroc"] == (pytest.approx(0.825), pytest.approx(0.0353553391))  # of 0.8 and 0.85
    assert "aupro" not in means
    assert summarise([PARTIAL]) == (
        {name: {metric: (value, None) for metric, value in row.items()} for name, row in PARTIAL.items()},
        {metric: (value, None) for metric, value in mean_row(PARTIAL).items()},
    )


def test_table_over_seeds():
    assert format_table(SEEDS).splitlines() == [
        "Category       I-AUROC  P-AUROC  PRO",
        "------------------------------------",
        "tile      66.00 ± 8.49        –    –",
        "wood      99.00 ± 1.41        –    –",
        "------------------------------------",
        "Mean      82.50 ± 3.54        –    –",
    ]


def test_published_protocol_table():
    def chosen(epoch, *values):
        best, gain = (dict(zip(("image_auroc", "aupro"), pair, strict=True)) for pair in (values[:2], values[2:]))
        return {"a": {"epoch": epoch, "metrics": best, "gain": gain}}

    one, two = chosen(20, 0.9, 0.5, 0.1, -0.2), chosen(5, 1.0, 0.6, 0.0, 0.0)
    head, *lines = format_published_protocol([one]).splitlines()
    assert "the epoch with the best I-AUROC on the test set" in head
    assert "Not a result" in head
    assert [line.split() for line in lines] == [
        ["Category", "epoch", "I-AUROC", "P-AUROC", "PRO", "I-AUROC", "gained", "P-AUROC", "gained", "PRO", "gained"],
        ["a", "20", "90.00", "–", "50.00", "10.00", "–", "-20.00"],
    ]
    cells = format_published_protocol([one, two]).splitlines()[2].split("  ")
    assert [cell.strip() for cell in cells if cell.strip()] == [
        "a", "20, 5", "95.00 ± 7.07", "–", "55.00 ± 7.07", "5.00 ± 7.07", "–", "-10.00 ± 14.14"
    ]


def read_csv(path):
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def test_csv_keeps_full_precision(tmp_path):
    rows = ROWS | {"tire": {"image_auroc": np.float32(0.1)}}
    write_csv(tmp_path / "results.csv", [rows])
    header, *lines = read_csv(tmp_path / "results.csv")
    assert header == ["category", *(f"{metric} [0..1]" for metric in COLUMN_ORDER)]
    assert [line[0] for line in lines] == ["bottle", "magnetic_tile", "tire", "Mean"]
    filled = [header.index(f"{metric} [0..1]") for metric in ROWS["bottle"]]
    assert [float(lines[0][index]) for index in filled] == list(ROWS["bottle"].values())
    assert {value for index, value in enumerate(lines[0][1:], 1) if index not in filled} == {""}
    assert lines[2] == ["tire", str(float(np.float32(0.1))), *[""] * 7]
    assert [float(lines[3][index]) for index in filled] == list(mean_row(rows).values())


def test_csv_over_seeds(tmp_path):
    write_csv(tmp_path / "results.csv", SEEDS)
    header, tile, wood, mean = read_csv(tmp_path / "results.csv")
    assert header == ["category", *(n for metric in COLUMN_ORDER for n in (f"{metric} [0..1]", f"{metric} std"))]
    assert [tile[0], wood[0], mean[0]] == ["tile", "wood", "Mean"]
    assert [float(value) for value in tile[1:3]] == pytest.approx([0.66, 0.0848528137])
    assert set(tile[3:]) == {""}
    assert [float(wood[header.index(name)]) for name in ("pixel_ap [0..1]", "pixel_ap std")] == pytest.approx(
        [0.91, 0.0141421356]
    )
    assert [float(value) for value in mean[1:3]] == pytest.approx([0.825, 0.0353553391])


def test_json_holds_categories_mean_and_info(tmp_path):
    rows = PARTIAL | {"tile": {"image_auroc": np.float32(0.5)}}
    write_json(tmp_path / "results.json", [rows], {"seed": 0, "name": "Flügel"})
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results == {"categories": rows, "mean": mean_row(rows), "seed": 0, "name": "Flügel"}
    write_json(tmp_path / "results.json", [ROWS], {})
    assert json.loads((tmp_path / "results.json").read_text())["categories"] == ROWS


def test_json_over_seeds(tmp_path):
    write_json(tmp_path / "results.json", SEEDS, {"seeds": [0, 1]})
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results == {**to_json(SEEDS), "seeds": [0, 1]}
    wood = {"image_auroc": pytest.approx(0.99), "pixel_ap": pytest.approx(0.91)}
    assert results["categories"] == {"tile": {"image_auroc": pytest.approx(0.66)}, "wood": wood}
    assert results["mean"] == {"image_auroc": pytest.approx(0.825), "pixel_ap": pytest.approx(0.91)}
    assert results["std"]["categories"]["tile"] == {"image_auroc": pytest.approx(0.0848528137)}
    assert results["std"]["mean"]["image_auroc"] == pytest.approx(0.0353553391)
    assert "std" not in to_json([ROWS])


def test_failed_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, [ROWS], {"seed": 0})
    before = path.read_bytes()
    for info, error in (
        ({"mean": 1}, ValueError),
        ({"a": 1, "categories": {}}, ValueError),
        ({"loss": float("nan")}, ValueError),
        ({"a": {1}}, TypeError),
    ):
        with pytest.raises(error):
            write_json(path, [ROWS], info)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "write", [mean_row, lambda rows: format_table([ROWS, rows]), lambda rows: write_csv("never.csv", [rows])]
)
def test_wrong_rows_are_named(write):
    for row, message in (
        ({"image_auroc": 99.8}, "bottle: image_auroc must be a fraction in 0..1, got 99.8"),
        ({"aupro": float("nan")}, "bottle: aupro must be a fraction in 0..1, got nan"),
        ({"I-AUROC": 0.9}, "bottle: unknown metric 'I-AUROC', expected one of image_auroc, image_ap, "),
    ):
        with pytest.raises(ValueError, match=message):
            write({"bottle": row})


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
