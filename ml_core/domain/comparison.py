"""Conditions on runs, and orders of them, as values: what a query language is parsed to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class FieldKind(StrEnum):
    """What a field of a run is."""

    ATTRIBUTE = "attribute"
    METRIC = "metric"
    PARAMETER = "parameter"
    TAG = "tag"


class Operator(StrEnum):
    """How a field is compared. ``like`` and ``ilike`` take the patterns of SQL."""

    EQUAL = "="
    DIFFERENT = "!="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="
    LIKE = "like"
    ILIKE = "ilike"
    IN = "in"
    NOT_IN = "not in"
    IS_NULL = "is null"
    IS_NOT_NULL = "is not null"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a run; a metric is its last value."""

    kind: FieldKind
    name: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A condition. The value is a tuple for ``in`` and ``not in``, and None where nothing is compared."""

    field: Field
    operator: Operator
    value: str | float | datetime | tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A field to sort by. Runs without it come last, after those whose value is not a number."""

    field: Field
    is_descending: bool = False
