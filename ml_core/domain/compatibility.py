"""Whether rows that clients send to one version fit another: a pure comparison of two signatures.

It looks at what a client can rely on today. A column that the present version ignores does not count, so a new column
may be added if it may be missing. A column that the new version no longer has is ignored there; only a client that asks
to be ``strict`` about unknown columns would notice.
"""

from __future__ import annotations

from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, Signature

# Present kind → the kinds that read each of its values, as the same value. A text is any string, and a category takes
# every string. Other pairs differ: a boolean may be written "true", which is no number; 1 and "1.0" are one number but
# two categories.
SAFE_CHANGES = frozenset({(ColumnKind.TEXT, ColumnKind.CATEGORY)})


def signature_problems(present: Signature, candidate: Signature) -> tuple[str, ...]:
    """Why rows that fit one signature may not fit another; empty if all do.

    Args:
        present: What clients send rows for now.
        candidate: What is to take its place.

    Returns:
        One clause a problem, in the order of the candidate's columns; the output comes last.
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
            f"it answers {candidate.output.kind.value} where the present version answers {present.output.kind.value}"
        )
    return tuple(problems)


def _column_problems(now: InputColumn, then: InputColumn) -> list[str]:
    problems = []
    if then.kind is not now.kind and (now.kind, then.kind) not in SAFE_CHANGES:
        problems.append(f"the column {now.name!r} is a {then.kind.value} where it was a {now.kind.value}")
    if now.nullable and not then.nullable:
        problems.append(f"the column {now.name!r} may not be missing any more")
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
