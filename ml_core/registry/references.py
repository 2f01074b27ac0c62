"""What keeps what: the one list of the roles in which a row keeps bytes, a version or a dataset from being removed.

Deletion, archiving, collection, ``fsck`` and lineage read this list, so a new role is one more entry of ``_ROLES``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import dataset_versions, environments, gates, holds, jobs, models, run_artifacts, versions
from ml_core.domain.gates import GateKind
from ml_core.domain.job import ENDED
from ml_core.exceptions import Action, VersionInUseError
from ml_core.ids import Digest, ModelId, TenantId, VersionId
from ml_core.registry.promotion.pointers import pointer_from, state_before

SHOWN = 10
"""References that a message names."""

SERVED = {"environment": "{}", "canary": "{} (canary)", "shadow": "{} (shadow)"}
"""The roles of a rollout, and how a message names each with its environment."""

_ROLLOUT = {"environment": environments.c.version, "canary": environments.c.canary_version}
_ROLLOUT["shadow"] = environments.c.shadow_version

# What a reference keeps: bytes by ``digest``; a version by ``model_id`` and ``version``; a dataset version by
# ``dataset_id`` and ``number``, or every one of these bytes by ``dataset_digest``.
_KEPT: dict[str, Any] = {
    "digest": sa.Text(),
    "size_bytes": sa.BigInteger(),
    "model_id": sa.Text(),
    "version": sa.Text(),
    "dataset_id": sa.Text(),
    "number": sa.BigInteger(),
    "dataset_digest": sa.Text(),
}


def _role(role: str, table: sa.Table, holder: sa.ColumnElement[str], **kept: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """The references of one role. All roles have columns of equal types, so that conditions reach their indexes."""
    columns = [kept[name] if name in kept else sa.cast(sa.null(), kind) for name, kind in _KEPT.items()]
    return sa.select(
        table.c.tenant_id,
        sa.literal_column(f"'{role}'::text", sa.Text()).label("role"),
        holder.label("holder"),
        *(column.label(name) for column, name in zip(columns, _KEPT, strict=True)),
    )


def _bytes_of(table: sa.Table) -> dict[str, sa.ColumnElement[Any]]:
    return {"digest": table.c.digest, "size_bytes": table.c.size_bytes}


def _role_of_job(*path: str) -> sa.Select[Any]:
    """The datasets that jobs name at a place of their specifications, until they have ended."""
    reference = jobs.c.spec[path].as_string()
    number = sa.cast(sa.func.substring(reference, "@([0-9]{1,18})$"), sa.BigInteger)
    role = _role("job", jobs, jobs.c.job_id, dataset_id=sa.func.split_part(reference, "@", 1), number=number)
    return role.where(jobs.c.state.not_in([state.value for state in ENDED]))


_VERSION = versions.c.model_id + "@" + versions.c.version
_GATE = gates.c.model_id + ":" + gates.c.environment + ":" + gates.c.name
_NUMBER = sa.cast(dataset_versions.c.number, sa.Text)

_OF_BYTES = (
    _role("version", versions, _VERSION, **_bytes_of(versions)),
    _role("version", versions, _VERSION, digest=versions.c.compiled_digest, size_bytes=versions.c.compiled_size_bytes),
    _role("dataset", dataset_versions, dataset_versions.c.dataset_id + "@" + _NUMBER, **_bytes_of(dataset_versions)),
    _role("run", run_artifacts, run_artifacts.c.run_id + "/" + run_artifacts.c.name, **_bytes_of(run_artifacts)),
)
_ROLES = (
    *_OF_BYTES,
    *(
        _role(role, environments, environments.c.environment, model_id=environments.c.model_id, version=column)
        for role, column in _ROLLOUT.items()
    ),
    _role("hold", holds, holds.c.name, model_id=holds.c.model_id, version=holds.c.version),
    # A version keeps the one that it was made from, and the dataset that it was trained on.
    _role("version", versions, versions.c.version, model_id=versions.c.model_id, version=versions.c.parent_version),
    _role("version", versions, _VERSION, dataset_digest=versions.c.dataset_digest),
    _role(
        "gate",
        gates,
        _GATE,
        dataset_id=gates.c.settings["dataset"].as_string(),
        number=sa.cast(gates.c.settings["number"].as_string(), sa.BigInteger),
    )
    .join_from(gates, models, sa.and_(models.c.tenant_id == gates.c.tenant_id, models.c.model_id == gates.c.model_id))
    .where(models.c.deleted_at.is_(None), gates.c.kind == GateKind.NOT_WORSE.value),
    *(_role_of_job(*path) for path in (("training", "dataset"), ("training", "validation_dataset"), ("dataset",))),
)

REFERENCES = sa.union_all(*_ROLES).subquery("refs")
"""Every reference: ``tenant_id``, ``role``, ``holder``, and what it keeps; columns of other keys are null."""

_OF = REFERENCES.c


@dataclass(frozen=True, slots=True)
class Reference:
    """What keeps a version: the role, who holds it, such as an environment's name, and the version."""

    role: str
    holder: str
    model_id: str
    version: str

    def __str__(self) -> str:
        return f"{self.role}:{self.holder}"

    @property
    def is_child(self) -> bool:
        """Whether it is a version that was made from the one that it keeps."""
        return self.role == "version"


def references(
    connection: Connection,
    tenant_id: TenantId,
    model_ids: Collection[str] | None = None,
    version: str | None = None,
    *,
    roles: Collection[str] | None = None,
) -> list[Reference]:
    """What keeps versions from being removed: of these models or of all, only this version's, only in these roles.

    Without roles those are all, and the rollbacks of the models' environments: collection keeps what a rollback would
    serve, while a person may delete it.
    """
    statement = sa.select(_OF.role, _OF.holder, _OF.model_id, _OF.version).where(
        _OF.tenant_id == tenant_id, _OF.version.is_not(None)
    )
    if model_ids is not None:
        statement = statement.where(_OF.model_id.in_(model_ids))
    if version is not None:
        statement = statement.where(_OF.version == version)
    if roles is not None:
        statement = statement.where(_OF.role.in_(roles))
    ordered = statement.order_by(_OF.model_id, _OF.version, _OF.role, _OF.holder)
    found = [Reference(*row) for row in connection.execute(ordered)]
    if roles is None:
        found += [
            each for each in _rollbacks(connection, tenant_id, model_ids or ()) if version in (None, each.version)
        ]
    return found


def _rollbacks(connection: Connection, tenant_id: TenantId, model_ids: Collection[str]) -> Iterator[Reference]:
    """What a rollback of each environment would serve: one query for the environments, and one or more for each."""
    of = environments.c
    pointing = sa.select(environments).where(of.tenant_id == tenant_id, of.model_id.in_(model_ids))
    for row in connection.execute(pointing.order_by(of.model_id, of.environment)).all():
        before = state_before(connection, pointer_from(row))
        if before is not None and before.version is not None:
            yield Reference("rollback", row.environment, row.model_id, before.version)


def digests_after(connection: Connection, tenant_id: TenantId, last: str, limit: int) -> list[tuple[Digest, int]]:
    """The next digests after one that rows need, with their sizes, in the order of the digests."""
    # Each role is limited by itself, so that its index gives the order. Distinct, so that none ends before the others.
    branches = (
        sa.select(rows.c.digest, rows.c.size_bytes)
        .distinct()
        .where(rows.c.tenant_id == tenant_id, rows.c.digest > last)
        .order_by(rows.c.digest)
        .limit(limit)
        .subquery()
        for rows in (role.subquery() for role in _OF_BYTES)
    )
    found = sa.union(*(sa.select(branch) for branch in branches)).subquery()
    statement = sa.select(found.c.digest, found.c.size_bytes).order_by(found.c.digest).limit(limit)
    return [(Digest(row.digest), row.size_bytes) for row in connection.execute(statement)]


def dataset_references(
    connection: Connection, tenant_id: TenantId, digests: Collection[str], dataset_ids: Collection[str]
) -> dict[str | tuple[str, int], list[str]]:
    """What keeps datasets: a digest, or a dataset with its number, → what needs it, such as ``version:tickets@1``."""
    statement = sa.select(_OF.role, _OF.holder, _OF.dataset_digest, _OF.dataset_id, _OF.number)
    found: dict[str | tuple[str, int], list[str]] = {}
    for wanted in (_OF.dataset_digest.in_(digests), _OF.dataset_id.in_(dataset_ids)):
        for row in connection.execute(statement.where(_OF.tenant_id == tenant_id, wanted).order_by(_OF.holder)):
            key = row.dataset_digest or (row.dataset_id, row.number)
            found.setdefault(key, []).append(f"{row.role}:{row.holder}")
    return found


def refuse_if_referenced(
    connection: Connection,
    tenant_id: TenantId,
    model_id: ModelId | None = None,
    version: VersionId | None = None,
    *,
    roles: Collection[str],
) -> None:
    """Refuse what would remove or hide a version, or any of the model's or tenant's, that something keeps.

    The transaction holds the model's lock.

    Raises:
        VersionInUseError: Names what keeps it.
    """
    found = references(connection, tenant_id, None if model_id is None else [model_id], version, roles=roles)
    if not found:
        return
    # One cause at a time, the most urgent first: what is served, then holds, then children.
    served = [each for each in found if each.role in SERVED]
    held = [each for each in found if each.role == "hold"]
    first = (served or held or found)[0]
    what = f"The model {model_id!s}" if version is None else f"Version {version!s} of {model_id!s}"
    if served:
        used_by = sorted(SERVED[each.role].format(each.holder) for each in served)
        message = f"{what} is served by {', '.join(used_by)}."
        remedy = "Promote another version there first, or withdraw; abort a canary, and stop a shadow."
        verb = {"environment": "environments.withdraw", "canary": "rollouts.abort", "shadow": "rollouts.unshadow"}
        action = Action.of(verb[first.role], tenant=tenant_id, model=first.model_id, environment=first.holder)
    elif held:
        used_by = [str(each) for each in held[:SHOWN]]
        named = ", ".join(f"{each.holder} on {each.model_id}@{each.version}" for each in held[:SHOWN])
        message, remedy = f"A hold forbids it: {named}.", "Release the hold first, if that is permitted."
        key = {"model": first.model_id, "version": first.version, "name": first.holder}
        action = Action.of("holds.release", tenant=tenant_id, **key)
    else:
        used_by = [each.holder for each in found]
        message = f"{what} is the parent of {', '.join(used_by)}."
        remedy = "Delete those versions first, or archive this one."
        action = Action.of("versions.archive", tenant=tenant_id, model=model_id, version=version)
    raise VersionInUseError(
        message,
        remedy=remedy,
        action=action,
        tenant_id=tenant_id,
        model_id=first.model_id,
        version=first.version if held and not served else version,
        used_by=used_by,
    )
