"""The app for tests: served in a thread of this process, and asked as a browser's page, or anyone, asks it."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from utils.app.serving import Limits, Stopping, make_server, open_port, private_folder
from utils.detection.detector import Detector

META = {"_type": "gradio.FileData"}


@dataclass(frozen=True)
class Served:
    url: str
    detector: Detector
    runs: list[int]  # of the network: images of each
    uploads: Path
    app: Any  # Gradio's, in the guard


@contextmanager
def serve(
    detector: Detector, folder: Path | None, make_page: Callable | None = None, host: str = "127.0.0.1",
    allowed_hosts: tuple[str, ...] = (), **limits,
) -> Iterator[Served]:
    """The app in a thread, with images below `folder`."""
    runs: list[int] = []

    def compute(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        runs.append(len(pixels))
        return detector.compute(pixels)

    limits, stopping = Limits(**limits), Stopping()
    with open_port(host, 0) as port, private_folder() as uploads:
        from utils.app.page import LOOKS, Page

        counted = replace(detector, compute=compute, most_pixels=limits.pixels)
        page = (make_page or Page)(counted, limits, folder, workers=1, stopping=stopping)
        server = make_server(page.build(), port, limits, uploads, stopping, allowed_hosts, **LOOKS)
        thread = Thread(target=server.run, kwargs={"sockets": [port.socket]}, daemon=True)
        thread.start()
        try:
            yield Served(port.url, detector, runs, uploads, server.config.app.app)
        finally:
            server.should_exit = True
            thread.join(30)
        assert not thread.is_alive()
    assert not uploads.exists()


def brightness(**options) -> Detector:
    """A detector of 4 x 4 images whose map is the red channel."""

    def compute(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps = pixels[..., 0].astype(np.float32)
        return maps, maps.max(axis=(1, 2))

    return Detector(compute, 4, **options)


@contextmanager
def pipe(path: Path) -> Iterator[Path]:
    """A pipe that nobody writes to. Who waits for it is let go in the end, so that a test fails and does not hang."""
    os.mkfifo(path)
    try:
        yield path
    finally:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


@dataclass
class Visitor:
    """Someone who asks the app over one connection, under a session's name, and waits so many seconds for an answer."""

    url: str
    session: str = field(default_factory=lambda: secrets.token_hex(5))
    seconds: float = 60

    def __post_init__(self) -> None:
        self.connection = HTTPConnection(urlsplit(self.url).netloc, timeout=self.seconds)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        return answer.status, self._whole(answer)

    def _whole(self, answer: HTTPResponse) -> bytes:
        body, end = b"", time.monotonic() + self.seconds
        while part := answer.read1():
            body += part
            if time.monotonic() > end:
                raise TimeoutError(f"no end of the answer within {self.seconds} seconds")
        return body + answer.read()  # which lets go of the connection

    def post(self, path: str, content: object) -> tuple[int, bytes]:
        kind = {"Content-Type": "application/json"}
        return self.ask("POST", f"/gradio_api/{path}", json.dumps(content).encode(), **kind)

    def upload(self, name: str, content: bytes) -> str:
        """The path that the server gives for a file."""
        return self.upload_all((name, content))[0]

    def upload_all(self, *files: tuple[str, bytes]) -> list[str]:
        heads = [f'name="files"; filename="{name}"'.encode() for name, _ in files]
        status, answer = self.send_form(*zip(heads, [content for _, content in files], strict=True))
        assert status == 200
        return json.loads(answer)

    def send_form(self, *parts: tuple[bytes, bytes], end: bytes = b"--x--\r\n") -> tuple[int, bytes]:
        """Post parts, what their heads say and their contents, to where files are uploaded."""
        head = b"--x\r\nContent-Disposition: form-data; "
        body = b"".join(head + said + b"\r\n\r\n" + content + b"\r\n" for said, content in parts) + end
        return self.ask("POST", "/gradio_api/upload", body, **{"Content-Type": "multipart/form-data; boundary=x"})

    def config(self) -> dict[str, Any]:
        return json.loads(self.ask("GET", "/config")[1])

    def handler(self, name: str) -> dict[str, Any]:
        """What the page's config says of a handler."""
        return next(one for one in self.config()["dependencies"] if one["api_name"] == name)

    def call(self, name: str, *values: object) -> tuple[int, bytes]:
        """Run a handler, without the queue."""
        return self.post(f"run/{name}", {"data": values, "session_hash": self.session})

    def score(self, *paths: str) -> tuple[int, bytes]:
        """Score files by their paths."""
        return self.call("score_files", [{"path": path, "meta": META} for path in paths], "score", 10, 1)
