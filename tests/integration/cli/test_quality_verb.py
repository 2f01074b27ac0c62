"""``mlcore quality``, and a schedule on drift, against a platform without replicas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.registry.datasets import DatasetRepository
from ml_core.system import MLSystem
from support.live import LiveModel
from support.tables import measures, split_target

OVER_HTTP = True

RULE = ("--on-drift", "production", "--drift-rule", "canary_percent=10", "--drift-rule", "collect_labels=true")
JOB = ("--", "train", "-m", "m", "--dataset", "d", "--target", "outcome", "-p", "algorithm=logistic_regression")


@pytest.fixture
def model(registry: DatabaseConnection, tenant: str) -> LiveModel:
    """A model that is served, whose inputs are kept."""
    system = MLSystem(registry, tenant_id=tenant)
    data = split_target(measures(600), "outcome")
    system.train_model("m", "classification", data, hyperparameters={"algorithm": "logistic_regression"})
    system.promote("m", "1")
    made = LiveModel(registry, system, "m")
    made.keep()
    return made


@pytest.mark.both_doors
def test_quality_and_drift_are_shown_and_an_alert_is_an_exit_code(mlcore: Callable, tenant: str, model) -> None:
    """0 while all is well; 3 once it is not, for those who ask for it."""
    asked = ("quality", "-m", "m", "-t", tenant)
    nothing = mlcore(*asked, "--fail-on-alert")
    assert (nothing.code, "Nothing was answered" in nothing.out) == (0, True), nothing.err
    X, y = split_target(measures(400, seed=1), "outcome")
    model.ask(X, y)
    well = mlcore(*asked, "--fail-on-alert")
    assert well.code == 0, well.err
    assert "Quality of m in production, version 1: ok." in well.out
    assert "accuracy" in well.out
    model.ask(X.assign(m0=X["m0"] + 3.0), np.where(y == "yes", "no", "yes"))
    assert mlcore(*asked).code == 0
    bad = mlcore(*asked, "--fail-on-alert")
    assert bad.code == 3
    assert "version 1: alert." in bad.out
    found = mlcore(*asked, "--fail-on-alert", "--json")
    assert (found.code, found.json["alert"]) == (3, True)
    assert found.json["quality"]["days"][0]["labels"] == 800
    assert [each["name"] for each in found.json["drift"]["columns"] if each["verdict"] == "alert"] == ["m0"]


def test_what_can_not_be_asked_is_said(mlcore: Callable, tenant: str, model) -> None:
    """A model or environment that serves nothing, and too many days."""
    refused = mlcore("quality", "-m", "nosuch", "-t", tenant)
    assert (refused.code, "nosuch" in refused.err) == (1, True)
    assert mlcore("quality", "-m", "m", "-e", "staging", "-t", tenant).code == 1
    assert mlcore("quality", "-m", "m", "-t", tenant, "--days", "93").code == 2


def test_a_schedule_on_drift_has_its_rule(mlcore: Callable, tenant: str, registry: DatabaseConnection) -> None:
    """With what was given, and the rest by default; a rule that does not exist is named."""
    DatasetRepository(registry, tenant).create("d", measures(40))
    create = ("schedules", "create", "watch", "-t", tenant, "--cron", "0 * * * *")
    made = mlcore(*create, *RULE, *JOB)
    assert made.code == 0, made.err
    rule = mlcore("schedules", "show", "watch", "-t", tenant, "--json").json["on_drift"]
    assert (rule["environment"], rule["canary_percent"], rule["collect_labels"], rule["days"]) == (
        *("production", 10, True),
        7,
    )
    mlcore("schedules", "delete", "watch", "-t", tenant)
    wrong = mlcore(*create, "--on-drift", "production", "--drift-rule", "percent=5", *JOB)
    assert (wrong.code, "percent" in wrong.err) == (1, True)
    alone = mlcore(*create, "--drift-rule", "days=5", *JOB)
    assert (alone.code, "Give --on-drift" in alone.err) == (1, True)
