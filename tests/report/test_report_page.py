"""The report in a browser, as a user has it: headless Chromium, no network."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from tests.report.test_html_report import decode, make_page
from tests.support.browsing import contrast, luminance


def open_category(page, index: int):
    """Open a category's section; returns it with the data it holds."""
    section = page.locator("details.category").nth(index)
    section.locator("summary").click()
    section.locator(".card").first.wait_for()
    return section, json.loads(section.locator("script").text_content())


def shown_counts(section) -> dict[str, int]:
    names = ("missed", "alarm", "found", "passed")
    return {name: int(section.locator(f".counts .{name} b").text_content()) for name in names}


def expected_counts(data: dict, threshold: float) -> dict[str, int]:
    scores, labels = np.array(data["scores"]), np.array(data["labels"])
    flagged = scores >= threshold
    return {
        "missed": int((~flagged & (labels == 1)).sum()),
        "alarm": int((flagged & (labels == 0)).sum()),
        "found": int((flagged & (labels == 1)).sum()),
        "passed": int((~flagged & (labels == 0)).sum()),
    }


def test_table_is_sorted_by_clicks_and_keys(open_page):
    page = open_page()
    table = page.locator("table.sortable")
    heads = table.locator("th")

    def column(index: int) -> list:
        cells = table.locator(f"tbody td:nth-child({index + 1})")
        values = [cell.get_attribute("data-value") for cell in cells.all()]
        return values if index == 0 else [float(value) for value in values]

    for index in range(1, heads.count()):
        values = column(index)
        heads.nth(index).locator("button").click()
        assert column(index) == sorted(values, reverse=True)
        assert heads.nth(index).get_attribute("aria-sort") == "descending"
        heads.nth(index).locator("button").press("Enter")
        assert column(index) == sorted(values)
        assert heads.nth(index).get_attribute("aria-sort") == "ascending"
    assert [heads.nth(i).get_attribute("aria-sort") for i in range(heads.count() - 1)] == ["none"] * (heads.count() - 1)
    heads.nth(0).locator("button").click()
    assert column(0) == ["bottle", "tile"]
    heads.nth(0).locator("button").click()
    assert column(0) == ["tile", "bottle"]
    assert table.locator("tfoot td").first.text_content() == "Mean"


def test_threshold_changes_counts_and_verdicts(open_page):
    page = open_page()
    for index in (0, 1):
        section, data = open_category(page, index)
        slider = section.locator("input[type=range]")
        low, high = (float(slider.get_attribute(name)) for name in ("min", "max"))
        seen = set()
        for share in (None, 0, 0.3, 0.5, 0.7, 1):  # None: as it starts
            if share is not None:
                slider.fill(str(low + share * (high - low)))
            threshold = float(slider.input_value())
            assert shown_counts(section) == expected_counts(data, threshold)
            assert section.locator("output").text_content() == f"{threshold:.3f}"
            seen.add(tuple(shown_counts(section).values()))
            for card, image in zip(section.locator(".card").all(), cards_in_order(data), strict=True):
                one = expected_counts({"scores": [image["score"]], "labels": [image["label"]]}, threshold)
                assert one[card.get_attribute("data-verdict")] == 1
        assert len(seen) >= 3  # they do change
        line = section.locator("svg .threshold")
        assert float(line.get_attribute("x1")) == pytest.approx(float(line.get_attribute("data-x1")))  # at the far end


def cards_in_order(data: dict) -> list[dict]:
    """The worst first: anomalous images from the lowest score, then good ones from the highest."""
    anomalous = sorted((i for i in data["images"] if i["label"]), key=lambda image: image["score"])
    good = sorted((i for i in data["images"] if not i["label"]), key=lambda image: -image["score"])
    return anomalous[:6] + good[:6]


def test_threshold_moves_with_the_keyboard(open_page):
    page = open_page()
    page.locator("details.category summary").first.focus()
    page.keyboard.press("Enter")  # opens the category
    section = page.locator("details.category").first
    section.locator(".card").first.wait_for()
    data = json.loads(section.locator("script").text_content())
    page.keyboard.press("Tab")
    slider = section.locator("input[type=range]")
    assert slider.evaluate("element => element === document.activeElement")
    before = float(slider.input_value())
    page.keyboard.press("ArrowRight")
    assert float(slider.input_value()) - before == pytest.approx(float(slider.get_attribute("step")), rel=1e-3)
    page.keyboard.press("Home")
    assert shown_counts(section)["missed"] == shown_counts(section)["passed"] == 0
    page.keyboard.press("End")
    assert shown_counts(section) == expected_counts(data, float(slider.input_value()))
    assert shown_counts(section)["found"] == shown_counts(section)["alarm"] == 0


def test_gallery_shows_the_worst_first_with_their_maps(open_page):
    page = open_page()
    section, data = open_category(page, 0)
    images = cards_in_order(data)
    cards = section.locator(".card")
    assert [card.locator(".name").text_content() for card in cards.all()] == [image["name"] for image in images]
    section.locator("input[type=range]").fill(str(min(data["scores"]) - 1))  # everything is flagged: no edge in white
    for index, image in enumerate(images):
        card = cards.nth(index)
        card.scroll_into_view_if_needed()
        page.wait_for_function("card => card.querySelector('.overlay canvas').width === 32", arg=card.element_handle())
        heat, truth = (read_canvas(card.locator(f".{panel} canvas")) for panel in ("heat", "truth"))
        value = data["low"] + decode(image["map"]) / 255 * (data["high"] - data["low"])
        share = np.clip((value - data["cold"]) / (data["hot"] - data["cold"]), 0, 1)
        colors = np.array(json.loads(page.locator("#colors").text_content())).reshape(256, 3)
        assert (heat == colors[np.floor(255 * share + 0.5).astype(int)]).all()
        cyan = (truth == (0, 255, 255)).all(axis=2)
        assert cyan.any() == bool(image["mask"])
        if image["mask"]:
            assert (decode(image["mask"])[cyan] == 255).all()
        assert image["name"] in card.locator("img").get_attribute("alt")
        assert all(image["name"] in c.get_attribute("aria-label") for c in card.locator("canvas").all())


def read_canvas(canvas) -> np.ndarray:
    """The pixels of a canvas, uint8 (H, W, 3)."""
    return decode(canvas.evaluate("canvas => canvas.toDataURL('image/png')"), cv2.IMREAD_COLOR)


def test_flagged_area_is_outlined(open_page):
    page = open_page()
    section, data = open_category(page, 0)
    image = cards_in_order(data)[-1]
    card = section.locator(".card").last
    card.scroll_into_view_if_needed()
    page.wait_for_function("card => card.querySelector('.overlay canvas').width === 32", arg=card.element_handle())
    steps = decode(image["map"]).astype(int)
    whites = []
    for step in (int(np.median(steps)), 256):
        threshold = data["low"] + step / 255 * (data["high"] - data["low"])
        section.locator("input[type=range]").fill(str(threshold))
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        threshold = float(section.locator("input[type=range]").input_value())
        white = (read_canvas(card.locator(".overlay canvas")) == 255).all(axis=2)
        assert (white == outline(data, image, threshold)).all()
        whites.append(int(white.sum()))
    assert whites[0] > 0
    assert whites[1] == 0


def outline(data: dict, image: dict, threshold: float) -> np.ndarray:
    """The pixels on the edge of the area of an image's map that is above a threshold."""
    flagged = data["low"] + (decode(image["map"]).astype(int) + 1) / 255 * (data["high"] - data["low"]) > threshold
    around = np.pad(flagged, 1, mode="edge")
    return flagged & ~(around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:])


def test_show_all_shows_every_image(open_page, tmp_path):
    path = tmp_path / "many.html"
    path.write_text(make_page("part", count=30), encoding="utf-8")
    section, data = open_category(open_page(path), 0)
    for label, group in ((1, "anomalous"), (0, "good")):
        cards = section.locator(f".cards[data-group={group}] .card")
        button = section.locator(f"button.more[data-group={group}]")
        assert cards.count() == 6
        assert button.text_content() == "Show all 15"
        button.click()
        names = {image["name"] for image in data["images"] if image["label"] == label}
        assert {card.locator(".name").text_content() for card in cards.all()} == names
        assert not button.is_visible()


@pytest.mark.parametrize("width", [400, 1280])
def test_page_is_never_wider_than_the_screen(open_page, width):
    page = open_page(viewport={"width": width, "height": 800})
    for index in (0, 1):
        open_category(page, index)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [box.bounding_box() for box in page.locator(".chart, .card, .control, .stage1").all()]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)


def test_dark_mode_is_dark_and_readable(open_page):
    for scheme, dark in (("light", False), ("dark", True)):
        page = open_page(color_scheme=scheme)
        page_color, text = (f"getComputedStyle(document.body).{what}" for what in ("backgroundColor", "color"))
        assert (luminance(page.evaluate(page_color)) < luminance(page.evaluate(text))) == dark
        assert contrast(page, text, page_color) >= 7  # WCAG's enhanced contrast


def test_a_link_in_the_table_opens_the_category(open_page):
    page = open_page()
    page.locator("tbody a", has_text="tile").click()
    page.locator("details.category", has_text="tile").last.locator(".card").first.wait_for()
    assert page.locator("details.category[open] summary").text_content().startswith("tile")
