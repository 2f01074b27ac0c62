"""Tenants in the registry."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.tenant_policies import PredictionPolicy, SelfTestRows
from ml_core.exceptions import Action, InvalidRequestError, ModelNotFoundError, TenantExistsError, TenantNotFoundError
from ml_core.ids import TenantId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.tenants import TenantRepository, tenant_ids
from ml_core.system import MLSystem
from support.registry import new_tenant
from support.tables import measures, split_target


def test_a_tenant_is_created_once(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A second creation is an error that names it; ``ensure`` accepts what is there."""
    tenants = TenantRepository(db)
    with pytest.raises(TenantExistsError) as caught:
        tenants.create(tenant_id)
    assert caught.value.tenant_id == tenant_id
    tenants.ensure(tenant_id)


def test_an_unknown_tenant(db: DatabaseConnection) -> None:
    """``exists`` is false, the error of ``get`` has the action that creates it."""
    tenants, unknown = TenantRepository(db), TenantId("nobody")
    assert not tenants.exists(unknown)
    with pytest.raises(TenantNotFoundError, match="Create it first") as caught:
        tenants.get(unknown)
    assert caught.value.action == Action.of("tenants.create", tenant="nobody")
    assert tenants.find(unknown) is None


def test_the_embedded_server_creates_a_tenant_on_first_use(
    db: DatabaseConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the user's own; the log says so, once, and what may have been meant."""
    tenants, name = TenantRepository(db), TenantId("ensured")
    for given in (name, name, TenantId("ensuredd")):
        tenants.ensure(given)
        tenants.get(given)
    assert [record.getMessage() for record in caplog.records] == [
        "The tenant ensured did not exist and was created.",
        "The tenant ensuredd did not exist and was created. Did you mean ensured?",
    ]


def test_several_that_use_a_tenant_first_create_one(db: DatabaseConnection) -> None:
    """Whoever comes second finds it."""
    names = [TenantId(f"race{number}") for number in range(5)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(TenantRepository(db).ensure, [name for name in names for _ in range(8)]))
    assert [name for name in tenant_ids(db) if name.startswith("race")] == names


@pytest.fixture
def shared(db: DatabaseConnection) -> Iterator[DatabaseConnection]:
    """The same registry as one that was named by its URL: others may use it too."""
    database = replace(db.settings.database, url=db.urls.app, ingest_url=db.urls.ingest, owner_url=db.urls.owner)
    with DatabaseConnection(settings=replace(db.settings, database=database)) as connection:
        yield connection


WRITES = {
    "train_model": lambda system, _: system.train_model("m", None, split_target(measures(40), "outcome")),
    "trainer": lambda system, _: system.trainer.train("m", None, split_target(measures(40), "outcome")),
    "create_model": lambda system, file: system.create_model("m", "classification", str(file)),
    "register_model": lambda system, file: system.models.register_model("m", "classification", file),
    "register_version": lambda system, file: system.registry.register_version("m", "1", str(file)),
    "dataset": lambda system, _: system.datasets.create("d", measures(10)),
    "run": lambda system, _: system.runs.start("m"),
    "gate": lambda system, _: system.environments.protect("staging"),
    "key": lambda system, _: KeyRepository(system._db, system.tenant_id).create("k", ["predict"]),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_a_shared_database_gets_no_tenant_by_a_typo(shared: DatabaseConnection, tmp_path: Path, write: Any) -> None:
    """Whatever is written first: the error has the action that creates it, and neither a tenant nor a file was made."""
    X, y = split_target(measures(40), "outcome")
    path = tmp_path / "model.joblib"
    joblib.dump(LogisticRegression().fit(X, y), path)
    with MLSystem(shared, tenant_id="ghost") as system:
        with pytest.raises(TenantNotFoundError, match="Create it first") as caught:
            write(system, path)
        assert caught.value.tenant_id == "ghost"
        assert caught.value.action == Action.of("tenants.create", tenant="ghost")
        with pytest.raises(ModelNotFoundError, match="There is no tenant ghost"):
            system.predict("m", {"m0": 1.0})
    assert not TenantRepository(shared).exists(TenantId("ghost"))
    assert list(shared.settings.platform.artifact_root.rglob("*ghost*")) == []


def test_a_typo_of_a_tenant_is_corrected(shared: DatabaseConnection) -> None:
    """For an operator, who may know the others' names."""
    TenantRepository(shared).create(TenantId("spectral"))
    with pytest.raises(TenantNotFoundError, match="Did you mean spectral"):
        TenantRepository(shared).ensure(TenantId("spectrall"))


def test_tenants_are_listed_in_pages(db: DatabaseConnection) -> None:
    """Pages by name, each after the last name of the page before, give the whole list once."""
    tenants = TenantRepository(db)
    for _ in range(5):
        new_tenant(db)
    whole = list(tenant_ids(db))
    assert whole == sorted(whole)
    page = tenants.list(limit=2)
    paged = [tenant.tenant_id for tenant in page.items]
    while page.next_cursor is not None:
        page = tenants.list(limit=2, cursor=page.next_cursor)
        assert 1 <= len(page.items) <= 2
        paged += [tenant.tenant_id for tenant in page.items]
    assert paged == whole


def test_a_tenant_is_read_and_changed(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """With its policies; what is unknown is refused with what there is."""
    tenants = TenantRepository(db)
    before = tenants.get(tenant_id)
    assert (before.self_test_rows, before.prediction_policy, before.is_deleted) == ("training", "digest", False)
    after = tenants.update(tenant_id, self_test_rows="synthetic")
    PredictionRepository(db, tenant_id).set_policy("inputs")
    assert after == replace(before, self_test_rows=SelfTestRows.SYNTHETIC)
    assert tenants.get(tenant_id) == replace(after, prediction_policy=PredictionPolicy.INPUTS)
    with pytest.raises(InvalidRequestError, match="training, synthetic"):
        tenants.update(tenant_id, self_test_rows="none")
    with pytest.raises(TenantNotFoundError):
        tenants.update("nobody", self_test_rows="synthetic")
