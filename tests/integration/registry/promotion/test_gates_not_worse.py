"""The gate ``not_worse`` on real models and real rows: both versions answer the same held-out table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_core.database import tables
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.gates import parse_gate
from ml_core.domain.version import Lineage
from ml_core.evaluation import held_out
from ml_core.exceptions import (
    Action,
    DatasetInUseError,
    InvalidRequestError,
    PromotionRefusedError,
    RequestTooLargeError,
)
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.models.store import platform_store
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.gates import GateRepository, checked_gate
from ml_core.registry.versions.repository import VersionRepository
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from support.gated import PEOPLE, logistic, people, publish, somebody
from support.stored import wait_for_a_waiting_session

ACCURACY = {"dataset": "held_out", "target": "size", "metric": "accuracy", "margin": 0.03}


def held_out_table(n_rows: int = 400, seed: int = 99, noise: float = 0.1) -> pd.DataFrame:
    """Rows that no model was trained on, with their truth."""
    frame, truth = people(n_rows, seed, noise=noise)
    return frame.assign(size=truth, note="not a model's column")


@pytest.fixture
def datasets(db: DatabaseConnection, tenant_id: TenantId) -> DatasetRepository:
    """A good version in production, another good one, a bad one; held-out rows."""
    publish(db, tenant_id, "good", logistic(1, 0.1))
    publish(db, tenant_id, "as-good", logistic(2, 0.1))
    publish(db, tenant_id, "bad", logistic(3, 0.5))
    EnvironmentRepository(db, tenant_id).promote(PEOPLE, VersionId("good"), PRODUCTION, actor="me")
    datasets = DatasetRepository(db, tenant_id)
    datasets.create("held_out", held_out_table())
    return datasets


def gate(db: DatabaseConnection, tenant_id: TenantId, **settings: Any) -> None:
    GateRepository(db, tenant_id).set(PEOPLE, PRODUCTION, "no_worse", "not_worse", {**ACCURACY, **settings})


def promote(db: DatabaseConnection, tenant_id: TenantId, version: str, override: str | None = None) -> dict[str, Any]:
    """What the gate found, of a promotion that succeeds."""
    environments = EnvironmentRepository(db, tenant_id)
    environments.promote(PEOPLE, VersionId(version), PRODUCTION, actor="me", override=override)
    return dict(environments.history(PEOPLE, PRODUCTION).items[0].gates[0])


def refusal(db: DatabaseConnection, tenant_id: TenantId, version: str) -> dict[str, Any]:
    """What the gate found, of a promotion that it refuses."""
    with pytest.raises(PromotionRefusedError) as caught:
        promote(db, tenant_id, version)
    return dict(caught.value.attributes()["gates"][0])


def test_a_version_that_is_as_good_passes(
    db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository
) -> None:
    """Its interval's lower end is above minus the margin; the message has both values and the rows."""
    gate(db, tenant_id)
    found = promote(db, tenant_id, "as-good")
    assert found["passed"]
    assert -0.03 <= found["measured"] <= 0.01
    assert "400 rows of the dataset held_out@1" in found["message"]


def test_a_version_that_is_worse_is_refused(
    db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository
) -> None:
    """By the distance of the interval's lower end; an admin's reason overrides it."""
    gate(db, tenant_id)
    found = refusal(db, tenant_id, "bad")
    assert found["measured"] < -0.03
    assert found["required"] == -0.03
    assert f"{-0.03 - found['measured']:.4g} below" in found["message"]
    overridden = promote(db, tenant_id, "bad", override="an incident")
    assert overridden == found


def test_too_few_rows_can_not_show_it(db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository) -> None:
    """The same two versions on fewer rows: the interval is wider than the margin."""
    datasets.create("few", held_out_table(40, noise=0.3))
    gate(db, tenant_id, dataset="few", margin=0.001)
    assert not refusal(db, tenant_id, "as-good")["passed"]


@pytest.mark.parametrize(
    ("metric", "margin"),
    [("balanced_accuracy", 0.1), ("f1_macro", 0.1), ("log_loss", 0.15), ("brier_score", 0.05)],
)
def test_each_metric_of_classes_tells_good_from_bad(
    db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository, metric: str, margin: float
) -> None:
    """Also those of probabilities, where lower is better."""
    gate(db, tenant_id, metric=metric, margin=margin)
    assert refusal(db, tenant_id, "bad")["measured"] < -margin
    assert promote(db, tenant_id, "as-good")["passed"]


def test_numbers_are_compared_too(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Two regressions; lower is better of their error."""
    prices, (frame, _) = ModelId("prices"), people(300, 5)
    price = 3 * frame["height"] + frame["weight"]
    targets = {"exact": price, "rough": price + np.random.default_rng(0).normal(size=300) * 9}
    for version, target in targets.items():
        hyperparameters = {"algorithm": "linear_regression"}
        request = TrainingRequest(prices, "regression", (frame, target), hyperparameters=hyperparameters)
        publish(db, tenant_id, version, fit_model(request))
    DatasetRepository(db, tenant_id).create("prices", frame.assign(price=price))
    environments, gates = EnvironmentRepository(db, tenant_id), GateRepository(db, tenant_id)
    environments.promote(prices, VersionId("rough"), PRODUCTION, actor="me")
    settings = {"dataset": "prices", "target": "price", "margin": 0.01}
    for metric in ("mae", "mse", "rmse", "r2"):
        gates.set(prices, PRODUCTION, metric, "not_worse", {**settings, "metric": metric})
    environments.promote(prices, VersionId("exact"), PRODUCTION, actor="me")
    with pytest.raises(PromotionRefusedError) as caught:
        environments.promote(prices, VersionId("rough"), PRODUCTION, actor="me")
    assert [found["passed"] for found in caught.value.attributes()["gates"]] == [False] * 4


def test_nothing_to_compare_with_passes_and_says_so(
    db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository
) -> None:
    """The first version of an environment, the one that it serves already, and the one that it served last."""
    gate(db, tenant_id)
    staging = EnvironmentName("staging")
    GateRepository(db, tenant_id).set(PEOPLE, staging, "no_worse", "not_worse", ACCURACY)
    platform_store(db.settings).delete(tenant_id, datasets.get("held_out").digest)  # it is not even read
    environments = EnvironmentRepository(db, tenant_id)
    environments.promote(PEOPLE, VersionId("bad"), staging, actor="me")
    assert "serves no version yet" in environments.history(PEOPLE, staging).items[0].gates[0]["message"]
    assert "serves this version already" in promote(db, tenant_id, "good")["message"]
    environments.withdraw(PEOPLE, PRODUCTION, actor="me")
    assert "served this version last" in promote(db, tenant_id, "good")["message"]


def test_the_rows_are_those_that_were_newest_when_the_gate_was_set(
    db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository
) -> None:
    """Whoever may train registers datasets too: a table of theirs must not become what the gate measures on."""
    gate(db, tenant_id)
    (record,) = GateRepository(db, tenant_id).list(PEOPLE)
    assert record.settings["number"] == 1
    trainer = somebody(db, "trainer", Scope.TRAIN, Scope.PROMOTE)
    frame, _ = people(400, 99)
    answers = logistic(3, 0.5).pipeline.predict(frame)
    assert DatasetRepository(trainer, tenant_id).create("held_out", frame.assign(size=answers)).number == 2
    assert "held_out@1" in refusal(trainer, tenant_id, "bad")["message"]
    gate(db, tenant_id)
    assert "held_out@2" in promote(db, tenant_id, "bad")["message"]


def test_a_version_that_was_trained_on_the_held_out_rows_is_refused(
    db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository
) -> None:
    """By its lineage: what it answers to them shows nothing. The same rows under another name are the same."""
    digest = datasets.get("held_out").digest
    publish(db, tenant_id, "leaked", logistic(4, 0.0), lineage=Lineage(dataset_digest=digest))
    gate(db, tenant_id, margin=0.5)
    assert "was trained on held_out@1" in refusal(db, tenant_id, "leaked")["message"]
    datasets.create("copy", held_out_table())
    gate(db, tenant_id, margin=0.5, dataset="copy")
    assert "was trained on copy@1" in refusal(db, tenant_id, "leaked")["message"]


@pytest.mark.parametrize(
    ("settings", "field", "words"),
    [
        ({"dataset": "heldout"}, "settings.dataset", "Did you mean held_out?"),
        ({"target": "siez"}, "settings.target", "Did you mean size?"),
        ({"number": 2}, "settings.number", "has no version 2"),
        ({"metric": "acuracy"}, "settings.metric", "Did you mean accuracy?"),
    ],
)
def test_a_typo_is_refused_when_the_gate_is_set(
    db: DatabaseConnection,
    tenant_id: TenantId,
    datasets: DatasetRepository,
    settings: dict[str, Any],
    field: str,
    words: str,
) -> None:
    """It would refuse each promotion later; no gate is left behind."""
    with pytest.raises(InvalidRequestError) as caught:
        gate(db, tenant_id, **settings)
    assert caught.value.field == field
    assert words in str(caught.value)
    assert GateRepository(db, tenant_id).list(PEOPLE) == []


def test_an_archived_dataset_is_refused_when_the_gate_is_set(
    db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository
) -> None:
    """It may be collected any day; by its number, and where it was the only version."""
    datasets.archive("held_out", 1)
    with pytest.raises(InvalidRequestError, match="archived") as caught:
        gate(db, tenant_id, number=1)
    action = Action.of("datasets.restore", tenant=tenant_id, dataset="held_out", number=1)
    assert caught.value.action == action
    with pytest.raises(InvalidRequestError, match="archived"):
        gate(db, tenant_id)


def test_a_dataset_is_not_deleted_while_a_gate_on_it_is_being_set(
    db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository
) -> None:
    """The deletion waits for the gate, then is refused: it can't have looked before the gate was there."""
    rule = parse_gate("no_worse", "not_worse", ACCURACY)
    with ThreadPoolExecutor() as threads, db.tenant(tenant_id) as connection:
        kept = checked_gate(connection, tenant_id, PEOPLE, rule)
        deletion = threads.submit(datasets.delete, "held_out", 1)
        wait_for_a_waiting_session(db)
        values = {"model_id": PEOPLE, "environment": PRODUCTION, "created_by": "me"}
        values |= {"name": kept.name, "kind": kept.kind.value, "settings": kept.settings}
        connection.execute(tables.gates.insert().values(tenant_id=tenant_id, **values))
    with pytest.raises(DatasetInUseError, match="no_worse"):
        deletion.result(30)
    assert datasets.get("held_out").number == 1


def test_of_many_rows_some_are_drawn(db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository) -> None:
    """With the seed, so that the same question has the same answer; the message says it."""
    gate(db, tenant_id, max_rows=200, margin=0.1)
    found = promote(db, tenant_id, "as-good")
    assert "200 of 400 rows (drawn with the seed 0) of the dataset held_out@1" in found["message"]
    EnvironmentRepository(db, tenant_id).rollback(PEOPLE, PRODUCTION, actor="me")
    assert promote(db, tenant_id, "as-good") == found


def test_rows_without_a_truth_are_left_out(
    db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository
) -> None:
    """Null and blank are no label."""
    table = held_out_table()
    table.loc[:99, "size"] = None
    table.loc[100:149, "size"] = " "
    datasets.create("held_out", table)
    gate(db, tenant_id, margin=0.2)
    assert "250 rows" in promote(db, tenant_id, "as-good")["message"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"dataset": "tiny"}, "29 rows"),
        ({"dataset": "unfit"}, "'height'"),
        ({"metric": "mae"}, "it answers classes"),
    ],
)
def test_what_keeps_the_gate_from_being_evaluated_refuses(
    db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository, settings: dict[str, Any], reason: str
) -> None:
    """A version is not let pass because nobody could look; the reason is told."""
    datasets.create("tiny", held_out_table(29))
    datasets.create("unfit", held_out_table().assign(height="tall"))
    gate(db, tenant_id, **settings)
    found = refusal(db, tenant_id, "as-good")
    assert "could not be evaluated" in found["message"]
    assert reason in found["message"]


def test_a_version_that_can_not_be_loaded_is_refused(
    db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository
) -> None:
    """Its bytes are gone, so it can't answer."""
    version = VersionRepository(db, tenant_id).get(PEOPLE, VersionId("as-good"))
    platform_store(db.settings).delete(tenant_id, version.servable.digest)
    gate(db, tenant_id)
    assert "missing" in refusal(db, tenant_id, "as-good")["message"]


def test_a_dataset_that_is_too_large_is_refused_unread(
    db: DatabaseConnection, tenant_id: TenantId, datasets: DatasetRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its row count in the registry: its file need not even be there. A gate that is set later is not set."""
    gate(db, tenant_id)
    monkeypatch.setattr(held_out, "MAX_DATASET_ROWS", 399)
    platform_store(db.settings).delete(tenant_id, datasets.get("held_out").digest)
    assert "has 400 rows, more than 399" in refusal(db, tenant_id, "as-good")["message"]
    with pytest.raises(RequestTooLargeError, match="has 400 rows, more than 399") as caught:
        gate(db, tenant_id)
    assert caught.value.attributes() == {"limit": 399, "actual": 400}
