"""Live quality and drift of a served model, through the library, from the prediction log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from sklearn.metrics import accuracy_score, mean_absolute_error, r2_score

from ml_core.database import connection
from ml_core.domain.quality import Verdict
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.exceptions import InvalidRequestError, ModelNotFoundError, RequestTooLargeError
from ml_core.monitoring import measuring
from ml_core.monitoring.measuring import Measuring
from ml_core.monitoring.quality import Quality
from ml_core.registry.predictions.live import LiveRows, Window
from ml_core.registry.tenants import TenantRepository
from ml_core.system import MLSystem
from support.live import LiveModel, days_ago
from support.tables import split_target, tickets


@pytest.fixture
def system(db, tenant_id):
    """A tenant's own system."""
    with MLSystem(db, tenant_id=tenant_id) as made:
        yield made


def live(db, system, frame, target, model_type="classification", algorithm="logistic_regression") -> LiveModel:
    """A model that was trained on a table and is served."""
    data = split_target(frame, target)
    made = system.train_model("m", model_type, data, hyperparameters={"algorithm": algorithm})
    system.promote("m", made["version"])
    model = LiveModel(db, system, "m")
    model.keep()
    return model


def test_metrics_are_those_of_the_answers_that_have_a_label(db, system) -> None:
    """Per day, beside the held-out ones; rows without a label count as rows only."""
    model = live(db, system, tickets(300), "category")
    X, y = split_target(tickets(200, seed=1), "category")
    wrong = y.where(np.arange(200) % 4 > 0, "nobody knows")
    answers = model.ask(X, wrong)["1"]
    model.ask(X[:50], at=days_ago(1))
    report = system.quality.report("m")
    today, yesterday = report.days
    assert (today.rows, today.labels, today.measured) == (200, 200, 200)
    assert today.metrics["accuracy"] == pytest.approx(np.mean(np.asarray(wrong) == answers))
    assert today.low < today.score.value < today.high
    assert (yesterday.rows, yesterday.labels, yesterday.metrics, yesterday.verdict) == (50, 0, {}, Verdict.UNKNOWN)
    assert today.day - yesterday.day == timedelta(days=1)
    held_out = system.registry.versions.get("m").metrics["validation"]
    assert report.held_out["1"] == held_out
    assert today.verdict is report.verdict is Verdict.ALERT, "a quarter of the labels is wrong"
    assert [day.rows for day in system.quality.report("m", days=1).days] == [200]


def test_an_unchanged_stream_raises_no_alert(db, system) -> None:
    """Of every kind of column, with missing values and dates."""
    model = live(db, system, tickets(600), "category")
    X, y = split_target(tickets(600, seed=2), "category")
    model.ask(X, y)
    drift = system.quality.drift("m")
    assert system.quality.report("m").verdict is drift.verdict is Verdict.OK
    assert (drift.rows, drift.sampled, drift.prediction.verdict) == (600, 600, Verdict.OK)
    assert {each.name for each in drift.columns} == {"subject", "opened", "priority", "minutes_open", "is_paying"}
    assert {each.verdict for each in drift.columns} == {Verdict.OK}


def test_a_changed_column_is_named(db, system) -> None:
    """The first of the list, with what is missing and unseen; the others are no alert."""
    model = live(db, system, tickets(600), "category")
    X, _ = split_target(tickets(400, seed=2), "category")
    X["priority"] = np.where(np.arange(400) % 2, "urgent", X["priority"])
    X.loc[:, "minutes_open"] = np.nan
    model.ask(X)
    drift = system.quality.drift("m")
    assert drift.verdict is Verdict.ALERT
    assert {each.name for each in drift.columns if each.verdict is Verdict.ALERT} == {"priority", "minutes_open"}
    by_name = {each.name: each for each in drift.columns}
    assert by_name["priority"].unseen == pytest.approx(0.5)
    assert by_name["minutes_open"].missing_now == 1.0


def test_a_regression_is_measured_on_a_sample(db, system, monkeypatch) -> None:
    """With the metrics of training; labels that are no numbers do not count, and a note says so."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"x": random.normal(size=600), "y": random.normal(size=600)})
    frame["price"] = 3 * frame["x"] + random.normal(scale=0.1, size=600)
    model = live(db, system, frame, "price", "regression", "ridge")
    X = frame[["x", "y"]]
    answers = model.ask(X, frame["price"])["1"]
    (day,) = system.quality.report("m").days
    assert day.metrics["mae"] == pytest.approx(mean_absolute_error(frame["price"], answers))
    assert day.metrics["r2"] == pytest.approx(r2_score(frame["price"], answers))
    assert (day.score.metric, day.verdict) == ("mae", Verdict.OK)
    model.ask(X[:50], ["?"] * 50)
    report = system.quality.report("m")
    (day,) = report.days
    assert (day.labels, day.measured) == (650, 600)
    assert report.notes == ("50 labels of version 1 are not numbers; they do not count.",)
    monkeypatch.setattr(measuring, "MAX_SAMPLE", 200)
    (day,) = system.quality.report("m").days
    assert 100 < day.measured < 200
    drift = system.quality.drift("m")
    assert 100 <= drift.sampled <= 200 < drift.rows
    assert drift.prediction.test == "ks"


def test_what_is_not_kept_is_said(db, system, tenant_id) -> None:
    """By the policy of the tenant; the predictions are compared without inputs too."""
    model = live(db, system, tickets(600), "category")
    assert "Nothing was answered" in system.quality.report("m").notes[0]
    model.keep(PredictionPolicy.NOTHING)
    assert "keeps no predictions" in system.quality.drift("m").notes[0]
    model.keep(PredictionPolicy.DIGEST)
    model.ask(split_target(tickets(200, seed=3), "category")[0])
    drift = system.quality.drift("m")
    assert {each.verdict for each in drift.columns} == {Verdict.UNKNOWN}
    assert drift.prediction.verdict is Verdict.OK
    assert "inputs are not kept" in drift.notes[0]
    assert "No label" in system.quality.report("m").notes[0]


def test_a_version_trained_on_a_dataset_is_compared_with_its_profile(db, system, tenant_id) -> None:
    """Also where the tenant keeps no cells of training data in its versions."""
    TenantRepository(db).update(tenant_id, self_test_rows="synthetic")
    system.datasets.create("d", tickets(400))
    made = system.train_model(
        "m", None, dataset="d", target="category", hyperparameters={"algorithm": "logistic_regression"}
    )
    system.promote("m", made["version"])
    model = LiveModel(db, system, "m")
    model.keep()
    model.ask(split_target(tickets(200, seed=3), "category")[0])
    drift = system.quality.drift("m")
    assert drift.trained_rows == 400
    assert {each.verdict for each in drift.columns} == {Verdict.OK}


def test_versions_and_environments_are_apart(db, system) -> None:
    """What staging answered, or another version, is not that of production."""
    model = live(db, system, tickets(300), "category")
    X, y = split_target(tickets(100, seed=1), "category")
    model.ask(X, y)
    system.train_model("m", None, split_target(tickets(300, seed=5), "category"))
    system.promote("m", "2")
    LiveModel(db, system, "m").ask(X[:40], y[:40])
    report = system.quality.report("m")
    assert [(day.version, day.rows) for day in report.days] == [("1", 100), ("2", 40)]
    assert report.version == "2"
    assert set(report.held_out) == {"1", "2"}
    scores = system.quality.scores("m", "production", ["1", "2"], datetime.now(UTC) - timedelta(hours=1))
    assert {name: score.rows for name, score in scores.items()} == {"1": 100, "2": 40}
    system.promote("m", "1", "staging")
    assert system.quality.report("m", "staging").days == []


def test_accuracy_is_the_one_of_scikit_learn_for_classes_that_are_numbers(db, system) -> None:
    """A label that came as text is the same class."""
    frame = tickets(300)
    frame["category"] = frame["category"].map({"account": 0, "billing": 1, "bug": 2})
    model = live(db, system, frame, "category")
    X, y = split_target(frame, "category")
    answers = model.ask(X, [str(label) if row % 2 else label for row, label in enumerate(y)])["1"]
    (day,) = system.quality.report("m").days
    assert day.metrics["accuracy"] == pytest.approx(accuracy_score(y, answers))


def test_another_tenant_sees_nothing(db, system, other_tenant_id) -> None:
    """Neither the model nor its rows."""
    model = live(db, system, tickets(120), "category")
    model.ask(split_target(tickets(40), "category")[0])
    with pytest.raises(ModelNotFoundError):
        Quality(db, other_tenant_id).report("m")
    with pytest.raises(ModelNotFoundError):
        Quality(db, other_tenant_id).drift("m")


@pytest.mark.parametrize("days", [0, 93, -1])
def test_days_are_bounded(system, days) -> None:
    """Each is a partition to read."""
    with pytest.raises(InvalidRequestError, match="1 to 92 days"):
        system.quality.report("m", days=days)


def test_a_day_that_can_not_be_read_in_time_is_no_outage(db, system, monkeypatch) -> None:
    """The schedules of other tenants must not wait for it."""
    model = live(db, system, tickets(120), "category")
    model.ask(split_target(tickets(40), "category")[0])
    statement = connection._TAKE_ROLE_AND_ENTER
    monkeypatch.setattr(connection, "_TAKE_ROLE_AND_ENTER", statement.replace("'30s'", "'1ms'"))
    slow = sa.func.pg_sleep(0.2).is_not(None)
    monkeypatch.setattr(Measuring, "_of", lambda self, window: [LiveRows._of(self, window)[0], slow])
    with pytest.raises(RequestTooLargeError, match="could not be read in time"):
        Measuring(db, system.tenant_id).answered(
            Window("m", "production", datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC))
        )
