"""Upgrades of a registry that is in use: what a migration may do to it, shown with migrations that only tests have."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from ml_core.database import migrate
from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import RegistryUnavailableError, SchemaOutOfDateError
from ml_core.settings import Settings
from support.registry import superuser

MIGRATION = '''
"""A migration of a later release."""
from alembic import op
revision, down_revision, branch_labels, depends_on = "{revision}", "{before}", None, None
def upgrade() -> None:
    op.execute("{statement}")
def downgrade() -> None:
    """Tests never undo it."""
'''
LATER = (
    ("0002", "0001", "CREATE TABLE mlcore.later (later_id bigint PRIMARY KEY)"),
    ("0003", "0002", "ALTER TABLE mlcore.environments ADD COLUMN later text"),
)


@pytest.fixture
def old(
    db: DatabaseConnection, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DatabaseConnection]:
    """A registry of this release, while the code is of a later one that has two more migrations."""
    name = f"old{abs(hash(request.node.name)) % 10**8}"
    with superuser(db) as session:
        session.execute(f"DROP DATABASE IF EXISTS {name}")
        session.execute(f"CREATE DATABASE {name} OWNER mlcore_owner")
    url = db.urls.owner.replace("mlcore_owner@/mlcore?", f"postgres@/{name}?")
    with DatabaseConnection(url, settings=Settings()) as connection:
        connection.migrate()
        shutil.copytree(migrate.MIGRATIONS, tmp_path / "migrations")
        for revision, before, statement in LATER:
            text = MIGRATION.format(revision=revision, before=before, statement=statement)
            (tmp_path / "migrations" / "versions" / f"{revision}_later.py").write_text(text)
        monkeypatch.setattr(migrate, "MIGRATIONS", tmp_path / "migrations")
        yield connection
    with superuser(db) as session:
        session.execute(f"DROP DATABASE {name} WITH (FORCE)")


def sent_by(db: DatabaseConnection, note: Any) -> None:
    """Call ``note(cursor, statement)`` before each statement that an upgrade sends."""
    engine = db._engine(db.urls.owner)
    sa.event.listen(
        engine, "before_cursor_execute", lambda _c, cursor, statement, *_: note(cursor, " ".join(statement.split()))
    )


def test_an_upgrade_applies_what_is_missing_and_a_second_one_nothing(old: DatabaseConnection) -> None:
    """The migrations that were applied are not sent again."""
    sent: list[str] = []
    sent_by(old, lambda _, statement: sent.append(statement))
    old.migrate()
    assert [statement for statement in sent if statement in {each for *_, each in LATER}] == [
        each for *_, each in LATER
    ]
    assert not any("CREATE TABLE mlcore.tenants" in statement for statement in sent)
    sent.clear()
    old.migrate()
    assert not any(statement.startswith(("CREATE", "ALTER")) for statement in sent)
    assert old.current_revision() == "0003"


def test_of_two_upgrades_at_once_one_does_it_and_both_succeed(old: DatabaseConnection) -> None:
    """They wait for each other; neither sees a half of the other's work."""
    sent, failures = [], []
    sent_by(old, lambda _, statement: sent.append(statement))

    def upgrade() -> None:
        try:
            old.migrate()
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert sum(statement == LATER[0][2] for statement in sent) == 1
    assert old.current_revision() == "0003"


def test_a_migration_gives_up_rather_than_block(old: DatabaseConnection) -> None:
    """While a long transaction holds a table, it ends after its lock timeout and says so; the one before it stays."""
    with psycopg.connect(old.urls.owner) as holder:
        holder.execute("LOCK TABLE mlcore.environments IN ACCESS SHARE MODE")
        with pytest.raises(RegistryUnavailableError, match="Nothing of it was changed; the schema is at 0002"):
            old.migrate()
        assert holder.execute("SELECT to_regclass('mlcore.later')").fetchone() == ("mlcore.later",)
    assert old.current_revision() == "0002"
    old.migrate()
    assert old.current_revision() == "0003"


def test_an_upgrade_that_is_killed_goes_on(old: DatabaseConnection) -> None:
    """A session that dies in a migration leaves those before it; run again, the upgrade does the rest."""

    def kill(cursor: Any, statement: str) -> None:
        if statement == LATER[1][2] and not killed:
            killed.append(statement)
            with psycopg.connect(old.urls.owner, autocommit=True) as session:
                session.execute("SELECT pg_terminate_backend(%s)", (cursor.connection.info.backend_pid,))

    killed: list[str] = []
    sent_by(old, kill)
    with pytest.raises(RegistryUnavailableError):
        old.migrate()
    assert (old.current_revision(), len(killed)) == ("0002", 1)
    old.migrate()
    assert old.current_revision() == "0003"


def test_every_migration_has_time_limits(old: DatabaseConnection) -> None:
    """Each is stamped in a transaction that has them."""
    limits: list[tuple[str, ...]] = []

    def note(cursor: Any, statement: str) -> None:
        if statement.startswith("UPDATE mlcore.alembic_version"):
            settings = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
            limits.append(cursor.connection.execute(settings).fetchone())

    sent_by(old, note)
    old.migrate()
    assert limits == [("4s", "5s")] * 2


def test_an_upgrade_leaves_nothing_on_the_session(old: DatabaseConnection) -> None:
    """The pool gives out no session that still acts as the owner, has the migrations' limits or holds their lock."""
    old.migrate()
    with old._engine(old.urls.owner).begin() as connection:
        kept = connection.execute(sa.text("SELECT CURRENT_USER, current_setting('lock_timeout')")).one()
        locks = connection.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"))
    assert (*kept, locks) == ("postgres", "0", 0)


def test_a_schema_of_another_release_is_refused_in_words(old: DatabaseConnection) -> None:
    """One that these migrations do not lead to is of a newer release, or of one that never was released."""
    with psycopg.connect(old.urls.owner) as session:
        session.execute("UPDATE mlcore.alembic_version SET version_num = '0010'")
    with pytest.raises(SchemaOutOfDateError, match="0010") as caught:
        old.migrate()
    assert "newer release" in str(caught.value)
    assert "MLCORE_HOME" in str(caught.value)
