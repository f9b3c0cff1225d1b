"""Serve a page made with Gradio to this machine alone, and leave nothing behind (scripts/app.py).

Gradio's pages ask other hosts for fonts and a script, its servers report their use, and what is uploaded stays in the
system's temporary folder. Here not so; `guard` says what may come in.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

from datasets.base import MAX_PIXELS
from utils.app.desk import Unread
from utils.app.hosts import is_address, own_names
from utils.system.errors import UsageError
from utils.system.signals import Interrupted, ignore_signals

if TYPE_CHECKING:
    import gradio

QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SHARE": "False", "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9),  # its own statistics
}
NO_DOCS = {"docs_url": None, "redoc_url": None, "openapi_url": None}
OUTWARD = {  # audit events, and which of their arguments is a socket's address or a host's name
    "socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0,
}
GRACE_SECONDS, END_SECONDS = 0.4, 0.8  # after a signal: until open connections are cut off, and the process is ended


@dataclass(frozen=True)
class Limits:
    """Limits of an upload, megabytes of a file and pixels of an image, and seconds that an answer may take."""

    megabytes: float = 50
    pixels: int = MAX_PIXELS
    seconds: float = 600


@dataclass(frozen=True)
class Port:
    """A socket that listens, and its address for browsers."""

    socket: socket.socket
    host: str
    address: str

    @property
    def is_local(self) -> bool:
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def url(self) -> str:
        name = "localhost" if ipaddress.ip_address(self.address).is_unspecified else self.host
        return f"http://{f'[{name}]' if ':' in name else name}:{self.socket.getsockname()[1]}"


class Stopping(Event):
    """Set when the app is asked to end, with the exit status for the signal that asks."""

    exit_status = 0

    def set_with(self, exit_status: int) -> None:
        self.exit_status = exit_status
        self.set()


@contextmanager
def open_port(host: str, port: int) -> Iterator[Port]:
    """Take a port, 0 being any that is free. Raises UsageError if it cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or an answer's second part waits 40 ms
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot serve on `host` {host} `port` {port}: {reason}") from error
    with listening:
        yield Port(listening, host, address[0])


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder for all temporary files of this process, deleted when the block ends. Import Gradio in the block:
    it asks for the folder, and whether to report its use, early."""
    before, environment = tempfile.tempdir, dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="aand-app-") as created:
        folder = os.path.realpath(created)  # paths in it are read if no link is on the way
        os.environ.update(QUIET, GRADIO_TEMP_DIR=folder)
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before
            for name in (*QUIET, "GRADIO_TEMP_DIR"):
                del os.environ[name]
            os.environ.update(environment)


@contextmanager
def no_connections() -> Iterator[None]:
    """Let this process ask no other host for anything, whatever its packages try: that is an OSError."""
    active = True

    def refuse(event: str, arguments: tuple) -> None:
        if active and event in OUTWARD and not _is_here(event, arguments[OUTWARD[event]]):
            raise ConnectionRefusedError(f"the app asks no other host ({event})")

    sys.addaudithook(refuse)  # for as long as the process lives
    try:
        yield
    finally:
        active = False


def _is_here(event: str, address: object) -> bool:
    """Tell whether a socket's event stays on this machine."""
    host = address[0] if isinstance(address, tuple) else address
    if isinstance(address, str | bytes) and OUTWARD[event] or host in (None, "", b"", "localhost"):
        return True  # a socket in the file system, or no host
    host = host.decode(errors="replace") if isinstance(host, bytes) else host
    return is_address(host) and ipaddress.ip_address(host).is_loopback


def make_server(
    page: gradio.Blocks, port: Port, limits: Limits, folder: Path, stopping: Stopping,
    allowed_hosts: Iterable[str] = (), **looks: Any,
):
    """Make a uvicorn server of the page, which prints its address once it can be stopped; looks: Gradio's, as theme"""
    import uvicorn
    from fastapi import FastAPI
    from gradio import mount_gradio_app

    from utils.app.guard import Guard  # which needs what Gradio needs
    from utils.app.uploads import Uploads

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(f"{port.url}    (Ctrl-C ends)", flush=True)

        def handle_exit(self, sig: int, frame: Any) -> None:
            stopping.set_with(128 + sig)
            logging.getLogger("uvicorn.error").disabled = True  # that open pages are cut off is no error
            super().handle_exit(sig, frame)

    app = FastAPI(**NO_DOCS)
    mount_gradio_app(
        app, page, path="", app_kwargs=dict(NO_DOCS), footer_links=[], max_file_size=round(limits.megabytes * 2**20),
        show_error=False, ssr_mode=False, pwa=False, run_history=False, **looks,
    )
    page.has_launched = True  # or Gradio's own look at paths is left out, which is the second one here
    page._queue.pending_messages_per_session = Unread()
    uploads = Uploads(folder, page.upload_file_set, round(limits.megabytes * 2**20))
    guard = Guard(app, own_names(port.host, port.address, allowed_hosts), uploads)
    return Server(uvicorn.Config(
        guard, loop="asyncio", ws="none", log_level="warning", access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    ))


@contextmanager
def ended_in_time(stopping: Stopping, folder: Path) -> Iterator[None]:
    """Let a signal end the process within 2 seconds, and delete the folder. The interpreter's own end would wait for
    all threads, also for a model that computes, which nothing can interrupt."""
    once = Lock()

    def end() -> None:
        once.acquire()
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError, ValueError):  # streams that are closed
            print("stopped", file=sys.stderr, flush=True)
        os._exit(stopping.exit_status)

    def watch() -> None:
        stopping.wait()
        time.sleep(END_SECONDS)
        end()

    Thread(target=watch, daemon=True).start()
    try:
        yield
    except Interrupted as interrupted:  # before the server takes the signals, or after it has ended
        stopping.set_with(interrupted.exit_status)
    finally:
        if stopping.is_set():
            ignore_signals()
            end()
