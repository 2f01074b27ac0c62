"""Environments: pointers from (model, environment) to a version, moved by compare-and-swap and never without a record.

A move is one transaction: the pointer, if it still stands at the expected generation; one more history row, numbered by
the new generation, so the history has no gaps; an outbox row; and last the feed's clock, so that replicas follow.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import environment_history, environments, models, versions
from ml_core.exceptions import InvalidRequestError, ModelNotFoundError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.missing import model_not_found
from ml_core.registry.pointers import (
    HistoryEntry,
    Move,
    Pointer,
    entry_from,
    find_pointer,
    move_pointer,
    pointer_from,
    pointer_key,
    promotable_digest,
)

if TYPE_CHECKING:
    from ml_core.registry.rows import AnySelect

__all__ = ["DEFAULT_ENVIRONMENTS", "PRODUCTION", "EnvironmentRepository", "HistoryEntry", "Pointer"]

PRODUCTION = EnvironmentName("production")
DEFAULT_ENVIRONMENTS = (EnvironmentName("development"), EnvironmentName("staging"), PRODUCTION)


class EnvironmentRepository:
    """The pointers of one tenant.

    Args:
        db: The registry.
        tenant_id: The tenant.
        allowed: The environments that exist; a typo must not make another.
    """

    def __init__(
        self,
        db: DatabaseConnection,
        tenant_id: TenantId,
        *,
        allowed: Sequence[EnvironmentName] = DEFAULT_ENVIRONMENTS,
    ) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._allowed = tuple(allowed)

    def promote(
        self,
        model_id: ModelId,
        version: VersionId,
        environment: EnvironmentName,
        *,
        expected_generation: int | None = None,
        actor: str,
        reason: str = "",
    ) -> Pointer:
        """Point an environment to a version.

        Args:
            model_id: The model.
            version: The version to serve.
            environment: Such as ``production``.
            expected_generation: Where the caller saw the pointer stand, 0 for none yet; None takes it as it is now.
            actor: Who does it.
            reason: Why.

        Raises:
            PromotionConflictError: Somebody else moved the pointer meanwhile.
            ModelNotFoundError: There is no such version, or it is archived.
            InvalidRequestError: There is no such environment, or no server can load the version: it has no signature,
                or its artifact holds types of the caller's own.
        """
        self._check_environment(environment)
        with self._db.tenant(self._tenant_id) as connection:
            digest = promotable_digest(connection, self._tenant_id, model_id, version)
            move = Move(model_id, environment, "promote", version, digest, actor, reason)
            return self._move(connection, move, expected_generation)

    def rollback(
        self,
        model_id: ModelId,
        environment: EnvironmentName,
        *,
        expected_generation: int | None = None,
        actor: str,
        reason: str = "",
    ) -> Pointer:
        """Point an environment back to the version that it served before; again, to the one before that.

        Raises:
            PromotionConflictError: Somebody else moved the pointer meanwhile.
            ModelNotFoundError: There was no other version before, or it was deleted or archived since. It is not
                skipped: what is served next is for people to decide.
        """
        self._check_environment(environment)
        with self._db.tenant(self._tenant_id) as connection:
            pointer = find_pointer(connection, self._tenant_id, model_id, environment)
            target = None if pointer is None else self._before(connection, pointer)
            if pointer is None or target is None or target.version is None:
                raise ModelNotFoundError(
                    f"{environment!s} of {model_id!s} has no version to go back to: "
                    + ("nothing was promoted to it." if pointer is None else "it is at the first one that it served."),
                    remedy="Promote the version that it should serve.",
                    tenant_id=self._tenant_id,
                    model_id=model_id,
                )
            promotable_digest(connection, self._tenant_id, model_id, target.version, served=target.digest)
            move = Move(
                model_id,
                environment,
                "rollback",
                target.version,
                target.digest,
                actor,
                reason,
                target.restored_generation,
            )
            return self._move(connection, move, expected_generation, pointer)

    def withdraw(
        self,
        model_id: ModelId,
        environment: EnvironmentName,
        *,
        expected_generation: int | None = None,
        actor: str,
        reason: str = "",
    ) -> Pointer:
        """Let an environment serve nothing.

        Raises:
            PromotionConflictError: Somebody else moved the pointer meanwhile.
            ModelNotFoundError: It serves nothing already.
        """
        self._check_environment(environment)
        with self._db.tenant(self._tenant_id) as connection:
            pointer = find_pointer(connection, self._tenant_id, model_id, environment)
            if pointer is None or pointer.version is None:
                raise self._not_promoted(model_id, environment)
            move = Move(model_id, environment, "withdraw", None, None, actor, reason)
            return self._move(connection, move, expected_generation, pointer)

    def get(self, model_id: ModelId, environment: EnvironmentName) -> Pointer:
        """Where an environment points.

        Raises:
            ModelNotFoundError: Nothing was promoted to it yet.
        """
        with self._db.tenant(self._tenant_id) as connection:
            pointer = find_pointer(connection, self._tenant_id, model_id, environment)
        if pointer is None:
            raise self._not_promoted(model_id, environment)
        return pointer

    def pointed(self, model_id: ModelId, environment: EnvironmentName) -> VersionId:
        """The version that an environment points to.

        Raises:
            ModelNotFoundError: It points to none.
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
        """
        statement = self._history_of(model_id, environment).limit(limit)
        if before is not None:
            statement = statement.where(environment_history.c.generation < before)
        with self._db.tenant(self._tenant_id) as connection:
            return [entry_from(row) for row in connection.execute(statement)]

    def resolve(self, model_id: ModelId, environment: EnvironmentName = PRODUCTION) -> VersionId:
        """The version that an environment points to; where it points to none, the newest that is not archived.

        Raises:
            ModelNotFoundError: The model has no version.
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
            version = connection.scalar(sa.select(sa.func.coalesce(pointed, newest)))
        if version is None:
            raise model_not_found(self._tenant_id, model_id)
        return VersionId(version)

    def _check_environment(self, environment: EnvironmentName) -> None:
        if environment in self._allowed:
            return
        close = difflib.get_close_matches(environment, self._allowed, n=1)
        hint = f"Did you mean {close[0]!s}? " if close else ""
        raise InvalidRequestError(
            f"There is no environment {environment!s}.",
            remedy=f"{hint}Environments are: {', '.join(self._allowed)}.",
            tenant_id=self._tenant_id,
            field="environment",
        )

    def _move(
        self, connection: Connection, move: Move, expected: int | None, pointer: Pointer | None = None
    ) -> Pointer:
        """Move a pointer from where the caller expects it, or else from where it stands now."""
        if expected is None:
            found = pointer or find_pointer(connection, self._tenant_id, move.model_id, move.environment)
            expected = 0 if found is None else found.generation
        return move_pointer(connection, self._tenant_id, move, expected)

    def _before(self, connection: Connection, pointer: Pointer) -> HistoryEntry | None:
        """The entry whose state a rollback brings back: the last different version before the present state's own."""
        query = self._history_of(pointer.model_id, pointer.environment).limit(1)
        at = query.where(environment_history.c.generation <= sa.bindparam("generation"))
        generation = pointer.generation
        while True:
            row = connection.execute(at, {"generation": generation}).one_or_none()
            if row is None:
                return None
            entry = entry_from(row)
            if entry.version is not None and entry.version != pointer.version:
                return entry
            generation = entry.restored_generation - 1

    def _not_promoted(self, model_id: ModelId, environment: EnvironmentName) -> ModelNotFoundError:
        return ModelNotFoundError(
            f"Nothing is promoted to {environment!s} of {model_id!s}.",
            remedy="Promote a version to it.",
            tenant_id=self._tenant_id,
            model_id=model_id,
        )

    def _history_of(self, model_id: ModelId, environment: EnvironmentName) -> AnySelect:
        of = environment_history.c
        return (
            sa.select(environment_history)
            .where(of.tenant_id == self._tenant_id, of.model_id == model_id, of.environment == environment)
            .order_by(of.generation.desc())
        )
