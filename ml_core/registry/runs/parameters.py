"""Parameters that are added to a run after its start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import runs
from ml_core.domain.run import RunTrigger
from ml_core.exceptions import RunStateError, shown
from ml_core.ids import TenantId
from ml_core.registry.limits import check_document
from ml_core.registry.runs.lifecycle import is_run


def add_parameters(connection: Connection, tenant_id: TenantId, run_id: str, added: Mapping[str, Any]) -> None:
    """Add parameters to a run whose row is locked; one that it has with the same value stays.

    Raises:
        RunStateError: It has one with another value.
        RequestTooLargeError: The parameters would be too large.
    """
    known = connection.execute(sa.select(runs.c.parameters).where(is_run(tenant_id, run_id))).scalar_one()
    changed = [name for name, value in added.items() if name in known and known[name] != value]
    if changed:
        name = changed[0]
        raise RunStateError(
            f"The parameter {shown(name)} of the run {run_id} is {shown(known[name])} and can't be changed to"
            f" {shown(added[name])}.",
            remedy="Give it another name, or start another run.",
            tenant_id=tenant_id,
            run_id=run_id,
            trigger=RunTrigger.LOG.value,
        )
    kept = check_document({**known, **added}, "parameters")
    connection.execute(runs.update().where(is_run(tenant_id, run_id)).values(parameters=kept))
