"""Metric series: written in bulk or a step at a time, summarised exactly, read in bounds."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.run import MetricSummary
from ml_core.exceptions import InvalidRequestError, RequestTooLargeError, RunNotFoundError
from ml_core.ids import TenantId
from ml_core.registry.runs import RunRepository, series
from support.plans import recorded_plans
from support.registry import TICKETS


@pytest.fixture
def runs(db: DatabaseConnection, tenant_id: TenantId) -> RunRepository:
    """The tenant's runs."""
    return RunRepository(db, tenant_id)


def values(runs: RunRepository, run_id: str, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in runs.points(run_id, metric).items]


def test_a_step_logged_again_is_replaced(runs: RunRepository) -> None:
    """Points come back in the order of steps, and the summary forgets the value that was replaced."""
    run_id = runs.start(TICKETS)
    runs.log_metrics(run_id, {"loss": 9.0, "accuracy": 0.8}, step=2)
    runs.log_metrics(run_id, {"loss": 0.9}, step=1)
    runs.log_metrics(run_id, {"loss": 0.4}, step=2)
    assert values(runs, run_id, "loss") == [(1, 0.9), (2, 0.4)]
    metrics = runs.get(run_id).metrics
    assert metrics["loss"] == MetricSummary(2, 0, 2, 0.4, 0.4, 0.9)
    assert metrics["accuracy"] == MetricSummary(1, 0, 2, 0.8, 0.8, 0.8)


def test_what_is_not_finite_is_kept_and_counted(runs: RunRepository) -> None:
    """NaN and infinities come back as they are, count in no extreme, and break no JSON."""
    run_id = runs.start(TICKETS)
    runs.log_series(run_id, "loss", range(4), [1.0, math.inf, 0.5, math.nan])
    line = runs.get(run_id).metrics["loss"]
    assert (line.points, line.not_finite, line.minimum, line.maximum) == (4, 2, 0.5, 1.0)
    assert math.isnan(line.last_value)
    series = runs.series(run_id, "loss")
    assert math.isnan(series.points[-1].value)
    assert orjson.loads(orjson.dumps(series.to_json()))["values"] == [1.0, None, 0.5, None]


def test_a_metric_that_was_never_finite_has_no_extremes(runs: RunRepository) -> None:
    """None, until a finite value comes."""
    run_id = runs.start(TICKETS)
    runs.log_metrics(run_id, {"loss": math.nan})
    assert runs.get(run_id).metrics["loss"].minimum is None
    runs.log_metrics(run_id, {"loss": 2.0}, step=1)
    line = runs.get(run_id).metrics["loss"]
    assert (line.minimum, line.maximum, line.not_finite) == (2.0, 2.0, 1)


_POINTS = st.tuples(
    st.sampled_from(["a", "b"]), st.integers(0, 5), st.sampled_from([0.0, -1.5, 3.0, math.nan, math.inf, -math.inf])
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(_POINTS, max_size=8), max_size=5))
def test_a_summary_is_that_of_the_points(runs: RunRepository, batches: list[list[tuple[str, int, float]]]) -> None:
    """Whatever is written in whatever order, with steps again and again, in one batch or several."""
    run_id = runs.start(TICKETS)
    wanted: dict[str, dict[int, float]] = {}
    for batch in batches:
        metrics, steps, numbers = ([point[i] for point in batch] for i in range(3))
        runs.log_series(run_id, metrics, steps, numbers)  # type: ignore[arg-type]
        for metric, step, number in batch:
            wanted.setdefault(metric, {})[step] = number
    found = runs.get(run_id).metrics
    assert found.keys() == wanted.keys()
    for metric, of in wanted.items():
        finite = [number for number in of.values() if math.isfinite(number)]
        line = found[metric]
        assert (line.points, line.not_finite, line.last_step) == (len(of), len(of) - len(finite), max(of))
        assert repr(line.last_value) == repr(of[max(of)])
        assert (line.minimum, line.maximum) == (min(finite, default=None), max(finite, default=None))


def test_bulk_takes_columns_of_numpy_and_times(runs: RunRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several transactions; each point has its own time."""
    monkeypatch.setattr("ml_core.registry.runs.repository.CHUNK_POINTS", 100)
    run_id = runs.start(TICKETS)
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    runs.log_series(run_id, "loss", np.arange(250), np.linspace(1, 0, 250), [moment] * 250)
    assert runs.get(run_id).metrics["loss"].points == 250
    page = runs.points(run_id, "loss", limit=200)
    rest = runs.points(run_id, "loss", limit=200, cursor=page.next_cursor)
    assert [point.step for point in (*page.items, *rest.items)] == list(range(250))
    assert rest.next_cursor is None
    assert page.items[0].at == moment


def test_a_long_series_is_selected_by_the_database(runs: RunRepository) -> None:
    """First, last, extremes and what is not finite are there; never more points than asked for; of uneven steps too."""
    run_id = runs.start(TICKETS)
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=5_000)
    numbers[1234], numbers[4321], numbers[2222], numbers[3333] = 99.0, -99.0, math.nan, math.inf
    steps = np.arange(5_000) ** 2
    runs.log_series(run_id, "loss", steps, numbers)
    series = runs.series(run_id, "loss", max_points=100)
    kept = {point.step: point.value for point in series.points}
    assert series.total == 5_000
    assert len(kept) == len(series.points) <= 100
    assert kept.keys() >= {0, int(steps[-1]), 1234**2, 4321**2, 2222**2, 3333**2}
    assert list(kept) == sorted(kept)
    assert all(repr(value) == repr(float(numbers[math.isqrt(step)])) for step, value in kept.items())
    assert runs.series(run_id, "loss", max_points=10_000).total == len(
        runs.series(run_id, "loss", max_points=10_000).points
    )


def test_a_selection_of_a_series_that_is_new_looks_up_its_points(runs: RunRepository) -> None:
    """By their steps: without statistics Postgres takes a series for short, and would join all that is kept to each."""
    run_id = runs.start(TICKETS)
    runs.log_series(run_id, "loss", range(20_000), [float(step) for step in range(20_000)])
    with recorded_plans() as plans:
        assert len(runs.series(run_id, "loss", max_points=2000).points) <= 2000
    reads = [node for plan in plans for node in plan.nodes if node.get("Alias") == "m"]
    assert reads
    assert all("step = " in node["Index Cond"] for node in reads)


@pytest.mark.parametrize("max_points", [5, 6, 7, 13])
def test_a_selection_is_never_larger_than_asked(runs: RunRepository, max_points: int) -> None:
    """Also when each part has a lowest, a highest and a broken point of its own."""
    run_id = runs.start(TICKETS)
    runs.log_series(run_id, "loss", range(90), [[-1.0 - i, 1.0 + i, math.nan][i % 3] for i in range(90)])
    assert len(runs.series(run_id, "loss", max_points=max_points).points) <= max_points


def test_a_series_goes_on_after_a_step(runs: RunRepository) -> None:
    """Only what came since: how a running training is watched. Nothing new is no error."""
    run_id = runs.start(TICKETS)
    runs.log_series(run_id, "loss", range(10), [1.0] * 10)
    assert [point.step for point in runs.series(run_id, "loss", after_step=7).points] == [8, 9]
    assert runs.series(run_id, "loss", after_step=9).points == []


def test_a_part_of_a_long_series_is_selected_finer(runs: RunRepository) -> None:
    """Between two steps there are more points than the selection of all has there, with the extremes of the part."""
    run_id = runs.start(TICKETS)
    values = [float(step % 500) for step in range(5_000)]
    values[0], values[1700] = 9_999.0, 777.0
    runs.log_series(run_id, "loss", range(5_000), values)
    part = runs.series(run_id, "loss", max_points=100, after_step=1499, until_step=1999)
    assert [part.points[0].step, part.points[-1].step, part.total] == [1500, 1999, 500]
    assert max(point.value for point in part.points) == 777.0
    whole = runs.series(run_id, "loss", max_points=100)
    assert len(part.points) > 3 * len([point for point in whole.points if 1500 <= point.step <= 1999])
    assert [point.step for point in runs.series(run_id, "loss", until_step=2).points] == [0, 1, 2]


def test_an_unknown_metric_is_said_to_be_unknown(runs: RunRepository) -> None:
    """And an unknown run is."""
    run_id = runs.start(TICKETS)
    for read in (runs.series, runs.points):
        with pytest.raises(RunNotFoundError, match="has no metric 'los'"):
            read(run_id, "los")
        with pytest.raises(RunNotFoundError, match="There is no run"):
            read("run_0", "loss")


@pytest.mark.parametrize(
    ("metrics", "steps", "numbers", "message"),
    [
        ("", [0], [1.0], "name of a metric"),
        ("a\0", [0], [1.0], "name of a metric"),
        ("x" * 251, [0], [1.0], "name of a metric"),
        ("loss", [2**53 + 1], [1.0], "can't be stored"),
        ("loss", [0, 1], [1.0], "differ in length"),
        ("loss", [0], ["much"], "not a number"),
        ("loss", [0], [None], "not a number"),
        ("loss", [0.5], [1.0], "not a number"),
    ],
)
def test_what_is_no_point_is_refused(
    runs: RunRepository, metrics: str | list[str], steps: list[int], numbers: list[float], message: str
) -> None:
    """With a reason, and nothing is written."""
    run_id = runs.start(TICKETS)
    with pytest.raises(InvalidRequestError, match=message):
        runs.log_series(run_id, metrics, steps, numbers)
    assert runs.get(run_id).metrics == {}


def test_more_series_than_a_run_may_have_are_too_large(runs: RunRepository) -> None:
    """And nothing is written."""
    run_id = runs.start(TICKETS)
    with pytest.raises(RequestTooLargeError, match="more than 1,000 metrics"):
        runs.log_series(run_id, [f"m{i}" for i in range(1001)], [0] * 1001, [1.0] * 1001)
    assert runs.get(run_id).metrics == {}


def test_a_time_without_a_zone_is_refused(runs: RunRepository) -> None:
    """It would mean whatever the server's zone is."""
    run_id = runs.start(TICKETS)
    with pytest.raises(InvalidRequestError, match="no time zone"):
        runs.log_series(run_id, "loss", [0], [1.0], [datetime(2026, 1, 2)])  # noqa: DTZ001 - the point
    assert runs.get(run_id).metrics == {}


def test_a_bad_max_points_and_a_bad_cursor_are_refused(runs: RunRepository) -> None:
    """They name the field."""
    run_id = runs.start(TICKETS)
    runs.log_metrics(run_id, {"loss": 1.0})
    with pytest.raises(InvalidRequestError, match="5 to 10,000"):
        runs.series(run_id, "loss", max_points=2)
    with pytest.raises(InvalidRequestError, match="cursor"):
        runs.points(run_id, "loss", cursor="bm9uZQ")


def test_two_loggers_of_one_run_lose_nothing(runs: RunRepository) -> None:
    """Each writes its own and a shared metric at once; all points are there and the summaries are exact."""
    run_id = runs.start(TICKETS)

    def log(own: str, first: int) -> None:
        for step in range(first, 80, 2):
            runs.log_metrics(run_id, {own: float(step), "shared": float(step)}, step=step)

    with ThreadPoolExecutor(2) as loggers:
        for done in [loggers.submit(log, "a", 0), loggers.submit(log, "b", 1)]:
            done.result()
    metrics = runs.get(run_id).metrics
    assert metrics["shared"] == MetricSummary(80, 0, 79, 79.0, 0.0, 79.0)
    assert (metrics["a"].points, metrics["b"].points) == (40, 40)


def test_appending_reads_no_series(runs: RunRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step after the last one is added to the summary; the whole series is counted only after a replacement."""
    run_id = runs.start(TICKETS)
    with monkeypatch.context() as patch:
        patch.setattr(series, "_REWRITTEN", None)
        patch.setattr(series, "_COUNT_AGAIN", None)
        for step in range(3):
            runs.log_metrics(run_id, {"loss": 1.0, f"late_{step}": 1.0}, step=step)
    assert runs.get(run_id).metrics["loss"].points == 3
