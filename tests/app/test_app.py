"""The app without its page and its server: results, and what is said of them."""

from __future__ import annotations

import base64
import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.base import load_image
from tests.support.apps import brightness
from tests.support.commands import run_predict
from tests.support.trees import write_image
from utils.app import session as module
from utils.app.session import (
    FALSE_ALARMS,
    NONE,
    SCORE,
    Results,
    csv_of,
    explain_threshold,
    images_below,
    judge_again,
    name_files,
    score_all,
    score_span,
    table_rows,
    with_threshold,
)
from utils.app.views import MOST_SIDE, Picture, Visit, download_link, picture_panel, verdict_panel
from utils.detection.detector import Detection, Detector, Region, load_detector
from utils.detection.records import Record
from utils.detection.thresholds import GIVEN, Thresholds
from utils.drawing.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, score_position
from utils.drawing.pages import shrink
from utils.system.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")
GOOD = Thresholds(tuple(range(10, 200, 10)), ((0, 190.0), (50, 100.0)), 100, GIVEN, 0.1)  # 19 scores: 10 ... 190


def flat(path: Path, value: int) -> Path:
    return write_image(path, np.full((4, 4, 3), value, np.uint8))


# Results


def test_files_keep_their_names_and_get_numbers_where_they_are_taken():
    paths = [Path("/a/x.png"), Path("/b/x.png"), Path("/c/x.png"), Path("/c/y.png")]
    assert list(name_files(paths)) == ["x.png", "x.png (2)", "x.png (3)", "y.png"]
    assert name_files([Path("/a/b/x.png")], Path("/a")) == {"b/x.png": Path("/a/b/x.png")}


def test_only_what_is_below_the_folder_is_found(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    for path in (inside / "a.png", inside / "lot/b.png", outside / "secret.png", tmp_path / "inner/c.png"):
        flat(path, 0)
    (inside / "link.png").symlink_to(outside / "secret.png")
    (inside / "door").symlink_to(outside)
    (inside / "loop.png").symlink_to("loop.png")
    assert list(images_below(inside, ".")) == ["a.png", "lot/b.png"]
    for folder in ("lot", "./lot/", str(inside / "lot")):
        assert images_below(inside, folder) == {"lot/b.png": inside / "lot/b.png"}
    elsewhere = ("..", "../out", "../inner", "../in", f"{outside}/../in", str(outside), "/", "door", "door/../lot")
    for folder in (*elsewhere, "gone", "a.png", "loop.png", "*", "~", "x\0", "x" * 9999):
        with pytest.raises(UsageError, match="there is no folder .* in in"):
            images_below(inside, folder)
    (inside / "empty").mkdir()
    with pytest.raises(UsageError, match="no images in the folder 'empty'"):
        images_below(inside, "empty")


def test_bad_files_are_rows_with_their_error_under_the_name_of_the_page(tmp_path):
    paths = [flat(tmp_path / "a.png", 60), tmp_path / "bad.png", flat(tmp_path / "c.png", 195)]
    paths[1].write_bytes(b"no image")
    done = []
    detector = brightness(thresholds=GOOD, batch_size=2)
    results = score_all(detector, name_files(paths), 1, lambda *counts: done.append(counts))
    assert done == [(2, 3), (3, 3)]
    [first, bad, last] = table_rows(results)
    assert first == ["a.png", "good", "60.0000", "0.7500", ""]  # 14 of 19 score as high, and itself: 15 / 20
    assert last == ["c.png", "anomalous", "195.0000", "0.0500", ""]
    assert bad[:4] == ["bad.png", "not scored", "", ""] and str(tmp_path) not in bad[4] and "bad.png" in bad[4]
    assert results.index == 2 and results.choose("bad.png").chosen.error == bad[4]
    assert score_all(detector, {}, 1) == Results()


def test_too_many_images_and_too_many_pixels_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_IMAGES", 2)
    with pytest.raises(UsageError, match="3 images: the app takes 2 at a time"):
        score_all(brightness(), dict.fromkeys("abc", Path("x")), 1)
    [row] = table_rows(score_all(brightness(most_pixels=15), {"a": flat(tmp_path / "a.png", 1)}, 1))
    assert row[1] == "not scored" and "4 x 4 pixels are more than 15" in row[4]


def test_a_moved_threshold_judges_without_the_network(tmp_path):
    detector = brightness(thresholds=GOOD)
    results = score_all(detector, name_files([flat(tmp_path / "a.png", 185)]), 1)
    broken = replace(detector, compute=None)
    for kind, far, score, expected in (
        (FALSE_ALARMS, 5.0, 0.0, False),  # above 190
        (FALSE_ALARMS, 10.0, 0.0, True),  # 2 of 20 may be above: above 180
        (SCORE, 10.0, 185.0, False),
        (SCORE, 5.0, 184.9, True),
    ):
        [record] = judge_again(results, with_threshold(broken, kind, far, score)).records
        assert record.detection.is_anomalous == expected and len(record.detection.regions) == expected
    assert with_threshold(replace(detector, thresholds=None), NONE, 1.0, 7.0).image_threshold is None
    assert with_threshold(replace(detector, threshold=3.0), FALSE_ALARMS, 10.0, 7.0).image_threshold == 180


def test_percents_are_rates_as_they_are_written():
    thousand = Thresholds(tuple(range(999)), ((0, 998.0),), 1, GIVEN, 0.5)
    assert with_threshold(brightness(thresholds=thousand), FALSE_ALARMS, 2.9, 0.0).image_threshold == 999 - 29


def test_the_threshold_is_explained():
    detector = brightness(thresholds=GOOD)
    assert explain_threshold(detector) == (
        "Anomalous above 180: 1 of the 19 good images kept aside is above it, and of new ones on average at most 10 %."
    )
    assert explain_threshold(detector.at(0.01)) == (
        "Anomalous above 190: 0 of the 19 good images kept aside are above it, and of new ones on average at most 5 %. "
        "For at most 1 % it would take 99 good images kept aside."
    )
    assert explain_threshold(replace(detector, threshold=155.0)) == (
        "Anomalous above 155, set by hand: 4 of the 19 good images kept aside are above it."
    )
    assert "scripts/calibrate.py" in explain_threshold(brightness())
    assert "set by hand" in explain_threshold(brightness(threshold=2.0))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([], (0, 1, 0.01)), ([4.0], (0, 5, 0.01)), ([-2.0, 6.0], (-2, 8, 0.1)), ([0.033], (0, 0.0413, 0.0001))],
)
def test_the_slider_has_room_above_the_scores_in_round_steps(scores, expected):
    assert score_span(scores) == pytest.approx(expected)


def test_the_csv_is_that_of_predict(own, tmp_path):
    paths = sorted((own.data / "widget/test").rglob("*.png"))
    result = run_predict(tmp_path, own.run, *paths, "--output", "right.csv")
    assert result.status == 0
    results = score_all(load_detector(own.run), name_files(paths), 1)
    rows, right = (
        list(csv.DictReader(text)) for text in (io.StringIO(csv_of(results)), (tmp_path / "right.csv").open())
    )
    assert [row | {"path": ""} for row in rows] == [row | {"path": ""} for row in right]
    assert [row["path"] for row in rows] == list(name_files(paths))


# What is shown of an image


def detection(**changes) -> Detection:
    region = Region(2, 1, 5, 3, 7.0, 1)
    return replace(Detection(7.5, "anomalous", 0.05, [region], np.zeros((4, 4), np.float32), (40, 80)), **changes)


def test_the_verdict_is_a_word_with_its_figures():
    panel = verdict_panel(Record(Path("<b>.png"), detection()), 6.25)
    assert re.sub("<[^>]+>", " ", panel).split() == [
        "✕", "Anomalous", "&lt;b&gt;.png", "Score", "7.5000", "Threshold", "6.2500", "p-value", "0.0500", "Regions", "1"
    ]
    look = verdict_panel(Record(Path("a"), detection(verdict="look", score=5.0)), 6.25, 4.5)
    assert "Look at it" in look and re.search("Look above</dt><dd>4.5000<", look) and "Look above" not in panel
    assert "> Good<" in verdict_panel(Record(Path("a"), detection(verdict="good", regions=[])), 8.0)
    alone = verdict_panel(Record(Path("a"), detection(verdict=None, p_value=None, regions=[])), None)
    assert "No verdict" in alone and "Threshold" not in alone and "p-value" not in alone
    failed = verdict_panel(Record(Path("a"), None, "cannot read <i>"), 1.0)
    assert "Not scored" in failed and "cannot read &lt;i&gt;" in failed and 'role="alert"' in failed


def test_the_threshold_for_looking_is_shown_unless_one_is_set_by_hand():
    detector = brightness(thresholds=replace(GOOD, wanted_far=0.05, wanted_look=0.2))  # of 20, 4 may be above: 160
    results = Results((Record(Path("a"), detection(score=170.0, verdict="look")),))
    assert "<dd>160.0000</dd>" in Visit(results).panels(detector)[0]
    assert "Look above" not in Visit(results).panels(replace(detector, threshold=155.0))[0]


def test_boxes_lie_around_the_regions_in_the_images_pixels():
    record, picture = Record(Path("a"), detection()), Picture("", "")
    panel = picture_panel(record, picture)
    assert 'viewBox="0 0 80 40"' in panel
    assert panel.count('x="2" y="1" width="3" height="2"') == 2  # a line on a darker one
    assert "<title>score 7.0000, 1 pixel</title>" in panel
    assert "<rect" not in picture_panel(replace(record, detection=detection(regions=[])), picture)


def test_the_heat_map_has_the_images_shape_and_its_name(tmp_path):
    path = write_image(tmp_path / "a.png", np.full((100, 3000, 3), 80, np.uint8))
    found = detection(size=(100, 3000))
    picture = Picture.of(path, found, (0.0, 1.0), Detector(brightness, 32))
    for uri in (picture.photograph, picture.heat_map):
        content = np.frombuffer(base64.b64decode(uri.partition("base64,")[2]), np.uint8)
        assert cv2.imdecode(content, cv2.IMREAD_COLOR).shape == (43, 1280, 3)  # 100 * 1280 / 3000 = 42.7
    panel = picture_panel(Record(Path('a".png'), found), picture)
    assert "aspect-ratio: 3000 / 100" in panel
    assert 'alt="Heat map of a&#34;.png, 1 anomalous region outlined"' in panel
    assert picture_panel(Record(Path("a"), None, "bad"), None) == picture_panel(None, None) == ""
    narrow = load_image(path)[:, :1280]
    assert shrink(narrow, MOST_SIDE) is narrow


def test_the_score_and_the_threshold_lie_where_they_should():
    good = np.array([0.0, 0.0, 0.0, 10.0])
    chart = score_position(good, "good <images>", score=100.0, threshold=50.0)
    lines = dict(re.findall(r'<line class="(threshold|score)" x1="([\d.]+)"', chart))
    middle, across = (LEFT + WIDTH - RIGHT) / 2, WIDTH - LEFT - RIGHT
    assert float(lines["threshold"]) == pytest.approx(middle, abs=0.1)  # the axis has -2 ... 102
    assert float(lines["score"]) == pytest.approx(LEFT + across * 102 / 104, abs=0.1)
    heights = [float(height) for height in re.findall(r'<rect class="bar good"[^>]* height="([\d.]+)"', chart)]
    assert heights == pytest.approx([HEIGHT - TOP - BOTTOM, (HEIGHT - TOP - BOTTOM) / 3], abs=0.1)  # 3 and 1
    assert "4 good &lt;images&gt;. Threshold: 50. This image: 100." in chart
    assert "threshold" not in score_position(good, "good", 1.0, None).lower()


def test_the_download_is_the_text():
    link = download_link("path,é\n")
    assert base64.b64decode(re.search('base64,([^"]*)"', link)[1]).decode() == "path,é\n"
