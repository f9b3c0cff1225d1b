"""The report of a run with thresholds in a browser: its verdicts, the slider that leaves them, the way back, paper."""

from __future__ import annotations

import numpy as np
import pytest

from tests.report.test_html_report import make_category, make_page
from tests.report.test_report_page import cards_in_order, expected_counts, open_category, outline, read_canvas
from tests.report.test_verdicts import SCORES, THRESHOLDS
from utils.detection.prediction import Prediction

OWN_COUNTS = {"missed": 1, "alarm": 1, "look-anomalous": 2, "look-good": 1, "found": 1, "passed": 2}
OWN_WORDS = [
    "called good: ✗ missed", "? look at it", "? look at it", "called anomalous: ✓ found",
    "called anomalous: ⚠ false alarm", "? look at it", "called good: ✓ passed", "called good: ✓ passed",
]


@pytest.fixture
def judged(open_page, tmp_path):
    """A page, and its section of eight images that are judged by the run's own thresholds."""
    path = tmp_path / "judged.html"
    prediction = Prediction(make_category().prediction.maps - 0.5, np.array(SCORES))  # values around 0
    path.write_text(make_page("part", thresholds=THRESHOLDS, prediction=prediction), encoding="utf-8")
    page = open_page(path)
    return page, *open_category(page, 0)


def test_the_page_starts_with_the_verdicts_of_the_run_and_returns_to_them(judged):
    _, section, data = judged
    slider, line = section.locator("input[type=range]"), section.locator("svg line.threshold")
    low, high, step = (float(slider.get_attribute(name)) for name in ("min", "max", "step"))
    own_place = 52 + (4 - low) / (high - low) * (406 - 52)  # of score 4 in the chart

    def see() -> tuple:
        counts = {item.get_attribute("class").split()[0]: int(item.locator("b").text_content())
                  for item in section.locator(".counts li:visible").all()}
        return counts, section.locator(".verdict").all_text_contents(), section.locator("output").text_content()

    def look_line() -> str:
        return section.locator("svg line.look").evaluate("line => getComputedStyle(line).display")

    assert see() == (OWN_COUNTS, OWN_WORDS, "4.000")
    assert 0 < abs(float(slider.input_value()) - 4) <= step / 2  # by the slider's own value 4 would be anomalous
    assert float(line.get_attribute("x1")) == pytest.approx(own_place, abs=0.05)
    assert look_line() != "none" and not section.locator("button.reset").is_visible()
    slider.focus()
    slider.press("ArrowRight")
    threshold = float(slider.input_value())
    counts, words, output = see()
    assert counts == expected_counts(data, threshold) and output == f"{threshold:.3f}"
    assert words == ["✗ missed"] * 3 + ["✓ found", "⚠ false alarm"] + ["✓ passed"] * 3
    assert float(line.get_attribute("x1")) > own_place
    assert look_line() == "none"
    section.locator("button.reset").click()
    assert see() == (OWN_COUNTS, OWN_WORDS, "4.000")
    assert float(line.get_attribute("x1")) == pytest.approx(own_place, abs=0.05)


def test_regions_are_outlined_as_the_verdict_says(judged):
    page, section, data = judged
    seen = set()
    for card, image, words in zip(section.locator(".card").all(), cards_in_order(data), OWN_WORDS, strict=True):
        card.scroll_into_view_if_needed()
        page.wait_for_function("card => card.querySelector('.overlay canvas').width === 32", arg=card.element_handle())
        threshold = 0.1 if "anomalous" in words else 0 if "look" in words else np.inf
        white = (read_canvas(card.locator(".overlay canvas")) == 255).all(axis=2)
        assert (white == outline(data, image, threshold)).all()
        seen.add((threshold, bool(white.any())))
    assert seen >= {(0.1, True), (0, True), (np.inf, False)}


def test_paper_is_light_whatever_the_screen_is(judged):
    page, section, _ = judged
    color = "getComputedStyle(document.querySelector('.card[data-verdict=missed] .verdict')).color"
    light = page.evaluate(color)
    page.emulate_media(media="screen", color_scheme="dark")
    assert page.evaluate(color) != light
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(color) == light
    assert section.locator(".counts .look-good").is_visible() and not section.locator("input").is_visible()
