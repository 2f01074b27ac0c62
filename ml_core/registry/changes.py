"""``ChangeReader``: of which tenants the audit or the jobs have changed, for one reader of all tenants.

It is level-triggered, as the feed of replicas is: each look finds all that was committed since the look before,
whatever happened meanwhile, and costs two ranges of indexes however many tenants there are. There is no ``NOTIFY``:
every write is recorded in the audit, and Postgres commits transactions that notify one after the other. That halves the
commits of eight sessions (``benchmarks/events.py``).

Positions are those of the audit (``ml_core.registry.audit``): the id of a transaction, which may be committed after a
later one. So a look compares with the snapshot of the look before. A change that the ordered feed of the audit does not
show yet, since an earlier transaction is running, is reported once it is committed, and again once the feed has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from ml_core.ids import TenantId
from ml_core.registry.records import OfPlatform

TOPICS: Final = ("audit", "jobs")
"""``jobs``: a job was submitted, changed its state, said how far it is, or gave a sign of life."""

_SETTLED: Final = "mlcore.audit_position(pg_snapshot_xmin(pg_current_snapshot()))"
_FIRST: Final = f"SELECT NULL AS topic, CAST(pg_current_snapshot() AS text) AS value, {_SETTLED} AS position"
# All below the position of the oldest transaction that ran at the last look was settled then.
_CHANGED: Final = """
SELECT '{topic}', tenant_id, NULL FROM mlcore.{topic}
WHERE position >= :settled AND (position < {settled}
  OR NOT pg_visible_in_snapshot(CAST(CAST(position - :base AS text) AS xid8), CAST(:snapshot AS pg_snapshot)))
GROUP BY tenant_id
"""
_MISSED: Final = "EXISTS (SELECT FROM mlcore.{topic} WHERE {of_tenant} position >= CAST(:after AS bigint)) AS {topic}"


def _all(part: str, **names: str) -> list[str]:
    return [part.format(topic=topic, **names) for topic in TOPICS]


_LOOK: Final = sa.text(" UNION ALL ".join([_FIRST, *_all(_CHANGED, settled=_SETTLED)]))
_LOOK_FIRST: Final = sa.text(_FIRST)
_OF_ANY: Final = sa.text(f"SELECT {', '.join([_SETTLED, *_all(_MISSED, of_tenant='')])}")
_OF_ONE: Final = sa.text(f"SELECT {', '.join([_SETTLED, *_all(_MISSED, of_tenant='tenant_id = :tenant AND')])}")


@dataclass(frozen=True, slots=True)
class Look:
    """What was found.

    Attributes:
        position: All before it was reported by this look or an earlier one.
        changed: Tenant → topics.
        snapshot: What was committed.
    """

    position: int
    changed: Mapping[TenantId, set[str]]
    snapshot: str

    def parameters(self) -> dict[str, object]:
        """What the next look compares with; ``base``: what a position is more than the id of its transaction."""
        base = self.position - int(self.snapshot.partition(":")[0])
        return {"settled": self.position, "base": base, "snapshot": self.snapshot}


class ChangeReader(OfPlatform):
    """Reads what has changed."""

    def look(self, before: Look | None) -> Look:
        """What has changed since a look; without one only where the next begins."""
        with self._db.platform() as connection:
            statement, compared = (_LOOK_FIRST, {}) if before is None else (_LOOK, before.parameters())
            (_, snapshot, position), *rows = connection.execute(statement, compared).all()
        changed: dict[TenantId, set[str]] = {}
        for topic, tenant_id, _ in rows:
            changed.setdefault(TenantId(tenant_id), set()).add(topic)
        return Look(position, changed, snapshot)

    def missed(self, tenant_id: TenantId | None, after: int | None) -> tuple[int, set[str]]:
        """The topics that have changed since a position, as far as they are seen now, and the present position.

        Args:
            tenant_id: Of this tenant; None: of any.
            after: The ``position`` of an earlier look, maybe of another process; None: nothing counts as missed.
        """
        statement = _OF_ANY if tenant_id is None else _OF_ONE
        with self._db.platform() as connection:
            position, *changed = connection.execute(statement, {"tenant": tenant_id, "after": after}).one()
        return position, {topic for topic, has_changed in zip(TOPICS, changed, strict=True) if has_changed}
