"""Dumps: complete, closed to other users, and silent about passwords."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import psutil
import psycopg
import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.database.dump import dump
from ml_core.exceptions import ConfigurationError
from ml_core.ids import TenantId
from support.registry import register, superuser


@pytest.fixture
def secret_url(db: DatabaseConnection) -> str:
    """A login that sees all rows, with a password in the URL and another one among its options."""
    with superuser(db) as session:
        session.execute("DROP ROLE IF EXISTS keeper")
        session.execute("CREATE ROLE keeper LOGIN SUPERUSER PASSWORD 'hunter2'")
    assert db.server is not None
    return db.server.admin_url.replace("postgres@/", "keeper:hunter2@/") + "&sslpassword=hunter3"


def test_no_password_is_in_the_list_of_processes(
    db: DatabaseConnection, tenant_id: TenantId, secret_url: str, tmp_path: Path
) -> None:
    """While ``pg_dump`` waits for a table, nobody reads a password from its arguments."""
    register(db, tenant_id)
    with psycopg.connect(secret_url) as holder:
        holder.execute("LOCK TABLE mlcore.versions IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=dump, args=(secret_url, tmp_path / "dump"))
        thread.start()
        seen = _arguments_of("pg_dump")
        holder.rollback()
    thread.join(60)
    assert "service=mlcore" in seen
    assert "hunter" not in seen
    assert (tmp_path / "dump").stat().st_size > 0


def _arguments_of(program: str) -> str:
    deadline = threading.Event()
    for _ in range(400):
        for child in psutil.Process().children(recursive=True):
            try:
                if child.name() == program and "service" in (shown := " ".join(child.cmdline())):
                    return shown
            except psutil.NoSuchProcess:
                continue
        deadline.wait(0.02)
    raise AssertionError(f"{program} did not start")


def test_a_dump_is_closed_to_other_users(db: DatabaseConnection, secret_url: str, tmp_path: Path) -> None:
    """It holds the rows of every tenant."""
    dump(secret_url, tmp_path / "dump")
    assert stat.S_IMODE((tmp_path / "dump").stat().st_mode) == 0o600


def test_a_parameter_that_no_file_can_hold_is_refused(secret_url: str, tmp_path: Path) -> None:
    """Rather than be taken for another parameter."""
    with pytest.raises(ConfigurationError, match="line break"):
        dump(secret_url + "&application_name=a%0Ahost%3Delsewhere", tmp_path / "dump")
