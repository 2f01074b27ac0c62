"""``VerdictRepository``: what was last found of one tenant's live versions; of all tenants, what is to be measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import environments, live_verdicts, tenants
from ml_core.domain.api_key import Scope
from ml_core.domain.quality import Verdict
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry import journal
from ml_core.registry.pages import Page, read_page
from ml_core.registry.records import OfTenant, value_of

if TYPE_CHECKING:
    from ml_core.registry.pages import AnySelect

MEASURED_EVERY: Final = timedelta(hours=1)
_KEY: Final = ("tenant_id", "model_id", "environment")
_OF, _POINTER = live_verdicts.c, environments.c
_SAME: Final = sa.and_(*(_OF[name] == _POINTER[name] for name in _KEY))
# A verdict counts as long as the version that it is about is served.
_COUNTS: Final = sa.and_(_SAME, _OF.version == _POINTER.version)
_ALERTS: Final = sa.text("(quality = 'alert' OR drift = 'alert')")  # as the index has it


@dataclass(frozen=True, slots=True)
class LiveVerdict:
    """What was last found of the stable version of an environment, of seven days.

    Attributes:
        quality: By the labels, see ``QualityReport.verdict``.
        drift: See ``DriftReport.verdict``.
        measured_at: When, UTC.
    """

    model_id: ModelId
    environment: EnvironmentName
    version: VersionId
    quality: Verdict
    drift: Verdict
    measured_at: datetime


@dataclass(frozen=True, slots=True)
class TenantAlerts:
    """How many environments of a tenant have an alert of quality, and how many one of drift."""

    tenant_id: TenantId
    quality: int
    drift: int


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """An environment of a model that serves a version and is to be measured."""

    tenant_id: TenantId
    model_id: ModelId
    environment: EnvironmentName


class VerdictRepository(OfTenant):
    """The verdicts of one tenant."""

    def list(self, *, only_alerts: bool = False, limit: int = 100, cursor: str | None = None) -> Page[LiveVerdict]:
        """The last verdict of each version that is served and was measured, by model and environment.

        Args:
            only_alerts: Without those that have no alert.
            limit: At most so many, 1 to 1000.
            cursor: ``next_cursor`` of the page before.
        """
        statement = sa.select(live_verdicts).join(environments, _COUNTS).where(_OF.tenant_id == self._tenant_id)
        if only_alerts:
            statement = statement.where(_ALERTS)
        with self._db.tenant(self._tenant_id) as connection:
            page = read_page(connection, statement, (_OF.model_id, _OF.environment), limit=limit, cursor=cursor)
        return page.map(lambda row: value_of(LiveVerdict, row))

    def set(
        self, model_id: ModelId, environment: EnvironmentName, version: VersionId, quality: Verdict, drift: Verdict
    ) -> None:
        """Keep what was found now. Nothing is kept of an environment that has gone.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``admin``: the platform measures.
        """
        self._db.principal.require(Scope.ADMIN)
        found = {"version": version, "quality": quality.value, "drift": drift.value}
        pointer = sa.select(*(_POINTER[name] for name in _KEY), *(sa.literal(value) for value in found.values())).where(
            _POINTER.tenant_id == self._tenant_id, _POINTER.model_id == model_id, _POINTER.environment == environment
        )
        added = insert(live_verdicts).from_select([*_KEY, *found], pointer, include_defaults=False)
        with journal.writing(self._db, self._tenant_id) as connection:
            connection.execute(added.on_conflict_do_update(index_elements=_KEY, set_=found))


def unmeasured(db: DatabaseConnection, limit: int) -> Sequence[Unmeasured]:
    """Environments whose version was not measured within the last hour, the longest unmeasured first.

    One that has another version now keeps its place: else whoever promotes all the time would keep all others waiting.
    """
    is_recent = sa.and_(_OF.version == _POINTER.version, _OF.measured_at > sa.func.now() - MEASURED_EVERY)
    statement = (
        sa.select(*(_POINTER[name] for name in _KEY))
        .join(tenants, sa.and_(tenants.c.tenant_id == _POINTER.tenant_id, tenants.c.deleted_at.is_(None)))
        .join(live_verdicts, _SAME, isouter=True)
        .where(_POINTER.version.is_not(None), is_recent.is_not(True))
        .order_by(_OF.measured_at.asc().nulls_first(), *(_POINTER[name] for name in _KEY))
        .limit(limit)
    )
    with db.platform() as connection:
        return [value_of(Unmeasured, row) for row in connection.execute(statement)]


def alerting_tenants(db: DatabaseConnection, limit: int) -> Sequence[TenantAlerts]:
    """The tenants that have alerts, those with the most first."""
    alert = Verdict.ALERT.value
    quality, drift = (sa.func.count().filter(_OF[name] == alert).label(name) for name in ("quality", "drift"))
    statement: AnySelect = (
        sa.select(_OF.tenant_id, quality, drift)
        .join(environments, _COUNTS)
        .join(tenants, sa.and_(tenants.c.tenant_id == _OF.tenant_id, tenants.c.deleted_at.is_(None)))
        .where(_ALERTS)
        .group_by(_OF.tenant_id)
        .order_by((quality + drift).desc(), _OF.tenant_id)
        .limit(limit)
    )
    with db.platform() as connection:
        return [value_of(TenantAlerts, row) for row in connection.execute(statement)]
