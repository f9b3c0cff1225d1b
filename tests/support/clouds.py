"""Storage for tests: moto's S3 server, a real HTTP endpoint of this machine, and what speaks to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "not-to-be-seen", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server() -> Iterator[str]:
    """The URL of an S3 server, which has the bucket "bucket"; environment variables lead to it."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        lead_to(url, patch)
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket="bucket")
        yield url
    server.stop()


@contextmanager
def forbidding_server() -> Iterator[str]:
    """The URL of an S3 server that answers every request with 403."""

    class Forbidding(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")  # what else was sent is not read
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

        def handle_expect_100(self) -> bool:
            self.answer()
            return False

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Forbidding)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield "http://{}:{}".format(*server.server_address[:2])
    server.shutdown()
    thread.join()
    server.server_close()


def lead_to(url: str, patch: pytest.MonkeyPatch) -> None:
    """Let the environment name this S3 server."""
    from s3fs import S3FileSystem

    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": url}.items():
        patch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
