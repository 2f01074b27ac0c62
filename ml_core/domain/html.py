"""HTML of values, for notebooks and reports. All text is escaped: names and values of a tenant are never markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

MAX_ROWS: Final = 50
"""Rows of a table in a notebook."""
_MAX_CELL = 200
# The colours are those of the notebook, light or dark; the green has a contrast of 3 to 1 on white and on black.
_TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
_CELL = "border-bottom:1px solid rgba(128,128,128,.35);padding:.25em .9em .25em 0;text-align:left;vertical-align:top"
_BETTER = "color:#2f8f4e;font-weight:600"


def escaped(text: str) -> str:
    """A text as HTML, in an element or in a quoted attribute."""
    return html.escape(text)


def shown(value: Any) -> str:
    """A value as a person reads it: four digits, moments in UTC, names and values of mappings, a dash for nothing."""
    if value is None or value == "" or (isinstance(value, Mapping | Sequence) and not value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M} UTC"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(item)}" for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(shown, value))
    return str(value)


def notebook_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[Any]], marked: Iterable[tuple[int, int]] = ()
) -> str:
    """A table for ``_repr_html_``: at most ``MAX_ROWS`` rows, readable on light and dark pages.

    Args:
        title: Above the table.
        header: The names of the columns.
        rows: Values as ``shown`` shows them.
        marked: Row and column of the cells that are better than others.
    """
    lines, better = [*rows], frozenset(marked)
    body = "".join(
        f"<tr>{''.join(_cell(cell, (y, x) in better) for x, cell in enumerate(row))}</tr>"
        for y, row in enumerate(lines[:MAX_ROWS])
    )
    head = "".join(f'<th style="{_CELL}">{escaped(name)}</th>' for name in header)
    head = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    more = f"<p>… and {len(lines) - MAX_ROWS:,} more</p>" if len(lines) > MAX_ROWS else ""
    return (
        f'<div style="overflow-x:auto"><p><strong>{escaped(title)}</strong></p>'
        f'<table style="{_TABLE}">{head}<tbody>{body}</tbody></table>{more}</div>'
    )


def _cell(value: Any, is_better: bool) -> str:
    text = shown(value)
    text = escaped(text if len(text) <= _MAX_CELL else f"{text[: _MAX_CELL - 1]}…")
    return f'<td style="{_CELL};{_BETTER}">{text} ✓</td>' if is_better else f'<td style="{_CELL}">{text}</td>'
