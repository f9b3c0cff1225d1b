"""An ASGI program around Gradio's that checks what comes in, and changes what goes out.

In: requests by a known name, from the app's own pages, for what these need, with no file but uploaded ones; uploads do
not reach Gradio at all. Out: pages without the addresses of other hosts, which the browser is forbidden as well.
"""

from __future__ import annotations

import re
from collections.abc import Set

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from utils.app.hosts import is_own, plain_name
from utils.app.requests import CALL, PROGRESS, QUERIED, UPLOAD, Refused, check_address, checked_body
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
# Scripts, styles, fonts and connections of other hosts
FOREIGN = re.compile(rb"<script\b[^>]*\bsrc=\"https?://[^>]*>\s*</script>|<link\b[^>]*\bhref=\"https?://[^>]*>")
UPLOADED = b'data: {"msg": "done"}\n\n'  # all that is said of an upload's progress
DROPPED = (b"x-forwarded-host", b"x-gradio-server", b"range")  # the first two would set the addresses in a page
NOT_OWN = 403, "This address is not the app's own; --allowed_host NAME lets it be asked under another name."


class Guard:
    """names: of hosts, as of `plain_name`, under which the server may be asked besides the address that was asked."""

    def __init__(self, app: ASGIApp, names: Set[str], uploads: Uploads):
        self.app, self.names, self.uploads = app, names, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":  # the page uses no web sockets
            answer, request = self.app, Request(scope, receive)
            try:
                self._check(request)
                if scope["path"] == UPLOAD:
                    answer = JSONResponse(await self.uploads.take(request))
                elif scope["path"] == PROGRESS:
                    answer = Response(UPLOADED, media_type="text/event-stream")
                else:
                    scope, receive = await self._passed_on(request)
            except Refused as refused:
                answer = JSONResponse({"detail": refused.text}, refused.status)  # Gradio's page shows it
            except ClientDisconnect:
                return
            await answer(scope, receive, _changing(send))

    def _check(self, request: Request) -> None:
        hosts, origins = (request.headers.getlist(name) for name in ("host", "origin"))
        names = {*self.names, plain_name(request.scope["server"][0])}
        if len(hosts) != 1 or not all(is_own(hosts[0], origin, names) for origin in origins or [None]):
            raise Refused(*NOT_OWN)
        check_address(request.method, request.scope["path"], self.uploads)

    async def _passed_on(self, request: Request) -> tuple[Scope, Receive]:
        """Return the request as Gradio gets it. Raises Refused."""
        scope, receive = request.scope, request.receive
        headers = MutableHeaders(raw=[pair for pair in scope["headers"] if pair[0] not in DROPPED])
        query = scope["query_string"] if scope["path"] in QUERIED else b""
        scope = {**scope, "headers": headers.raw, "query_string": query}
        if scope["method"] != "POST" or not CALL.fullmatch(scope["path"]):
            return scope, receive
        body = await checked_body(request, self.uploads)
        del headers["transfer-encoding"]
        headers["content-length"] = str(len(body))
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def give() -> Message:
            return next(messages, None) or await receive()  # then what still comes: that the browser has gone

        return scope, give


def _changing(send: Send) -> Send:
    """Send with HEADERS, and pages without FOREIGN."""
    start: Message | None = None  # of a page, kept back until its length is known
    body = b""

    async def changed(message: Message) -> None:
        nonlocal start, body
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *HEADERS]}
            if MutableHeaders(raw=message["headers"]).get("content-type", "").startswith("text/html"):
                start = message
                return
        elif message["type"] == "http.response.body" and start:
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            body = FOREIGN.sub(b"", body)
            MutableHeaders(raw=start["headers"])["content-length"] = str(len(body))
            await send(start)
            message = {**message, "body": body}
        await send(message)

    return changed
