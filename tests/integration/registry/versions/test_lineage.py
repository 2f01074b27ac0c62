"""Lineage in both directions, and what two versions differ in."""

from __future__ import annotations

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import Lineage
from ml_core.exceptions import ModelNotFoundError
from ml_core.ids import TenantId, VersionId
from ml_core.registry.model_registry import ModelRegistry
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.versions import lineage
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, register

DATA = "d" * 64


@pytest.fixture
def family(db: DatabaseConnection, tenant_id: TenantId) -> VersionRepository:
    """1 ← 2 ← 3 and 1 ← 4, all trained on the same table."""
    for name, parent in (("1", None), ("2", "1"), ("3", "2"), ("4", "1")):
        register(db, tenant_id, name, lineage=Lineage(None, DATA, parent, "c" * 40, {"numpy": name}))
    return VersionRepository(db, tenant_id)


def test_upstream_is_the_whole_chain(family: VersionRepository) -> None:
    """Parent first, then its parent, with what the version itself was made from."""
    found = family.lineage(TICKETS, VersionId("3"))
    assert found["ancestors"] == ["2", "1"]
    assert (found["parent_version"], found["dataset_digest"], found["code_commit"]) == ("2", DATA, "c" * 40)
    assert found["libraries"] == {"numpy": "3"}


def test_downstream_is_everything_that_was_made_from_it(family: VersionRepository) -> None:
    """Children are those that name it; descendants theirs as well."""
    found = family.lineage(TICKETS, VersionId("1"))
    assert found["children"] == ["2", "4"]
    assert found["descendants"] == ["2", "3", "4"]
    assert found["ancestors"] == []


def test_a_long_line_is_bounded_to_the_nearest(family: VersionRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model may be retrained a hundred thousand times, each time from the version before."""
    monkeypatch.setattr(lineage, "_MOST", 2)
    found = family.lineage(TICKETS, VersionId("1"))
    assert (found["children"], found["descendants"]) == (["2", "4"], ["2", "4"])
    monkeypatch.setattr(lineage, "_MOST", 1)
    assert family.lineage(TICKETS, VersionId("3"))["ancestors"] == ["2"]


def test_downstream_names_what_serves_it(
    db: DatabaseConnection, tenant_id: TenantId, family: VersionRepository
) -> None:
    """An environment counts as long as it points to the version."""
    environments = EnvironmentRepository(db, tenant_id)
    environments.promote(TICKETS, VersionId("2"), PRODUCTION, actor="me")
    assert family.lineage(TICKETS, VersionId("2"))["environments"] == ["production"]
    environments.promote(TICKETS, VersionId("3"), PRODUCTION, actor="me")
    assert family.lineage(TICKETS, VersionId("2"))["environments"] == []


def test_another_tenants_version_has_no_lineage_here(
    db: DatabaseConnection, family: VersionRepository, other_tenant_id: TenantId
) -> None:
    """As for what does not exist."""
    with pytest.raises(ModelNotFoundError):
        VersionRepository(db, other_tenant_id).lineage(TICKETS, VersionId("1"))


def test_libraries_that_differ_are_compared(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Both versions of each library that is not the same; the others are left out."""
    register(db, tenant_id, "1", lineage=Lineage(libraries={"numpy": "2.1", "scikit-learn": "1.6"}))
    register(db, tenant_id, "2", lineage=Lineage(libraries={"numpy": "2.2", "scikit-learn": "1.6"}))
    compared = ModelRegistry(db, tenant_id).compare_versions("tickets", "1", "2")
    assert compared["libraries"] == {"numpy": {"version1": "2.1", "version2": "2.2"}}
