"""What keeps bytes and versions is in one list, and the list has every table that could."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import metadata, versions
from ml_core.domain.version import Lineage
from ml_core.exceptions import VersionInUseError
from ml_core.ids import TenantId
from ml_core.models.store import LocalStore
from ml_core.registry.blobs import count_holders, is_needed
from ml_core.registry.collection.holds import HoldRepository
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.rollouts import RolloutRepository
from ml_core.registry.references import REFERENCES, dataset_references, references
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, register
from support.stored import publish


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


def listed(key: str) -> set[tuple[str, str]]:
    """Table and column of each role that keeps something by this key."""
    found = set()
    for role in REFERENCES.element.selects:  # type: ignore[attr-defined]
        column = role.selected_columns[key].element
        if isinstance(column, sa.Column):
            found.add((column.table.name, column.name))
    return found


def test_every_table_that_names_bytes_keeps_them() -> None:
    """A table with a digest and its size needs the bytes: one that is not listed would lose them."""
    named = {
        (table.name, column)
        for table in metadata.tables.values()
        for column in table.c.keys()  # noqa: SIM118 - a collection of columns iterates over columns
        if column.endswith("digest") and f"{column.removesuffix('digest')}size_bytes" in table.c
    }
    assert named >= {("versions", "digest"), ("versions", "compiled_digest")}
    assert listed("digest") == named


def test_every_foreign_key_to_a_version_keeps_it() -> None:
    """But for rows that go with the version. A parent has no foreign key, and is listed as well."""
    keys = {
        (constraint.parent.name, constraint.column_keys[-1])
        for table in metadata.tables.values()
        for constraint in table.foreign_key_constraints
        if constraint.referred_table is versions and constraint.ondelete is None
    }
    named = {(table, "version" if column == "name" else column) for table, column in keys}
    assert listed("version") == named | {("versions", "parent_version")}


def test_what_keeps_a_version(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Every role by its name and holder; rollbacks only where no roles are asked for."""
    for name in ("1", "2", "3", "4"):
        register(db, tenant_id, name)
    register(db, tenant_id, "5", lineage=Lineage(parent_version="2"))
    environments, rollouts = EnvironmentRepository(db, tenant_id), RolloutRepository(db, tenant_id)
    environments.promote(TICKETS, "1", PRODUCTION)
    environments.promote(TICKETS, "2", PRODUCTION)
    rollouts.start(TICKETS, "3", environment=PRODUCTION, percent=10)
    rollouts.shadow(TICKETS, "4", environment=PRODUCTION)
    HoldRepository(db, tenant_id).place(TICKETS, "3", "legal", "case 4711")
    with db.tenant(tenant_id) as connection:
        found = references(connection, tenant_id, [TICKETS])
        served = references(connection, tenant_id, [TICKETS], roles=["environment", "canary", "shadow"])
    assert {(each.version, str(each)) for each in found} == {
        ("1", "rollback:production"),
        ("2", "environment:production"),
        ("2", "version:5"),
        ("3", "canary:production"),
        ("3", "hold:legal"),
        ("4", "shadow:production"),
    }
    assert {each.version for each in served} == {"2", "3", "4"}
    with pytest.raises(VersionInUseError, match=r"is served by production\.") as caught:
        VersionRepository(db, tenant_id).delete(TICKETS, "2")
    assert caught.value.action is not None
    assert caught.value.action.operation == "environments.withdraw"


def test_what_keeps_bytes_and_datasets(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, store: LocalStore
) -> None:
    """Rows of three kinds may share the same bytes, and each counts; another tenant's do not."""
    dataset = DatasetRepository(db, tenant_id, store).create("d", {"x": [1]})
    data = store.read(tenant_id, dataset.digest, dataset.size_bytes)
    version = publish(db, tenant_id, store, lineage=Lineage(dataset_digest=dataset.digest))
    runs = RunRepository(db, tenant_id, store=store)
    runs.artifacts.log(runs.start(TICKETS), "d.parquet", data)
    with db.tenant(tenant_id) as connection:
        assert count_holders(connection, tenant_id, [dataset.digest]) == {dataset.digest: 2}
        assert dataset_references(connection, tenant_id, [dataset.digest], ["d"]) == {
            dataset.digest: [f"version:tickets@{version.version}"]
        }
    with db.tenant(other_tenant_id) as connection:
        assert not is_needed(connection, other_tenant_id, dataset.digest)


def test_the_artifact_of_a_version_is_a_verified_file(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore
) -> None:
    """Its bytes are those that were registered; the version names their digest, size and format."""
    version = publish(db, tenant_id, store, "content")
    path = VersionRepository(db, tenant_id, store).artifact(TICKETS, version.version)
    assert path.read_bytes() == b"content"
    assert (version.digest, version.size_bytes, version.format) == (version.servable.digest, 7, "skops/1")
