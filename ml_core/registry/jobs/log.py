"""The log of a job: what its attempts said, for its tenant. The output of their processes is the operator's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.tables import job_logs
from ml_core.ids import TenantId

_MOST_BYTES = 60_000
_LONGEST_LINE = 1_000
_FULL = "The log is full; what follows is left out.\n"
_OF = job_logs.c


@dataclass(frozen=True, slots=True)
class JobLog:
    """A part of a job's log.

    Attributes:
        text: Whole lines, each with its time (UTC).
        position: Where the next part begins, in characters.
    """

    text: str
    position: int


def say(connection: Connection, tenant_id: TenantId, job_id: str, lines: Iterable[str]) -> None:
    """Add lines to the log of a job, with the database's time. A full log takes no more."""
    shown = [" ".join(line.split())[:_LONGEST_LINE] for line in lines]
    if not shown:
        return
    now = sa.func.to_char(sa.func.timezone("UTC", sa.func.now()), 'YYYY-MM-DD"T"HH24:MI:SS"Z "')
    added = sa.func.concat(*(part for line in shown for part in (now, sa.cast(line + "\n", sa.Text))))
    is_full = sa.func.octet_length(_OF.lines) + sa.func.octet_length(added) > _MOST_BYTES
    longer = sa.case(
        (_OF.lines.endswith(_FULL), _OF.lines), (is_full, _OF.lines + sa.cast(_FULL, sa.Text)), else_=_OF.lines + added
    )
    row = {"tenant_id": tenant_id, "job_id": job_id, "lines": added}
    keys = ["tenant_id", "job_id"]
    connection.execute(insert(job_logs).values(row).on_conflict_do_update(index_elements=keys, set_={"lines": longer}))


def read(connection: Connection, tenant_id: TenantId, job_id: str, after: int) -> JobLog:
    """The log of a job from a position."""
    of_job = (_OF.tenant_id == tenant_id, _OF.job_id == job_id)
    text = connection.scalar(sa.select(sa.func.substr(_OF.lines, after + 1)).where(*of_job)) or ""
    return JobLog(text, after + len(text))
