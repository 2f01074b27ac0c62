"""Functions that run with the owner's rights: few, pinned, and closed to everybody who does not need them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from support.filled import fill
from support.registry import superuser


def test_they_look_for_nothing_where_others_may_write(db: DatabaseConnection) -> None:
    """Each has its search path pinned, with the session's own temporary schema last, and is closed to the public."""
    query = """
        SELECT p.proname, p.proconfig, p.proowner::regrole::text, has_function_privilege('public', p.oid, 'EXECUTE')
        FROM pg_proc p WHERE p.pronamespace = 'mlcore'::regnamespace AND p.prosecdef
    """
    with superuser(db) as session:
        found = {name: (config, owner, is_open) for name, config, owner, is_open in session.execute(query)}
    assert {"advance_feed", "close_tenant", "remove_tenant_rows", "erase"} <= set(found)
    for name, (config, owner, is_open) in found.items():
        assert "search_path=pg_catalog, pg_temp" in config, name
        assert (owner, is_open) == ("mlcore_owner", False), name


@pytest.mark.parametrize("function", ["close_tenant()", "remove_tenant_rows(1)", "erase('holds', '{}')"])
def test_the_serving_plane_may_delete_nothing(db: DatabaseConnection, function: str) -> None:
    """A replica's role can't call what deletes."""
    with pytest.raises(DBAPIError, match="permission denied"), db.serving() as connection:
        connection.execute(sa.text(f"SELECT mlcore.{function}"))


@pytest.mark.parametrize(
    "statements",
    [
        ["SELECT mlcore.erase('idempotency_keys', '{}')"],
        [
            "SELECT mlcore.erase('holds', '{}')",
            "SELECT mlcore.close_tenant()",
            "SELECT * FROM mlcore.remove_tenant_rows(100000)",
        ],
    ],
)
def test_they_reach_the_own_tenant_only(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, statements: list[str]
) -> None:
    """Called for one tenant they change no row of another."""
    for tenant in (tenant_id, other_tenant_id):
        fill(db, tenant)
    count = sa.text("SELECT (SELECT count(*) FROM mlcore.idempotency_keys), (SELECT count(*) FROM mlcore.versions)")
    with db.tenant(other_tenant_id) as connection:
        before = connection.execute(count).one()
    with db.tenant(tenant_id) as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
        assert connection.execute(count).one() != before
    with db.tenant(other_tenant_id) as connection:
        assert connection.execute(count).one() == before
