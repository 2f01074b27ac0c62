"""What needs a version or a dataset: asked for a whole tenant when planning, and for one under locks when collecting.

A version is needed by an environment that serves it (stable, canary or shadow), by a hold, by a version that was made
from it and stays, and by an environment whose ``rollback`` would bring it back. Older rows of a history need nothing:
they name versions and digests and stay true without the bytes. A dataset version is needed by every version that was
trained on its bytes and stays.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import environments, holds, versions
from ml_core.exceptions import VersionInUseError
from ml_core.ids import Digest, ModelId, TenantId, VersionId
from ml_core.registry.promotion.pointers import pointer_from, state_before

Needs = dict[tuple[str, str], list[str]]
"""(model, version) → what needs it."""

_PARTS = {"version": "environment", "canary_version": "canary", "shadow_version": "shadow"}


def needs_of_models(
    connection: Connection, tenant_id: TenantId, model_ids: Collection[str], version: VersionId | None = None
) -> Needs:
    """What environments, rollbacks and holds need of some models: ``environment:production``, ``hold:legal`` and so on.

    Two queries, and one for each environment.

    Args:
        connection: In the tenant's transaction.
        tenant_id: The tenant.
        model_ids: The models.
        version: Only holds of this version are asked for.
    """
    needs: Needs = {}
    pointing = sa.select(environments).where(
        environments.c.tenant_id == tenant_id, environments.c.model_id.in_(model_ids)
    )
    for row in connection.execute(pointing.order_by(environments.c.environment)).all():
        for part, name in _PARTS.items():
            if (served := getattr(row, part)) is not None:
                needs.setdefault((row.model_id, served), []).append(f"{name}:{row.environment}")
        before = state_before(connection, pointer_from(row))
        if before is not None and before.version is not None:
            needs.setdefault((row.model_id, before.version), []).append(f"rollback:{row.environment}")
    held = sa.select(holds).where(holds.c.tenant_id == tenant_id, holds.c.model_id.in_(model_ids))
    if version is not None:
        held = held.where(holds.c.version == version)
    for row in connection.execute(held.order_by(holds.c.name)):
        needs.setdefault((row.model_id, row.version), []).append(f"hold:{row.name}")
    return needs


def children_of_models(
    connection: Connection, tenant_id: TenantId, model_ids: Collection[str], parent: VersionId | None = None
) -> dict[str, list[tuple[str, str]]]:
    """Model → (parent, child) of its versions that were made from others, or from one."""
    statement = sa.select(versions.c.model_id, versions.c.parent_version, versions.c.version).where(
        versions.c.tenant_id == tenant_id, versions.c.model_id.in_(model_ids)
    )
    is_child = versions.c.parent_version.is_not(None) if parent is None else versions.c.parent_version == parent
    children: dict[str, list[tuple[str, str]]] = {}
    for model_id, of, child in connection.execute(statement.where(is_child).order_by(versions.c.number)):
        children.setdefault(model_id, []).append((of, child))
    return children


def refuse_if_needed(connection: Connection, tenant_id: TenantId, model_id: ModelId, version: VersionId) -> None:
    """Refuse to collect a version that anything needs; the caller holds the model's lock.

    Raises:
        VersionInUseError: Names what needs it.
    """
    needed = needs_of_models(connection, tenant_id, [model_id], version).get((model_id, version), [])
    made_from_it = children_of_models(connection, tenant_id, [model_id], version).get(model_id, [])
    needed += [f"version:{child}" for _, child in made_from_it]
    if needed:
        raise VersionInUseError(
            f"Version {version!s} of {model_id!s} is needed by {', '.join(needed)}.",
            remedy="It is collected when nothing needs it any more.",
            tenant_id=tenant_id,
            model_id=model_id,
            version=version,
            used_by=needed,
        )


def trained_on(
    connection: Connection, tenant_id: TenantId, digests: Collection[Digest | str]
) -> list[tuple[str, str, str]]:
    """(digest, model, version) of the versions that were trained on datasets of these digests."""
    of = versions.c
    statement = sa.select(of.dataset_digest, of.model_id, of.version).where(
        of.tenant_id == tenant_id, of.dataset_digest.in_(digests)
    )
    return [(row[0], row[1], row[2]) for row in connection.execute(statement.order_by(of.model_id, of.number))]
