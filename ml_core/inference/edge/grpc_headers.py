"""The headers and trailers of a gRPC call: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from ml_core.exceptions import InvalidRequestError

SERVICE: Final = "inference.GRPCInferenceService"
"""The service of the Open Inference Protocol v2. ``deployments.haproxy`` puts ``/t/{tenant}`` before its paths."""
GRPC_PATH: Final = re.compile(rf"/t/[^/]*/{re.escape(SERVICE)}/.*", re.DOTALL)

# https://grpc.github.io/grpc/core/md_doc_statuscodes.html
CODES: Mapping[int, int] = {
    200: 0,  # OK
    400: 3,  # INVALID_ARGUMENT
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: 5,  # NOT_FOUND
    405: 12,  # UNIMPLEMENTED
    408: 4,  # DEADLINE_EXCEEDED
    409: 10,  # ABORTED
    413: 8,  # RESOURCE_EXHAUSTED, as gRPC's own servers answer a message that is too large
    415: 12,  # UNIMPLEMENTED
    422: 3,  # INVALID_ARGUMENT
    429: 8,  # RESOURCE_EXHAUSTED
    500: 13,  # INTERNAL
    503: 14,  # UNAVAILABLE
    504: 4,  # DEADLINE_EXCEEDED
    507: 8,  # RESOURCE_EXHAUSTED
}
"""HTTP status → gRPC status: the table of errors is ``ml_core.exceptions.STATUS`` for both."""

_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS_MS: Mapping[bytes, float] = {b"H": 3_600_000, b"M": 60_000, b"S": 1_000, b"m": 1, b"u": 1e-3, b"n": 1e-6}

# What a peer accepts in trailers is about 8 KiB; a character may need twelve bytes.
_MAX_MESSAGE = 600


def milliseconds(timeout: bytes) -> int:
    """The header ``grpc-timeout`` in whole milliseconds, at least 1.

    Raises:
        InvalidRequestError: It is no timeout.
    """
    found = _TIMEOUT.fullmatch(timeout)
    if found is None:
        raise InvalidRequestError(
            "The grpc-timeout must be up to 8 digits and a unit.", remedy="Correct or omit it.", field="grpc-timeout"
        )
    return max(1, int(int(found[1]) * _UNITS_MS[found[2]]))


def trailers_of(status: int, message: str = "") -> dict[bytes, bytes]:
    """The trailers of a call.

    Args:
        status: The HTTP status of the same answer.
        message: The text of the error; empty: there is none.
    """
    trailers = {b"grpc-status": b"%d" % CODES[status]}
    if message:
        # Percent-encoded: it may have any character, and a trailer only printable ASCII.
        text = message[:_MAX_MESSAGE].encode(errors="replace")
        trailers[b"grpc-message"] = quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()
    return trailers
