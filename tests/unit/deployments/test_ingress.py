"""Headers before Ray Serve sees them: nothing that it fails on, none of its own controls."""

from __future__ import annotations

import asyncio

import pytest

from deployments.ingress import middlewares

SKIP = (b"x-request-disconnect-disabled", b"?1")


def prepared(*headers, path="/t/acme/models/m/predict", kind="http"):
    """The headers that an application behind the middleware gets."""
    seen = []

    async def app(scope, receive, send):
        seen.extend(scope["headers"])

    (middleware,) = middlewares()
    wrapped = middleware.cls(app, *middleware.args, **middleware.kwargs)
    asyncio.run(wrapped({"type": kind, "path": path, "headers": list(headers)}, None, None))
    return seen


def test_ordinary_headers_pass_in_order():
    """Also those of several values, and values that are no ASCII."""
    headers = [(b"authorization", b"Bearer x"), (b"cookie", b"\xff"), (b"cookie", b"b"), (b"x-request-id", b"abc-1")]
    assert prepared(*headers) == [*headers, SKIP]


@pytest.mark.parametrize("value", [b"\xff", b"a b", b"", b"x" * 129])
def test_an_odd_request_id_is_dropped(value):
    """Serve makes a new one then, and sends that back."""
    assert prepared((b"x-request-id", value)) == [SKIP]


@pytest.mark.parametrize(
    "header",
    [
        (b"x-request-timeout-seconds", b"0.001"),
        (b"x-request-disconnect-disabled", b"\xff"),
        (b"serve_multiplexed_model_id", b"\xff"),
        (b"x-session-id", b"\xff"),
        (b"traceparent", b"\xff"),
    ],
)
def test_what_serve_reads_itself_is_dropped(header):
    """A second deadline, and values on which it fails."""
    assert prepared(header) == [SKIP]


def test_the_control_plane_keeps_serves_own_watch():
    """Only the prediction plane notices by itself that a client left."""
    assert prepared((b"accept", b"*/*"), path="/api/v1/tenants") == [(b"accept", b"*/*")]
