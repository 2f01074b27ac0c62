"""Of several processes one acts."""

from __future__ import annotations

from ml_core.database.connection import DatabaseConnection
from ml_core.registry.leadership import Leadership
from support.registry import new_tenant, superuser

_HOLDERS = """
SELECT a.pid, a.backend_xid, a.backend_xmin FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 1835167600 AND l.objid = 1
"""


def test_one_of_two_holds(db: DatabaseConnection) -> None:
    """Until it lets go; asked again, it still holds."""
    first, second = Leadership(db.platform, 1), Leadership(db.platform, 1)
    try:
        assert [first.holds(), second.holds(), first.holds(), second.holds()] == [True, False, True, False]
        first.release()
        assert [second.holds(), first.holds()] == [True, False]
    finally:
        first.release()
        second.release()


def test_who_loses_the_session_acts_no_more(db: DatabaseConnection) -> None:
    """It is told so at its next question, when another one acts already."""
    first, second = Leadership(db.platform, 1), Leadership(db.platform, 1)
    try:
        assert first.holds()
        with superuser(db) as session:
            ((pid, _, _),) = session.execute(_HOLDERS).fetchall()
            session.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        assert second.holds()
        assert not first.holds()
        assert second.holds()
    finally:
        first.release()
        second.release()


def test_nobody_waits_for_who_holds(db: DatabaseConnection) -> None:
    """Its transaction has no id and no snapshot: neither the audit nor a vacuum waits for it."""
    leadership = Leadership(db.platform, 1)
    try:
        assert leadership.holds()
        assert leadership.holds()
        with superuser(db) as session:
            assert [row[1:] for row in session.execute(_HOLDERS).fetchall()] == [(None, None)]
        new_tenant(db)
    finally:
        leadership.release()
