"""``EnvironmentRepository``: what each environment serves, its history, and the protection of environments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Unpack

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ml_core.database.tables import environment_history, environment_policies, environments, versions
from ml_core.domain.api_key import Scope
from ml_core.domain.gates import GateResult
from ml_core.domain.replica_report import ReplicaAnswer
from ml_core.domain.rollout import Change, Trigger
from ml_core.ids import EnvironmentName, ModelId, VersionId
from ml_core.registry import journal
from ml_core.registry.missing import model_not_found, require_model_in
from ml_core.registry.pages import Page, read_page
from ml_core.registry.promotion.gate_evaluation import evaluate_gates
from ml_core.registry.promotion.moving import GatedMoveOptions, MoveOptions, MovesPointers, not_promoted
from ml_core.registry.promotion.pointers import Move, Pointer, find_pointer, list_pointers, move_from
from ml_core.registry.promotion.rules import PRODUCTION, check_environment, environments_of, read_rules
from ml_core.registry.records import value_of
from ml_core.registry.replicas import ask_replicas
from ml_core.registry.versions.rows import IS_ARCHIVED, VERSIONS_WITH_MODEL

__all__ = ["PRODUCTION", "EnvironmentPolicy", "EnvironmentRepository", "Move", "Pointer"]


@dataclass(frozen=True, slots=True)
class EnvironmentPolicy:
    """Whether an environment of the tenant is protected; when that was decided (UTC) and by whom, if it was."""

    environment: EnvironmentName
    is_protected: bool
    updated_at: datetime | None = None
    updated_by: str | None = None


class EnvironmentRepository(MovesPointers):
    """The environments of one tenant: a pointer for each model, with its history.

    A pointer moves by compare-and-swap on its generation, and every move is in its history, see
    ``ml_core.registry.promotion.moving``. Each move takes the keywords of ``moving.MoveOptions``, returns the pointer
    after it, and may raise:

    * ``PromotionConflictError``: somebody else moved the pointer meanwhile, or changed its gates;
    * ``PermissionDeniedError``: the principal may not move the environment;
    * ``InvalidTransitionError``: what the environment serves does not allow the move.
    """

    def get(self, model_id: str, environment: str = PRODUCTION) -> Pointer:
        """What an environment serves: ``version`` (the stable one), ``canary``, ``shadow`` and ``generation``.

        Raises:
            ModelNotFoundError: Nothing was ever promoted to it, or there is no such model.
        """
        model, at = ModelId(model_id), EnvironmentName(environment)
        with self._db.tenant(self._tenant_id) as connection:
            pointer = find_pointer(connection, self._tenant_id, model, at)
            if pointer is None:
                # Checked only here: what an environment served stays readable when the settings no longer name it.
                check_environment(self._db, self._tenant_id, at)
                require_model_in(connection, self._tenant_id, model)
                raise not_promoted(self._tenant_id, model, at)
        return pointer

    def pointed(self, model_id: str, environment: str = PRODUCTION) -> VersionId:
        """The stable version of an environment. Errors as for ``get``, also where it was withdrawn."""
        pointer = self.get(model_id, environment)
        if pointer.version is None:
            raise not_promoted(self._tenant_id, pointer.model_id, pointer.environment)
        return pointer.version

    def resolve(self, model_id: str, environment: str = PRODUCTION) -> VersionId:
        """The stable version of an environment; where it serves nothing, the newest that is not archived.

        Raises:
            ModelNotFoundError: The model has no version.
        """
        model, at = ModelId(model_id), EnvironmentName(environment)
        pointed = sa.select(environments.c.version).filter_by(tenant_id=self._tenant_id, model_id=model, environment=at)
        newest = (
            sa.select(versions.c.version)
            .select_from(VERSIONS_WITH_MODEL)
            .where(versions.c.tenant_id == self._tenant_id, versions.c.model_id == model, sa.not_(IS_ARCHIVED))
            .order_by(versions.c.number.desc())
            .limit(1)
        )
        both = sa.select(pointed.scalar_subquery().label("pointed"), newest.scalar_subquery().label("newest"))
        with self._db.tenant(self._tenant_id) as connection:
            found = connection.execute(both).one()
            if found.pointed is None:
                check_environment(self._db, self._tenant_id, at)
            version = found.pointed or found.newest
            if version is None:
                raise model_not_found(self._tenant_id, model, connection=connection)
        return VersionId(version)

    def list(self, model_id: str | None = None, *, limit: int = 100, cursor: str | None = None) -> Page[Pointer]:
        """The pointers of a model, or of all models, by model and environment."""
        model = None if model_id is None else ModelId(model_id)
        with self._db.tenant(self._tenant_id) as connection:
            page = list_pointers(connection, self._tenant_id, model, limit, cursor)
            if not page.items and model is not None:  # an empty page would hide a typo
                require_model_in(connection, self._tenant_id, model)
        return page

    def evaluate(self, model_id: str, version: str, environment: str = PRODUCTION) -> Sequence[GateResult]:
        """What the gates of an environment find of a version now, as a promotion would; nothing is moved.

        Raises:
            InvalidRequestError: There is no such environment, or a gate can't be read.
        """
        model, name, at = ModelId(model_id), VersionId(version), EnvironmentName(environment)
        check_environment(self._db, self._tenant_id, at)
        with self._db.tenant(self._tenant_id) as connection:
            rules = read_rules(connection, self._tenant_id, model, at)
        return evaluate_gates(self._db, rules, name, self._store).results

    def history(
        self, model_id: str, environment: str = PRODUCTION, *, limit: int = 100, cursor: str | None = None
    ) -> Page[Move]:
        """The moves of an environment's pointer, newest first: what, who, when, why and the results of the gates.

        Raises:
            InvalidRequestError: There is no such environment, or the limit or the cursor is not valid.
        """
        model, at, order = ModelId(model_id), EnvironmentName(environment), [environment_history.c.generation]
        key = {"tenant_id": self._tenant_id, "model_id": model, "environment": at}
        statement = sa.select(environment_history).filter_by(**key)
        with self._db.tenant(self._tenant_id) as connection:
            page = read_page(connection, statement, order, limit=limit, cursor=cursor, descending=True)
            if not page.items:  # an empty page would hide a typo
                require_model_in(connection, self._tenant_id, model)
        if not page.items:
            check_environment(self._db, self._tenant_id, at)
        return page.map(move_from)

    def promote(
        self, model_id: str, version: str, environment: str = PRODUCTION, **options: Unpack[GatedMoveOptions]
    ) -> Pointer:
        """Point an environment to a version, so that it is served from now on.

        It returns when the pointer has moved; ``replicas`` waits for replicas, and says what each has loaded.

        Args:
            model_id: The model.
            version: The version to serve.
            environment: The environment.
            **options: ``expected_generation``: refuse unless the pointer has this one, 0 before its first move;
                ``actor``: for whom an operator moves it; ``reason``: why, for the history; ``override``: why it is done
                although a gate fails, which only an admin may, without effect where every gate passes.

        Returns:
            The pointer after the move; ``gates`` has the result of each gate.

        Raises:
            PromotionRefusedError: A gate failed; names each failed gate and by how much.
            PermissionDeniedError: The principal may not move the environment, or not override a gate.
            ModelNotFoundError: There is no such version, or it is archived.
            InvalidTransitionError: A canary runs.
            InvalidRequestError: There is no such environment, the override has no reason, or no server can load the
                version: it has no signature, or its artifact holds types of the caller's own.
        """
        return self._move(model_id, environment, Change(Trigger.PROMOTE, VersionId(version)), options)

    def rollback(self, model_id: str, environment: str = PRODUCTION, **options: Unpack[MoveOptions]) -> Pointer:
        """Point an environment back to the version that it served before; again, to the one before that.

        No gate is evaluated, because the way back must stay open in an incident. But as long as the environment has
        gates, a version that was promoted by an override is restored by an admin only.

        Raises:
            PermissionDeniedError: The principal may not move the environment, or is not an admin and the version to
                go back to was promoted by an override.
            InvalidTransitionError: A canary runs.
            ModelNotFoundError: There was no other version before, or it was deleted or archived since. It is not
                skipped: people decide what is served next.
        """
        return self._move(model_id, environment, Change(Trigger.ROLLBACK), options)

    def withdraw(self, model_id: str, environment: str = PRODUCTION, **options: Unpack[MoveOptions]) -> Pointer:
        """Let an environment serve nothing: no stable version, no canary, no shadow. No gate is evaluated.

        Raises:
            ModelNotFoundError: It serves nothing already.
        """
        return self._move(model_id, environment, Change(Trigger.WITHDRAW), options)

    def replicas(
        self, model_id: str, environment: str = PRODUCTION, *, version: str | None = None, wait_s: float = 0.0
    ) -> Sequence[ReplicaAnswer]:
        """How far each running replica is with what an environment serves.

        A promotion returns when the pointer has moved. Replicas follow within a moment; this waits for them::

            system.promote("tickets", "2")
            for answer in system.environments.replicas("tickets", wait_s=10):
                print(answer.replica_id, answer.state, answer.reason)

        Args:
            model_id: The model.
            environment: The environment.
            version: One of the versions that the pointer names; None: all of them.
            wait_s: Seconds to wait at most until each replica has loaded what the pointer names, or failed to.

        Returns:
            One answer for each replica; none where no replica runs. ``replica_id``; ``state``: ``loaded``, ``deferred``
            (its memory is full: the first request loads it), ``loading``, ``behind`` (it has not read the move yet) or
            ``failed``; ``version``: the one that is not loaded; ``serves``: the one that answers now; ``code`` and
            ``reason`` of a failure.

        Raises:
            ModelNotFoundError: Nothing was ever promoted to it.
            RegistryUnavailableError: Postgres can't be reached, to the end of the wait.
        """
        pointer = self.get(model_id, environment)
        named = None if version is None else VersionId(version)
        return ask_replicas(self._db, self._tenant_id, pointer.model_id, pointer.environment, named, wait_s=wait_s)

    def protect(self, environment: str) -> EnvironmentPolicy:
        """Let only ``admin`` and the scope ``promote:<environment>`` change what the environment serves, of any model.

        Raises:
            PermissionDeniedError: The principal is not an admin.
        """
        return self._protect(EnvironmentName(environment), is_protected=True)

    def unprotect(self, environment: str) -> EnvironmentPolicy:
        """Let the scope ``promote`` change what the environment serves again. Errors as for ``protect``."""
        return self._protect(EnvironmentName(environment), is_protected=False)

    def policies(self) -> Sequence[EnvironmentPolicy]:
        """The environments that exist, in the order of the setting, then others that still have a policy."""
        statement = sa.select(environment_policies).filter_by(tenant_id=self._tenant_id)
        with self._db.tenant(self._tenant_id) as connection:
            rows = connection.execute(statement.order_by(environment_policies.c.environment)).all()
        found = {row.environment: value_of(EnvironmentPolicy, row) for row in rows}
        existing = environments_of(self._db.settings)
        others = [policy for name, policy in found.items() if name not in existing]
        return [*(found.get(name, EnvironmentPolicy(name, is_protected=False)) for name in existing), *others]

    def _protect(self, environment: EnvironmentName, *, is_protected: bool) -> EnvironmentPolicy:
        principal = self._db.principal
        principal.require(Scope.ADMIN)
        check_environment(self._db, self._tenant_id, environment)
        values = {"is_protected": is_protected, "updated_at": sa.func.now(), "updated_by": principal.name}
        statement = (
            insert(environment_policies)
            .values(tenant_id=self._tenant_id, environment=environment, **values)
            .on_conflict_do_update(constraint=environment_policies.primary_key, set_=values)
            .returning(environment_policies.c.updated_at)
        )
        action = "environment.protected" if is_protected else "environment.unprotected"
        with journal.writing(self._db, self._tenant_id) as connection:
            updated_at = connection.execute(statement).scalar_one()
            journal.record(connection, self._tenant_id, action, {"environment": environment})
        return EnvironmentPolicy(environment, is_protected, updated_at, principal.name)
