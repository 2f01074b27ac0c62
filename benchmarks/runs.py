"""Experiment tracking with a million metric points in one tenant, compared with the same calls on few points.

    .venv/bin/python benchmarks/runs.py [--runs 100] [--metrics 10] [--steps 1000] [--json FILE]

Starts an embedded PostgreSQL server and logs the points through ``RunRepository.log_series``, under the runtime role
and row-level security. Then single calls are timed on that tenant, and on a tenant with as many runs and metrics with
ten steps each. 200 other tenants have the runs, tags and summaries of the second. Each figure is the median of three
repetitions. ``test_runs_plans.py`` tests that no call scans a table.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import sqlalchemy
from populate import superuser, temporary_registry
from timing import Operation, median_of

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import ModelId, TenantId
from ml_core.registry.runs import RunRepository
from ml_core.registry.tenants import TenantRepository

MODEL = ModelId("tickets")
PAGE = 50
SELECTED = 200
COMPARED = 5
FEW_STEPS = 10
LONG_STEPS = 100_000
NEIGHBOURS = 200


class Tracking:
    """The runs of one tenant and the measured calls.

    Args:
        db: The registry.
        tenant_id: The tenant; made here.
        keys: Where the choices come from.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId, keys: random.Random) -> None:
        TenantRepository(db).create(tenant_id)
        self._runs, self._keys = RunRepository(db, tenant_id), keys
        self._ids: list[str] = []
        self._metrics: list[str] = []
        self._step = 0

    def fill(self, runs: int, metrics: int, steps: int) -> float:
        """Log the points in bulk. Returns points per second."""
        self._metrics = ["validation/accuracy", *(f"metric_{number:02}" for number in range(1, metrics))]
        rng = np.random.default_rng(0)
        spent_s = 0.0
        for number in range(runs):
            parameters = {"hyperparameters": {"C": number / 100, "max_iter": 200}, "model_type": "classification"}
            run_id = self._runs.start(MODEL, parameters=parameters, tags={"team": f"team_{number % 5}"})
            names = [name for name in self._metrics for _ in range(steps)]
            values = rng.normal(size=metrics * steps)
            began = time.perf_counter()
            self._runs.log_series(run_id, names, [*range(steps)] * metrics, values)
            spent_s += time.perf_counter() - began
            self._ids.append(run_id)
        self._step = steps
        return runs * metrics * steps / spent_s

    def log_long_series(self, steps: int) -> str:
        """Create a run with one series of many steps."""
        run_id = self._runs.start(ModelId("long"))
        self._runs.log_series(run_id, "loss", range(steps), np.random.default_rng(1).normal(size=steps))
        return run_id

    def operations(self) -> dict[str, Operation]:
        """What is measured."""
        runs = self._runs
        return {
            "log_metrics, 10 of a step": Operation(self._next_step, lambda values: runs.log_metrics(*values)),
            "log_series, 1,000 points": Operation(self._next_thousand, lambda points: runs.log_series(*points)),
            "beat": Operation(self._some, runs.beat),
            "get": Operation(self._some, runs.get),
            f"list of {PAGE} with metrics": Operation(lambda: None, lambda _: runs.search(MODEL, limit=PAGE).items),
            "search by tag and metric": Operation(
                lambda: None, lambda _: runs.search(MODEL, tags={"team": "team_1"}, metrics="metric_01>=0", limit=PAGE)
            ),
            f"series, {SELECTED} selected": Operation(
                self._some, lambda run_id: runs.series(run_id, "validation/accuracy", max_points=SELECTED)
            ),
            f"compare {COMPARED}": Operation(lambda: self._keys.sample(self._ids, COMPARED), runs.compare),
        }

    def long_series(self, run_id: str) -> dict[str, Operation]:
        """The selection of a series of ``LONG_STEPS`` steps."""
        read = Operation(lambda: None, lambda _: self._runs.series(run_id, "loss", max_points=SELECTED), calls=20)
        return {f"series of {LONG_STEPS:,} steps": read}

    def _some(self) -> str:
        return self._keys.choice(self._ids)

    def _next_step(self) -> tuple[str, dict[str, float], int]:
        self._step += 1
        return self._some(), dict.fromkeys(self._metrics, math.sin(self._step)), self._step

    def _next_thousand(self) -> tuple[str, str, list[int], list[float]]:
        begin = self._step + 1
        self._step += 1000
        return self._some(), "metric_01", [*range(begin, begin + 1000)], [0.5] * 1000


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Fill both tenants and measure on each."""
    keys = random.Random(0)
    with temporary_registry() as db:
        few, many = (Tracking(db, TenantId(name), keys) for name in ("few", "many"))
        few.fill(options.runs, options.metrics, FEW_STEPS)
        rate = many.fill(options.runs, options.metrics, options.steps)
        long_run = many.log_long_series(LONG_STEPS)
        with superuser(db) as session:
            add_neighbours(session, TenantId("few"), NEIGHBOURS)
            session.execute("VACUUM ANALYZE")
            size = session.execute("SELECT pg_total_relation_size('mlcore.run_metrics')").fetchone()
            version = session.info.parameter_status("server_version")
        sides = {"few": few.operations(), "many": {**many.operations(), **many.long_series(long_run)}}
        measured = _take_turns(sides, options.repetitions, options.calls)
    points = options.runs * options.metrics * options.steps
    in_table = points + options.runs * options.metrics * FEW_STEPS + LONG_STEPS
    return {
        "sizes": {"runs": options.runs, "metrics": options.metrics, "steps": options.steps, "points": points},
        "few_steps": FEW_STEPS,
        "repetitions": options.repetitions,
        "versions": {
            "postgres": version,
            "python": platform.python_version(),
            "sqlalchemy": sqlalchemy.__version__,
            "psycopg": psycopg.__version__,
        },
        "points_a_second": round(rate),
        "bytes_a_point": round((size[0] if size else 0) / in_table),
        **measured,
    }


def _take_turns(
    sides: dict[str, dict[str, Operation]], repetitions: int, calls: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Side → operation → figures. The sides alternate by operation, so that noise affects both."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {side: {} for side in sides}
    for _ in range(repetitions):
        for name in sides["many"]:
            for side, operations in sides.items():
                if name in operations:
                    found[side].setdefault(name, []).append(operations[name].measure(calls))
    return {side: {name: median_of(figures) for name, figures in of.items()} for side, of in found.items()}


def add_neighbours(session: psycopg.Connection[Any], tenant_id: TenantId, count: int) -> None:
    """Other tenants with copies of a tenant's runs, tags and summaries, without the points."""
    # Foreign keys need no check per row: the copies are consistent because the original is.
    session.execute("SET session_replication_role = replica")
    for table in ("runs", "run_tags", "run_metric_summaries"):
        found = session.execute(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'tenant_id'",
            (f"mlcore.{table}",),
        ).fetchone()
        columns = found[0] if found else ""
        session.execute(
            f"INSERT INTO mlcore.{table} (tenant_id, {columns}) SELECT 'neighbour' || n, {columns}"
            f" FROM mlcore.{table} CROSS JOIN generate_series(1, {count}) n WHERE tenant_id = '{tenant_id}'"
        )


def show(result: dict[str, Any]) -> None:
    """Print the table; times in ms."""
    print(f"{'ms':28} {'few p50':>9} {'p95':>9} {'many p50':>9} {'p95':>9}")
    for name, many in result["many"].items():
        few = result["few"].get(name)
        before = f"{few['p50_ms']:9.2f} {few['p95_ms']:9.2f}" if few else " " * 19
        print(f"{name:28} {before} {many['p50_ms']:9.2f} {many['p95_ms']:9.2f}")
    points, rate = result["sizes"]["points"], result["points_a_second"]
    print(f"many: {points:,} points of one tenant, logged at {rate:,} a second,")
    print(f"{result['bytes_a_point']} bytes each with the index")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--metrics", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=200, help="measured calls of each operation and repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/runs.json"))
    options = parser.parse_args()
    result = measure_all(options)
    show(result)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
