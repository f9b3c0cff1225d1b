"""The thresholds of a run in its report: counts by hand, the verdicts of predict.py, thresholds that are of no use."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.report.test_html_report import make_category, section_data
from tests.support.commands import run_calibrate, run_predict, run_report
from utils.detection.detector import load_detector
from utils.detection.thresholds import HELD_OUT, LargestPixels, Thresholds
from utils.drawing.charts import score_histogram
from utils.report.page import build_section
from utils.report.verdicts import count_outcomes, explain_thresholds, own_verdicts


def make_thresholds(far: float, look: float | None = None) -> Thresholds:
    """Anomalous above 4; above 2 to be looked at; pixels of anomalous images above 0.1, of those to look at 0."""
    pixels = LargestPixels()
    pixels.add(np.stack([np.full((4, 4), value, np.float32) for value in (0.1, 0)]))
    return Thresholds.from_scores([2, 4], pixels, far, HELD_OUT, look=look)


THRESHOLDS = make_thresholds(far=0.34, look=0.7)
LABELS = np.array([0, 1, 0, 1, 0, 1, 0, 1])
SCORES = [1.0, 5.0, 3.0, 4.0, 4.5, 3.0, 2.0, 2.0]  # a score that is a threshold is not above it


def test_outcomes_are_counted():
    expected = "1 found, 3 to look at, 1 missed, 1 false alarm (25 % of good images, at most 34 % asked for)"
    assert count_outcomes(THRESHOLDS, LABELS, np.array(SCORES)) == expected
    expected = "1 found, 3 missed, 1 false alarm (25 % of good images, at most 34 % asked for)"
    assert count_outcomes(make_thresholds(far=0.34), LABELS, np.array(SCORES)) == expected
    expected = "2 found, 3 to look at, 3 missed, 0 false alarms (at most 34 % asked for)"
    assert count_outcomes(THRESHOLDS, LABELS * 0 + 1, np.array(SCORES)) == expected


def test_the_page_gets_verdicts_and_the_thresholds_of_regions():
    own = own_verdicts(THRESHOLDS, np.array(SCORES))
    assert own["verdicts"] == ["good", "anomalous", "look", "look", "anomalous", "look", "good", "good"]
    assert own["threshold"] == 4
    assert own["regions"] == pytest.approx({"good": None, "look": 0, "anomalous": 0.1})


def test_the_explanation_names_rates_and_what_so_few_images_allow():
    said = explain_thresholds(THRESHOLDS)
    assert "Anomalous: above 4; at most 34 % of good images" in said
    assert "others above 2; at most 70 %" in said
    assert "2 good images (held out) set both." in said
    assert "neither found nor missed" in said
    assert "allow no rate" not in said
    said = explain_thresholds(make_thresholds(far=0.1))
    assert "2 good images allow no rate of false alarms below 0.333; 0.1 needs 9." in said
    assert "look" not in said


def test_a_section_without_thresholds_says_nothing_of_them():
    with_them = build_section(replace(make_category(), thresholds=THRESHOLDS))
    section = build_section(make_category())
    assert section_data(section)["own"] is None
    for word in ("F1 score is highest", "that is flagged at this threshold"):
        assert word in section and word not in with_them
    for word in ("asked for", "look", "the run's own", "moved by hand"):
        assert word in html.unescape(with_them) and word not in html.unescape(section)


def test_the_chart_and_the_slider_hold_thresholds_beyond_the_scores():
    svg = score_histogram(np.array([1.0, 2.0]), np.array([3.0]), 9.0, 5.0)
    low, high = 1 - 0.16, 9 + 0.16
    for style, value in (("threshold", 9), ("look", 5)):
        x = 52 + (value - low) / (high - low) * (406 - 52)
        assert f'<line class="{style}" x1="{x:.1f}" x2="{x:.1f}"' in svg
    section = build_section(replace(make_category(), thresholds=THRESHOLDS))  # of scores below 1
    assert float(re.search(r' max="([\d.]+)"', section)[1]) > 4  # of the slider


def test_verdicts_are_those_of_predict(own, tmp_path):
    run, table, page = tmp_path / "run", tmp_path / "table.csv", tmp_path / "report.html"
    shutil.copytree(own.run, run)
    assert run_calibrate(own.cwd, run, "--far", 0.3, "--look", 0.6).status == 0
    assert run_predict(own.cwd, run, own.data / "widget/test", "--output", table).status == 0
    assert run_report(own.cwd, run, "--output", page).status == 0
    data = section_data(page.read_text(encoding="utf-8"))
    places = {image["name"]: image["place"] for image in data["images"]}
    rows = list(csv.DictReader(table.open(newline="", encoding="utf-8")))
    expected = {"/".join(row["path"].split("/")[-2:]).rsplit(".", 1)[0]: row["verdict"] for row in rows}
    assert {name: data["own"]["verdicts"][place] for name, place in places.items()} == expected
    detector = load_detector(run)
    assert data["own"]["threshold"] == detector.image_threshold
    assert data["own"]["regions"] == {verdict: detector.region_threshold(verdict) for verdict in expected.values()}
    assert "at most 30 % asked for" in page.read_text(encoding="utf-8")


def test_thresholds_that_cannot_be_used_are_an_error_of_one_line(own, tmp_path):
    run, page = tmp_path / "run", tmp_path / "report.html"
    shutil.copytree(own.run, run)
    assert run_report(own.cwd, run, "--output", page).status == 0  # scored: the thresholds alone are wrong from here on
    page.unlink()
    path = run / "checkpoints/widget/thresholds.json"
    stored = json.loads(path.read_text())
    for content, message in (({"far": 0.1}, "cannot be read"), (stored | {"model": "another"}, "set by another model")):
        path.write_text(json.dumps(content))
        result = run_report(own.cwd, run, "--output", page)
        assert result.status == 2 and len(result.errors) == 1
        assert str(path) in result.errors[0] and message in result.errors[0]
        assert not page.exists()
