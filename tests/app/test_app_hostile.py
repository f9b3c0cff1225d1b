"""Whatever is posted to the app, to every handler and address that it has, no file comes back that was not uploaded.

The page has more handlers here than the app's, careless ones that hand out any file they are given: what keeps files
safe must not depend on how a handler is written.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from tests.support.apps import META, Served, Visitor, brightness, pipe, serve
from tests.support.trees import write_image

pytest.importorskip("gradio")
pytestmark = pytest.mark.usefixtures("one_thread")
PICTURE = b"data:image/jpeg"
SECRET = b"no image, and private: 9c1f0be7"
REFUSAL = b"A file is none that this page uploaded, or is no longer here; add it again."
ENDPOINTS = ("run/predict", "run/{name}", "api/{name}", "call/{name}", "queue/join")


@dataclass(frozen=True)
class Site:
    """An app with a folder, files outside it, and a file that another visitor uploaded."""

    served: Served
    outside: list[Path]  # an image, a text, a pipe
    uploaded: str  # by another visitor

    def holds_secret(self, answer: bytes) -> bool:
        contents = [path.read_bytes() for path in [*self.outside[:2], Path(self.uploaded)]]
        coded = [base64.b64encode(content) for content in contents]
        return PICTURE in answer or any(secret in answer for secret in [SECRET, *contents, *coded])

    def files(self) -> set[Path]:
        return set(self.served.uploads.rglob("*"))


def careless_page(*arguments, **options):
    import gradio as gr

    from utils.app.page import Page

    def hand_out(content: object) -> str:
        found = map(Path, re.findall(r"/[^'\"]+", str(content)))
        files = [path for path in found if path.exists() and not path.is_dir()]
        return "".join(base64.b64encode(file.read_bytes()).decode() for file in files)

    class Careless(Page):
        def _connect(self, blocks: gr.Blocks) -> None:
            super()._connect(blocks)
            shown = gr.Textbox(visible=False)
            for part in (gr.File(), gr.Image(type="filepath"), gr.Gallery(type="filepath")):
                gr.on(None, hand_out, part, shown)

    return Careless(*arguments, **options)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    write_image(root / "photos/inside.png", np.full((4, 4, 3), 7, np.uint8))
    outside = [write_image(root / "outside.png", pixels), root / "private.txt", root / "pipe.png"]
    outside[1].write_bytes(SECRET)
    with serve(brightness(), root / "photos", careless_page) as served, pipe(outside[2]):
        other = Visitor(served.url).upload("other.png", outside[0].read_bytes())
        yield Site(served, outside, other)


def paths_of(site: Site) -> list[object]:
    """What no visitor may name, and what is no path at all."""
    from gradio.processing_utils import hash_file

    image, text, waiting = map(str, site.outside)
    hashed = site.served.uploads / hash_file(image) / "other.png"  # where Gradio itself would keep the upload
    return [
        image, text, waiting, "/dev/null", "/etc/passwd", "/etc/not_there", f"{site.served.uploads}/../{text}",
        os.path.relpath(text), f"{'../' * 40}{text[1:]}", "../private.txt", f"file://{text}", "http://127.0.0.1:9/x.png",
        f"{site.uploaded}/../other.png", f"//{site.uploaded[1:]}", f"{site.uploaded} ", str(hashed), "other.png",
        str(site.served.uploads), "", "x" * 5000, "\0", 5, [image], {"path": image}, True, None,
    ]


def payloads_of(site: Site) -> list[object]:
    """Those paths as files, and one of them in every shape; and what is no file."""
    image = str(site.outside[0])
    files = [{"path": path, "meta": META} for path in paths_of(site)]
    own = {"path": image, "meta": META}
    shapes = [
        [own], {"path": image}, {"path": None, "url": image, "meta": META}, {"url": f"file={image}"},
        own | {"is_stream": True}, own | {"orig_name": "x.svg"}, own | {"mime_type": 5, "size": "x"},
        [{"image": own, "caption": None}], {"files": [own], "text": ""}, [[[own]]], [own] * 600,
        {"path": image, "meta": {"_type": "other"}}, {"path": None, "url": "data:image/png;base64,iVBORw0KGgo="},
    ]
    strings = [*map(str, site.outside), [image], site.uploaded]
    return [*files, *shapes, *strings, 10**400, "rate of false alarms", {}, [], [None], ["x"] * 1000, 1e308]


def defaults(config: dict, handler: dict) -> list[object]:
    """A value for each of a handler's inputs: what the page begins with."""
    parts = {part["id"]: part["props"] for part in config["components"]}
    return [parts[number].get("value") for number in handler["inputs"]]


def hear(visitor: Visitor, path: str) -> bytes:
    """All that an event's stream says."""
    status, answer = visitor.ask("GET", f"/gradio_api/{path}")
    assert status == 200
    return answer


def send(visitor: Visitor, endpoint: str, handler: dict, values: list[object], event: object = None) -> bytes:
    """Everything that comes back when values are sent to a handler."""
    body = {"data": values, "fn_index": handler["id"], "session_hash": visitor.session, "event_data": event}
    status, answer = visitor.post(endpoint.format(name=handler["api_name"]), body)
    if status == 200 and endpoint.startswith(("call", "queue")):
        number = json.loads(answer)["event_id"]
        call = f"call/{handler['api_name']}/{number}"
        answer += hear(visitor, call if endpoint.startswith("call") else f"queue/data?session_hash={visitor.session}")
    return answer


def addresses(routes: list) -> Iterator[tuple[str, str]]:
    """The method and path of all that a web server answers, routers in it included."""
    for route in routes:
        inner = getattr(route, "original_router", route)  # of FastAPI, which keeps it so in new versions
        if hasattr(inner, "routes"):
            yield from addresses(inner.routes)
        else:
            yield from ((method, route.path) for method in getattr(route, "methods", None) or ())


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_no_handler_gives_out_takes_in_or_waits_for_a_file_that_was_not_uploaded(site, endpoint):
    visitor, before = Visitor(site.served.url, seconds=20), site.files()
    config, payloads = visitor.config(), payloads_of(site)
    strings = [*map(str, site.outside), site.uploaded]
    assert len(config["dependencies"]) >= 12
    for handler in config["dependencies"]:
        values = defaults(config, handler)
        for place in range(len(values)):
            for payload in payloads:
                answer = send(visitor, endpoint, handler, [*values[:place], payload, *values[place + 1 :]])
                assert not site.holds_secret(answer), (handler["api_name"], place, payload)
        usual = send(Visitor(site.served.url), endpoint, handler, values)  # of --folder there may be pictures
        for event in (payloads[0], *({"index": 0, "value": v, "row_value": [v]} for v in (payloads[0], *strings))):
            answer = send(Visitor(site.served.url), endpoint, handler, values, event)
            assert answer.count(PICTURE) <= usual.count(PICTURE), (handler["api_name"], event)
            assert not site.holds_secret(answer.replace(PICTURE, b"")), (handler["api_name"], event)
        for malformed in ([], values[:-1], [*values, payloads[0]], payloads[:50]):
            assert not site.holds_secret(send(visitor, endpoint, handler, malformed))
    assert Visitor(site.served.url).ask("GET", "/")[0] == 200
    assert site.files() == before


def test_every_address_of_gradio_is_closed_or_gives_out_no_file(site):
    visitor, before = Visitor(site.served.url, seconds=20), site.files()
    found = {(method, path) for method, path in addresses(site.served.app.routes) if "/heartbeat" not in path}
    assert len(found) > 40  # without heartbeats, which go on for ever
    for method, path in sorted(found):
        for given in (*map(str, site.outside), site.uploaded, "/dev/null", "..", "%2e%2e/private.txt"):
            address = re.sub(r"\{[^}]*\}", lambda _, given=given: quote(given, safe="/%"), path)
            body = json.dumps({"path": given, "data": given, "hash": given}).encode()
            status, answer = visitor.ask(method, address, body, **{"Content-Type": "application/json"})
            allowed = path.startswith("/gradio_api/file=") and given == site.uploaded and method == "GET"
            assert (status == 200 and answer == site.outside[0].read_bytes()) if allowed else True
            assert allowed or not site.holds_secret(answer), (method, address)
    assert site.files() == before


def test_the_answer_does_not_tell_whether_there_is_a_file(site):
    visitor = Visitor(site.served.url)
    there, not_there = (visitor.score(path) for path in (str(site.outside[1]), "/etc/not_there"))
    assert there == not_there and there[0] == 403 and REFUSAL in there[1]
    answers = {visitor.ask("GET", f"/gradio_api/file={path}") for path in (site.outside[0], "/etc/not_there", "/dev")}
    assert len(answers) == 1 and answers.pop()[0] == 404
    folders = ("..", str(site.outside[0].parent), "/etc/not_there", "../not_there", "not_there", "../photos")
    said = {visitor.call("score_folder", folder, "score", 10, 1)[1].replace(folder.encode(), b"") for folder in folders}
    assert len(said) == 1 and b"there is no folder" in said.pop()


def test_what_a_visitor_uploads_is_scored_and_given_back_to_who_knows_its_path(site):
    visitor, content = Visitor(site.served.url), site.outside[0].read_bytes()
    path = visitor.upload("other.png", content)
    assert path != site.uploaded and re.search(r"/[0-9a-f]{32}/other\.png$", path)
    assert visitor.ask("GET", f"/gradio_api/file={quote(path)}") == (200, content)
    for shape in ({"path": path, "meta": META}, {"path": path, "url": "file:///etc/passwd", "orig_name": "x.svg"}):
        status, answer = visitor.call("score_files", [shape], "score", 10, 1)
        assert status == 200 and answer.count(b"data:image/jpeg") == 2 and b"other.png" in answer
    assert b"data:image/jpeg" in visitor.call("judge", None, "score", 10, 1)[1]
    assert b"data:image" not in Visitor(site.served.url).call("judge", None, "score", 10, 1)[1]  # another's page
    assert base64.b64encode(content) in visitor.call("hand_out", {"path": path})[1]  # the careless ones do work
    Path(path).unlink()
    assert b"is no file that can be read" in visitor.score(path)[1]


def test_files_with_the_same_name_and_content_and_with_odd_names_are_scored(site):
    visitor, content = Visitor(site.served.url), site.outside[0].read_bytes()
    paths = visitor.upload_all(("a.png", content), ("a.png", content), ("50% é;#.png", content))
    assert len(set(paths)) == 3
    status, answer = visitor.score(*paths)
    assert status == 200 and b"a.png (2)" in answer and "50% é;#.png".encode() in answer
    for path in paths:
        assert visitor.ask("GET", f"/gradio_api/file={quote(path)}") == (200, content)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 100_000, 400),
        (b'{"data": ' + b"[" * 40 + b"]" * 40 + b"}", 400),
        (b'{"data": [' + b"0," * 60_000 + b"0]}", 400),
        (b'{"data": ["' + b"x" * 2**21 + b'"]}', 413),
        (b'{"data": [NaN]}', 400),
        (b'{"data": ["\xff"]}', 400),
        (b"[1]", 400),
        (b"", 400),
        (b"--x", 400),
    ],
)
def test_what_is_no_request_of_a_page_is_refused_before_anything_reads_it(site, body, status):
    visitor = Visitor(site.served.url)
    assert visitor.ask("POST", "/gradio_api/run/score_files", body)[0] == status
    assert visitor.ask("GET", "/")[0] == 200


def test_of_a_name_that_is_given_twice_the_one_that_was_looked_at_counts(site):
    visitor = Visitor(site.served.url)
    own = visitor.upload("own.png", site.outside[0].read_bytes())
    files = [f'{{"path": "{a}", "path": "{b}"}}' for a, b in ((own, site.outside[1]), (site.outside[1], own))]
    answers = [
        visitor.ask("POST", "/gradio_api/run/hand_out", b'{"data": [%s]}' % one.encode(), **{"Content-Type": "a/json"})
        for one in files
    ]
    assert not any(SECRET in answer or base64.b64encode(SECRET) in answer for _, answer in answers)
    assert answers[0][0] == 403
