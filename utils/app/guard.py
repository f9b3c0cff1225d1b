"""An ASGI program around Gradio's: what may come in, and what goes out.

    Guard(app, names={"localhost", "127.0.0.1"}, uploads=Uploads(folder, page.upload_file_set, most_bytes))

In: requests by a known name, from the app's own pages, for what these need, with no file but uploaded ones; uploads do
not reach Gradio at all. Out: pages without the addresses of other hosts, which the browser is forbidden as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Set

from utils.app.hosts import is_own, plain_name
from utils.app.requests import (
    CALL,
    PROGRESS,
    QUERIED,
    UPLOAD,
    Message,
    Receive,
    Refused,
    check_address,
    checked_body,
)
from utils.app.uploads import Uploads

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
FOREIGN = re.compile(rb"<script\b[^>]*\bsrc=\"https?://[^>]*>\s*</script>|<link\b[^>]*\bhref=\"https?://[^>]*>")
UPLOADED = b'data: {"msg": "done"}\n\n'  # all that is said of an upload's progress
DROPPED = (b"x-forwarded-host", b"x-gradio-server", b"range")  # the first two would set the addresses in a page
NOT_OWN = 403, "This address is not the app's own; --allowed_host NAME lets it be asked under another name."

Send = Callable[[Message], Awaitable[None]]


class Guard:
    """names: of hosts under which the server may be asked, in the form of `plain_name`; the address at which a request
    came in is one as well."""

    def __init__(self, app: Callable, names: Set[str], uploads: Uploads):
        self.app, self.names, self.uploads = app, names, uploads

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":  # the page uses no web sockets
            try:
                self._check(scope)
                if scope["path"] == UPLOAD:
                    paths = await self.uploads.take("".join(_headers(scope, b"content-type")[:1]), receive)
                    await _answer(200, paths, send)
                elif scope["path"] == PROGRESS:
                    await _answer(200, UPLOADED, send, b"text/event-stream")
                else:
                    scope, receive = await self._passed_on(scope, receive)
                    await self.app(scope, receive, _changing(send))
            except Refused as refused:
                await _answer(refused.status, {"detail": refused.text}, send)  # Gradio's page shows it

    def _check(self, scope: Message) -> None:
        """Raises Refused for what may not be asked, or not so."""
        hosts, origins = (_headers(scope, name) for name in (b"host", b"origin"))
        names = {*self.names, plain_name(scope["server"][0])}
        if len(hosts) != 1 or not all(is_own(hosts[0], origin, names) for origin in origins or [None]):
            raise Refused(*NOT_OWN)
        check_address(scope["method"], scope["path"], self.uploads)

    async def _passed_on(self, scope: Message, receive: Receive) -> tuple[Message, Receive]:
        """The request as Gradio gets it. Raises Refused."""
        headers = [pair for pair in scope["headers"] if pair[0] not in DROPPED]
        query = scope["query_string"] if scope["path"] in QUERIED else b""
        scope = {**scope, "headers": headers, "query_string": query}
        if scope["method"] != "POST" or not CALL.fullmatch(scope["path"]):
            return scope, receive
        body = await checked_body(receive, self.uploads)
        headers = [pair for pair in headers if pair[0] not in (b"content-length", b"transfer-encoding")]
        scope["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
        return scope, _giving(body, receive)


def _changing(send: Send) -> Send:
    """Send with HEADERS, and pages without foreign addresses."""
    start: Message | None = None  # of a page, kept back until its length is known
    body = b""

    async def changed(message: Message) -> None:
        nonlocal start, body
        if message["type"] == "http.response.start":
            headers = [*message["headers"], *HEADERS]
            message = {**message, "headers": headers}
            if dict(headers).get(b"content-type", b"").startswith(b"text/html"):
                start = message
                return
        elif message["type"] == "http.response.body" and start:
            body += message.get("body", b"")
            if not message.get("more_body"):
                await _send_whole(send, start, without_foreign(body))
            return
        await send(message)

    return changed


def without_foreign(html: bytes) -> bytes:
    """A page without the scripts, styles, fonts and connections of other hosts."""
    return FOREIGN.sub(b"", html)


def _giving(body: bytes, receive: Receive) -> Receive:
    """Receive that gives a body, and then what still comes: that the browser has gone."""
    given = False

    async def give() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


async def _send_whole(send: Send, start: Message, body: bytes) -> None:
    headers = [pair for pair in start["headers"] if pair[0] != b"content-length"]
    await send({**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


async def _answer(status: int, content: object, send: Send, kind: bytes = b"application/json") -> None:
    """The guard's own answer: JSON, or a text as it is."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), *HEADERS]}
    await _send_whole(send, start, body)


def _headers(scope: Message, name: bytes) -> list[str]:
    return [value.decode("latin-1") for found, value in scope["headers"] if found == name]
