"""Versions of datasets that gates compare model versions on: they stay while a gate needs them.

A gate that found its rows gone would refuse every promotion. Whoever sets a gate holds the digest's lock meanwhile, see
``ml_core.registry.blobs.lock_digest``, and so does whoever hides or removes a version: neither misses the other.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import gates, models
from ml_core.domain.gates import GateKind
from ml_core.exceptions import DatasetInUseError
from ml_core.ids import DatasetId, TenantId

_MOST_NAMED = 20


def refuse_if_gated(connection: Connection, tenant_id: TenantId, dataset_id: DatasetId, number: int) -> None:
    """Refuse that a version goes which a gate needs; the caller holds its digest's lock.

    Raises:
        DatasetInUseError: Names the gates, and how to remove the first.
    """
    statement = (
        sa.select(gates.c.model_id, gates.c.environment, gates.c.name)
        .join(models, sa.and_(models.c.tenant_id == gates.c.tenant_id, models.c.model_id == gates.c.model_id))
        .where(
            gates.c.tenant_id == tenant_id,
            models.c.deleted_at.is_(None),
            gates.c.kind == GateKind.NOT_WORSE.value,
            gates.c.settings["dataset"].as_string() == dataset_id,
            gates.c.settings["number"].as_integer() == number,
        )
        .order_by(gates.c.model_id, gates.c.environment, gates.c.name)
        .limit(_MOST_NAMED)
    )
    needing = connection.execute(statement).all()
    if not needing:
        return
    first = needing[0]
    named = ", ".join(f"{row.name} of {row.model_id} in {row.environment}" for row in needing)
    raise DatasetInUseError(
        f"{dataset_id!s}@{number} is needed by the {'gate' if len(needing) == 1 else 'gates'} {named}.",
        remedy=(
            "Set the gate anew on another version, or remove it: "
            f"mlcore gates remove {first.name} --tenant {tenant_id} --model {first.model_id} "
            f"--environment {first.environment}"
        ),
        tenant_id=tenant_id,
        dataset_id=str(dataset_id),
        number=number,
        used_by=[f"gate:{row.model_id}:{row.environment}:{row.name}" for row in needing],
    )
