"""JSON for the database: numpy, paths and enums are understood, what has no JSON form is refused, never guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import orjson

from ml_core.exceptions import InvalidRequestError

MAX_DEPTH = 100
"""Levels of lists and mappings; what configurations of people and libraries have is below ten."""


def dumps(value: Any) -> str:
    """The JSON text of a value.

    Raises:
        InvalidRequestError: It holds NaN, an infinity, an object without a JSON form, or two keys of the same text, or
            is nested deeper than ``MAX_DEPTH``; names where.
    """
    return orjson.dumps(plain(value)).decode()


def plain(value: Any, path: str = "", depth: int = 0) -> Any:
    """The value made of dict, list, str, int, finite float, bool and None only; an enum is its value.

    Args:
        value: The value.
        path: Where it is, for messages.
        depth: How many lists and mappings it is in.

    Raises:
        InvalidRequestError: As ``dumps``.
    """
    if depth > MAX_DEPTH:
        raise _refused(f"it is nested deeper than {MAX_DEPTH} levels", f"{path[:60]}…")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):  # before str and int, which many are too
        return plain(value.value, path, depth)
    if isinstance(value, str | int | float):
        return _scalar(value, path)
    if isinstance(value, Mapping):
        return _mapping(value, path, depth)
    if isinstance(value, list | tuple):
        return [plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, PurePath):
        return _text(str(value), path)
    if callable(getattr(value, "tolist", None)):  # numpy scalars and arrays
        return plain(value.tolist(), path, depth)
    raise _refused(f"a {type(value).__name__} has no JSON form", path)


def _scalar(value: str | int | float, path: str) -> str | int | float:
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        return _bounded(int(value), path)
    if not math.isfinite(value):
        raise _refused(f"{value} has no JSON form", path)
    return float(value)


def _mapping(value: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = _text(str(key.value if isinstance(key, Enum) else key), path)
        if name in found:
            raise _refused(f"two of its keys are {name!r} as text", path)
        found[name] = plain(item, f"{path}.{name}", depth + 1)
    return found


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
