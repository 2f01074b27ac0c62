"""How large a row may be: no SQL can store more, so no reader of it, such as a replica, has to hold more."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

MAX_TEXT_BYTES: Final = 64 * 2**10
"""Of a text, such as a reason or an error."""
MAX_DOCUMENT_BYTES: Final = 2**20
"""Of a document, or a list of texts, as Postgres prints it. What the platform writes is at most 64 KiB of plain JSON; a
number such as 1e300 prints longer than it was written."""
MAX_SERVED_BYTES: Final = 8 * 2**20
"""Of a signature, and of a self-test: replicas hold both."""
MAX_TABLE_BYTES: Final = 64 * 2**20
"""Of what describes a whole table: its columns, and the profile of each."""

_OWN_LIMITS: Final = {
    ("versions", "signature"): MAX_SERVED_BYTES,
    ("versions", "self_test"): MAX_SERVED_BYTES,
    ("dataset_versions", "columns"): MAX_TABLE_BYTES,
    ("dataset_versions", "profile"): MAX_TABLE_BYTES,
}
# Written by the serving plane alone, by the hundred thousand rows a second, from requests that are bounded.
_UNBOUNDED: Final = frozenset({"predictions", "prediction_losses"})


def limits(table: sa.Table) -> dict[str, int]:
    """Column → bytes of its text at most, for a table of tenants. An index bounds the columns of keys."""
    if table.name in _UNBOUNDED or "tenant_id" not in table.c:
        return {}
    kinds = ((sa.Text, MAX_TEXT_BYTES), (JSONB, MAX_DOCUMENT_BYTES), (sa.ARRAY, MAX_DOCUMENT_BYTES))
    return {
        column.name: _OWN_LIMITS.get((table.name, column.name), default)
        for column in table.columns
        for kind, default in kinds
        if isinstance(column.type, kind) and not column.primary_key
    }


def bound(table: sa.Table) -> None:
    """Give a table of tenants its constraint ``sizes``."""
    if sized := limits(table):
        rules = [f"octet_length({name}::text) <= {size}" for name, size in sized.items()]
        table.append_constraint(sa.CheckConstraint(" AND ".join(rules), name="sizes"))
