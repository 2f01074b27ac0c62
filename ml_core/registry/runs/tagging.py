"""Tags of runs: key → value, one row each, so that a search finds them through an index."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.tables import run_tags
from ml_core.ids import TenantId
from ml_core.registry.erasure import erase
from ml_core.registry.limits import check_tags


def write(connection: Connection, tenant_id: TenantId, run_id: str, tags: Mapping[str, str | None]) -> None:
    """Set and remove tags of a run in the tenant's transaction.

    Raises:
        InvalidRequestError: A key or value is not a text of 1 to 200 characters.
    """
    kept, removed = check_tags(tags)
    if removed:
        erase(connection, run_tags, run_id=run_id, key=removed)
    if kept:
        rows = [{"tenant_id": tenant_id, "run_id": run_id, "key": key, "value": value} for key, value in kept.items()]
        statement = insert(run_tags).values(rows)
        connection.execute(
            statement.on_conflict_do_update(constraint="pk_run_tags", set_={"value": statement.excluded.value})
        )
