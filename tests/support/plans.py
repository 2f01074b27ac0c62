"""The plans that Postgres makes for what the repositories send."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

_EXPLAINABLE = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")


@dataclass(frozen=True)
class Plan:
    """A statement as it was sent, and the nodes of its plan as ``EXPLAIN (FORMAT JSON)`` names their fields."""

    statement: str
    nodes: tuple[dict[str, Any], ...]

    def whole_reads(self, tables: frozenset[str]) -> list[str]:
        """How the plan reads one of the tables from end to end: in a sequential scan, or through all of an index."""
        found = []
        for node in self.nodes:
            kind, table = node["Node Type"], node.get("Relation Name")
            over_index = kind in ("Index Scan", "Index Only Scan") and "Index Cond" not in node
            if table in tables and (kind == "Seq Scan" or over_index):
                found.append(f"{kind} on {table}")
        return found


@contextmanager
def recorded_plans() -> Iterator[list[Plan]]:
    """The plan of each statement that is sent in the block.

    Postgres is asked right before each statement, on the same session and in the same transaction, with the same
    parameters. So role, tenant and policies are those that the statement runs under.
    """
    plans: list[Plan] = []

    def explain(
        connection: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> None:
        if not statement.lstrip("( \n").upper().startswith(_EXPLAINABLE):
            return
        given = parameters[0] if many else parameters
        record(connection.connection.driver_connection, statement, given)

    def record(session: Any, statement: Any, given: Any) -> None:
        row = session.execute(f"EXPLAIN (FORMAT JSON) {statement}", given or None).fetchone()
        plans.append(Plan(statement, tuple(_nodes(row[0][0]["Plan"]))))

    stream = psycopg.Cursor.stream

    def explained(cursor: psycopg.Cursor[Any], statement: Any, given: Any = None, **options: Any) -> Iterator[Any]:
        record(cursor.connection, statement, given)
        return stream(cursor, statement, given, **options)

    sa.event.listen(Engine, "before_cursor_execute", explain)
    psycopg.Cursor.stream = explained  # type: ignore[method-assign, assignment]  # no event of SQLAlchemy's
    try:
        yield plans
    finally:
        psycopg.Cursor.stream = stream  # type: ignore[method-assign]
        sa.event.remove(Engine, "before_cursor_execute", explain)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
