"""What visitors upload: taken in whole or not at all, kept apart, and read if it is still what was uploaded."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import pytest

from tests.support.apps import META, Served, Visitor, brightness, pipe, serve
from tests.support.trees import write_image

pytest.importorskip("gradio")
module = pytest.importorskip("utils.app.uploads")
pytestmark = pytest.mark.usefixtures("one_thread")
FILE = b'name="files"; filename="a.png"'


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    tmp_path_factory.getbasetemp()  # is made now: while the app is open, temporary folders are made in its own
    with serve(brightness(), None, megabytes=1) as found:
        yield found


@pytest.fixture
def image(tmp_path) -> bytes:
    return write_image(tmp_path / "outside/a.png", np.full((4, 4, 3), 9, np.uint8)).read_bytes()


def resident(pid: int) -> int:
    """Bytes that a process holds in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("name", [".", "..", "/", "../../escaped.png", "a/b.png", "\\\\x\\y.png", "..png", "x" * 300])
def test_no_upload_leaves_the_private_folder_whatever_it_is_called(served, image, name):
    visitor = Visitor(served.url)
    path = Path(visitor.upload(name, image))
    assert path.parent.parent == served.uploads and re.fullmatch("[0-9a-f]{32}", path.parent.name)
    assert visitor.ask("GET", f"/gradio_api/file={quote(str(path))}") == (200, image)
    assert visitor.score(str(path))[0] == 200
    assert not (served.uploads.parent / "escaped.png").exists()


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("50% é;#.png".encode(), "50% é;#.png"),
        (b"a\0\x1b[31m\nwarning.png", "a__[31m_warning.png"),
        (b"caf\xe9.png", "café.png"),
        (b"C:\\photos\\a.png", "a.png"),
        (b"../", "file"),
        (b"", "file"),
        (b" .. ", "file"),
        (b".png", "png"),
        (b"x" * 300 + b".png", "x" * 196 + ".png"),
        ("é".encode() * 300 + b".tiff", "é" * 97 + ".tiff"),
        (b"x." + b"y" * 300, "x." + "y" * 99),
    ],
)
def test_an_upload_has_the_last_part_of_its_name_in_characters_that_can_be_seen(sent, name):
    assert module.name_of(sent) == name


@pytest.mark.parametrize(
    ("parts", "end", "status"),
    [
        ([(b'name="files"', b"a field")], b"--x--", 400),
        ([(b'name="other"; filename="a.png"', b"x")], b"--x--", 400),
        ([(b'filename="a.png"', b"x")], b"--x--", 400),
        ([(b"name=\"files\"; filename*=UTF-8''..%2fa.png", b"x")], b"--x--", 400),
        ([(FILE, b"whole"), (b'name="files"', b"a field")], b"--x--", 400),
        ([(FILE, b"cut off")], b"", 400),
        ([(FILE, b"whole"), (FILE, b"x" * (2**20 + 1))], b"--x--", 413),
        ([(FILE + b"\r\nX: " + b"x" * 10_000, b"x")], b"--x--", 400),
        ([(FILE + b"\r\nX: " + b"x" * 4000 + b"\r\nY: " + b"x" * 4200, b"x")], b"--x--", 413),
        ([(FILE, b"")] * 4, b"--x--", 400),
        ([], b"", 400),
        ([], b"no form", 400),
    ],
)
def test_of_a_form_that_is_not_the_pages_nothing_is_kept(served, monkeypatch, parts, end, status):
    monkeypatch.setattr(module, "MOST_FILES", 3)
    before = set(served.uploads.rglob("*"))
    found, answer = Visitor(served.url).send_form(*parts, end=end)
    assert found == status and set(json.loads(answer)) == {"detail"} and str(served.uploads).encode() not in answer
    assert set(served.uploads.rglob("*")) == before


FORM = "multipart/form-data"


@pytest.mark.parametrize("kind", ["", "text/plain", FORM, f"{FORM}; boundary=", f"{FORM}; boundary={'x' * 999}"])
def test_what_is_no_form_is_refused(served, kind):
    assert Visitor(served.url).ask("POST", "/gradio_api/upload", b"x", **{"Content-Type": kind})[0] == 400


def begin(served: Served, length: int, said: bytes) -> socket.socket:
    """A connection on which an upload of so many bytes has begun."""
    place = urlsplit(served.url)
    sending = socket.create_connection((place.hostname, place.port))
    lines = ("POST /gradio_api/upload HTTP/1.1", f"Host: {place.netloc}", f"Content-Length: {length}",
             f"Content-Type: {FORM}; boundary=x", "", "--x", f"Content-Disposition: form-data; {said.decode()}", "", "")
    sending.sendall("\r\n".join(lines).encode())
    return sending


def test_a_field_of_a_form_takes_no_memory(served):
    """Gradio would keep it, however long."""
    before = resident(os.getpid())
    with begin(served, 2 * 10**8, b'name="files"') as sending:
        for _ in range(150):
            sending.sendall(bytes(10**6))  # has been read but for what the system keeps
        assert Visitor(served.url).ask("GET", "/config")[0] == 200
        assert resident(os.getpid()) - before < 75 * 10**6


def test_nothing_stays_of_an_upload_that_breaks_off(served):
    before, end = set(served.uploads.rglob("*")), time.monotonic() + 20
    with begin(served, 10**5, FILE) as sending:
        sending.sendall(bytes(50_000))
        while set(served.uploads.rglob("*")) == before and time.monotonic() < end:
            time.sleep(0.01)
        assert set(served.uploads.rglob("*")) != before
    while set(served.uploads.rglob("*")) != before and time.monotonic() < end:
        time.sleep(0.01)
    assert set(served.uploads.rglob("*")) == before


def test_a_full_disk_is_said(served, image, monkeypatch):
    def full(self: Path, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    status, answer = Visitor(served.url).send_form((FILE, image))
    assert status == 507 and b"there is no room for it" in answer


def test_the_same_file_from_many_at_once_is_each_ones_own(served, image):
    with ThreadPoolExecutor(20) as pool:
        paths = list(pool.map(lambda _: Visitor(served.url).upload("a.png", image), range(100)))
    assert len(set(paths)) == 100 and all(Path(path).read_bytes() == image for path in paths)


def test_scoring_makes_no_files(served, image):
    visitor = Visitor(served.url)
    path = visitor.upload("a.png", image)
    before = set(served.uploads.rglob("*"))
    assert visitor.score(path)[0] == 200
    assert visitor.call("score_photograph", {"path": path, "meta": META}, "score", 1, 1)[0] == 200
    assert set(served.uploads.rglob("*")) == before


@pytest.mark.parametrize("handler", ["score_files", "score_photograph"])
def test_what_lies_in_the_place_of_an_upload_is_refused(served, image, tmp_path, handler):
    visitor = Visitor(served.url, seconds=20)
    linked, piped, gone = (Path(visitor.upload("a.png", image)) for _ in range(3))
    for path in (linked, piped, gone):
        path.unlink()
    linked.symlink_to(tmp_path / "outside/a.png")
    with pipe(piped):
        for path, status in ((linked, 403), (piped, 403), (gone, 200)):
            file = {"path": str(path), "meta": META}
            found, answer = visitor.call(handler, [file] if handler == "score_files" else file, "score", 10, 1)
            assert found == status and b"data:image" not in answer
            assert visitor.ask("GET", f"/gradio_api/file={path}")[0] != 200
    assert b"is no file that can be read" in answer


def test_what_became_a_link_in_the_folder_is_not_shown(tmp_path):
    """Neither the file itself nor the folder in which it was."""
    pixels = np.full((4, 4, 3), 9, np.uint8)
    folder, outside = tmp_path / "photos", tmp_path / "outside"
    for path in (folder / "a.png", folder / "b.png", folder / "lot/c.png", outside / "c.png"):
        write_image(path, pixels)
    setting = (None, "score", 10, 1)
    with serve(brightness(), folder) as served:
        visitor, config = Visitor(served.url), Visitor(served.url).config()
        assert b"data:image/jpeg" in visitor.call("score_folder", ".", *setting[1:])[1]
        (folder / "b.png").unlink()
        (folder / "b.png").symlink_to(outside / "c.png")
        (folder / "lot/c.png").unlink()
        (folder / "lot").rmdir()
        (folder / "lot").symlink_to(outside)
        number = next(one["id"] for one in config["dependencies"] if one["api_name"] == "choose")
        shown = {}
        for name in ("a.png", "b.png", "lot/c.png"):
            event = {"index": [0, 0], "value": name, "row_value": [name]}
            body = {"data": setting, "fn_index": number, "session_hash": visitor.session, "event_data": event}
            status, answer = visitor.post("run/predict", body)
            assert status == 200 and (b"no longer here to be shown" in answer) == (name != "a.png")
            shown[name] = answer.count(b"data:image/jpeg")
    assert shown == {"a.png": 2, "b.png": 0, "lot/c.png": 0}


def test_what_was_deleted_after_its_time_is_refused_like_any_other_file(tmp_path):
    import gradio as gr
    from gradio.route_utils import delete_files_created_by_app

    blocks = gr.Blocks(analytics_enabled=False)
    file = tmp_path.resolve() / "a.png"
    file.touch()
    uploads = module.Uploads(tmp_path, blocks.upload_file_set, 1)
    uploads.paths.add(str(file))
    assert str(file) in uploads and str(tmp_path) not in uploads and f"{tmp_path}/./a.png" not in uploads
    delete_files_created_by_app(blocks, age=None)
    assert str(file) not in uploads and not file.exists()
