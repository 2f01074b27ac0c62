"""MLflow's filters and orders as comparisons of the registry. What is not supported is refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from ml_core.api.routes.mlflow.forms import PARENT_TAG, RUN_NAME_TAG, STATUSES
from ml_core.domain.comparison import Comparison, Field, FieldKind, Operator, Order
from ml_core.exceptions import InvalidRequestError, RequestTooLargeError, shown

_FIELD = re.compile(r"\s*(?:([A-Za-z]+)\s*\.\s*)?(?:`([^`]*)`|\"([^\"]*)\"|([\w./:-]+))")
_OPERATOR = re.compile(r"\s*(!=|>=|<=|=|>|<|(?:NOT\s+)?IN\b|I?LIKE\b|IS\s+(?:NOT\s+)?NULL\b)", re.IGNORECASE)
_TEXT = re.compile(r"\s*(?:'((?:[^']|'')*)'|\"([^\"]*)\")")
_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])")
_DIRECTION = re.compile(r"\s*(ASC|DESC)?\s*", re.IGNORECASE)
_END = re.compile(r"\s*\Z")
_MAX_FILTER = 64_000
_AND = re.compile(r"\s*AND\b", re.IGNORECASE)

_KINDS = {
    **dict.fromkeys(("metric", "metrics"), FieldKind.METRIC),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), FieldKind.PARAMETER),
    **dict.fromkeys(("tag", "tags"), FieldKind.TAG),
    **dict.fromkeys(("", "attribute", "attributes", "attr", "run"), FieldKind.ATTRIBUTE),
}
_NUMERIC = frozenset({"=", "!=", "<", "<=", ">", ">="})
_TEXTUAL = frozenset({"=", "!=", "like", "ilike"})
_NULLS = frozenset({"is null", "is not null"})
_LISTS = frozenset({"in", "not in"})
_OPPOSITES = {Operator.EQUAL: Operator.IN, Operator.DIFFERENT: Operator.NOT_IN}


@dataclass(frozen=True, slots=True)
class Language:
    """What a search may name.

    Attributes:
        attributes: MLflow's name of an attribute → the field.
        kinds: The kinds of fields that there are.
    """

    attributes: Mapping[str, Field]
    kinds: frozenset[FieldKind]

    def comparisons(self, text: str | None) -> list[Comparison]:
        """The comparisons of a filter such as ``metrics.loss < 0.1 AND tags.team = 'a'``.

        Raises:
            InvalidRequestError: The filter can't be read, or names what is not supported.
            RequestTooLargeError: It has more than 64,000 characters.
        """
        if text is None or not text.strip():
            return []
        if len(text) > _MAX_FILTER:
            raise RequestTooLargeError(
                f"The filter has {len(text):,} characters; {_MAX_FILTER:,} are allowed.",
                remedy="Search with fewer comparisons.",
                limit=_MAX_FILTER,
                actual=len(text),
            )
        return list(self._clauses(_Scanner(text)))

    def orders(self, texts: Sequence[str]) -> list[Order]:
        """The orders of texts such as ``metrics.loss DESC``.

        Raises:
            InvalidRequestError: One can't be read, or names what is not supported.
        """
        found = []
        for text in texts:
            scanner = _Scanner(text)
            field, _ = self._field(scanner)
            direction = scanner.take(_DIRECTION)
            if not scanner.is_done:
                scanner.refuse("Write FIELD, FIELD ASC or FIELD DESC.")
            is_descending = bool(direction and direction[1] and direction[1].upper() == "DESC")
            found.append(Order(field, is_descending))
        return found

    def _clauses(self, scanner: _Scanner) -> Iterator[Comparison]:
        while True:
            field, name = self._field(scanner)
            sign = scanner.take(_OPERATOR) or scanner.refuse("An operator is missing.")
            yield _comparison(field, name, Operator(" ".join(sign[1].lower().split())), scanner)
            if scanner.is_done:
                return
            if not scanner.take(_AND):
                scanner.refuse("Conditions are joined by AND; there are neither OR nor parentheses.")

    def _field(self, scanner: _Scanner) -> tuple[Field, str]:
        found = scanner.take(_FIELD) or scanner.refuse("A field is missing.")
        name = next(part for part in found.groups()[1:] if part is not None)
        kind = _KINDS.get((found[1] or "").lower())
        if kind is None or (kind not in self.kinds):
            scanner.refuse(f"There is no {found[1]!r} to search by; there are {', '.join(sorted(self.kinds))}.")
        if kind is FieldKind.TAG and name == PARENT_TAG and FieldKind.METRIC in self.kinds:
            return Field(FieldKind.ATTRIBUTE, "parent_run_id"), name
        if kind is not FieldKind.ATTRIBUTE:
            return Field(kind, name), name
        if name not in self.attributes:
            scanner.refuse(f"There is no attribute {name!r}; there are {', '.join(self.attributes)}.")
        return self.attributes[name], name


def _comparison(field: Field, name: str, operator: Operator, scanner: _Scanner) -> Comparison:
    is_time = field.name in ("started_at", "finished_at", "created_at", "updated_at")
    is_number = field.kind is FieldKind.METRIC or (field.kind is FieldKind.ATTRIBUTE and is_time)
    is_status = field.kind is FieldKind.ATTRIBUTE and field.name == "status"
    allowed = _NUMERIC if is_number else frozenset({"=", "!="}) if is_status else _TEXTUAL | _NULLS
    if field.kind is FieldKind.ATTRIBUTE and field.name == "run_id":
        allowed |= _LISTS
    if operator not in allowed:
        scanner.refuse(f"{name!r} is compared with {', '.join(sorted(allowed))}, not with {operator.upper()}.")
    if operator in _NULLS:
        return Comparison(field, operator)
    if operator in _LISTS:
        return Comparison(field, operator, scanner.texts())
    if is_number:
        return Comparison(field, operator, _number(scanner, is_time=field.kind is FieldKind.ATTRIBUTE))
    text = scanner.text()
    if is_status:
        stored = tuple(status for status, shown_as in STATUSES.items() if shown_as == text.upper())
        return Comparison(field, _OPPOSITES[operator], stored)
    return Comparison(field, operator, text)


def _number(scanner: _Scanner, *, is_time: bool) -> float | datetime:
    found = scanner.take(_NUMBER) or scanner.refuse("A number is missing; it is written without quotes.")
    if not is_time:
        return float(found[1])
    try:
        return datetime.fromtimestamp(float(found[1]) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return scanner.refuse("A time is a number of milliseconds since 1970 in UTC.")


class _Scanner:
    """A text, and how far it was read."""

    def __init__(self, text: str) -> None:
        self._text, self._place = text, 0

    @property
    def is_done(self) -> bool:
        return _END.match(self._text, self._place) is not None

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._place)
        if found is not None:
            self._place = found.end()
        return found

    def text(self) -> str:
        found = self.take(_TEXT) or self.refuse("A text in quotes is missing.")
        return found[2] if found[1] is None else found[1].replace("''", "'")

    def texts(self) -> tuple[str, ...]:
        opening, comma, closing = (re.compile(rf"\s*{re.escape(sign)}") for sign in "(,)")
        if not self.take(opening):
            self.refuse("A list such as ('a', 'b') is missing.")
        found = [self.text()]
        while self.take(comma):
            found.append(self.text())
        if not self.take(closing):
            self.refuse("The list has no end.")
        return tuple(found)

    def refuse(self, remedy: str) -> NoReturn:
        rest = self._text[self._place :].strip()
        place = f" at {shown(rest, 60)}" if rest else ""
        raise InvalidRequestError(f"{shown(self._text, 200)} can't be read{place}.", remedy=remedy, field="filter")


def _attributes(**fields: str) -> dict[str, Field]:
    return {name: Field(FieldKind.ATTRIBUTE, field) for name, field in fields.items()}


RUNS = Language(
    {
        **_attributes(run_id="run_id", status="status", start_time="started_at", end_time="finished_at"),
        **_attributes(created="started_at", user_id="created_by", experiment_id="model_id"),
        "run_name": Field(FieldKind.TAG, RUN_NAME_TAG),
    },
    frozenset(FieldKind),
)
"""Of ``runs/search``."""
EXPERIMENTS = Language(
    _attributes(name="name", experiment_id="model_id", creation_time="created_at", last_update_time="updated_at"),
    frozenset({FieldKind.ATTRIBUTE, FieldKind.TAG}),
)
"""Of ``experiments/search``."""
MODELS = Language(
    {
        **_attributes(name="name", model_id="document", model_type="model_type", source_run_id="run_id"),
        **_attributes(creation_timestamp="created_at", deleted="deleted"),
    },
    frozenset({FieldKind.ATTRIBUTE, FieldKind.TAG, FieldKind.PARAMETER}),
)
"""Of ``logged-models/search``."""
