"""Finding and comparing runs."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import Lineage
from ml_core.exceptions import InvalidRequestError, RunNotFoundError
from ml_core.ids import TenantId
from ml_core.registry.pages import every
from ml_core.registry.runs import RunRepository, RunStatus
from support.registry import TICKETS, register, superuser


@pytest.fixture
def runs(db: DatabaseConnection, tenant_id: TenantId) -> RunRepository:
    """The tenant's runs."""
    return RunRepository(db, tenant_id)


def test_runs_are_listed_newest_first(runs: RunRepository) -> None:
    """Of one model, at most as many as asked for, with their metrics and tags."""
    started = [runs.start(TICKETS, tags={"n": str(n)}) for n in range(3)]
    runs.start("churn")
    runs.log_metrics(started[2], {"loss": 0.5})
    found = runs.search(TICKETS, limit=2).items
    assert [run.run_id for run in found] == started[:0:-1]
    assert found[0].metrics["loss"].last_value == 0.5
    assert (found[0].tags, found[1].metrics) == ({"n": "2"}, {})


def test_pages_go_through_all_runs_once(runs: RunRepository, db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Also where several began at the same moment, and while new ones begin."""
    started = {runs.start(TICKETS) for _ in range(7)}
    with superuser(db) as session:
        session.execute("UPDATE mlcore.runs SET started_at = '2026-01-01' WHERE tenant_id = %s", (tenant_id,))
    seen, cursor = [], None
    while True:
        page = runs.search(limit=3, cursor=cursor)
        seen += [run.run_id for run in page.items]
        runs.start("churn")
        if (cursor := page.next_cursor) is None:
            break
    assert sorted(seen) == sorted(started)


@pytest.fixture
def known(runs: RunRepository) -> dict[str, str]:
    """Name → id of runs that differ in one thing each."""
    whole = runs.start(TICKETS, kind="tune")
    found = {
        "whole": whole,
        "part": runs.start(TICKETS, parent_run_id=whole),
        "churn": runs.start("churn"),
        "tagged": runs.start(TICKETS, tags={"team": "support", "best": "yes"}),
        "deep": runs.start(TICKETS, parameters={"hyperparameters": {"C": 2}, "seed": 7, "early": True}),
        "good": runs.start(TICKETS),
        "poor": runs.start(TICKETS),
        "diverged": runs.start(TICKETS),
    }
    for name, value in (("good", 0.9), ("poor", 0.5), ("diverged", math.nan)):
        runs.log_metrics(found[name], {"accuracy": value})
    runs.finish(found["poor"])
    return found


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"model_id": "churn"}, {"churn"}),
        ({"kind": "tune"}, {"whole"}),
        ({"status": RunStatus.FINISHED}, {"poor"}),
        ({"status": RunStatus.FAILED}, set()),
        ({"tags": {"team": "support"}}, {"tagged"}),
        ({"tags": {"team": "support", "best": "no"}}, set()),
        ({"parameters": {"hyperparameters.C": 2.0, "seed": 7}}, {"deep"}),
        ({"parameters": {"early": True}}, {"deep"}),
        ({"parameters": {"seed": "7"}}, set()),
        ({"metrics": "accuracy>=0.5"}, {"good", "poor"}),
        ({"metrics": ["accuracy<=0.5"]}, {"poor"}),
        ({"metrics": ["accuracy>=0.4", "accuracy<=0.6"]}, {"poor"}),
        ({"metrics": ["accuracy>=0.4", "accuracy<=0.6"], "status": "running"}, set()),
    ],
)
def test_a_query_finds_what_it_says(
    runs: RunRepository, known: dict[str, str], query: dict[str, Any], names: set[str]
) -> None:
    """Each condition, alone and with others; a NaN is in no range."""
    names_of = {run_id: name for name, run_id in known.items()}
    assert {names_of[run.run_id] for run in runs.search(**query).items} == names


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ({"sort": "accuracy"}, [2, 0, 3, 1, 4]),
        ({"sort": "accuracy", "descending": False}, [1, 3, 0, 2, 4]),
        ({"sort": "accuracy", "metrics": "accuracy<=0.7"}, [3, 1]),
        ({"sort": "validation/loss"}, [1, 2, 0, 3, 4]),
        ({"sort": "size"}, [5, 1]),
        ({"sort": "same"}, [5, 4, 3, 2, 1, 0]),
        ({"sort": "size", "model_id": "churn"}, [5]),
        ({"sort": "size", "status": "failed"}, []),
        ({"descending": False}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_runs_are_sorted(runs: RunRepository, query: dict[str, Any], order: list[int]) -> None:
    """By their start, or those that have a metric: the best first, and what is not a number last. Also in pages."""
    values = zip((0.8, 0.2, 0.9, 0.6, math.nan), (3.0, 1.0, 2.0, 4.0, math.inf), strict=True)
    ids = [runs.start(TICKETS) for _ in range(5)] + [runs.start("churn")]
    for run_id, (accuracy, loss) in zip(ids, values, strict=False):
        runs.log_metrics(run_id, {"accuracy": accuracy, "validation/loss": loss})
    for run_id in ids:
        runs.log_metrics(run_id, {"same": 1.0})
    runs.log_metrics(ids[1], {"size": 1.0})
    runs.log_metrics(ids[5], {"size": 2.0})
    pages = every(lambda _, cursor: runs.search(**query, limit=2, cursor=cursor))
    assert [ids.index(run.run_id) for run in pages] == order


def test_a_sorting_by_nothing_is_refused(runs: RunRepository, known: dict[str, str]) -> None:
    """A metric that no run has, and a cursor of another order."""
    with pytest.raises(InvalidRequestError, match="No run has the metric 'acuracy'"):
        runs.search(sort="acuracy")
    cursor = runs.search(sort="accuracy", limit=1).next_cursor
    for other in ({}, {"sort": "accuracy", "descending": False}):
        with pytest.raises(InvalidRequestError, match="cursor"):
            runs.search(**other, cursor=cursor)


def test_parts_and_times_are_found(runs: RunRepository, known: dict[str, str]) -> None:
    """By parent; from a moment on, before a moment."""
    assert [run.run_id for run in runs.search(parent_run_id=known["whole"]).items] == [known["part"]]
    begin = runs.get(known["churn"]).started_at
    later = runs.search(started_from=begin).items
    before = runs.search(started_before=begin).items
    assert later[-1].run_id == known["churn"]
    assert {run.run_id for run in before} == {known["whole"], known["part"]}
    assert runs.search(started_from=begin + timedelta(days=1)).items == []


def test_a_list_takes_four_statements_however_long(runs: RunRepository, known: dict[str, str]) -> None:
    """One for the runs, their metrics, tags and versions each."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    sa.event.listen(Engine, "before_cursor_execute", note)
    try:
        runs.search(limit=50)
    finally:
        sa.event.remove(Engine, "before_cursor_execute", note)
    assert len(sent) == 4


@pytest.mark.parametrize(
    "options", [{"limit": 0}, {"limit": 1001}, {"cursor": "x"}, {"cursor": "WyJhIiwiYiJd"}, {"cursor": "WzEsMl0"}]
)
def test_a_bad_page_is_refused(runs: RunRepository, options: dict[str, Any]) -> None:
    """A limit out of bounds, or a cursor that no page returned."""
    with pytest.raises(InvalidRequestError):
        runs.search(**options)


def test_a_comparison_says_what_differs_and_which_is_best(runs: RunRepository) -> None:
    """Nested parameters by name; a metric's direction is known; the best value ever and the best last value."""
    first = runs.start(TICKETS, parameters={"hyperparameters": {"C": 1, "l1": 0.5}, "seed": 1}, tags={"a": "x"})
    second = runs.start(TICKETS, parameters={"hyperparameters": {"C": 2}, "seed": 1.0}, tags={"a": "x", "b": "y"})
    runs.log_series(first, "validation/accuracy", [0, 1], [0.9, 0.7])
    runs.log_series(second, "validation/accuracy", [0, 1], [0.6, 0.8])
    runs.log_series(first, "log_loss", [0, 1], [0.1, 0.3])
    runs.log_metrics(first, {"clusters": 3.0, "f1": math.nan, "r2": 0.5})
    runs.log_metrics(second, {"log_loss": 0.2, "clusters": 4.0, "r2": 0.5})
    found = runs.compare([first, second, first])
    assert [run["run_id"] for run in found["runs"]] == [first, second]
    assert found["parameters"] == {
        "hyperparameters.C": {first: 1, second: 2},
        "hyperparameters.l1": {first: 0.5},
    }
    assert found["same_parameters"] == {"seed": 1}
    assert found["tags"] == {"b": {second: "y"}}
    metrics = found["metrics"]
    assert metrics["validation/accuracy"] == {
        "higher_is_better": True,
        "runs": {
            first: {"last": 0.7, "last_step": 1, "best": 0.9, "points": 2},
            second: {"last": 0.8, "last_step": 1, "best": 0.8, "points": 2},
        },
        "best_run": first,
        "best_last_run": second,
    }
    log_loss = metrics["log_loss"]
    assert (log_loss["higher_is_better"], log_loss["best_run"], log_loss["best_last_run"]) == (False, first, second)
    assert log_loss["runs"][first]["best"] == 0.1
    assert (metrics["clusters"]["higher_is_better"], metrics["clusters"]["best_run"]) == (None, None)
    assert metrics["f1"]["runs"] == {first: {"last": None, "last_step": 0, "best": None, "points": 1}}
    assert metrics["f1"]["best_run"] is None
    assert (metrics["r2"]["best_run"], metrics["r2"]["best_last_run"]) == (None, None)


def test_a_metric_of_one_run_has_no_best(runs: RunRepository) -> None:
    """It was not compared with anything; with a second run that has it, one is the best."""
    first, second, third = (runs.start(TICKETS) for _ in range(3))
    for run_id, value in ((first, 1.0), (second, 2.0)):
        runs.log_metrics(run_id, {"mae": value})
    alone = runs.compare([first, third])["metrics"]["mae"]
    assert (alone["best_run"], alone["best_last_run"], alone["runs"][first]["last"]) == (None, None, 1.0)
    assert runs.compare([first, second, third])["metrics"]["mae"]["best_run"] == first


def test_a_run_names_the_versions_that_came_of_it(
    db: DatabaseConnection, tenant_id: TenantId, runs: RunRepository
) -> None:
    """Of itself only, oldest first."""
    first, second = runs.start(TICKETS), runs.start(TICKETS)
    for _ in range(2):
        register(db, tenant_id, lineage=Lineage(run_id=first))
    assert {run.run_id: run.versions for run in runs.search(TICKETS).items} == {
        first: ("tickets@1", "tickets@2"),
        second: (),
    }


def test_only_several_runs_that_exist_can_be_compared(runs: RunRepository) -> None:
    """One, the same twice, or one that is none."""
    run_id = runs.start(TICKETS)
    with pytest.raises(InvalidRequestError, match="to compare"):
        runs.compare([run_id, run_id])
    with pytest.raises(RunNotFoundError, match="run_0"):
        runs.compare([run_id, "run_0"])
