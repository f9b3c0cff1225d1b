"""The app while a model computes without end: others are answered, requests have a limit, and a signal ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.apps import Served, Visitor, brightness, pipe, serve
from tests.support.commands import ROOT
from tests.support.trees import write_image
from utils.app import desk
from utils.app.desk import MOST_WAITING

pytest.importorskip("gradio")
pytestmark = pytest.mark.usefixtures("one_thread")


@contextmanager
def stuck(folder: Path | None = None, **limits) -> Iterator[tuple[Served, threading.Event, threading.Event]]:
    """The app with a model that computes until the second event is set; the first one says that it does."""
    begun, go_on, quick = threading.Event(), threading.Event(), brightness(batch_size=1)

    def compute(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        begun.set()
        assert go_on.wait(300)
        return quick.compute(pixels)

    with serve(replace(quick, compute=compute), folder, **limits) as served:
        try:
            yield served, begun, go_on
        finally:
            go_on.set()


@pytest.fixture
def image(tmp_path) -> bytes:
    return write_image(tmp_path / "a.png", np.full((4, 4, 3), 9, np.uint8)).read_bytes()


def test_others_are_answered_while_requests_wait_for_a_model(image):
    """More than the threads of the web server wait, and more than may."""
    with stuck() as (served, begun, go_on), ThreadPoolExecutor(MOST_WAITING + 10) as pool:
        path = Visitor(served.url).upload("a.png", image)
        waiting = [pool.submit(Visitor(served.url).score, path) for _ in range(MOST_WAITING + 10)]
        assert begun.wait(60)
        other = Visitor(served.url)
        assert other.ask("GET", "/")[0] == 200 and other.ask("GET", "/config")[0] == 200
        status, answer = other.call("judge", None, "score", 10, 1)
        assert status == 200 and b"Add an image" in answer
        assert other.upload("b.png", image).endswith("b.png")
        while sum(one.done() for one in waiting) < 10:  # those that are refused
            time.sleep(0.01)
        go_on.set()
        answers = [one.result() for one in waiting]
    scored = [answer for status, answer in answers if status == 200]
    refused = [answer for status, answer in answers if status != 200]
    assert len(scored) == MOST_WAITING and all(b"data:image/jpeg" in answer for answer in scored)
    assert len(refused) == 10 and all(b"Too many requests wait" in answer for answer in refused)


def test_what_takes_too_long_is_given_up_and_the_next_one_is_served(image):
    with stuck(seconds=0.5) as (served, begun, go_on):
        visitor = Visitor(served.url)
        path = visitor.upload("a.png", image)
        status, answer = visitor.score(path)
        assert begun.is_set() and status == 500
        assert json.loads(answer)["error"] == "This took longer than 0.5 seconds and was given up."
        body = {"data": [[{"path": path}], "score", 10, 1], "fn_index": visitor.handler("score_files")["id"],
                "session_hash": visitor.session}
        assert visitor.post("queue/join", body)[0] == 200
        assert b"took longer" in visitor.ask("GET", f"/gradio_api/queue/data?session_hash={visitor.session}")[1]
        go_on.set()
        while (answer := visitor.score(path))[0] != 200:  # until the first one has ended
            assert b"took longer" in answer[1]
        assert b"data:image/jpeg" in answer[1]


def test_a_batch_is_the_last_one_of_what_was_given_up(tmp_path):
    for number in range(3):
        write_image(tmp_path / f"{number}.png", np.full((4, 4, 3), 9, np.uint8))
    with stuck(tmp_path, seconds=0.5) as (served, _, go_on):
        visitor = Visitor(served.url)
        assert b"took longer" in visitor.call("score_folder", ".", "score", 10, 1)[1]
        go_on.set()
        while visitor.call("reset", "score", 10, 1)[0] != 200:  # until it has ended
            pass
    assert served.runs == [1]


def test_what_is_no_regular_file_in_the_folder_is_a_row_with_its_error(tmp_path):
    folder, outside = tmp_path / "photos", tmp_path / "outside.png"
    for path in (folder / "a.png", outside):
        write_image(path, np.full((4, 4, 3), 9, np.uint8))
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "link.png").symlink_to(outside)
    (folder / "loop.png").symlink_to("loop.png")
    with serve(brightness(), folder) as served, pipe(folder / "pipe.png"):
        status, answer = Visitor(served.url, seconds=20).call("score_folder", ".", "score", 10, 1)
        [table] = [part for part in json.loads(answer)["data"] if isinstance(part, dict) and "headers" in part]
    rows = {row[0]: [row[1], row[4]] for row in table["data"]}  # verdict and error
    assert status == 200 and set(rows) == {"a.png", "pipe.png"}
    assert rows == {"a.png": ["anomalous", ""], "pipe.png": ["not scored", "pipe.png is no file that can be read"]}


def test_requests_under_another_name_are_refused_where_others_are_let_in():
    """Rebinding: a page of evil.example that lets its name point here asks under that name, with it as origin."""
    with serve(brightness(), None, host="0.0.0.0", allowed_hosts=("line7.example",)) as served:
        number = served.url.rsplit(":", 1)[1]

        def status(host: str, origin: str | None = None) -> int:
            headers = {"Host": f"{host}:{number}"} | ({"Origin": origin} if origin else {})
            return Visitor(f"http://127.0.0.1:{number}").ask("GET", "/config", None, **headers)[0]

        for name in ("line7.example", "LINE7.example.", "127.0.0.1", "localhost"):
            assert status(name) == status(name, f"http://{name}:{number}") == 200
        for name in ("evil.example", "a.line7.example", "line7.example.evil.example", "192.0.2.1", "[::1]", "", "a@"):
            assert status(name) == status(name, f"http://{name}:{number}") == 403
        assert status("line7.example", f"http://evil.example:{number}") == 403
        visitor = Visitor(f"http://127.0.0.1:{number}")
        body = json.dumps({"data": [None, "score", 10, 1]}).encode()
        assert visitor.ask("POST", "/gradio_api/run/judge", body, Host="evil.example")[0] == 403
        assert visitor.ask("POST", "/gradio_api/upload", b"", Host="evil.example")[0] == 403
        for name in ("X-Forwarded-Host", "X-Gradio-Server"):  # which Gradio would write into the page
            for path in ("/", "/config"):
                status, page = visitor.ask("GET", path, **{"Host": "localhost", name: "http://evil.example"})
                assert status == 200 and b"http://localhost" in page and b"evil" not in page


def test_what_nobody_listens_to_is_not_kept_for_ever(image, monkeypatch):
    monkeypatch.setattr(desk, "MOST_MESSAGES", 20)
    with serve(brightness(), None) as served:
        visitor = Visitor(served.url)
        path = visitor.upload("a.png", image)
        body = {"data": [[{"path": path}], "score", 10, 1], "fn_index": visitor.handler("score_files")["id"]}
        for number in range(40):
            page = f"page{number % 20}"  # two of each, of which neither is heard
            assert visitor.post("queue/join", body | {"session_hash": page})[0] == 200
        assert visitor.post("queue/join", body | {"session_hash": "listens"})[0] == 200
        assert b"data:image/jpeg" in visitor.ask("GET", "/gradio_api/queue/data?session_hash=listens")[1]
        [kept] = [route.app.get_blocks()._queue.pending_messages_per_session for route in served.app.routes
                  if hasattr(getattr(route, "app", None), "get_blocks")]
        assert 0 < sum(messages.qsize() for messages in kept.values()) <= 20 + 5


ENDLESS = """
import os, runpy, sys, threading, time
import utils.app.guard
import utils.detection.detector
from dataclasses import replace
from tests.support.apps import brightness

def compute(pixels):
    print("computing", flush=True)
    time.sleep(3600)

def load_detector(*arguments):
    if when == "loading":
        threading.Thread(target=time.sleep, args=[3600]).start()  # as packages have them: Python would wait for its end
        print("loading", flush=True)
        time.sleep(3600)
    return replace(brightness(), compute=compute)

async def block(*arguments):
    print("blocking", flush=True)
    time.sleep(3600)  # and not asyncio.sleep: nobody is answered any more

utils.detection.detector.load_detector, when = load_detector, sys.argv[1]
if when == "blocking":
    utils.app.guard.checked_body = block
sys.argv = ["app.py", "run", "--port", "0"]
runpy.run_path("scripts/app.py", run_name="__main__")
"""


@pytest.mark.parametrize("when", ["loading", "serving", "computing", "blocking"])
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_app_whatever_it_does(image, tmp_path, when, number, expected):
    private = tmp_path / "private"
    private.mkdir()
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, when], env=os.environ | {"TMPDIR": str(private)},
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if when != "loading":
            visitor = Visitor(line.split()[0])
            path = visitor.upload("a.png", image)
            assert any(file.name == "a.png" for file in private.rglob("*"))
        if when in ("computing", "blocking"):
            threading.Thread(target=ask_in_vain, args=(visitor, path), daemon=True).start()
            line = process.stdout.readline()
        assert line.startswith((when, "http"))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)  # takes 1 s, and an hour without
    finally:
        process.kill()
    assert process.returncode == expected and err.strip().splitlines()[-1] == "stopped" and "Traceback" not in err
    assert list(private.iterdir()) == []


def ask_in_vain(visitor: Visitor, path: str) -> None:
    try:
        visitor.score(path)
    except OSError:  # the server has ended
        return
