"""The pointers of a tenant, and the history of their moves. What moves them is in ``environments``."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import environment_history, environments, models, versions
from ml_core.exceptions import ModelNotFoundError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.missing import model_not_found, require_model
from ml_core.registry.promotion.environment_names import PRODUCTION, check_environment
from ml_core.registry.promotion.pointer_rows import (
    HistoryEntry,
    Pointer,
    entry_from,
    find_pointer,
    pointer_from,
    pointer_key,
)


class PointerReader:
    """Reads the pointers of one tenant.

    Args:
        db: The registry.
        tenant_id: The tenant.
        allowed: The environments that exist; None: those of the settings.
    """

    def __init__(
        self, db: DatabaseConnection, tenant_id: TenantId, *, allowed: Sequence[EnvironmentName] | None = None
    ) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._allowed = allowed

    def get(self, model_id: ModelId, environment: EnvironmentName) -> Pointer:
        """Where an environment points.

        Raises:
            ModelNotFoundError: Nothing was promoted to it yet, or there is no such model.
            InvalidRequestError: There is no such environment.
        """
        with self._db.tenant(self._tenant_id) as connection:
            pointer = find_pointer(connection, self._tenant_id, model_id, environment)
        if pointer is None:
            raise self._nothing_there(model_id, environment)
        return pointer

    def pointed(self, model_id: ModelId, environment: EnvironmentName) -> VersionId:
        """The version that an environment points to.

        Raises:
            ModelNotFoundError: It points to none, or there is no such model.
            InvalidRequestError: There is no such environment.
        """
        version = self.get(model_id, environment).version
        if version is None:
            raise self._not_promoted(model_id, environment)
        return version

    def list(self, model_id: ModelId | None = None) -> Sequence[Pointer]:
        """The pointers of a model or of all models, by model and environment."""
        statement = sa.select(environments).where(environments.c.tenant_id == self._tenant_id)
        if model_id is not None:
            statement = statement.where(environments.c.model_id == model_id)
        statement = statement.order_by(environments.c.model_id, environments.c.environment)
        with self._db.tenant(self._tenant_id) as connection:
            return [pointer_from(row) for row in connection.execute(statement)]

    def history(
        self, model_id: ModelId, environment: EnvironmentName, *, limit: int = 100, before: int | None = None
    ) -> Sequence[HistoryEntry]:
        """The moves of a pointer, newest first.

        Args:
            model_id: The model.
            environment: The environment.
            limit: At most so many.
            before: Only generations below this one: the last of the page before.

        Raises:
            InvalidRequestError: There is no such environment.
        """
        of = environment_history.c
        statement = sa.select(environment_history).where(
            of.tenant_id == self._tenant_id, of.model_id == model_id, of.environment == environment
        )
        if before is not None:
            statement = statement.where(of.generation < before)
        statement = statement.order_by(of.generation.desc()).limit(limit)
        with self._db.tenant(self._tenant_id) as connection:
            entries = [entry_from(row) for row in connection.execute(statement)]
        if not entries:
            self._check_environment(environment)
        return entries

    def resolve(self, model_id: ModelId, environment: EnvironmentName = PRODUCTION) -> VersionId:
        """The version that an environment points to; where it points to none, the newest that is not archived.

        Raises:
            ModelNotFoundError: The model has no version.
            InvalidRequestError: There is no such environment.
        """
        pointed = (
            sa.select(environments.c.version)
            .where(*pointer_key(self._tenant_id, model_id, environment))
            .scalar_subquery()
        )
        newest = (
            sa.select(versions.c.version)
            .join(models, sa.and_(models.c.tenant_id == versions.c.tenant_id, models.c.model_id == versions.c.model_id))
            .where(
                versions.c.tenant_id == self._tenant_id,
                versions.c.model_id == model_id,
                versions.c.archived_at.is_(None),
                models.c.archived_at.is_(None),
            )
            .order_by(versions.c.number.desc())
            .limit(1)
            .scalar_subquery()
        )
        with self._db.tenant(self._tenant_id) as connection:
            found = connection.execute(sa.select(pointed.label("pointed"), newest.label("newest"))).one()
            if found.pointed is None:
                self._check_environment(environment)
            version = found.pointed or found.newest
            if version is None:
                raise model_not_found(self._tenant_id, model_id, connection=connection)
        return VersionId(version)

    def _nothing_there(self, model_id: ModelId, environment: EnvironmentName) -> ModelNotFoundError:
        """Why an environment has no pointer: nothing was promoted to it, unless there is no such model.

        Raises:
            InvalidRequestError: There is no such environment. Asked only here, so that what an environment served
                can be read although the settings no longer name it.
        """
        self._check_environment(environment)
        require_model(self._db, self._tenant_id, model_id)
        return self._not_promoted(model_id, environment)

    def _not_promoted(
        self, model_id: ModelId, environment: EnvironmentName, *, remedy: str | None = None
    ) -> ModelNotFoundError:
        names = f"--tenant {self._tenant_id!s} --model {model_id!s} --environment {environment!s}"
        return ModelNotFoundError(
            f"Nothing is promoted to {environment!s} of {model_id!s}.",
            remedy=remedy or f"Promote a version to it: mlcore promote {names} --version VERSION",
            tenant_id=self._tenant_id,
            model_id=model_id,
        )

    def _check_environment(self, environment: EnvironmentName) -> None:
        check_environment(self._db, self._tenant_id, environment, self._allowed)
