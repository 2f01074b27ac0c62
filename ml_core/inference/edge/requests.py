"""Decompression and parsing of request bodies. Errors name the path of the invalid field."""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from ml_core.domain.columns import Columns
from ml_core.domain.signature import Row, Signature
from ml_core.exceptions import (
    InvalidNameError,
    InvalidRequestError,
    RequestTooLargeError,
    UnsupportedEncodingError,
    shown,
)
from ml_core.ids import EnvironmentName, VersionId
from ml_core.inference.edge.http import too_large
from ml_core.inference.target import DEFAULT_ENVIRONMENT, key_text

PARSE_ON_LOOP_BYTES = 256 * 1024
"""A larger body is parsed on a thread, so that several in a row do not block the event loop. orjson holds the
interpreter lock while it parses, about 3 ms per megabyte."""
_MAX_STICKY_KEY = 256
_EITHER_HEADER = 32 + zlib.MAX_WBITS
"""Makes zlib accept a gzip header and its own; the latter is ``deflate`` in HTTP (RFC 9110, 8.4.1.2)."""
_ENCODINGS = (b"gzip", b"x-gzip", b"deflate")


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
    if encoding not in _ENCODINGS:
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


@dataclass(slots=True)
class PredictBody:
    """The body of ``predict``; implements ``Table``.

    Attributes:
        raw: One JSON object per row.
        size: Bytes of the body.
        proba: Whether to predict probabilities.
        environment: The environment whose rollout answers.
        version: The version that answers instead of the environment's.
        key: The key for the choice of a canary.
        strict: Whether unknown columns are refused.
        unknown_values: The number of values in unknown columns; set by ``columns``.
    """

    raw: list[Row]
    size: int
    proba: bool = False
    environment: str = DEFAULT_ENVIRONMENT
    version: str | None = None
    key: str | None = None
    strict: bool = False
    unknown_values: int = 0

    @property
    def rows(self) -> int:
        """See ``Table``."""
        return len(self.raw)

    def columns(self, signature: Signature) -> Columns:
        """See ``Table``."""
        columns = signature.columns_from_rows(self.raw, strict=self.strict)
        self.unknown_values = signature.count_unknown(self.raw)
        return columns

    def first_value(self, column: str, signature: Signature) -> str | None:  # noqa: ARG002 - rows have names
        """See ``Table``."""
        return key_text(self.raw[0].get(column))


def parse_predict(body: bytes, max_rows: int) -> PredictBody:
    """Parse the body of ``predict``.

    Raises:
        InvalidRequestError: The body is malformed; names the field.
        InvalidNameError: A name in the body is invalid.
        RequestTooLargeError: The body has more than ``max_rows`` rows.
    """
    data = parse_object(body)
    rows = data.get("rows")
    if type(rows) is not list or not rows:
        raise invalid("rows", "must be a list of at least one object", 'Send {"rows": [{column: value}]}.')
    check_rows(len(rows), max_rows)
    for index, row in enumerate(rows):
        if type(row) is not dict:
            raise invalid(f"rows[{index}]", "must be an object", "Send one object per row: column → value.")
    parsed = PredictBody(rows, len(body))
    if len(data) > 1:
        for name, value in data.items():
            if name != "rows":
                _set_option(parsed, name, value)
    return parsed


def parse_object(body: bytes | memoryview) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        InvalidRequestError: The body is not JSON or not an object.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(
            f"The body is not valid JSON: {error}.", remedy="Send JSON in UTF-8; write NaN as null.", field="body"
        ) from None
    if type(data) is not dict:
        raise invalid("body", "must be a JSON object", 'Send an object, such as {"rows": […]}.')
    return data


def check_rows(rows: int, max_rows: int) -> None:
    """Check the number of rows.

    Raises:
        RequestTooLargeError: There are more than ``max_rows``.
    """
    if rows > max_rows:
        raise RequestTooLargeError(
            f"The request has {rows:,} rows; the limit is {max_rows:,}.",
            remedy="Send fewer rows per request.",
            limit=max_rows,
            actual=rows,
        )


def invalid(field: str, what: str, remedy: str) -> InvalidRequestError:
    """The error for an invalid field."""
    return InvalidRequestError(f"Field {field!r} {what}.", remedy=remedy, field=field)


def _set_option(parsed: PredictBody, name: str, value: Any) -> None:
    check = _OPTIONS.get(name)
    if check is None:
        near = difflib.get_close_matches(name[:40], [*_OPTIONS, "rows"], n=1)
        known = f"Did you mean {near[0]!r}?" if near else f"Known fields: rows, {', '.join(sorted(_OPTIONS))}."
        raise invalid(name[:100], "is not known", known)
    setattr(parsed, name, check(name, value))


def _boolean(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise invalid(name, "must be true or false", "Correct or omit it.")
    return value


def _environment(name: str, value: Any) -> str:
    return DEFAULT_ENVIRONMENT if value is None else _name(name, value, EnvironmentName)


def _version(name: str, value: Any) -> str | None:
    return None if value is None else _name(name, value, VersionId)


def _name(name: str, value: Any, parse: Callable[[str], str]) -> str:
    try:
        return parse(value)
    except InvalidNameError as error:
        error.details["field"] = name
        raise


def sticky_key(name: str, value: Any) -> str | None:
    """Check the key of a request.

    Raises:
        InvalidRequestError: The key is not a string of 1 to 256 characters.
    """
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= _MAX_STICKY_KEY):
        raise invalid(name, f"must be a string of 1 to {_MAX_STICKY_KEY} characters", "Correct or omit it.")
    return value


_OPTIONS: Mapping[str, Callable[[str, Any], Any]] = {
    "proba": _boolean,
    "environment": _environment,
    "version": _version,
    "key": sticky_key,
    "strict": _boolean,
}
