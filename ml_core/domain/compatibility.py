"""Comparison of two signatures: whether rows that fit the present version also fit the candidate.

The candidate may add a nullable column and may drop a column, because unknown columns are ignored. A client that sends
``strict`` requests is affected by a dropped column.
"""

from __future__ import annotations

from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, Signature

# (present kind, candidate kind) where the candidate reads every value of the present kind as the same value: a category
# accepts every string. Other pairs differ: the boolean "true" is not a number; 1 and "1.0" are one number but two
# categories.
SAFE_CHANGES = frozenset({(ColumnKind.TEXT, ColumnKind.CATEGORY)})


def signature_problems(present: Signature, candidate: Signature) -> tuple[str, ...]:
    """List the reasons why rows that fit one signature may not fit another.

    Args:
        present: The signature that clients use now.
        candidate: The signature that replaces it.

    Returns:
        One clause per problem, in the order of the candidate's columns, then the output; empty if compatible.
    """
    now = {column.name: column for column in present.inputs}
    problems = []
    for column in candidate.inputs:
        if column.name in now:
            problems += _column_problems(now[column.name], column)
        elif not column.nullable:
            problems.append(f"the column {column.name!r} is new and required")
    if present.output.kind is not candidate.output.kind:
        problems.append(
            f"the output is {candidate.output.kind.value} where the present version has {present.output.kind.value}"
        )
    return tuple(problems)


def _column_problems(now: InputColumn, then: InputColumn) -> list[str]:
    problems = []
    if then.kind is not now.kind and (now.kind, then.kind) not in SAFE_CHANGES:
        problems.append(f"the column {now.name!r} is a {then.kind.value} where it was a {now.kind.value}")
    if now.nullable and not then.nullable:
        problems.append(f"the column {now.name!r} is now required")
    if now.kind is then.kind and now.decimal_comma is not then.decimal_comma:
        problems.append(
            f"the column {now.name!r} reads strings with a decimal {'comma' if then.decimal_comma else 'point'}, not a "
            f"decimal {'comma' if now.decimal_comma else 'point'}"
        )
    reads_dates = now.kind is then.kind is ColumnKind.DATETIME
    if reads_dates and now.date_order is not None and then.date_order is not now.date_order:
        order = "not at all" if then.date_order is None else then.date_order.value.replace("_", " ")
        was = now.date_order.value.replace("_", " ")
        problems.append(f"the column {now.name!r} reads dates such as 01/02/2026 {order} where it was {was}")
    return problems
