"""``mlcore db``: revision, check, backup and restore, as an operator calls them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.database.dump import dump
from ml_core.database.embedded import EmbeddedServer
from ml_core.exceptions import Action, PlatformError
from ml_core.registry.audit import AuditEntry, AuditRepository
from support.registry import settings_for, temporary_home

TABLE = "text,label\n" + "".join(f"printer {n} is broken,hardware\nlogin {n} fails,account\n" for n in range(40))


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, mlcore: Callable) -> Iterator[Path]:
    """A home of the test's own, which the command works in."""
    with temporary_home() as folder:
        monkeypatch.setenv("MLCORE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def made_once() -> Iterator[Path]:
    """A home that the first test which wants a filled one fills."""
    with temporary_home() as folder:
        yield folder


@pytest.fixture
def filled(home: Path, made_once: Path, mlcore: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The home, with a tenant that has a served model and a key; its server is stopped."""
    if not (made_once / "postgres").exists():
        table = tmp_path / "tickets.csv"
        table.write_text(TABLE)
        monkeypatch.setenv("MLCORE_HOME", str(made_once))
        for command in (
            ("tenants", "create", "acme"),
            ("train", table, "-t", "acme", "-m", "tickets", "--target", "label"),
            ("promote", "-t", "acme", "-m", "tickets", "-v", "1"),
            ("keys", "create", "-t", "acme"),
        ):
            assert mlcore(*command).code == 0
        EmbeddedServer(made_once).stop()
        monkeypatch.setenv("MLCORE_HOME", str(home))
    subprocess.run(["cp", "-a", f"{made_once}/.", home], check=True)
    return home


def admin_url(home: Path) -> str:
    server = EmbeddedServer(home)
    server.start()
    return server.admin_url


def epoch(home: Path) -> str:
    with psycopg.connect(admin_url(home)) as session:
        return str(session.execute("SELECT epoch FROM mlcore.feed_clock").fetchone())


def test_an_empty_database_is_brought_up_to_date(home: Path, mlcore: Callable) -> None:
    """``current`` changes nothing and says what to do; ``upgrade`` does it, and then has nothing to do."""
    before = mlcore("db", "current")
    assert before.code == 1
    assert "no revision" in before.out
    assert "mlcore db upgrade" in before.out
    assert "mlcore db upgrade" in mlcore("db", "check").out
    assert "Brought the schema from nothing" in mlcore("db", "upgrade").out
    assert "already" in mlcore("db", "upgrade").out
    stated = mlcore("db", "current", "--json")
    assert stated.code == 0
    assert stated.json["current"] == stated.json["wanted"]
    assert mlcore("db", "check").code == 0


def test_walls_that_were_taken_down_are_found(home: Path, mlcore: Callable) -> None:
    """What was changed by hand is named, with exit code 1."""
    mlcore("db", "upgrade")
    harms = {
        "ALTER TABLE mlcore.versions NO FORCE ROW LEVEL SECURITY": "mlcore.versions lacks forced row-level security",
        "DROP POLICY tenant_isolation ON mlcore.runs": "mlcore.runs lacks its policy tenant_isolation",
        "ALTER ROLE mlcore_app BYPASSRLS": "mlcore_app is not held back",
        "GRANT DELETE ON mlcore.audit TO mlcore_app": "mlcore_app may DELETE mlcore.audit",
        "GRANT SELECT ON mlcore.runs TO mlcore_ingest": "mlcore_ingest may SELECT mlcore.runs",
        "GRANT UPDATE (digest) ON mlcore.versions TO mlcore_app": "mlcore_app may UPDATE (digest) mlcore.versions",
        "GRANT SELECT ON mlcore.api_keys TO public": "public may SELECT mlcore.api_keys",
    }
    with psycopg.connect(admin_url(home), autocommit=True) as session:
        for harm in harms:
            session.execute(harm)
    checked = mlcore("db", "check")
    assert checked.code == 1
    assert [told for told in harms.values() if told not in checked.out] == []


def test_a_backup_is_brought_back_whole(
    filled: Path, mlcore: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a new home: the same tenants, versions, pointers, keys and bytes; the model answers and fsck finds nothing."""
    listings = [
        ("tenants", "list", "--json"),
        ("versions", "list", "-t", "acme", "-m", "tickets", "--json"),
        ("keys", "list", "-t", "acme", "--json"),
        ("audit", "-t", "acme", "--json"),
    ]
    before = [mlcore(*listing).out for listing in listings]
    with psycopg.connect(admin_url(filled), autocommit=True) as session:
        for _ in range(2_000):  # so that the other server's transactions have lower numbers
            session.execute("SELECT pg_current_xact_id()")
    read = changes(filled)
    assert (
        "4 artifacts" in mlcore("db", "backup", tmp_path / "backup").out
    )  # a dataset, its version and its diagnostics
    with temporary_home() as other:
        monkeypatch.setenv("MLCORE_HOME", str(other))
        assert "4 artifacts" in mlcore("db", "restore", tmp_path / "backup").out
        assert [mlcore(*listing).out for listing in listings] == before
        row = json.dumps({"text": "printer 3 is broken"})
        assert "hardware" in mlcore("predict", "-t", "acme", "-m", "tickets", "--row", row).out
        assert mlcore("db", "check").code == 0
        assert mlcore("fsck").code == 0
        assert epoch(other) != epoch(filled)  # so that replicas read everything anew
        again = mlcore("db", "restore", tmp_path / "backup")
        assert again.code == 1
        assert "holds a registry already" in again.err
        # Work goes on where it stopped: the next version, the next generation.
        assert mlcore("rollback", "-t", "acme", "-m", "tickets").code == 1
        assert mlcore("promote", "-t", "acme", "-m", "tickets", "-v", "1", "--json").json["generation"] == 2
        # Whoever follows the changes goes on with the cursor of before, and misses none.
        assert [entry.action for entry in changes(other, after=read[-1].cursor)] == ["environment.moved"]
        assert changes(other)[:-1] == read


def changes(home: Path, after: str | None = None) -> Sequence[AuditEntry]:
    with DatabaseConnection(settings=settings_for(home)) as database:
        return AuditRepository(database, "acme").list(after=after).items


def test_what_is_no_backup_is_refused(
    filled: Path, mlcore: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither an empty folder nor one that a killed backup left is restored, and no server is started for it."""
    mlcore("db", "backup", tmp_path / "b")
    (tmp_path / "b" / "backup.json").unlink()
    with temporary_home() as other:
        monkeypatch.setenv("MLCORE_HOME", str(other))
        for folder in (tmp_path / "nothing", tmp_path / "b"):
            refused = mlcore("db", "restore", folder)
            assert refused.code == 1
            assert "no complete backup" in refused.err
        assert not EmbeddedServer(other).is_running()


def test_a_backup_never_goes_into_a_used_folder(home: Path, mlcore: Callable, tmp_path: Path) -> None:
    """Two backups in one folder would be neither."""
    mlcore("db", "upgrade")
    (tmp_path / "notes.txt").write_text("mine")
    assert "not empty" in mlcore("db", "backup", tmp_path).err
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_artifact_is_told_and_left_out(filled: Path, mlcore: Callable, tmp_path: Path) -> None:
    """The rest is backed up; nobody takes the damaged bytes for good ones later."""
    blob = next(path for path in (filled / "artifacts").rglob("*") if path.is_file())
    blob.write_bytes(blob.read_bytes()[:-1])
    mlcore("tenants", "create", "globex")
    told = mlcore("db", "backup", tmp_path / "b")
    assert told.code == 1
    assert (told.out + told.err).count(blob.name) == 1
    assert f"Left out, because it is damaged: acme/{blob.name}" in told.err
    whole = {path.name for path in (filled / "artifacts").rglob("*") if path.is_file()} - {blob.name}
    assert {path.name for path in (tmp_path / "b" / "artifacts").rglob("*") if path.is_file()} == whole
    stated = mlcore("db", "backup", tmp_path / "c", "--json")
    assert (stated.code, stated.json["tenants"], stated.json["damaged"]) == (1, 2, [f"acme/{blob.name}"])
    assert stated.json["folder"] == str(tmp_path / "c")


def test_bytes_that_a_backup_lost_are_told_when_it_is_restored(
    filled: Path, mlcore: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The rest is restored; the exit code says that something is missing."""
    mlcore("db", "backup", tmp_path / "b")
    blob = next(path for path in (tmp_path / "b" / "artifacts").rglob("*") if path.is_file())
    blob.write_bytes(b"not the model")
    with temporary_home() as other:
        monkeypatch.setenv("MLCORE_HOME", str(other))
        restored = mlcore("db", "restore", tmp_path / "b")
        assert restored.code == 1
        assert f"damaged: acme/{blob.name}" in restored.err
        assert "acme" in mlcore("tenants", "list").out


def test_fsck_mends_from_a_backup(filled: Path, mlcore: Callable, tmp_path: Path) -> None:
    """The backup's folder, or its folder of artifacts, is a copy to mend from."""
    mlcore("db", "backup", tmp_path / "b")
    blob = next(path for path in (filled / "artifacts").rglob("*") if path.is_file())
    for source in (tmp_path / "b", tmp_path / "b" / "artifacts"):
        blob.unlink()
        mended = mlcore("fsck", "--repair", "--from", source)
        assert (mended.code, blob.is_file()) == (0, True)
        assert "repaired 1" in mended.out


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_fsck_refuses_a_copy_that_is_none(home: Path, mlcore: Callable, tmp_path: Path, name: str) -> None:
    """A folder that does not exist, or has no artifact, is an error, not a repair of nothing."""
    (tmp_path / "empty").mkdir()
    refused = mlcore("fsck", "--repair", "--from", tmp_path / name)
    assert refused.code == 1
    assert name in refused.err


def test_no_byte_goes_while_a_backup_runs(
    filled: Path, mlcore: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A version that is deleted between copy and dump, after its row was dumped, has its bytes in the backup."""
    from ml_core.registry import backup

    blob = next(path for path in (filled / "artifacts").rglob("*") if path.is_file())
    table = tmp_path / "tickets.csv"
    seen = []

    def dump_late(url: str, file: Path) -> None:
        # Registered after the first copy, and deleted after the dump: only the lock keeps its bytes for the second.
        table.write_text(TABLE.replace("printer", "scanner"))
        mlcore("train", table, "-t", "acme", "-m", "tickets", "--target", "label")
        dump(url, file)
        mlcore("versions", "delete", "-t", "acme", "-m", "tickets", "-v", "2")
        seen.append(len([path for path in (filled / "artifacts").rglob("*") if path.is_file()]))

    monkeypatch.setattr(backup, "dump", dump_late)
    assert "6 artifacts" in mlcore("db", "backup", tmp_path / "b").out
    assert seen == [6]
    assert blob.is_file()


def test_a_login_that_sees_too_little_makes_no_backup(home: Path, mlcore: Callable, tmp_path: Path) -> None:
    """A dump of the runtime role would silently lack every tenant."""
    mlcore("db", "upgrade")
    url = admin_url(home).replace("postgres@", "mlcore_app@")
    refused = mlcore("db", "backup", tmp_path / "b", "--url", url)
    assert refused.code == 1
    assert "BYPASSRLS" in refused.err
    assert not (tmp_path / "b" / "backup.json").exists()


def test_a_restore_that_fails_changes_nothing(
    filled: Path, mlcore: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A dump that was cut short leaves an empty database, into which a whole one can still be restored."""
    mlcore("db", "backup", tmp_path / "b")
    dump = tmp_path / "b" / "registry.dump"
    whole = dump.read_bytes()
    with temporary_home() as other:
        monkeypatch.setenv("MLCORE_HOME", str(other))
        dump.write_bytes(whole[: len(whole) // 2])
        cut = mlcore("db", "restore", tmp_path / "b")
        assert cut.code == 1
        assert "pg_restore failed" in cut.err
        dump.write_bytes(whole)
        assert mlcore("db", "restore", tmp_path / "b").code == 0


def test_the_server_must_run_for_its_urls(home: Path) -> None:
    """Asked before a start, the error says how to start it."""
    with pytest.raises(PlatformError, match="does not run") as caught:
        _ = EmbeddedServer(home).admin_url
    assert caught.value.action == Action.of("up")
