"""Regions of interest that the app's visitors mark: corners, the file of them, and pictures with a region."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.regions import read_region
from datasets.view import View
from tests.support.apps import brightness
from utils.app.regions import (
    MOST_CORNERS,
    check_corners,
    corner_at,
    describe,
    marked_picture,
    pixels_to_mark,
    polygons_of,
    read_corners,
    write_corners,
)
from utils.app.session import explain_view
from utils.app.views import Picture, Visit, marked_panel, picture_panel
from utils.detection.detector import Detection
from utils.detection.records import Record
from utils.drawing.pages import jpeg_uri
from utils.system.errors import UsageError

BOX = ((0.75, 0.5), (0.25, 1.0))  # two opposite corners
TRIANGLE = ((0.1, 0.1), (0.9, 0.1), (0.5, 0.9))


def test_a_click_is_a_corner_in_shares_of_the_picture_and_near_the_frame_on_it():
    assert corner_at([100, 50], (200, 400)) == (0.25, 0.25)  # y and x of (200, 400)
    assert corner_at([123.4, 66], (200, 1000)) == (0.123, 0.33)
    assert corner_at([7, 197], (200, 400)) == (0, 1)  # 0.0175 and 0.985
    assert corner_at([9, 195], (200, 400)) == (0.022, 0.975)


@pytest.mark.parametrize("place", [
    None, 0, [], [1], "ab", {}, {"x": 1}, [None, 1], ["1e", 1], [float("nan"), 1], [float("inf"), 1], [-9, 1],
    [1, 220], [10**400, 1], [[1], [1]], [1j, 1],
])
def test_what_is_no_place_in_the_picture_is_refused(place):
    with pytest.raises(UsageError, match="no place in the photograph|within the photograph"):
        corner_at(place, (200, 400))


def test_corners_are_written_and_read_in_percent():
    assert write_corners(TRIANGLE) == "10 10, 90 10, 50 90" and write_corners(()) == ""
    for corners in ((), BOX, TRIANGLE, ((0.123, 1.0), (0.0, 0.005))):
        assert read_corners(write_corners(corners)) == corners
    assert read_corners(" 10 20 ;80.25 90\n") == ((0.1, 0.2), (0.802, 0.9))


@pytest.mark.parametrize(("text", "reason"), [
    ("10", "'10' is no corner"), ("10 20, x y", "'x y' is no corner"), ("10 20 30", "10 20, 80 90"),
    ("10 101", "0 to 100 percent"), ("nan 5", "0 to 100 percent"), ("1 1," * (MOST_CORNERS + 1), "at most 100 corners"),
])
def test_what_are_no_corners_is_refused(text, reason):
    with pytest.raises(UsageError, match=reason):
        read_corners(text)


def test_a_region_has_no_more_corners_than_may_be():
    assert len(check_corners(TRIANGLE[:1] * MOST_CORNERS)) == MOST_CORNERS
    with pytest.raises(UsageError, match="at most"):
        check_corners(TRIANGLE[:1] * (MOST_CORNERS + 1))


@pytest.mark.parametrize(("corners", "content", "said"), [
    (BOX, {"box": [0.25, 0.5, 0.75, 1.0]}, "A box: 25 % of the photograph."),
    (TRIANGLE, {"polygons": [[[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]]]}, "A polygon of 3 corners: 32"),
])
def test_the_file_of_a_region_is_read_by_train_as_it_was_marked(tmp_path, corners, content, said):
    text, written = describe(corners)
    assert text.startswith(said) and json.loads(written) == content
    (tmp_path / "region.json").write_text(written)
    assert read_region(tmp_path / "region.json") == polygons_of(corners)


@pytest.mark.parametrize(("corners", "said"), [
    ((), "No corner yet"), (BOX[:1], "One corner"), (((0.1, 0.1), (0.12, 0.9)), "narrower than 1/32"),
    (((0.1, 0.1), (0.1, 0.9)), "no area"), (((0.1, 0.1), (0.5, 0.5), (0.9, 0.9)), "next to nothing between"),
])
def test_what_is_no_region_says_why_and_has_no_file(corners, said):
    text, written = describe(corners)
    assert said in text and written == ""
    assert "<a " not in marked_panel(text, written)


@pytest.mark.parametrize("shape", [(60, 80), (1200, 1600)])
def test_a_picture_is_dimmed_beside_the_region_alone_and_shows_its_corners(shape):
    uri = jpeg_uri(np.full((*shape, 3), 200, np.uint8), 95)
    plain, marked = pixels_to_mark(marked_picture(uri, ())), pixels_to_mark(marked_picture(uri, BOX))
    assert plain.shape == marked.shape == (750, 1000, 3)
    assert np.abs(plain.astype(int) - 200).max() <= 3
    inside = np.zeros((750, 1000), bool)
    inside[375:, 250:750] = True
    far = np.ones_like(inside)  # from the outline and its corners
    far[335:, 210:790] = False
    far[415:710, 290:710] = True
    assert np.abs(marked[inside & far].astype(int) - 200).max() <= 3
    assert np.abs(marked[~inside & far].astype(int) - 70).max() <= 3  # 0.35 of 200
    assert marked[375, 750].astype(int) == pytest.approx([0, 255, 255], abs=12)
    one = pixels_to_mark(marked_picture(uri, BOX[:1]))
    assert one[375, 750].astype(int) == pytest.approx([0, 255, 255], abs=12)
    assert (np.abs(one.astype(int) - 200).max(axis=2) > 20).mean() < 0.002


# A model that has a region


def test_a_models_region_and_windows_are_said_and_drawn_into_its_pictures():
    view = replace(View.whole(region=(((0.25, 0.5), (0.75, 0.5), (0.75, 1.0), (0.25, 1.0)),)), rows=2, columns=3)
    assert explain_view(brightness()) == ""
    for detector in (brightness(view=view), brightness(shown=view)):
        assert explain_view(detector) == (
            "This model has a region of interest, 25 % of the photograph: what is dimmed beside it gives no alarm. "
            "It looks at the photograph in 2 x 3 windows that overlap."
        )
    record = Record(Path("a"), Detection(7.5, "good", 0.5, [], np.zeros((4, 4), np.float32), (40, 80)))
    panel = picture_panel(record, Picture("", ""), view.region)
    outline = "M20.0,20.0 60.0,20.0 60.0,40.0 20.0,40.0Z"
    assert f'd="M0,0H80V40H0Z{outline}"' in panel and f'd="{outline}"' in panel and "Dimmed" in panel
    whole = picture_panel(record, Picture("", ""))
    assert "<path" not in whole and "Dimmed" not in whole
    assert "windows" in Visit().panels(brightness(view=view))[-1] and "windows" not in Visit().panels(brightness())[-1]
