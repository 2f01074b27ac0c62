"""``Specification``: a document that a caller writes, so that each of its members is checked when it is read."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from functools import lru_cache
from typing import Any, ClassVar, Self

from ml_core.domain.document import Document
from ml_core.domain.keywords import nearest
from ml_core.exceptions import InvalidRequestError, shown

FORM = "form"
"""The key of a field's metadata for what a caller gives, where its type does not say it well."""


@dataclass(frozen=True, slots=True)
class Specification(Document):
    """Base class of such a document. Its constructor checks what the type of a member does not say.

    Attributes:
        noun: What it describes, with its article, at the beginning of a sentence.
    """

    noun: ClassVar[str]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read it from a JSON object. Members that are omitted or null have their defaults.

        Raises:
            InvalidRequestError: A member is missing, unknown or of the wrong JSON type.
            MLFrameworkError: As the constructor.
        """
        if not isinstance(data, Mapping):
            raise InvalidRequestError(f"{cls.noun} is not a JSON object.", remedy="Give an object.", field="spec")
        known, checks = {each.name: each for each in fields(cls)}, _checks(cls)  # type: ignore[arg-type]
        for name in data:
            if name not in known:
                raise InvalidRequestError(
                    f"{cls.noun} has no field {shown(name)}.", remedy=nearest(name, known), field=str(name)
                )
        given = {name: value for name, value in data.items() if value is not None}
        for name, of in known.items():
            if name not in given:
                if of.default is MISSING and of.default_factory is MISSING:
                    all_fields = f"Its fields are: {', '.join(known)}."
                    raise InvalidRequestError(f"{cls.noun} lacks the field {name!r}.", remedy=all_fields, field=name)
            elif (remedy := checks[name](given[name])) is not None:
                raise cls._refused(name, given[name], remedy)
        return super(Specification, cls).from_json(given)

    @classmethod
    def _refused(cls, name: str, value: Any, remedy: str) -> InvalidRequestError:
        form = cls.__dataclass_fields__[name].metadata.get(FORM)
        return InvalidRequestError(
            f"The field {name!r} of {cls.noun[0].lower()}{cls.noun[1:]} is {shown(value)}.",
            remedy=remedy if form is None else f"Give {form}.",
            field=name,
        )

    def refuse_other_types(self, *names: str) -> None:
        """Refuse members that Python gave and JSON could not, such as a text in the place of an object; None is not.

        Raises:
            InvalidRequestError: One is of another type; says which.
        """
        for name in names:
            value = getattr(self, name)
            remedy = None if value is None else _checks(type(self))[name](value)  # type: ignore[arg-type]  # as below
            if remedy is not None:
                raise self._refused(name, value, remedy)

    def refuse_outside(self, **bounds: tuple[float, float]) -> None:
        """Refuse numbers that are outside of their bounds, which are included; None is not.

        Raises:
            InvalidRequestError: One is; says which.
        """
        for name, (lowest, highest) in bounds.items():
            value = getattr(self, name)
            check = _checks(type(self))[name]  # type: ignore[arg-type]  # of mypy, a dataclass may lack a hash
            is_fine = value is None or (check(value) is None and lowest <= value <= highest)
            if not is_fine:
                raise self._refused(name, value, f"Give a number from {lowest:,} to {highest:,}.")


@lru_cache(maxsize=64)  # resolving the hints of a class takes longer than reading a document
def _checks(cls: type[Specification]) -> dict[str, Callable[[Any], str | None]]:
    """Field → what finds fault with a JSON value: what to give instead, or None."""
    hints = typing.get_type_hints(cls)
    return {each.name: _check(hints[each.name]) for each in fields(cls)}


def _check(hint: Any) -> Callable[[Any], str | None]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        hint = next(each for each in arguments if each is not type(None))
        return _check(hint)
    if origin is tuple:
        return _unless(lambda value: isinstance(value, list | tuple) and _are_texts(value), "a list of strings")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        of_texts = isinstance(arguments[1], type) and issubclass(arguments[1], str)
        return _unless(
            lambda value: (
                isinstance(value, Mapping) and _are_texts(value) and (not of_texts or _are_texts(value.values()))
            ),
            "an object",
        )
    if hint is bool:
        return _unless(lambda value: isinstance(value, bool), "true or false")
    if hint in (int, float):
        wanted = "a whole number" if hint is int else "a number"
        kinds = int if hint is int else int | float
        return _unless(lambda value: isinstance(value, kinds) and not isinstance(value, bool), wanted)
    if issubclass(hint, StrEnum):
        return lambda value: None if isinstance(value, str) and value in list(hint) else nearest(value, hint)
    if issubclass(hint, str):
        return _unless(lambda value: isinstance(value, str), "a string")
    return lambda _value: None  # a document, which checks itself


def _unless(is_valid: Callable[[Any], bool], wanted: str) -> Callable[[Any], str | None]:
    return lambda value: None if is_valid(value) else f"Give {wanted}."


def _are_texts(values: typing.Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
