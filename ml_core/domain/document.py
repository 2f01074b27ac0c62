"""The JSON form of the values of this package: one object of its fields for each dataclass."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Document:
    """Base class of a dataclass that is stored or sent as JSON.

    The type hints of the fields define the form: a nested document is an object, a tuple or set a list, and a name or
    enum its text. Fields that the constructor does not take are derived from the others and left out.
    """

    def to_json(self) -> dict[str, Any]:
        """The JSON-compatible form; ``from_json`` reads it back."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self) if field.init}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The value that ``to_json`` described.

        Absent members have their defaults. Unknown members are ignored: a newer release may have written them.
        """
        readers = _readers(cls)  # type: ignore[arg-type]  # mypy takes type[Self] for unhashable
        return cls(**{name: read(data[name]) for name, read in readers.items() if name in data})


def _plain(value: Any) -> Any:
    if isinstance(value, str):  # the usual ones first; Mapping is an abstract class, which is slow to ask
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Document):
        return value.to_json()
    if isinstance(value, frozenset):
        return sorted(map(_plain, value))  # equal sets have one form
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value


@lru_cache(maxsize=64)  # resolving the hints of a class takes longer than reading a document
def _readers(cls: type[Document]) -> dict[str, Callable[[Any], Any]]:
    hints = typing.get_type_hints(cls)
    return {field.name: _reader(hints[field.name]) for field in fields(cls) if field.init}


def _reader(hint: Any) -> Callable[[Any], Any]:
    """The function that turns a JSON value into a value of a type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType and type(None) in arguments:
        read = _reader(arguments[0])
        return lambda value: None if value is None else read(value)
    if origin in (tuple, frozenset):
        is_fixed = origin is tuple and arguments[-1] is not Ellipsis  # such as (value, count), plain in JSON
        item = _as_is if is_fixed else _reader(arguments[0])
        return origin if item is _as_is else lambda values: origin(map(item, values))
    if isinstance(hint, type) and issubclass(hint, Document):
        return hint.from_json
    # Names and enums are parsed again, so that no unparsed name enters through JSON.
    return hint if isinstance(hint, type) and issubclass(hint, str) and hint is not str else _as_is


def _as_is(value: Any) -> Any:
    return value
