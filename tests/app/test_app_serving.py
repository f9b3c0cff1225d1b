"""What the app's server lets in and out, and how it starts and ends."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.commands import run_app
from utils.app.hosts import host_name, is_own, own_names
from utils.app.serving import no_connections, open_port, private_folder
from utils.system.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("127.0.0.1:7860", None, True),
        ("LocalHost.", None, True),
        ("localhost.evil.example", None, False),
        ("localhost@evil.example", None, False),
        ("evil.example@localhost", None, False),
        ("localhost/evil.example", None, False),
        ("localhost#evil.example", None, False),
        ("localhost, evil.example", None, False),
        ("localhost:x", None, False),
        ("localhost:", None, False),
        ("127.0.0.1:7860", "http://[x", False),
        ("127.0.0.1:7860", "", False),
        ("localhost:7860", "http://localhost:7860", True),
        ("127.0.0.1:7860", "http://evil.example", False),
        ("127.0.0.1:7860", "http://127.0.0.1:1234", False),
        ("127.0.0.1:7860", "null", False),
        ("evil.example:7860", None, False),
        ("", None, False),
        ("[x", None, False),
    ],
)
def test_requests_under_other_names_or_from_other_pages_are_not_own(host, origin, expected):
    assert is_own(host, origin, {"localhost", "127.0.0.1"}) == expected


@pytest.mark.parametrize(
    ("host", "address", "allowed", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", [], {"127.0.0.1", "localhost"}),
        ("::1", "::1", ["proxy"], {"::1", "localhost", "proxy"}),
        ("Line7.Example", "192.0.2.7", [], {"line7.example", "192.0.2.7"}),
        ("0.0.0.0", "0.0.0.0", ["line7"], {"0.0.0.0", "localhost", "here.example", "here", "line7"}),
    ],
)
def test_a_server_has_the_names_of_its_host_and_those_that_are_allowed(monkeypatch, host, address, allowed, expected):
    monkeypatch.setattr(socket, "gethostname", lambda: "Here.example")
    assert own_names(host, address, allowed) == expected


def test_hosts_are_names_or_addresses_without_a_port():
    good = {"Line7.Example": "line7.example", "a.": "a", "[::1]": "::1", "0:0::1": "::1", "192.0.2.7": "192.0.2.7"}
    assert {text: host_name(text) for text in good} == good
    for text in ("", "http://a", "a:80", "*.a", "a b", "a..b", "a/b", "x" * 254, "a\nb"):
        with pytest.raises(UsageError, match="no host's name or address"):
            host_name(text)


def test_foreign_addresses_are_taken_out_of_a_page():
    pytest.importorskip("starlette")
    from utils.app.guard import FOREIGN

    kept = b'<script src="./assets/a.js"></script><link href="/theme.css"><p>https://a.example</p>'
    foreign = b'<link rel="preconnect" href="https://f.example"/><script async src="http://c.example/i.js"></script>'
    assert FOREIGN.sub(b"", foreign + kept + foreign) == kept


def test_a_taken_port_and_a_host_that_is_none_are_one_line_each(own):
    with open_port("127.0.0.1", 0) as port:
        number = port.socket.getsockname()[1]
        assert port.is_local and port.url == f"http://127.0.0.1:{number}"
        result = run_app(own.cwd, own.run, "--port", number)
    assert result.status == 2 and len(result.errors) == 1 and f"--port {number}: Address already in use" in result.err
    result = run_app(own.cwd, own.run, "--host", "no.such.host.invalid")
    assert result.status == 2 and len(result.errors) == 1 and "cannot serve on --host no.such" in result.err
    with open_port("0.0.0.0", 0) as port:
        assert not port.is_local and port.url.startswith("http://localhost:")


def test_temporary_files_go_to_one_folder_that_is_deleted():
    before = tempfile.gettempdir()
    with private_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == tempfile.gettempdir() == str(folder)
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        Path(tempfile.mkdtemp(), "x").touch()
    assert not folder.exists() and tempfile.gettempdir() == before


def test_other_hosts_are_not_asked():
    with no_connections():
        for call in (
            lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
            lambda: socket.getaddrinfo("example.org", 80),
            lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 53)),
        ):
            with pytest.raises(ConnectionRefusedError, match="asks no other host"):
                call()
        with open_port("127.0.0.1", 0) as port:
            socket.create_connection(port.socket.getsockname()).close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--folder", "gone"), "--folder gone: there is no such folder"),
        (("--far", 0.1, "--threshold", 1), "not allowed with argument"),
        (("--max_pixels", 10**9), "is above 89478485"),
        (("--max_upload", 0), "is not a finite number above 0"),
        (("--port", 70000), "70000 is above 65535"),
        (("--allowed_host", "http://line7"), "'http://line7' is no host's name or address"),
    ],
)
def test_wrong_calls(own, options, message):
    result = run_app(own.cwd, own.run, "--port", 0, *options)
    assert result.status == 2 and len(result.errors) == 1 and message in result.errors[0]


def test_without_gradio_it_is_said_how_to_get_it(own, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = run_app(own.cwd, own.run, "--port", 0)
    assert result.status == 2 and len(result.errors) == 1
    assert "the app needs the package gradio: pip install -r requirements-deploy.txt" in result.errors[0]
