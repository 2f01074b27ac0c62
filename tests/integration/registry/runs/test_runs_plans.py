"""No call on runs reads a table from end to end, among 300 tenants and in a series of 20,000 steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.comparison import Comparison, Field, FieldKind, Operator, Order
from ml_core.ids import TenantId
from ml_core.registry.runs import RunRepository, RunStatus
from ml_core.registry.runs.documents import RunDocuments
from ml_core.registry.runs.experiments import ExperimentRepository
from support.plans import recorded_plans
from support.registry import TICKETS, new_tenant, settings_for, superuser, temporary_home

TABLES = frozenset(
    {"runs", "run_tags", "run_metrics", "run_metric_summaries", "run_artifacts", "run_documents", "experiments"}
)
TENANTS, RUNS, STEPS = 300, 40, 20_000

# Other tenants' copies of everything but the long series.
NEIGHBOURS = """
SET session_replication_role = replica;
INSERT INTO mlcore.runs (tenant_id, run_id, model_id, kind, status, parameters)
  SELECT 'n' || n, run_id, model_id, kind, status, parameters FROM mlcore.runs, generate_series(1, {n}) n
  WHERE tenant_id = '{t}';
INSERT INTO mlcore.run_tags SELECT 'n' || n, run_id, key, value FROM mlcore.run_tags, generate_series(1, {n}) n
  WHERE tenant_id = '{t}';
INSERT INTO mlcore.run_metric_summaries
  SELECT 'n' || n, run_id, metric, points, not_finite, last_step, last_value, minimum, maximum
  FROM mlcore.run_metric_summaries, generate_series(1, {n}) n WHERE tenant_id = '{t}';
INSERT INTO mlcore.run_metrics SELECT 'n' || n, run_id, metric, step, value, at
  FROM mlcore.run_metrics, generate_series(1, {n}) n WHERE tenant_id = '{t}' AND metric = 'loss';
INSERT INTO mlcore.run_artifacts SELECT 'n' || n, run_id, name, digest, size_bytes, format, created_at
  FROM mlcore.run_artifacts, generate_series(1, {n}) n WHERE tenant_id = '{t}';
INSERT INTO mlcore.run_documents SELECT 'n' || n, run_id, kind, name, document
  FROM mlcore.run_documents, generate_series(1, {n}) n WHERE tenant_id = '{t}';
INSERT INTO mlcore.experiments SELECT 'n' || n, model_id, name FROM mlcore.experiments, generate_series(1, {n}) n
  WHERE tenant_id = '{t}';
SET session_replication_role = origin;
"""


@pytest.fixture(scope="module")
def many() -> Iterator[RunRepository]:
    """The runs of one tenant among others."""
    with temporary_home() as home, DatabaseConnection(settings=settings_for(home)) as db:
        tenant: TenantId = new_tenant(db)
        runs = RunRepository(db, tenant)
        for number in range(RUNS):
            run_id = runs.start(TICKETS, parameters={"C": number}, tags={"team": f"team_{number % 8}"})
            runs.log_series(run_id, "loss", range(20), [number / RUNS] * 20)
            runs.artifacts.log(run_id, "plot.png", b"plot")
            RunDocuments(db, tenant).add(run_id, "model", {f"m{number}": {"name": "m"}})
            ExperimentRepository(db, tenant).create(f"Experiment {number}")
        runs.log_series(run_id, "long", range(STEPS), [1.0] * STEPS)
        with superuser(db) as session:
            session.execute(NEIGHBOURS.format(n=TENANTS, t=tenant))  # type: ignore[arg-type]
            session.execute("VACUUM ANALYZE")
        yield runs


def newest(runs: RunRepository) -> str:
    return runs.search(TICKETS, limit=1).items[0].run_id


def write_once(runs: RunRepository) -> None:
    run_id = runs.start(TICKETS, tags={"team": "other"}, parent_run_id=newest(runs))
    runs.log_metrics(run_id, {"loss": 1.0})
    runs.log_metrics(run_id, {"loss": 2.0})
    runs.artifacts.log(run_id, "plot.png", b"another plot")
    runs.tag(run_id, {"team": None, "best": "yes"})
    runs.beat(run_id)
    runs.finish(run_id)
    runs.delete(run_id)


def query_twice(runs: RunRepository) -> None:
    first = runs.query([TICKETS], limit=10)
    runs.query([TICKETS], limit=10, cursor=first.next_cursor)


def by_team(runs: RunRepository) -> None:
    is_team = Comparison(Field(FieldKind.TAG, "team"), Operator.EQUAL, "team_1")
    runs.query([TICKETS], [is_team], [Order(Field(FieldKind.METRIC, "loss"), is_descending=True)])


def look_at_experiments(runs: RunRepository) -> None:
    experiments = ExperimentRepository(runs._db, runs._tenant_id)
    experiments.named(TICKETS)
    experiments.tag(experiments.named("Experiment 7").model_id, {"a": "b"})
    experiments.list(limit=5)


def look_at_documents(runs: RunRepository) -> None:
    documents = RunDocuments(runs._db, runs._tenant_id)
    documents.list(newest(runs))
    documents.search("model", [TICKETS], [], limit=5)


CALLS: dict[str, Callable[[RunRepository], object]] = {
    "list": lambda runs: runs.search(TICKETS, limit=50).items,
    "next page": lambda runs: runs.search(limit=10, cursor=runs.search(limit=10).next_cursor),
    "by status": lambda runs: runs.search(status=RunStatus.FINISHED),
    "by silence": lambda runs: runs.search(status=RunStatus.DEAD),
    "by parent": lambda runs: runs.search(parent_run_id=newest(runs)),
    "by tag": lambda runs: runs.search(tags={"team": "team_1"}),
    "by parameter": lambda runs: runs.search(TICKETS, parameters={"C": 1}),
    "sorted by metric": lambda runs: runs.search(sort="loss", limit=5, cursor=runs.search(sort="loss").next_cursor),
    "by metric": lambda runs: runs.search(metrics="loss>=0.9"),
    "get": lambda runs: runs.get(newest(runs)),
    "compare": lambda runs: runs.compare([run.run_id for run in runs.search(TICKETS, limit=5).items]),
    "series": lambda runs: runs.series(newest(runs), "loss"),
    "series selected": lambda runs: runs.series(newest(runs), "long", max_points=100),
    "points": lambda runs: runs.points(newest(runs), "long", cursor=runs.points(newest(runs), "long").next_cursor),
    "files": lambda runs: runs.artifacts.open(newest(runs), "plot.png"),
    "writes": write_once,
    "query": query_twice,
    "query by tag and metric": by_team,
    "experiments": look_at_experiments,
    "documents": look_at_documents,
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_goes_by_an_index(many: RunRepository, name: str) -> None:
    """None of its statements reads a table that grows from end to end."""
    with recorded_plans() as plans:
        CALLS[name](many)
    reads = {read: plan.statement for plan in plans for read in plan.whole_reads(TABLES)}
    assert not reads, "\n\n".join(f"{read}:\n{statement}" for read, statement in reads.items())
    assert any(node.get("Relation Name") in TABLES for plan in plans for node in plan.nodes)
