"""``ScheduleRepository``: the schedules of one tenant; ``due_schedules``: those of all tenants whose time has come.

A schedule is due by the database's clock. Whoever has submitted its job moves it on from the time that it was due, so
that of several only one does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import schedules, tenants
from ml_core.domain.api_key import Grant, Scope
from ml_core.domain.job import JobKind
from ml_core.domain.principal import Principal
from ml_core.domain.retraining import Retraining
from ml_core.domain.schedule import Cron, Schedule, ScheduleState
from ml_core.exceptions import Action, QuotaExceededError, ScheduleExistsError, ScheduleNotFoundError
from ml_core.ids import JobId, ScheduleName, TenantId
from ml_core.registry import journal
from ml_core.registry.limits import check_document
from ml_core.registry.missing import not_found
from ml_core.registry.pages import Page, read_page
from ml_core.registry.records import OfTenant, value_of

if TYPE_CHECKING:
    from ml_core.registry.pages import AnySelect

MAX_SCHEDULES: Final = 100
"""Of a tenant: each is looked at when it is due, and each is a source of jobs."""
_AT_ONCE: Final = 100
_MAX_NOTE: Final = 1_000
_OF = schedules.c
_OF_LIVING: AnySelect = (
    sa.select(schedules, sa.func.now().label("now"))
    .join(tenants, tenants.c.tenant_id == _OF.tenant_id)
    .where(tenants.c.deleted_at.is_(None))
)


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule whose time has come, with the database's time and on whose behalf its job is done."""

    schedule: Schedule
    now: datetime
    principal: Principal

    @property
    def following(self) -> datetime:
        """The next time from now.

        Raises:
            InvalidRequestError: The cron line or the zone can't be used.
        """
        return Cron(self.schedule.cron, self.schedule.timezone).after(self.now)


def due_schedules(db: DatabaseConnection, *, on_drift: bool = False) -> Sequence[Due]:
    """The schedules of all tenants that are due, the longest due first; up to 100.

    Args:
        db: The registry.
        on_drift: Those that train on an alert only; False: the others.
    """
    is_due = (_OF.state == ScheduleState.ACTIVE.value, _OF.next_at <= sa.func.now())
    of_kind = _OF.on_drift.is_not(None) if on_drift else _OF.on_drift.is_(None)
    return _found(db, _OF_LIVING.where(*is_due, of_kind).order_by(_OF.next_at).limit(_AT_ONCE))


def retraining_schedules(db: DatabaseConnection) -> Sequence[Due]:
    """The schedules of all tenants whose retraining goes on."""
    goes_on = (_OF.retraining.is_not(None), _OF.state != ScheduleState.STOPPED.value)
    return _found(db, _OF_LIVING.where(*goes_on).order_by(_OF.tenant_id, _OF.name))


def _found(db: DatabaseConnection, statement: AnySelect) -> Sequence[Due]:
    with db.platform() as connection:
        rows = connection.execute(statement).all()
    found = []
    for row in rows:
        grant = Grant.read(row.scopes)
        # Never an operator, as of jobs.
        principal = Principal(row.created_by, grant.scopes, grant.promotes, TenantId(row.tenant_id))
        found.append(Due(value_of(Schedule, row), row.now, principal))
    return found


class ScheduleRepository(OfTenant):
    """The schedules of one tenant."""

    def add(
        self,
        name: str,
        cron: Cron,
        kind: JobKind,
        spec: Mapping[str, Any],
        options: Mapping[str, Any],
        on_drift: Mapping[str, Any] | None = None,
    ) -> Schedule:
        """Add a schedule, which acts with the rights of the principal. The caller has checked spec and options.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``train``.
            ScheduleExistsError: The name is in use.
            QuotaExceededError: The tenant has as many schedules as it may have.
            RequestTooLargeError: The spec is too large.
            InvalidRequestError: The cron line has no time.
        """
        principal = self._db.principal
        principal.require(Scope.TRAIN)
        row = {
            "tenant_id": self._tenant_id,
            "name": ScheduleName(name),
            "cron": cron.line,
            "timezone": cron.timezone,
            "kind": kind.value,
            "spec": check_document(spec, "spec"),
            "options": dict(options),
            "on_drift": sa.null() if on_drift is None else dict(on_drift),
            "scopes": Grant(principal.scopes, principal.promotes).names,
            "created_by": principal.name,
        }
        mine = sa.select(sa.func.count()).where(_OF.tenant_id == self._tenant_id)
        with journal.writing(self._db, self._tenant_id) as connection:
            if connection.execute(mine).scalar_one() >= MAX_SCHEDULES:
                raise QuotaExceededError(
                    f"The tenant has {MAX_SCHEDULES} schedules, which is the maximum.",
                    remedy="Delete one that is not needed.",
                    tenant_id=self._tenant_id,
                    quota="schedules",
                    limit=MAX_SCHEDULES,
                    left=0,
                )
            adding = insert(schedules).values(**row, next_at=cron.after(_now(connection))).on_conflict_do_nothing()
            added = connection.execute(adding.returning(schedules)).one_or_none()
            if added is None:
                raise ScheduleExistsError(
                    f"There is a schedule {row['name']} already.",
                    remedy="Choose another name, or delete it.",
                    action=Action.of("schedules.get", tenant=str(self._tenant_id), schedule=str(row["name"])),
                    tenant_id=self._tenant_id,
                    schedule=str(row["name"]),
                )
            what = {"cron": cron.line, "timezone": cron.timezone, "kind": kind.value}
            self._record(connection, "schedule.created", name, what)
        return value_of(Schedule, added)

    def get(self, name: str) -> Schedule:
        """A schedule."""
        with self._db.tenant(self._tenant_id) as connection:
            row = connection.execute(sa.select(schedules).where(self._is(name))).one_or_none()
        if row is None:
            raise self._not_found(name)
        return value_of(Schedule, row)

    def list(self, *, limit: int = 100, cursor: str | None = None) -> Page[Schedule]:
        """A page of schedules by name."""
        statement = sa.select(schedules).where(_OF.tenant_id == self._tenant_id)
        with self._db.tenant(self._tenant_id) as connection:
            page = read_page(connection, statement, [_OF.name], limit=limit, cursor=cursor)
        return page.map(partial(value_of, Schedule))

    def pause(self, name: str) -> Schedule:
        """Submit no more jobs until it is resumed; jobs that were submitted go on."""
        return self._change(name, "schedule.paused", state=ScheduleState.PAUSED.value, next_at=None)

    def resume(self, name: str) -> Schedule:
        """Go on with the next time from now; those that passed meanwhile are left out."""
        found = self.get(name)
        with self._db.tenant(self._tenant_id) as connection:
            following = Cron(found.cron, found.timezone).after(_now(connection))
        active = ScheduleState.ACTIVE.value
        return self._change(name, "schedule.resumed", state=active, next_at=following, note=None)

    def delete(self, name: str) -> None:
        """Delete a schedule; jobs that were submitted go on."""
        with journal.writing(self._db, self._tenant_id) as connection:
            if not journal.erase(connection, schedules, name=ScheduleName(name)):
                raise self._not_found(name)
            self._record(connection, "schedule.deleted", name)

    def stop(self, due: Due, why: str) -> None:
        """Stop a schedule that may not act any more, unless that time was settled."""
        self._settle(due, state=ScheduleState.STOPPED.value, next_at=None, note=why[:_MAX_NOTE])

    def advance(
        self, due: Due, following: datetime, job_id: str | None, note: str | None, *, retrains: bool = False
    ) -> None:
        """Go on from the time that a schedule was due, unless that was done.

        Args:
            due: The schedule, and the database's time when it was found.
            following: When it is due next.
            job_id: The job that was submitted; None: none was.
            note: Why none was.
            retrains: Whether what the job makes is followed until it is served or refused.
        """
        submitted: dict[str, Any] = {} if job_id is None else {"last_job_id": job_id}
        if job_id is not None and retrains:
            submitted["retraining"] = Retraining(JobId(job_id)).to_json()
        shown = None if note is None else note[:_MAX_NOTE]
        self._settle(due, next_at=following, last_at=due.schedule.next_at, note=shown, **submitted)

    def follow(self, due: Due, retraining: Retraining | None, note: str) -> None:
        """Record how far a retraining has come, unless it is another one by now; None: it has ended."""
        self._db.principal.require(Scope.TRAIN)
        mine = _OF.retraining["job_id"].astext == (due.schedule.retraining or {}).get("job_id")
        values = {"retraining": sa.null() if retraining is None else retraining.to_json(), "note": note[:_MAX_NOTE]}
        with journal.writing(self._db, self._tenant_id) as connection:
            is_same = (self._is(due.schedule.name), _OF.created_at == due.schedule.created_at, mine)
            connection.execute(schedules.update().where(*is_same).values(**values))

    def submitted(self, name: str, job_id: str) -> None:
        """Record a job that was submitted for a schedule between its times."""
        self._db.principal.require(Scope.TRAIN)
        with journal.writing(self._db, self._tenant_id) as connection:
            connection.execute(schedules.update().where(self._is(name)).values(last_job_id=job_id))

    def _settle(self, due: Due, **values: Any) -> None:
        self._db.principal.require(Scope.TRAIN)
        is_due = (_OF.next_at == due.schedule.next_at, _OF.created_at == due.schedule.created_at)
        with journal.writing(self._db, self._tenant_id) as connection:
            connection.execute(schedules.update().where(self._is(due.schedule.name), *is_due).values(**values))

    def _change(self, name: str, action: str, **values: Any) -> Schedule:
        with journal.writing(self._db, self._tenant_id) as connection:
            changed = schedules.update().where(self._is(name)).values(**values).returning(schedules)
            row = connection.execute(changed).one_or_none()
            if row is None:
                raise self._not_found(name)
            self._record(connection, action, name)
        return value_of(Schedule, row)

    def _is(self, name: str) -> sa.ColumnElement[bool]:
        return sa.and_(_OF.tenant_id == self._tenant_id, _OF.name == str(name))

    def _record(self, connection: Connection, action: str, name: str, details: Mapping[str, Any] | None = None) -> None:
        journal.record(connection, self._tenant_id, action, {"schedule": str(name)}, details)

    def _not_found(self, name: str) -> ScheduleNotFoundError:
        return not_found(ScheduleNotFoundError, "schedule", name, self._tenant_id)


def _now(connection: Connection) -> datetime:
    now: datetime = connection.execute(sa.select(sa.func.now())).scalar_one()
    return now
