"""Dates written as strings: whether a column has them, and in which order it gives day and month.

``01/02/2026`` alone can be read in two ways. A column in which some first number is above 12 and no second one gives
the day first, and the other way round; a column without such a date does not say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ml_core.data.evidence import Evidence, Verdict, fits, unless_constant
from ml_core.domain.columns import ColumnKind, DateOrder
from ml_core.domain.values import ordered_date, read_datetime
from ml_core.exceptions import shown

# The share of strings that must be of a form for the others to count as mistakes in it.
NEARLY_ALL = 0.9
WRITE_ISO = "write them as ISO 8601 (2026-01-31), in training data and in requests"

_MONTHS = 12
_ORDER_IN_WORDS = {DateOrder.DAY_FIRST: "the day first", DateOrder.MONTH_FIRST: "the month first"}


@dataclass(frozen=True, slots=True)
class OrderSeen:
    """What dates such as ``25/12/2026`` say of their order.

    Attributes:
        example: The first such date; None without any.
        witness: For each order a date that can be read in no other.
    """

    example: str | None
    witness: dict[DateOrder, str]

    @classmethod
    def of(cls, values: Iterable[Any]) -> OrderSeen:
        """Look at every string among the values."""
        example: str | None = None
        witness: dict[DateOrder, str] = {}
        for value in values:
            match = ordered_date(value) if isinstance(value, str) else None
            if match is None:
                continue
            example = example or value
            if int(match[1]) > _MONTHS:
                witness.setdefault(DateOrder.DAY_FIRST, value)
            if int(match[3]) > _MONTHS:
                witness.setdefault(DateOrder.MONTH_FIRST, value)
        return cls(example, witness)

    @property
    def order(self) -> DateOrder | None:
        """The order, if one and only one was seen."""
        return next(iter(self.witness)) if len(self.witness) == 1 else None

    @property
    def doubt(self) -> str:
        """Why there is no order."""
        if self.witness:
            day_first, month_first = self.witness[DateOrder.DAY_FIRST], self.witness[DateOrder.MONTH_FIRST]
            return f"{shown(day_first)} gives the day first, {shown(month_first)} the month"
        return f"dates such as {shown(self.example)} can be read with the day first or with the month first"


def is_date(text: str) -> bool:
    """Whether a string is a date, if only in a column whose order of day and month is known."""
    return ordered_date(text) is not None or fits(read_datetime, text)


def judge_dates(evidence: Evidence, values: list[str]) -> Verdict | None:
    """The verdict on strings of which nearly all are dates; None where too many then can't be read.

    Raises:
        DataProcessingError: Some can't be read.
    """
    seen = OrderSeen.of(values)
    order = seen.order
    bad = [i for i, text in enumerate(values) if not fits(partial(read_datetime, order=order), text)]
    if not bad:
        detail = f"{evidence.n_distinct:,} distinct values, {_ORDER_IN_WORDS[order]}" if order else None
        verdict = unless_constant(evidence, ColumnKind.DATETIME, detail)
        return Verdict(verdict.kind, verdict.reason, order)
    if len(bad) > (1 - NEARLY_ALL) * len(values):
        if seen.example is None or order:
            return None
        return Verdict(None, f"{seen.doubt}; {WRITE_ISO}")
    raise evidence.error(
        f"holds datetimes, but {len(bad):,} of {len(values):,} can't be read; "
        f"row {evidence.values.index[bad[0]]} is {shown(values[bad[0]])}.",
        "Correct them, leave them empty, name the column's kind, or drop the column.",
    )


def order_of_datetimes(evidence: Evidence) -> DateOrder | None:
    """The order of day and month in a column that is known to hold datetimes; None where none is needed.

    Raises:
        DataProcessingError: It is needed, and the values do not show it.
    """
    seen = OrderSeen.of(evidence.values.tolist())
    if seen.example is not None and seen.order is None:
        raise evidence.error(
            f"was given the kind datetime, and the order of day and month is not known: {seen.doubt}.",
            f"Don't give its kind, or {WRITE_ISO}.",
        )
    return seen.order
