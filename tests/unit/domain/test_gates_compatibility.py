"""Signatures compared: whether rows for one version fit another."""

import dataclasses
import math
from datetime import UTC, datetime

import pytest

from ml_core.domain.columns import ColumnKind, DateOrder
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature, signature_problems
from ml_core.exceptions import SignatureMismatchError

AGE = InputColumn("age", ColumnKind.NUMBER, nullable=False)
TEXT = InputColumn("text", ColumnKind.TEXT, nullable=True)
CLASSES = Output(OutputKind.CLASSES, ("a", "b"))


def signature(*columns, output=CLASSES):
    return Signature(columns, output)


@pytest.mark.parametrize(
    "candidate",
    [
        signature(AGE, TEXT),
        signature(TEXT, AGE),
        signature(AGE),
        signature(AGE, TEXT, InputColumn("new", ColumnKind.DATETIME, nullable=True)),
        signature(dataclasses.replace(AGE, nullable=True), TEXT),
        signature(AGE, dataclasses.replace(TEXT, kind=ColumnKind.CATEGORY)),
        signature(AGE, TEXT, output=Output(OutputKind.CLASSES, ("c",))),
    ],
)
def test_what_takes_all_of_todays_rows_is_compatible(candidate):
    """Order, a column less, an optional one more, more nulls, a text read as a category, other classes."""
    assert signature_problems(signature(AGE, TEXT), candidate) == ()


@pytest.mark.parametrize(
    ("candidate", "problem"),
    [
        (signature(AGE, TEXT, InputColumn("new", ColumnKind.TEXT, nullable=False)), "'new' is new and required"),
        (signature(AGE, dataclasses.replace(TEXT, nullable=False)), "'text' is now required"),
        (
            signature(dataclasses.replace(AGE, kind=ColumnKind.BOOLEAN), TEXT),
            "'age' is a boolean where it was a number",
        ),
        (signature(AGE, dataclasses.replace(TEXT, kind=ColumnKind.NUMBER)), "'text' is a number where it was a text"),
        (signature(AGE, TEXT, output=Output(OutputKind.NUMBER)), "the output is number where the present version has"),
    ],
)
def test_each_problem_is_said_in_words(candidate, problem):
    """Exactly one here, and it names the column."""
    (found,) = signature_problems(signature(AGE, TEXT), candidate)
    assert problem in found


def test_all_problems_are_said():
    """Not only the first."""
    candidate = signature(dataclasses.replace(TEXT, nullable=False), InputColumn("new", ColumnKind.TEXT, False))
    assert len(signature_problems(signature(AGE, TEXT), candidate)) == 2


@pytest.mark.parametrize(
    ("now", "then", "fits"),
    [
        (None, DateOrder.DAY_FIRST, True),
        (DateOrder.DAY_FIRST, DateOrder.DAY_FIRST, True),
        (DateOrder.DAY_FIRST, None, False),
        (DateOrder.DAY_FIRST, DateOrder.MONTH_FIRST, False),
    ],
)
def test_the_order_of_dates_may_be_learnt_but_not_changed(now, then, fits):
    """01/02/2026 must not become another day."""
    opened = InputColumn("opened", ColumnKind.DATETIME, nullable=True)
    before, after = (signature(dataclasses.replace(opened, date_order=order)) for order in (now, then))
    assert (signature_problems(before, after) == ()) is fits


COLUMNS = [
    InputColumn("c", kind, nullable, date_order=order, decimal_comma=comma)
    for kind in ColumnKind
    for nullable in (True, False)
    for order in ((None, *DateOrder) if kind is ColumnKind.DATETIME else (None,))
    for comma in ((False, True) if kind is ColumnKind.NUMBER else (False,))
]


def named(column):
    return f"{column.kind.value}{'?' if column.nullable else ''}{column.date_order or ''}{',' * column.decimal_comma}"


STRINGS = [
    "",
    " ",
    "NA",
    "true",
    "False",
    "1",
    "1.0",
    "0,5",
    "1.200",
    "red",
    "2026-01-31",
    "01/02/2026",
    "31/01/2026",
    "01/31/2026",
]
VALUES = [None, math.nan, True, False, 0, 1, -2, 0.5, 1.0, 1e300, datetime(2026, 1, 31, tzinfo=UTC), *STRINGS]


@pytest.mark.parametrize("now", COLUMNS, ids=named)
@pytest.mark.parametrize("then", COLUMNS, ids=named)
def test_a_row_that_fits_now_fits_what_is_called_compatible(now, then):
    """For every pair of columns: what the readers themselves accept today they accept tomorrow, and read the same."""
    present, candidate = signature(now), signature(then)
    if signature_problems(present, candidate):
        return
    for value in VALUES:
        try:
            before = present.columns_from_rows([{"c": value}])["c"].tolist()
        except SignatureMismatchError:
            continue
        after = candidate.columns_from_rows([{"c": value}])["c"].tolist()
        if now.kind is not then.kind:  # a text read as a category
            before = dataclasses.replace(then, nullable=True).read(before).tolist()
        assert repr(after) == repr(before), value
