"""Bodies that are compressed: understood within the byte limit, or refused with what to do."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import orjson
import pytest

from ml_core.exceptions import InvalidRequestError, RequestTooLargeError, UnsupportedEncodingError
from ml_core.inference.edge.http import decompress
from support.inprocess_cell import MEASURE

PATH = "/t/acme/models/measures/predict"
LIMIT = 64 * 1024  # of the cell's settings
BODY = orjson.dumps({"rows": [MEASURE]})


def ask(cell, key, content, encoding):
    return cell.ask("POST", PATH, key=key, content=content, headers={"content-encoding": encoding})


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
    ],
)
def test_a_compressed_body_is_answered_as_the_plain_one(cell, key, encoding, pack):
    """In the encodings that HTTP clients have."""
    plain = cell.ask("POST", PATH, key=key, content=BODY).json()
    answer = ask(cell, key, pack(BODY), encoding)
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == plain["predictions"]


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip, deflate", ""])
def test_another_encoding_is_415(cell, key, encoding):
    """With those that are read."""
    answer = ask(cell, key, gzip.compress(BODY), encoding)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")
    assert answer.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    "content",
    [b"", BODY, gzip.compress(BODY)[:-1], gzip.compress(BODY) + b"x", gzip.compress(BODY) * 2, b"\x1f\x8b" + BODY],
)
def test_a_damaged_body_is_400(cell, key, content):
    """Empty, not compressed at all, cut off, or followed by others."""
    answer = ask(cell, key, content, "gzip")
    assert (answer.status_code, answer.json()["error"]["details"]) == (400, {"field": "body"})


def test_a_body_over_the_limit_once_unpacked_is_413(cell, key):
    """However small it is on the wire; one at the limit is read."""
    answer = ask(cell, key, gzip.compress(b" " * (LIMIT + 1)), "gzip")
    assert (answer.status_code, answer.json()["error"]["details"]) == (413, {"limit": LIMIT})
    padded = BODY + b" " * (LIMIT - len(BODY))
    assert ask(cell, key, gzip.compress(padded), "gzip").status_code == 200


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_bomb_is_never_unpacked(pack):
    """64 MB of zeros are 64 kB on the wire, and cost no more memory than the limit."""
    bomb = pack(bytes(64 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLargeError):
            decompress(bomb, b"gzip", LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT + len(bomb)
    finally:
        tracemalloc.stop()


def test_errors_name_what_they_are_of():
    """Each its own kind, so that a client can tell them apart."""
    with pytest.raises(UnsupportedEncodingError, match="gzip, deflate or uncompressed"):
        decompress(b"", b"br", 1)
    with pytest.raises(InvalidRequestError, match="one complete deflate stream"):
        decompress(b"x", b"deflate", 1)
