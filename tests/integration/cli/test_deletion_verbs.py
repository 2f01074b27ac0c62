"""``gc``, ``fsck``, ``holds`` and ``tenants delete`` on the command line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import ModelVersion
from ml_core.ids import TenantId
from ml_core.models.store import platform_store
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, settings_for
from support.stored import publish


@pytest.fixture
def version(cli_home: Path, tenant: str, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    """An archived version of the tenant; the retention and the grace are over at once."""
    monkeypatch.setenv("MLCORE_RETENTION_DAYS", "0.0000001")
    monkeypatch.setenv("MLCORE_ORPHAN_GRACE_S", "0.000001")
    settings = settings_for(cli_home)
    with DatabaseConnection(settings=settings) as db:
        found = publish(db, TenantId(tenant), platform_store(settings))
        VersionRepository(db, TenantId(tenant)).archive(TICKETS, found.version)
    return found


def artifact(home: Path, version: ModelVersion) -> Path:
    digest = version.servable.digest
    return home / "artifacts" / version.tenant_id / digest[:2] / digest


def test_gc_lists_then_collects(mlcore, cli_home: Path, tenant: str, version: ModelVersion) -> None:
    """``--dry-run`` shows what goes and leaves it; the run removes just that; a third finds nothing."""
    dry = mlcore("gc", "--tenant", tenant, "--dry-run", "--json")
    assert dry.code == 0
    assert artifact(cli_home, version).exists()
    assert {item["kind"]: item["size_bytes"] for item in dry.json["items"]} == {
        "version": None,
        "artifact": version.servable.size_bytes,
    }
    assert "prediction_log" not in dry.json  # it is pruned for all tenants together
    done = mlcore("gc", "--tenant", tenant, "--json").json
    assert [item["name"] for item in done["items"]] == [item["name"] for item in dry.json["items"]]
    assert done["freed_bytes"] == dry.json["freed_bytes"] == version.servable.size_bytes
    assert not artifact(cli_home, version).exists()
    assert "nothing to collect" in mlcore("gc", "--tenant", tenant).out


def test_gc_of_all_tenants(mlcore, cli_home: Path, version: ModelVersion) -> None:
    """Without a tenant every one is collected, and the prediction log is pruned."""
    done = mlcore("gc")
    assert done.code == 0, done.err
    assert "Freed" in done.out
    assert not artifact(cli_home, version).exists()
    assert mlcore("gc", "--json").json["prediction_log"] is not None


def test_a_hold_keeps_and_releases(mlcore, cli_home: Path, tenant: str, version: ModelVersion) -> None:
    """What is held is told as kept; after the release it goes."""
    key = ("--tenant", tenant, "--model", "tickets", "--version", version.version)
    assert mlcore("holds", "place", "legal", *key, "--reason", "case 4711").code == 0
    assert [row["name"] for row in mlcore("holds", "list", "--tenant", tenant, "--json").json["items"]] == ["legal"]
    assert "needed by hold:legal" in mlcore("gc", "--tenant", tenant).out
    assert artifact(cli_home, version).exists()
    assert "holds release" in mlcore("tenants", "delete", tenant, "--yes").err
    assert mlcore("holds", "release", "legal", *key).code == 0
    assert mlcore("gc", "--tenant", tenant).code == 0
    assert not artifact(cli_home, version).exists()
    assert "There is no hold" in mlcore("holds", "list", "--tenant", tenant).out


def test_what_a_rollback_needs_is_kept_until_it_is_restored(
    mlcore, cli_home: Path, tenant: str, version: ModelVersion
) -> None:
    """Both the collection and the rollback say to restore it; then the rollback works."""
    key = ("--tenant", tenant, "--model", "tickets")
    with DatabaseConnection(settings=settings_for(cli_home)) as db:
        newer = publish(db, TenantId(tenant), platform_store(db.settings)).version
    mlcore("versions", "restore", *key, "--version", version.version)
    for name in (version.version, newer):
        assert mlcore("promote", *key, "--version", name).code == 0
    mlcore("versions", "archive", *key, "--version", version.version)
    assert "needed by rollback:production (restore it before you roll back to it)" in mlcore("gc", *key[:2]).out
    refused = mlcore("rollback", *key)
    assert (refused.code, f"mlcore versions restore {' '.join(key)} --version" in refused.err) == (1, True)
    mlcore("versions", "restore", *key, "--version", version.version)
    assert mlcore("rollback", *key, "--json").json["version"] == version.version


def test_fsck_says_and_mends(mlcore, cli_home: Path, tenant: str, version: ModelVersion, tmp_path: Path) -> None:
    """Clean is 0; a lost artifact is 1 with the remedy; a copy that is named mends it, and clean is 0 again."""
    assert mlcore("fsck", "--tenant", tenant).code == 0
    path = artifact(cli_home, version)
    copy = tmp_path / tenant / path.parent.name / path.name
    copy.parent.mkdir(parents=True)
    path.rename(copy)
    broken = mlcore("fsck", "--tenant", tenant)
    assert broken.code == 1
    assert "missing" in broken.out
    assert "mlcore fsck --repair" in broken.out
    assert "from a folder with copies" in broken.out
    assert mlcore("fsck", "--tenant", tenant, "--repair").code == 1
    mended = mlcore("fsck", "--tenant", tenant, "--repair", "--from", tmp_path, "--json")
    assert (mended.code, [finding["repaired"] for finding in mended.json["findings"]]) == (0, [True])
    assert mlcore("fsck", "--tenant", tenant, "--quick").code == 0


@pytest.mark.parametrize("typed", ["another\n", ""])
def test_deleting_a_tenant_asks_first(
    mlcore, cli_home: Path, tenant: str, version: ModelVersion, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the tenant's name, typed, nothing is deleted; with --yes everything is, counted and told."""
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert mlcore("tenants", "delete", tenant).code != 0
    assert artifact(cli_home, version).exists()
    done = mlcore("tenants", "delete", tenant, "--yes", "--json").json
    assert done["rows"]["versions"] == 1
    assert done["artifacts"] == {"count": 1, "bytes": version.servable.size_bytes}
    assert not artifact(cli_home, version).exists()
    assert "never used again" in mlcore("tenants", "create", tenant).err
    assert (
        "was deleted" in mlcore("gc", "--tenant", tenant, "--dry-run").out + mlcore("models", "list", "-t", tenant).err
    )


def test_a_tenant_that_is_not_there(mlcore) -> None:
    """Each verb says so."""
    for verb in (
        ("gc", "--tenant", "nobody"),
        ("fsck", "--tenant", "nobody"),
        ("tenants", "delete", "nobody", "--yes"),
    ):
        result = mlcore(*verb)
        assert result.code == 1
        assert "There is no tenant nobody" in result.err


def test_a_version_is_archived_restored_and_deleted(mlcore, cli_home: Path, tenant: str, version: ModelVersion) -> None:
    """The verbs of a version's life, and what the table forbids is said."""
    key = ("--tenant", tenant, "--model", "tickets", "--version", version.version)
    assert mlcore("versions", "restore", *key).code == 0
    assert len(mlcore("versions", "list", *key[:4], "--json").json["items"]) == 1
    assert mlcore("versions", "archive", *key).code == 0
    assert mlcore("versions", "list", *key[:4], "--json").json["items"] == []
    assert mlcore("versions", "delete", *key).code == 0
    assert not artifact(cli_home, version).exists()
    assert "was deleted" in mlcore("versions", "restore", *key).err
