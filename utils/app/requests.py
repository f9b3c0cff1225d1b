"""The part of a request that reaches Gradio: the page's own addresses, and bodies whose files were uploaded.

Gradio opens, copies and serves the files whose paths a browser names. So of a file only its path is kept, which must be
that of an upload, letter by letter. No other is touched; the answer is the same whether there is such a file or not.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

import msgspec
from starlette.requests import Request

MOST_BYTES = 2**21  # of what is sent but for uploads; 500 files take 0.5 MB
MOST_VALUES, MOST_DEPTH = 50_000, 32  # in it
API = "/gradio_api"
UPLOAD, PROGRESS, FILE = f"{API}/upload", f"{API}/upload_progress", f"{API}/file="
QUERIED = (f"{API}/queue/data",)  # all other addresses mean the same with whatever follows a "?"
READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static|svelte)/.+"
    rf"|{PROGRESS}|{API}/(info|queue/(data|status)|(heartbeat|call)/.+)/?"
)
CALL = re.compile(rf"{API}/(queue/join|(run|api|call)/.+)/?")

FOREIGN = 403, "A file is none that this page uploaded, or is no longer here; add it again."
UNKNOWN = 404, "There is nothing at this address."
UNREADABLE = 400, "The request cannot be read."
TOO_LONG = 413, "The request is too long."


class Refused(Exception):
    """The status and text of an answer, which say nothing of this machine's files."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status, self.text = status, text


def check_address(method: str, path: str, uploads: Container) -> None:
    """Raise Refused for what the page asks for nowhere, and for files that were not uploaded."""
    if method in ("GET", "HEAD"):
        known = path.removeprefix(FILE) in uploads if path.startswith(FILE) else READ.fullmatch(path)
    else:
        known = method == "POST" and (path == UPLOAD or CALL.fullmatch(path))
    if not known or (".." in path.split("/")):
        raise Refused(*UNKNOWN)


async def checked_body(request: Request, uploads: Container) -> bytes:
    """Read the JSON object of a request, with only the paths of its files left. Raises Refused for files that are no
    uploads, and for what is no such object, too long or nested too deeply."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise Refused(*TOO_LONG)
    try:
        content = msgspec.json.decode(body, type=dict)
    except (ValueError, RecursionError):
        raise Refused(*UNREADABLE) from None
    for value in _values(content):
        if isinstance(value, dict) and value.keys() & {"path", "url"}:
            path = value.get("path")
            if path not in uploads:
                raise Refused(*FOREIGN)
            value.clear()
            value.update(path=path, meta={"_type": "gradio.FileData"})
    return msgspec.json.encode(content)


def _values(content: dict) -> Iterator[object]:
    """Give a JSON object and all in it, from without to within. Raises Refused for too many, or nested too deeply."""
    level, left = [content], MOST_VALUES
    for _ in range(MOST_DEPTH):
        left -= len(level)
        if left < 0:
            break
        yield from level
        holders = (value for value in level if isinstance(value, dict | list))
        level = [inner for one in holders for inner in (one.values() if isinstance(one, dict) else one)]
        if not level:
            return
    raise Refused(*UNREADABLE)
