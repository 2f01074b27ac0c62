"""Approvals: who vouches for a version in an environment. One is never withdrawn: promote another version instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import approvals, versions
from ml_core.domain.api_key import Scope
from ml_core.exceptions import PermissionDeniedError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry import journal
from ml_core.registry.missing import model_archived, model_not_found
from ml_core.registry.promotion.environment_names import check_environment
from ml_core.registry.versions.rows import IS_ARCHIVED, VERSIONS_WITH_MODEL

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnyRow


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """Who approved a version for an environment, why and when (UTC)."""

    model_id: ModelId
    version: VersionId
    environment: EnvironmentName
    approver: str
    reason: str
    at: datetime


class ApprovalRepository:
    """The approvals of one tenant."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id

    def approve(
        self, model_id: ModelId, version: VersionId, environment: EnvironmentName, reason: str = ""
    ) -> ApprovalRecord:
        """Approve a version for an environment, as the connection's principal. Again changes nothing.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``approve``, or registered the version itself.
            ModelNotFoundError: There is no such version, or it is archived.
            InvalidRequestError: There is no such environment.
        """
        principal = self._db.principal
        principal.require(Scope.APPROVE)
        check_environment(self._db, self._tenant_id, environment)
        keys = {"tenant_id": self._tenant_id, "model_id": model_id, "version": version, "environment": environment}
        own = insert(approvals).values(**keys, approver=principal.name, reason=reason)
        statement = own.on_conflict_do_nothing().returning(approvals.c.at)
        with journal.writing(self._db, self._tenant_id) as connection:
            if self._author(connection, model_id, version) == principal.name:
                raise PermissionDeniedError(
                    f"{principal.name} registered version {version!s} of {model_id!s}, so its approval does not count.",
                    remedy="Let somebody else approve it, with a key of their own: mlcore keys create "
                    f"--tenant {self._tenant_id!s} --scope approve, then mlcore approve with --as-key KEY.",
                    tenant_id=self._tenant_id,
                    scope=Scope.APPROVE.value,
                )
            if connection.execute(statement).one_or_none() is not None:
                subject = {"model_id": model_id, "version": version, "environment": environment}
                journal.record(connection, self._tenant_id, "version.approved", subject, {"reason": reason})
            found = self._of(model_id, version, environment).where(approvals.c.approver == principal.name)
            return _record_from(connection.execute(found).one())

    def list(self, model_id: ModelId, version: VersionId, environment: EnvironmentName) -> Sequence[ApprovalRecord]:
        """Who approved a version for an environment, first to last."""
        statement = self._of(model_id, version, environment).order_by(approvals.c.at, approvals.c.approver)
        with self._db.tenant(self._tenant_id) as connection:
            return [_record_from(row) for row in connection.execute(statement)]

    def _author(self, connection: Connection, model_id: ModelId, version: VersionId) -> str:
        statement = sa.select(versions.c.created_by, IS_ARCHIVED.label("is_archived")).select_from(VERSIONS_WITH_MODEL)
        key = (
            versions.c.tenant_id == self._tenant_id,
            versions.c.model_id == model_id,
            versions.c.version == version,
        )
        # Shared with other approvals; a version can't be deleted between this look and the approval's own row.
        row = connection.execute(statement.where(*key).with_for_update(read=True, of=versions)).one_or_none()
        if row is None:
            raise model_not_found(self._tenant_id, model_id, version, connection=connection)
        if row.is_archived:
            raise model_archived(self._tenant_id, model_id, version)
        return str(row.created_by)

    def _of(
        self, model_id: ModelId, version: VersionId, environment: EnvironmentName
    ) -> sa.Select[tuple[ApprovalRecord]]:
        return sa.select(approvals).where(
            approvals.c.tenant_id == self._tenant_id,
            approvals.c.model_id == model_id,
            approvals.c.version == version,
            approvals.c.environment == environment,
        )


def _record_from(row: AnyRow) -> ApprovalRecord:
    return ApprovalRecord(
        ModelId(row.model_id),
        VersionId(row.version),
        EnvironmentName(row.environment),
        row.approver,
        row.reason,
        row.at,
    )
