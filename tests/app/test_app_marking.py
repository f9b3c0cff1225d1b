"""The section of the app's page in which a region is marked, in headless Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from datasets.regions import read_region
from tests.app.test_app_page import open_section, opened, shows, upload
from tests.support.apps import META, Served, Visitor, brightness, serve
from tests.support.trees import write_image

pytest.importorskip("gradio")
pytestmark = pytest.mark.usefixtures("one_thread")
PICTURE = b"data:image/jpeg"


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    tmp_path_factory.getbasetemp()  # or, made later, it would be in the app's folder
    with serve(brightness(), None) as found:
        yield found


@pytest.fixture
def images(tmp_path) -> list[Path]:
    """Two photographs of 90 x 60 pixels."""
    return [write_image(tmp_path / f"{value}.png", np.full((60, 90, 3), value, np.uint8)) for value in (90, 180)]


def written(page, corners: str) -> None:
    said = f"document.querySelector('#corners input, #corners textarea').value === {json.dumps(corners)}"
    page.wait_for_function(said)


def middle_of(picture, x: float, y: float) -> list[int]:
    """The colour of the picture at these shares."""
    return picture.evaluate(
        """async (image, [x, y]) => {
            await image.decode();
            const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
            canvas.drawImage(image, 0, 0);
            const place = [x * image.naturalWidth, y * image.naturalHeight];
            return [...canvas.getImageData(...place, 1, 1).data].slice(0, 3);
        }""", [x, y])


@pytest.mark.parametrize("width", [400, 1280])
def test_a_region_is_clicked_seen_and_downloaded_for_train(browser, served, images, tmp_path, width):
    with opened(browser, served.url) as page:
        page.set_viewport_size({"width": width, "height": 900})
        upload(page, images[1])
        shows(page, "180.png")
        before = set(served.uploads.rglob("*"))
        picture = open_section(page)
        picture.scroll_into_view_if_needed()
        box = picture.bounding_box()
        assert box["width"] / box["height"] == pytest.approx(1.5, rel=0.02) and box["width"] > 0.7 * min(width, 700)
        picture.click(position={"x": box["width"] / 4, "y": box["height"] / 2})
        page.get_by_text("One corner; mark the one opposite").wait_for()
        assert page.get_by_role("link", name="Download region.json").count() == 0
        picture.click(position={"x": 0.75 * box["width"], "y": box["height"] - 1})
        page.get_by_text("% of the photograph.").wait_for()
        assert abs(middle_of(picture, 0.5, 0.75)[0] - 180) <= 5 and abs(middle_of(picture, 0.5, 0.2)[0] - 63) <= 5
        with page.expect_download() as download:
            page.get_by_role("link", name="Download region.json").click()
        assert download.value.suggested_filename == "region.json"
        download.value.save_as(tmp_path / "region.json")
        [polygon] = read_region(tmp_path / "region.json")
        assert np.array(polygon) == pytest.approx(np.array([(0.25, 0.5), (0.75, 0.5), (0.75, 1), (0.25, 1)]), abs=0.006)
        assert "train.py --data_root DATA --roi region.json" in page.locator("#command textarea").input_value()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert set(served.uploads.rglob("*")) == before


def test_corners_are_taken_back_typed_and_stay_for_other_photographs(browser, served, images):
    with opened(browser, served.url) as page:
        upload(page, *images)
        shows(page, "180.png")
        picture, field = open_section(page), page.get_by_label("Corners")
        field.fill("10 10, 90 10, 50 90")
        field.press("Enter")
        page.get_by_text("A polygon of 3 corners: 32").wait_for()
        assert abs(middle_of(picture, 0.5, 0.3)[0] - 180) <= 5
        field.fill("10 10, 90")
        field.press("Enter")
        page.get_by_text("'90' is no corner").first.wait_for()
        before = picture.get_attribute("src")
        page.locator("#table [role=gridcell]").filter(has_text="90.png").first.click()
        shows(page, "90.png")
        page.wait_for_function("src => document.querySelector('#marked img').src !== src", arg=before)
        assert abs(middle_of(picture, 0.5, 0.3)[0] - 90) <= 5 and abs(middle_of(picture, 0.1, 0.5)[0] - 31) <= 5
        page.get_by_role("button", name="Undo").click()
        page.get_by_text("A box: ").or_(page.get_by_text("no area")).wait_for()
        written(page, "10 10, 90 10")
        page.get_by_role("button", name="Remove all").click()
        page.get_by_text("No corner yet").wait_for()
        page.get_by_label("Clear").first.click()
        shows(page, "Add an image")
        page.get_by_text("Add an image: it is shown here").wait_for()
        assert not picture.is_visible()


def test_the_picture_is_made_for_an_open_section_alone_and_of_a_visitors_own_image(served, images):
    visitor = Visitor(served.url)
    path = visitor.upload("a.png", images[0].read_bytes())
    assert visitor.score(path)[0] == 200
    assert PICTURE not in visitor.call("show", None, None, None)[1]
    body = {"data": [None, None], "session_hash": visitor.session, "event_data": {"index": [500, 400], "value": 0}}
    assert PICTURE in visitor.post("run/add_corner", body)[1]
    assert PICTURE in visitor.call("open", None, None)[1] and PICTURE in visitor.call("show", None, None, None)[1]
    for index in (None, [10**400, 1], [1], {"path": path, "meta": META}, "ab", [-1000, 0]):
        assert PICTURE not in visitor.post("run/add_corner", body | {"event_data": {"index": index, "value": 0}})[1]
    other = Visitor(served.url)
    assert PICTURE not in other.call("open", None, None)[1]
    assert PICTURE not in other.post("run/add_corner", body | {"session_hash": other.session})[1]
