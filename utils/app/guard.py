"""An ASGI program around Gradio's: what may come in, and what goes out.

    Guard(app, names={"localhost", "127.0.0.1"}, uploads=Uploads(page.upload_file_set))

In: requests by a known name, from the app's own pages, for what these need, with no file but uploaded ones. Out: pages
without the addresses of other hosts, which the browser is forbidden as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Set

from utils.app.hosts import is_own, plain_name
from utils.app.requests import CALL, UPLOAD, Message, Receive, Refused, Uploads, check_address, checked_body

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
                scope, receive = await self._check(scope, receive)
            except Refused as refused:
                await _refuse(refused, send)
                return
            await self.app(scope, receive, self._changing(scope["path"], send))

    async def _check(self, scope: Message, receive: Receive) -> tuple[Message, Receive]:
        """The request as Gradio gets it. Raises Refused."""
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        names = {*self.names, plain_name(scope["server"][0])}
        if len(hosts) != 1 or not all(is_own(hosts[0], origin, names) for origin in origins or [None]):
            raise Refused(*NOT_OWN)
        check_address(scope["method"], scope["path"], self.uploads)
        if scope["method"] != "POST" or not CALL.fullmatch(scope["path"]):
            return scope, receive
        body = await checked_body(receive, self.uploads)
        headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"transfer-encoding")]
        scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        return scope, _giving(body, receive)

    def _changing(self, path: str, send: Send) -> Send:
        """Send with HEADERS; pages without foreign addresses, and uploads with the paths that they are moved to."""
        start: Message | None = None  # of what is changed, kept back until its length is known
        change: Callable[[bytes], bytes] | None = None
        body = b""

        async def changed(message: Message) -> None:
            nonlocal start, change, body
            if message["type"] == "http.response.start":
                headers = [*message["headers"], *HEADERS]
                message = {**message, "headers": headers}
                if dict(headers).get(b"content-type", b"").startswith(b"text/html"):
                    change = without_foreign
                elif path == UPLOAD and message["status"] == 200:
                    change = self.uploads.adopt_all
                if change:
                    start = message
                    return
            elif message["type"] == "http.response.body" and change:
                body += message.get("body", b"")
                if message.get("more_body"):
                    return
                await _send_whole(send, start, change(body))
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


async def _refuse(refused: Refused, send: Send) -> None:
    """An answer whose text Gradio's page shows."""
    start = {"type": "http.response.start", "status": refused.status}
    headers = [(b"content-type", b"application/json"), *HEADERS]
    await _send_whole(send, {**start, "headers": headers}, json.dumps({"detail": refused.text}).encode())
