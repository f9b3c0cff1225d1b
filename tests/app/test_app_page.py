"""The app's page in headless Chromium, and its server as a user starts and stops it."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from tests.detection.test_predict_models import WITHOUT_TORCH
from tests.support.apps import Served, serve
from tests.support.browsing import contrast
from tests.support.commands import ROOT, run_predict
from tests.support.trees import good_image, write_image
from utils.detection.detector import load_detector

pytest.importorskip("gradio")
pytestmark = pytest.mark.usefixtures("one_thread")


@contextmanager
def opened(browser, url: str, refused: str = "413") -> Iterator:
    """A page that asks this server alone, and has no errors but requests that are refused with this status."""
    asked, errors = [], []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)  # on busy machines
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(url)
    page.locator(".verdict").wait_for()
    try:
        yield page
    finally:
        context.close()
    assert asked and not [a for a in asked if not a.startswith((f"{url}/", "data:", f"blob:{url}/"))]
    assert not [error for error in errors if refused not in error]


@pytest.fixture(scope="module")
def photos(own) -> Path:
    """Six images, of which some are anomalous, and a file that is none."""
    rng, folder = np.random.default_rng(3), own.cwd / "app_photos"
    for number in range(6):
        pixels = good_image(rng, 64).copy()
        if number % 2:
            pixels[16:32, 16:32] = (255, 0, 255)
        write_image(folder / f"lot/{number}.png", pixels[:48])
    (folder / "lot/broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def served(own, photos) -> Iterator[Served]:
    hosts, connect = [], socket.socket.connect

    def note(self, address):
        hosts.append(address)
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", note)
        with serve(load_detector(own.run), photos, megabytes=0.1, pixels=64 * 64) as found:
            yield found
    assert not [a for a in hosts if isinstance(a, tuple) and a[0] not in ("127.0.0.1", "::1")]


@pytest.fixture
def page(browser, served):
    with opened(browser, served.url) as found:
        yield found


def upload(page, *paths: Path) -> None:
    page.locator("#images input[type=file]").first.set_input_files(paths)


def set_slider(page, name: str, value: float) -> None:
    box = page.locator(f"#{name} input[type=number]")
    box.fill(str(value))
    box.press("Enter")


def open_section(page):
    """Open the section of the region of interest; returns its picture."""
    page.get_by_role("button", name="Region of interest").click()
    picture = page.locator("#marked img")
    picture.wait_for()
    return picture


def shows(page, pattern: str) -> str:
    """Wait until the verdict's text matches."""
    found = page.locator(".verdict", has_text=re.compile(pattern, re.DOTALL))
    found.wait_for()
    return found.inner_text()


def boxes(page) -> list[tuple[str, ...]]:
    names = ("x", "y", "width", "height")
    return [tuple(box.get_attribute(name) for name in names) for box in page.locator(".boxes .box").all()]


def test_an_image_is_shown_with_its_heat_map_and_a_moved_threshold_judges_it_anew(page, served, photos):
    path = photos / "lot/1.png"
    found = served.detector.predict(path)
    assert found.is_anomalous and found.score > served.detector.thresholds.scores[-1]
    upload(page, path)
    text = shows(page, "1.png")
    assert "Anomalous" in text and f"{found.score:.4f}" in text and f"{found.p_value:.4f}" in text
    heat = page.locator(".picture .heat")
    assert heat.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])") == [64, 48]
    assert heat.get_attribute("alt").startswith("Heat map of 1.png, ")
    shape = page.locator(".frame").bounding_box()
    assert shape["width"] / shape["height"] == pytest.approx(64 / 48, rel=0.01)
    regions = [tuple(map(str, (r.left, r.top, r.right - r.left, r.bottom - r.top))) for r in found.regions]
    assert boxes(page) == regions and regions
    line = page.locator(".chart line.threshold").get_attribute("x1")
    page.get_by_label("Photograph without colours").check()
    assert not heat.is_visible() and page.locator(".picture .photograph").is_visible()

    runs = list(served.runs)
    page.get_by_label("score", exact=True).check()
    set_slider(page, "score", round(found.score + 0.01, 2))
    assert "Good" in shows(page, "Good") and boxes(page) == []
    assert page.locator(".chart line.threshold").get_attribute("x1") != line
    page.get_by_text("set by hand").wait_for()
    page.get_by_label("rate of false alarms").check()
    shows(page, "Anomalous")
    assert boxes(page) == regions
    set_slider(page, "percent", 50)
    page.get_by_text(re.compile("on average at most 50 %")).wait_for()
    assert served.runs == runs


def test_what_is_no_image_or_too_large_is_refused_with_a_message(page, photos, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    upload(page, tmp_path / "notes.txt")
    text = shows(page, "Not scored")
    assert "notes.txt" in text and "no image that can be read" in text and "PNG, JPEG" in text
    page.get_by_label("Clear").click()
    shows(page, "Add an image")
    large = write_image(tmp_path / "large.png", np.zeros((64, 65, 3), np.uint8))
    upload(page, large)
    assert "65 x 64 pixels are more than 4,096" in shows(page, "large.png")
    page.get_by_label("Clear").click()
    heavy = write_image(tmp_path / "heavy.bmp", np.zeros((200, 200, 3), np.uint8))  # 120 KB
    upload(page, heavy)
    page.get_by_text(re.compile("exceed the maximum allowed size .*heavy.bmp")).first.wait_for()
    assert "heavy" not in page.locator(".verdict").inner_text()


def test_a_file_that_was_not_uploaded_is_refused_with_a_message(browser, served, photos):
    def name_another(route) -> None:
        sent = json.loads(route.request.post_data)
        sent["data"][0][0]["path"] = str(photos / "lot/0.png")
        route.continue_(post_data=json.dumps(sent))

    with opened(browser, served.url, refused="403") as page:
        page.route(re.compile("/queue/join"), name_another)
        upload(page, photos / "lot/1.png")
        page.get_by_text("A file is none that this page uploaded").first.wait_for()
        assert page.locator(".picture").count() == 0


def test_a_folder_is_a_table_that_opens_images_and_saves_as_predict_does(page, own, served, photos, tmp_path):
    page.get_by_role("tab", name="Folder").click()
    folder = page.get_by_label("Folder below app_photos")
    folder.fill("..")
    page.get_by_role("button", name="Score the folder").click()
    page.get_by_text("there is no folder '..' in app_photos").wait_for()
    folder.fill("lot")
    folder.press("Enter")
    cells = page.locator("#table [role=row]:has([role=gridcell])")
    assert run_predict(photos, own.run, "lot", "--output", tmp_path / "right.csv").status == 1
    right = list(csv.DictReader((tmp_path / "right.csv").open()))
    for row in right:  # one after the other, as the page draws them
        cells.filter(has_text=row["path"]).locator("[role=gridcell]").nth(4).wait_for()
    texts = [[text.strip() for text in row.locator("[role=gridcell]").all_inner_texts()] for row in cells.all()]
    rows = {row[0]: row for row in texts if row}
    assert {row["path"] for row in right} <= set(rows)
    for row in right:
        shown = rows[row["path"]]
        assert shown[1] == {"True": "anomalous", "False": "good", "": "not scored"}[row["anomalous"]]
        assert shown[2] == (f"{float(row['score']):.4f}" if row["score"] else "")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    assert download.value.suggested_filename == "predictions.csv"
    saved = list(csv.DictReader(download.value.path().open()))
    for row, expected in zip(saved, right, strict=True):
        assert list(row) == list(expected) and row["anomalous"] == expected["anomalous"]
        assert len(json.loads(row["regions"] or "[]")) == len(json.loads(expected["regions"] or "[]"))
    highest = max((row for row in right if row["score"]), key=lambda row: float(row["score"]))
    shows(page, highest["path"])
    for name in ("lot/0.png", "lot/broken.png"):
        cells.filter(has_text=name).locator("[role=gridcell]").first.click()
        shows(page, name)
        assert page.locator(".picture .heat").count() == (name != "lot/broken.png")


def test_a_photograph_is_taken_with_the_camera(page):
    page.get_by_role("tab", name="Camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#images video')?.videoWidth > 0")
    page.get_by_label("capture photo").click()
    assert "more than 4,096" in shows(page, "photograph")  # the test pattern has 640 x 480


def test_the_page_fits_screens_and_is_readable_in_light_and_dark(page, photos):
    upload(page, *sorted((photos / "lot").glob("*.png")))
    page.get_by_role("link", name="Download as CSV").wait_for()
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        parts = page.locator(".verdict, .picture, .chart, #table, #threshold").all()
        assert all(b["x"] >= 0 and b["x"] + b["width"] <= width for b in (part.bounding_box() for part in parts))
    panel = "getComputedStyle(document.querySelector('.verdict')).backgroundColor"
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"document.body.classList.contains('dark') === {str(scheme == 'dark').lower()}")
        for part, least in ((".verdict .word", 4.5), (".verdict dd", 7), (".verdict .name", 4.5)):
            color = f"getComputedStyle(document.querySelector('{part}')).color"
            assert contrast(page, color, panel) >= least
    assert all(image.get_attribute("alt") for image in page.locator("#found img").all())


def test_without_thresholds_there_are_scores_and_a_slider_over_them(browser, served, photos):
    with serve(replace(served.detector, thresholds=None), photos) as bare, opened(browser, bare.url) as page:
        page.get_by_text("scripts/calibrate.py RUN --images DIR").wait_for()
        upload(page, photos / "lot/1.png")
        assert "No verdict" in shows(page, "1.png")
        page.get_by_label("score", exact=True).check()
        set_slider(page, "score", 0.01)
        shows(page, "Anomalous")


def test_other_names_and_pages_are_refused_and_no_docs_are_served(served):
    def status(path: str = "/", **headers: str) -> int:
        try:
            with urlopen(Request(served.url + path, headers=headers), timeout=10) as answer:
                assert "connect-src 'self'" in answer.headers["content-security-policy"]
                return answer.status
        except HTTPError as error:
            return error.code

    assert status() == 200
    assert status(Host="evil.example") == status(Origin="http://evil.example") == 403
    assert status("/docs") == status("/openapi.json") == status("/gradio_api/runs") == 404


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_model_file_is_served_without_torch_until_a_signal(request, photos, browser, tmp_path, number, expected):
    for package in ("onnxruntime", "onnxscript", "openvino"):
        pytest.importorskip(package)
    model = request.getfixturevalue("models")["onnx"]
    command = [sys.executable, "-c", WITHOUT_TORCH, "openvino", ROOT / "scripts/app.py", model, "--port", "0"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().split()[0]
        if number == signal.SIGTERM:
            with opened(browser, url) as page:
                upload(page, photos / "lot/1.png")
                assert "Anomalous" in shows(page, "1.png")
                open_section(page)  # asks for the last that the page asks for
                assert any(path.name == "1.png" for path in tmp_path.rglob("*"))
                process.send_signal(number)
                out, err = process.communicate(timeout=30)
        else:
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == expected and err.strip().endswith("stopped") and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
