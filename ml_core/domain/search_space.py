"""``Dimension``: the values of one hyperparameter that a search tries, as a JSON object, a list or a short text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ml_core.domain.document import Document
from ml_core.domain.keywords import nearest
from ml_core.exceptions import InvalidRequestError, shown

if TYPE_CHECKING:
    import numpy as np

Number: TypeAlias = int | float

_FORMS = (
    "Write 2..12 for whole numbers, 0.1..0.9 for numbers, 0.1..0.9:0.2 with a step, log:0.001:0.3 on a logarithmic "
    "scale, or the choices as gini,entropy."
)
_MAX_CHOICES = 1_000
_MAX_MAGNITUDE = 2**53  # the whole numbers that a float64 holds exactly


@dataclass(frozen=True, slots=True)
class Dimension(Document):
    """A range of numbers, or a list of choices.

    Attributes:
        low: The lowest value; the dimension has whole numbers only if ``low``, ``high`` and ``step`` are ints.
        high: The highest value.
        log: Whether values are drawn evenly on a logarithmic scale.
        step: The distance between two values; None: 1 between whole numbers, else any.
        choices: The values, of any JSON type; empty for a range.

    Raises:
        InvalidRequestError: No value can be drawn from it, or its parts contradict each other.
    """

    low: Number | None = None
    high: Number | None = None
    log: bool = False
    step: Number | None = None
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.choices, list | tuple):
            raise _invalid("has choices that are no list", "Give a list.")
        object.__setattr__(self, "choices", tuple(self.choices))  # the class is frozen
        numbers = [value for value in (self.low, self.high, self.step) if value is not None]
        if self.choices:
            if numbers or self.log or len(self.choices) > _MAX_CHOICES:
                raise _invalid(f"has a range as well as choices, or more than {_MAX_CHOICES:,} choices", _FORMS)
            return
        if self.low is None or self.high is None:
            raise _invalid("has neither low and high nor choices", _FORMS)
        if not all(map(_is_number, numbers)):
            raise _invalid("has a bound or step that is no finite number", f"Give numbers up to {_MAX_MAGNITUDE:,}.")
        if self.low >= self.high:
            raise _invalid(f"is the empty range {self.low}..{self.high}", "Give the lower bound first.")
        if not isinstance(self.log, bool):
            raise _invalid(f"has {shown(self.log)} as log", "Give true or false.")
        if self.log and (self.low <= 0 or self.step is not None):
            raise _invalid("is logarithmic from 0 or below, or with a step", "Begin above 0, without a step.")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise _invalid(f"has the step {self.step}", f"Give one above 0, up to {self.high - self.low:g}.")

    @classmethod
    def parse(cls, name: str, given: Any) -> Self:
        """Read what a caller gave for a hyperparameter.

        Args:
            name: The hyperparameter, for errors.
            given: An object of the fields, a list of choices, or a text such as ``log:0.001:0.3``.

        Raises:
            InvalidRequestError: It is something else, or as the constructor.
        """
        try:
            if isinstance(given, cls):
                return given
            if isinstance(given, str):
                return cls(**_of_text(given))
            if isinstance(given, list | tuple):
                if not given:
                    raise _invalid("is an empty list", _FORMS)
                return cls(choices=tuple(given))
            if not isinstance(given, Mapping):
                raise _invalid(f"is the single value {shown(given)}", "Give it as a hyperparameter of the training.")
            known = [each.name for each in fields(cls)]
            for key in given:
                if key not in known:
                    raise _invalid(f"has an unknown member {shown(key)}", nearest(key, known))
            return cls(**{key: value for key, value in given.items() if value is not None})
        except InvalidRequestError as error:
            error.message = error.message.replace(_SUBJECT, f"The space of {shown(name)}", 1)
            error.__dict__["field"] = "space"
            raise

    def to_json(self) -> dict[str, Any]:
        """The fields that are set; ``parse`` reads them back."""
        if self.choices:
            return {"choices": list(self.choices)}
        optional = {"log": True} if self.log else {} if self.step is None else {"step": self.step}
        return {"low": self.low, "high": self.high, **optional}

    @property
    def is_whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return not self.choices and all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    @property
    def size(self) -> int | None:
        """How many values it has; None: a range without a step has any number."""
        if self.choices:
            return len(self.choices)
        step = self.step or (1 if self.is_whole else None)
        return None if step is None else int((self._high - self._low) / step + 1e-9) + 1

    def value(self, index: int) -> Any:
        """One of the ``size`` values, by its place from 0."""
        if self.choices:
            return self.choices[index]
        return self.short(self._low + index * (self.step or 1))

    def draw(self, random: np.random.Generator) -> Any:
        """A random value."""
        if self.size is not None and not self.log:
            return self.value(int(random.integers(self.size)))
        low, high = (math.log(self._low), math.log(self._high)) if self.log else (self._low, self._high)
        drawn = float(random.uniform(low, high))
        return self.short(math.exp(drawn) if self.log else drawn)

    def short(self, value: Number) -> Number:
        """A value of the range with 6 significant digits: people read it, and JSON keeps it exactly."""
        shortened = round(value) if self.is_whole else float(f"{value:.6g}")
        return min(max(shortened, self._low), self._high)

    def contains(self, value: Any) -> bool:
        """Whether it has this value."""
        if self.choices:
            return value in self.choices
        return _is_number(value) and (not self.is_whole or value == int(value)) and self._low <= value <= self._high

    @property
    def ends(self) -> Sequence[Any]:
        """Values whose validity decides whether all are valid: the choices, or the bounds of the range."""
        return self.choices or (self._low, self._high)

    @property
    def _low(self) -> Number:
        return self.low or 0

    @property
    def _high(self) -> Number:
        return self.high or 0


_SUBJECT = "The dimension"


def _of_text(text: str) -> dict[str, Any]:
    if text.startswith("log:") and text.count(":") == 2:
        _, low, high = text.split(":")
        return {"low": _number(low), "high": _number(high), "log": True}
    if ".." in text:
        bounds, colon, step = text.partition(":")
        low, _, high = bounds.partition("..")
        return {"low": _number(low), "high": _number(high), **({"step": _number(step)} if colon else {})}
    if "," in text:
        return {"choices": tuple(_plain(each.strip()) for each in text.split(","))}
    raise _invalid(f"is {shown(text)}", _FORMS)


def _plain(text: str) -> Any:
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return _number(text)
    except InvalidRequestError:
        return text


def _number(text: str) -> Number:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    raise _invalid(f"has {shown(text)} in the place of a number", _FORMS)


def _is_number(value: Any) -> bool:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and abs(value) <= _MAX_MAGNITUDE  # NaN is not


def _invalid(what: str, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(f"{_SUBJECT} {what}.", remedy=remedy, field="space")
