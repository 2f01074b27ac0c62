"""What Ray's dashboard answers to a configuration of Serve, as a person reads it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ml_core.cells.serve_api import ServeApi
from ml_core.exceptions import PlatformError

# Of HAProxy 2.8 on a port that is taken, as Serve passes it on.
CRASHED = """Traceback (most recent call last):
  File "haproxy.py", line 1211, in _wait_for_hap_availability
RuntimeError: HAProxy crashed during startup: [NOTICE]   (20338) : haproxy version is 2.8.25-5cf5d0683
[ALERT]    (20338) : Binding [/home/haproxy.cfg:10] for frontend http_frontend: cannot bind socket (Address already in \
use) for [127.0.0.1:28676]
[ALERT]    (20338) : [haproxy.main()] Some protocols failed to start their listeners! Exiting.
""".replace("\\\n", "")


@contextmanager
def answering(text: str) -> Iterator[str]:
    """The address of a dashboard that refuses each configuration with a text."""

    class Refuses(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(500)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (CRASHED, "cannot bind socket (Address already in use) for [127.0.0.1:28676]"),
        ("Traceback\n  File\nValueError: route prefix\n\n", "ValueError: route prefix"),
        ("", "no message"),
    ],
)
def test_the_cause_of_a_refusal_is_said(text, cause):
    """That HAProxy ends is no cause; the address that it could not bind is."""
    with answering(text) as url, pytest.raises(PlatformError) as refused:
        ServeApi(url, None, {}).declare([])
    assert refused.value.message.endswith(cause)
