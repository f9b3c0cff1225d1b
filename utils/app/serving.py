"""Serve a page made with Gradio to this machine alone, and leave nothing behind.

    with private_folder(), open_port("127.0.0.1", 7860) as port:
        serve(lambda: build_page(detector), port, Limits())      # until SIGINT or SIGTERM

Gradio's pages ask other hosts for fonts and a script, its servers report their use, and what is uploaded stays in the
system's temporary folder. Here pages are cleaned of foreign addresses and forbid the browser all others, reports are
off, and the folder of uploads is deleted with the server. What asks under another host's name, or from another site's
page, is refused: else any web page that is open in a browser of this machine could use the app.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from datasets.base import MAX_PIXELS
from utils.cli import UsageError

if TYPE_CHECKING:
    import gradio

QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SHARE": "False", "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1",
}  # fmt: skip
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]  # fmt: skip
FOREIGN = re.compile(rb"<script\b[^>]*\bsrc=\"https?://[^>]*>\s*</script>|<link\b[^>]*\bhref=\"https?://[^>]*>")
NO_DOCS = {"docs_url": None, "redoc_url": None, "openapi_url": None}
OUTWARD = {  # audit events by what they are of: a socket's address, or a host's name
    "socket.connect": "address", "socket.sendto": "address", "socket.sendmsg": "address",
    "socket.getaddrinfo": "name", "socket.gethostbyname": "name",
}  # fmt: skip
GRACE_SECONDS = 2  # for open connections, when the server ends

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """What an upload may be: bytes of a file, and pixels of an image."""

    megabytes: float = 50
    pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class Port:
    """A socket that listens, and where browsers find it."""

    socket: socket.socket
    host: str
    address: str

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def url(self) -> str:
        name = "localhost" if ipaddress.ip_address(self.address).is_unspecified else self.host
        return f"http://{f'[{name}]' if ':' in name else name}:{self.socket.getsockname()[1]}"


@contextmanager
def open_port(host: str, port: int) -> Iterator[Port]:
    """Take a port, 0 being any that is free. Raises UsageError if it cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot serve on --host {host} --port {port}: {reason}") from error
    with listening:
        yield Port(listening, host, address[0])


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that takes all temporary files of this process until the block ends, and is deleted then.

    Gradio has to be imported in the block: it asks for the folder, and whether to report its use, early.
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="aand-app-") as folder:
        settings = QUIET | {"GRADIO_TEMP_DIR": folder}
        earlier = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before
            for name, value in earlier.items():
                os.environ.pop(name)
                os.environ.update({name: value} if value is not None else {})


@contextmanager
def no_connections() -> Iterator[None]:
    """While it is open, this process asks no other host for anything, whatever its packages try: that is an OSError."""
    active = True

    def refuse(event: str, arguments: tuple) -> None:
        if active and event in OUTWARD and not _is_here(event, arguments):
            raise ConnectionRefusedError(f"the app asks no other host ({event})")

    sys.addaudithook(refuse)  # for as long as the process lives
    try:
        yield
    finally:
        active = False


def _is_here(event: str, arguments: tuple) -> bool:
    """Whether a socket's event stays on this machine: arguments as Python's table of audit events has them."""
    address = arguments[0] if OUTWARD[event] == "name" else arguments[1]
    host = address[0] if isinstance(address, tuple) else address
    if isinstance(address, str | bytes) and OUTWARD[event] == "address" or host in (None, "", b"", "localhost"):
        return True  # a socket in the file system, or no host
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host).is_loopback
    except ValueError:
        return False


def make_server(page: gradio.Blocks, port: Port, limits: Limits, stopping: Event, **looks: Any):
    """A uvicorn server of the page; `looks` are Gradio's: theme, css, ... It says where it is once it
    can be stopped; the event is set when it is asked to."""
    import uvicorn
    from fastapi import FastAPI
    from gradio import mount_gradio_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(f"{port.url}    (Ctrl-C ends)", flush=True)

        def handle_exit(self, sig: int, frame: Any) -> None:
            stopping.set()
            logging.getLogger("uvicorn.error").disabled = True  # that open pages are cut off is no error
            super().handle_exit(sig, frame)

    app = FastAPI(**NO_DOCS)
    mount_gradio_app(
        app, page, path="", app_kwargs=NO_DOCS, footer_links=[], max_file_size=round(limits.megabytes * 2**20),
        show_error=False, ssr_mode=False, pwa=False, run_history=False, **looks,
    )  # fmt: skip
    names = {"localhost", port.host, port.address} if port.is_local else None
    return Server(uvicorn.Config(
        OwnPagesOnly(app, names), loop="asyncio", log_level="warning", access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    ))  # fmt: skip


class OwnPagesOnly:
    """An ASGI program around another: pages from here ask no other host, and requests come from these pages alone.

    names: host names under which the server may be asked; None: any.
    """

    def __init__(self, app: Callable, names: set[str] | None):
        self.app, self.names = app, names

    async def __call__(self, scope: Message, receive: Callable, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if not is_own(headers.get(b"host", ""), headers.get(b"origin"), self.names):
            await _refuse(send)
            return
        await self.app(scope, receive, _cleaning(send))


def is_own(host: str, origin: str | None, names: set[str] | None) -> bool:
    """Whether a request is for this server by its name, and comes from a page of it or from no page."""
    try:
        named = names is None or urlsplit(f"//{host}").hostname in names
        return named and (origin is None or urlsplit(origin).netloc == host)
    except ValueError:  # a host with half a bracket
        return False


def without_foreign(html: bytes) -> bytes:
    """A page without the scripts, styles, fonts and connections of other hosts."""
    return FOREIGN.sub(b"", html)


def _cleaning(send: Send) -> Send:
    """Send with HEADERS and, of pages, the text without foreign addresses; anything else passes as it comes."""
    start: Message | None = None  # of a page, kept back until its length is known
    body = b""

    async def clean(message: Message) -> None:
        nonlocal start, body
        if message["type"] == "http.response.start":
            headers = [*message["headers"], *HEADERS]
            message = {**message, "headers": headers}
            if dict(headers).get(b"content-type", b"").startswith(b"text/html"):
                start = message
                return
        elif message["type"] == "http.response.body" and start:
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            text = without_foreign(body)
            headers = [pair for pair in start["headers"] if pair[0] != b"content-length"]
            await send({**start, "headers": [*headers, (b"content-length", str(len(text)).encode())]})
            message = {"type": "http.response.body", "body": text}
        await send(message)

    return clean


async def _refuse(send: Send) -> None:
    text = b"This address is not the app's own."
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": text})
