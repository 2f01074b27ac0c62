"""Which rows need some bytes, and what a person can do when these are lost."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import dataset_versions, environments, run_artifacts, versions
from ml_core.ids import Digest, TenantId

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Holders:
    """A tenant's rows that need some bytes, at most ten, and the environments that serve one of them."""

    tenant_id: TenantId
    names: tuple[str, ...]
    served_by: tuple[str, ...] = ()

    @property
    def remedy(self) -> str:
        """What to do when the bytes are lost."""
        kinds = {name.partition(":")[0] for name in self.names}
        if kinds == {"version"}:
            again = "register the very same file again"
        elif "dataset" in kinds:
            again = "register the very same table again"
        else:
            again = "log the very same file again"
        mended = f"Mend it: mlcore fsck --repair --from FOLDER, a backup or a storage_path; or {again}."
        if not self.served_by:
            return mended
        model_id, environment = self.served_by[0].split(":")
        others = f" (and in {', '.join(self.served_by[1:])})" if self.served_by[1:] else ""
        return (
            f"{mended} Or serve another version: mlcore promote --tenant {self.tenant_id} --model {model_id} "
            f"--version VERSION --environment {environment}{others}."
        )


def holders_of(connection: Connection, tenant_id: TenantId, digest: Digest) -> Holders:
    """The rows that need some bytes: versions, versions of datasets and files of runs."""
    queries = (
        sa.select(sa.literal("version:") + versions.c.model_id + "@" + versions.c.version),
        sa.select(
            sa.literal("dataset:") + dataset_versions.c.dataset_id + "@" + sa.cast(dataset_versions.c.number, sa.Text)
        ),
        sa.select(sa.literal("run:") + run_artifacts.c.run_id + "/" + run_artifacts.c.name),
    )
    tables = (versions, dataset_versions, run_artifacts)
    names: list[str] = []
    for table, query in zip(tables, queries, strict=True):
        mine = query.where(table.c.tenant_id == tenant_id, table.c.digest == digest).limit(_SHOWN)
        names += connection.scalars(mine).all()
    serving = (
        sa.select(environments.c.model_id + ":" + environments.c.environment)
        .join(
            versions,
            sa.and_(
                versions.c.tenant_id == environments.c.tenant_id,
                versions.c.model_id == environments.c.model_id,
                versions.c.version.in_(
                    [environments.c.version, environments.c.canary_version, environments.c.shadow_version]
                ),
            ),
        )
        .where(versions.c.tenant_id == tenant_id, versions.c.digest == digest)
        .distinct()
        .limit(_SHOWN)
    )
    return Holders(tenant_id, tuple(names[:_SHOWN]), tuple(sorted(connection.scalars(serving))))
