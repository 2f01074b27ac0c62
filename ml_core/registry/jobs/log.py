"""The log of a job: what its attempts said, for its tenant. The output of their processes is the operator's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import job_logs
from ml_core.ids import TenantId

_MOST_BYTES = 60_000
_LONGEST_LINE = 1_000
_LAST = 2**31 - 2  # substr takes four bytes
_FULL = "The log is full; what follows is left out.\n"
_OF = job_logs.c

# Made once: making it takes longer than executing it.
_SAY = sa.text(f"""
INSERT INTO mlcore.job_logs AS log (tenant_id, job_id, lines)
SELECT :tenant, :job, string_agg(
  concat(to_char(timezone('UTC', now()), 'YYYY-MM-DD"T"HH24:MI:SS"Z "'), line, chr(10)), '' ORDER BY number)
FROM unnest(CAST(:said AS text[])) WITH ORDINALITY AS said (line, number)
ON CONFLICT (tenant_id, job_id) DO UPDATE SET lines = CASE
  WHEN right(log.lines, {len(_FULL)}) = :full THEN log.lines
  WHEN octet_length(log.lines) + octet_length(excluded.lines) > {_MOST_BYTES} THEN log.lines || :full
  ELSE log.lines || excluded.lines END
""")  # noqa: S608 - constants


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
    connection.execute(_SAY, {"tenant": tenant_id, "job": job_id, "said": shown, "full": _FULL})


def read(connection: Connection, tenant_id: TenantId, job_id: str, after: int) -> JobLog:
    """The log of a job from a position."""
    of_job = (_OF.tenant_id == tenant_id, _OF.job_id == job_id)
    text = connection.scalar(sa.select(sa.func.substr(_OF.lines, min(after, _LAST) + 1)).where(*of_job)) or ""
    return JobLog(text, after + len(text))
