"""Decompression of request bodies by ``Content-Encoding``."""

from __future__ import annotations

import zlib

from ml_core.exceptions import UnsupportedEncodingError, shown
from ml_core.inference.edge.http import too_large
from ml_core.inference.edge.requests import invalid

# Makes zlib accept a gzip header and its own; the latter is ``deflate`` in HTTP (RFC 9110, 8.4.1.2).
_EITHER_HEADER = 32 + zlib.MAX_WBITS
_READ = (b"gzip", b"x-gzip", b"deflate")


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Decompress a body.

    Args:
        body: The compressed bytes.
        encoding: ``gzip`` or ``deflate``.
        limit: Limit of decompressed bytes, which also bounds the memory.

    Raises:
        UnsupportedEncodingError: The encoding is another one, or there are several.
        InvalidRequestError: The bytes are damaged or truncated, or other bytes follow.
        RequestTooLargeError: The body exceeds ``limit`` bytes.
    """
    if encoding not in _READ:
        raise UnsupportedEncodingError(
            f"The Content-Encoding {shown(encoding.decode('latin-1'))} is not supported.",
            remedy="Send the body as gzip, deflate or uncompressed.",
            field="content-encoding",
        )
    unpacker = zlib.decompressobj(_EITHER_HEADER)
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise _damaged(encoding) from None
    if len(plain) > limit:
        raise too_large(limit, None)
    if not unpacker.eof or unpacker.unused_data:
        raise _damaged(encoding)
    return plain


def _damaged(encoding: bytes) -> Exception:
    return invalid(
        "body", f"is not one complete {encoding.decode()} stream", "Compress the body as one stream, or send it plain."
    )
