"""JSON for the database: numpy scalars and paths are understood, what has no JSON form is refused, never guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import orjson

from ml_core.exceptions import InvalidRequestError


def dumps(value: Any) -> str:
    """The JSON text of a value.

    Raises:
        InvalidRequestError: It holds NaN, an infinity, or an object without a JSON form; names where.
    """
    return orjson.dumps(plain(value)).decode()


def plain(value: Any, path: str = "") -> Any:
    """The value made of dict, list, str, int, finite float, bool and None only.

    Raises:
        InvalidRequestError: As ``dumps``.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        return _bounded(int(value), path)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refused(f"{value} has no JSON form", path)
        return float(value)
    if isinstance(value, Mapping):
        return {_text(str(key), path): plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, PurePath):
        return _text(str(value), path)
    if callable(getattr(value, "tolist", None)):  # numpy scalars and arrays
        return plain(value.tolist(), path)
    raise _refused(f"a {type(value).__name__} has no JSON form", path)


def _text(value: str, path: str) -> str:
    if not is_storable(value):
        raise _refused("a text holds NUL or is not valid Unicode", path)
    return str(value)  # a plain str, also of a subclass


def is_storable(value: str) -> bool:
    """Whether Postgres can hold a text: it has no NUL and no lone surrogate."""
    if "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bounded(value: int, path: str) -> int:
    if not -(2**63) <= value < 2**63:
        raise _refused("an integer does not fit 64 bits", path)
    return value


def _refused(reason: str, path: str) -> InvalidRequestError:
    where = path.lstrip(".") or "value"
    return InvalidRequestError(
        f"{where} can't be stored: {reason}.",
        remedy="Use strings, finite numbers, booleans, None, lists and mappings.",
        field=where,
    )
