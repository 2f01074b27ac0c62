"""A database of one's own with passwords, from the server of the try-out database to a transaction of a tenant."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import ApiKey
from ml_core.exceptions import ConfigurationError, RegistryUnavailableError
from ml_core.ids import TenantId
from ml_core.platform.ports import free_ports
from ml_core.registry.tenants import TenantRepository
from ml_core.settings import DatabaseSettings, Settings
from support.registry import temporary_home
from support.waiting import wait_until

KEY = secrets.token_hex(32)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server that asks for passwords; its superuser's is ``top``."""
    port = free_ports(1)[0]
    with temporary_home() as home:
        (home / "password").write_text("top")
        (home / "password").chmod(0o644)
        command = (sys.executable, "-m", "deployments.postgres", "--data", home / "data", "--port", str(port))
        options = ("--password-file", home / "password", "--listen", "127.0.0.1", "--sockets", home / "data")
        process = subprocess.Popen([*command, *options], cwd=Path(__file__).parents[3])
        try:
            wait_until(lambda: answers(port) or process.poll() is not None, timeout_s=60)
            assert process.poll() is None
            yield f"127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def answers(port: int) -> bool:
    try:
        psycopg.connect(f"postgresql://postgres:top@127.0.0.1:{port}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
def environment(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """What the setup of a cluster is given: URLs with passwords in files, and a tenant key."""
    given = {
        "MLCORE_DATABASE_URL": f"postgresql://mlcore_app:a%20secret@{server}/mlcore",
        "MLCORE_DATABASE_INGEST_URL": f"postgresql://mlcore_ingest:second@{server}/mlcore",
        "MLCORE_DATABASE_OWNER_URL": f"postgresql://migrations:third@{server}/mlcore",
        "MLCORE_DATABASE_TENANT_KEY": KEY,
    }
    for name, value in given.items():
        (tmp_path / name).write_text(f"{value}\n")
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    monkeypatch.setenv("MLCORE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PGPASSWORD", "top")
    return given


def test_a_server_becomes_a_registry_with_passwords(
    environment: dict[str, str], server: str, mlcore: Callable, tmp_path: Path
) -> None:
    """Four commands, each of which may be repeated, make a database whose walls are whole, and its first key."""
    key = ApiKey.generate()
    (tmp_path / "key").write_text(f"{key}\n")
    for _ in range(2):
        made = mlcore("db", "roles", "--url", f"postgresql://postgres@{server}/postgres")
        assert made.code == 0, made.err
        assert mlcore("db", "upgrade").code == 0
        told = mlcore("db", "tenant-key", "--set")
        assert told.code == 0, told.err
        assert KEY not in told.out
        told = mlcore("db", "platform-key", tmp_path / "key")
        assert told.out == f"The key {key.key_id} of the platform is valid.\n", told.err
    assert mlcore("keys", "list", "--platform", "--key", key).code == 0
    mlcore("keys", "revoke", "--platform", key.key_id)
    assert "was revoked" in mlcore("db", "platform-key", tmp_path / "key").out
    assert "migrations, mlcore_app, mlcore_ingest" in made.out
    checked = mlcore("db", "check")
    assert (checked.code, checked.err) == (0, ""), checked.out
    # Without the owner's URL, as a replica: the key of the settings is the registry's.
    settings = DatabaseSettings(
        url=environment["MLCORE_DATABASE_URL"], ingest_url=environment["MLCORE_DATABASE_INGEST_URL"], tenant_key=KEY
    )
    with DatabaseConnection(settings=Settings(settings)) as db:
        TenantRepository(db).create(TenantId("acme"))
    other = Settings(DatabaseSettings(url=settings.url, tenant_key="ab" * 32))
    with DatabaseConnection(settings=other) as db, pytest.raises(ConfigurationError, match="another tenant key"):
        TenantRepository(db).create(TenantId("acme"))


def test_a_changed_password_is_changed_in_the_database(
    environment: dict[str, str], server: str, mlcore: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one is refused from then on."""
    admin = ("db", "roles", "--url", f"postgresql://postgres@{server}/postgres")
    assert mlcore(*admin).code == 0
    changed = environment["MLCORE_DATABASE_URL"].replace("a%20secret", "changed")
    monkeypatch.setenv("MLCORE_DATABASE_URL", changed)
    assert mlcore(*admin).code == 0
    with DatabaseConnection(changed) as db:
        db.current_revision()
    with (
        DatabaseConnection(environment["MLCORE_DATABASE_URL"]) as db,
        pytest.raises(RegistryUnavailableError) as caught,
    ):
        db.current_revision()
    assert "password authentication failed" in str(caught.value)


def test_a_superuser_is_no_login_of_the_platform(
    environment: dict[str, str], server: str, mlcore: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would pass every policy, and its password would be replaced; without a URL there is nothing to make."""
    monkeypatch.setenv("MLCORE_DATABASE_URL", f"postgresql://postgres:new@{server}/mlcore")
    refused = mlcore("db", "roles", "--url", f"postgresql://postgres@{server}/postgres")
    assert refused.code != 0
    assert "is a superuser" in refused.err
    assert answers(int(server.partition(":")[2]))
    for name in list(os.environ):
        if name.startswith("MLCORE_DATABASE"):
            monkeypatch.delenv(name)
    refused = mlcore("db", "roles", "--url", f"postgresql://postgres@{server}/postgres")
    assert "embedded database makes its roles itself" in refused.err
