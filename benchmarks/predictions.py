"""The prediction log: rows per second into PostgreSQL, the time of each stage, and that of reads among 30 days.

    .venv/bin/python benchmarks/predictions.py [--rows 200000] [--repetitions 3] [--json FILE]

Starts an embedded PostgreSQL server. One or two processes, like the replicas of a cell, record answered requests (20
numbers, 100 tenants) in a ``PredictionLog`` and wait until they are written: digest of each row, spool, COPY, insert
under row-level security as the serving role, three indexes, commit to disk. A rate is that of the slowest process times
their number; each figure is the median of the repetitions.

``cpu`` is processor time per row, which other load on the machine affects less than the rate: that of the writing
process, which holds the interpreter lock for most of it, and that of PostgreSQL. The stages are processor time per row
of requests of one row, the least of many repetitions: what the event loop does, and what the thread does until COPY.

``log.py`` measures the effect of the log on the serving rate, and what a killed replica loses.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from populate import superuser, temporary_registry
from timing import Operation, median_of

from ml_core.database.cluster import find_postmaster
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.columns import ColumnKind
from ml_core.domain.prediction_record import AnsweredRequest
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.inference.edge.http import new_request_id
from ml_core.inference.prediction_log import PredictionLog
from ml_core.inference.prediction_spool import Spool
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.predictions.ingest import PredictionIngest
from ml_core.registry.predictions.rendering import RequestRenderer
from ml_core.registry.tenants import TenantRepository
from ml_core.settings import DatabaseSettings, PredictionLogSettings, Settings

TENANTS, WIDTH, DAYS, WITHIN_S = 100, 20, 30, 600
SIGNATURE = Signature(
    tuple(InputColumn(f"x{i}", ColumnKind.NUMBER, nullable=False) for i in range(WIDTH)),
    Output(OutputKind.CLASSES, ("no", "yes")),
)
CASES = [
    (writers, rows, policy)
    for policy in (PredictionPolicy.DIGEST, PredictionPolicy.INPUTS)
    for rows in (1, 100)
    for writers in (1, 2)
]


def tenant(number: int) -> TenantId:
    """One of the tenants."""
    return TenantId(f"tenant{number:03}")


def requests(total: int, rows: int, policy: PredictionPolicy) -> list[AnsweredRequest]:
    """Answered requests with this number of rows in total, of all tenants in turn."""
    generator = np.random.default_rng()
    answers = np.array(["yes"] * rows, dtype=object)
    return [
        AnsweredRequest(
            tenant_id=tenant(number % TENANTS),
            model_id="tickets",
            version="1",
            environment="production",
            rollout="stable",
            request_id=new_request_id(),
            at=time.time(),
            latency_ms=1.5,
            signature=SIGNATURE,
            columns={f"x{i}": generator.normal(size=rows) for i in range(WIDTH)},
            predictions=answers,
            probabilities=None,
            policy=policy,
        )
        for number in range(total // rows)
    ]


def write(urls: tuple[str, str], total: int, rows: int, policy: PredictionPolicy, parent: Connection) -> None:
    """The part of one replica, in a separate process: reports ready, waits for the start, reports the end."""
    settings = Settings(database=DatabaseSettings(url=urls[0], ingest_url=urls[1]))
    given, renderer = requests(total, rows, policy), RequestRenderer()
    with DatabaseConnection(settings=settings) as db, tempfile.TemporaryDirectory() as folder:
        log = PredictionLog(PredictionIngest(db), PredictionLogSettings(queue_mb=100_000), folder=Path(folder))
        segment = Spool(None).segment()
        segment.append(renderer.render(given[0]))
        PredictionIngest(db).write(segment.read().requests, [], secrets.token_hex(8))  # connects, makes the partitions
        parent.send("ready")
        parent.recv()
        started, cpu = time.perf_counter(), time.process_time()
        log.start()
        for request in given[1:]:
            log.append(renderer.render(request))
        log.close(WITHIN_S)
        parent.send((time.perf_counter() - started, time.process_time() - cpu, log.describe()))
        parent.recv()


def stages(policy: PredictionPolicy) -> dict[str, float]:
    """Microseconds of processor time of each stage, for a row of a request of its own."""
    given, renderer, segment = requests(500, 1, policy), RequestRenderer(), Spool(None).segment()
    rendered = [renderer.render(request) for request in given]

    def least_us(run: Callable[[], object], repetitions: int = 40) -> float:
        times = []
        for _ in range(repetitions):
            started = time.thread_time()
            run()
            times.append(time.thread_time() - started)
        return round(min(times) / len(given) * 1e6, 2)

    def append() -> None:
        segment.begin()
        for request in rendered:
            segment.append(request)

    return {
        "render": least_us(lambda: [renderer.render(request) for request in given]),
        "append": least_us(append),
        "read": least_us(segment.read),
    }


def ingest(db: DatabaseConnection, total: int, writers: int, rows: int, policy: PredictionPolicy) -> dict[str, float]:
    """Rows per second, and microseconds of processor time per row."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(writers)]
    urls = (db.urls.app, db.urls.ingest)
    processes = [
        context.Process(target=write, args=(urls, total // writers, rows, policy, theirs)) for _, theirs in pipes
    ]
    for process in processes:
        process.start()
    ours = [pipe for pipe, _ in pipes]
    for pipe in ours:
        pipe.recv()
    postgres = postgres_cpu_s(db)
    for pipe in ours:
        pipe.send("go")
    done = [pipe.recv() for pipe in ours]
    postgres = postgres_cpu_s(db) - postgres
    for pipe in ours:
        pipe.send("end")
    for process in processes:
        process.join()
    written = sum(counts["written"] for _, _, counts in done)
    if written != total - writers * rows:
        raise RuntimeError(f"not everything was written: {done}")
    return {
        "rows_a_second": written / max(seconds for seconds, _, _ in done),
        "writer_cpu_us": sum(cpu for _, cpu, _ in done) / written * 1e6,
        "postgres_cpu_us": postgres / written * 1e6,
    }


def postgres_cpu_s(db: DatabaseConnection) -> float:
    """Seconds of processor time of the server, including processes that ended."""
    postmaster = find_postmaster(db.settings.platform.home / "postgres")
    if postmaster is None:
        raise RuntimeError("Postgres does not run.")
    total = 0.0
    for process in (postmaster.process, *postmaster.process.children()):
        times = process.cpu_times()
        total += times.user + times.system
    times = postmaster.process.cpu_times()
    return float(total + times.children_user + times.children_system)


def fill_days(db: DatabaseConnection, rows_a_day: int) -> None:
    """Thirty days of predictions of ten models per tenant; a hundredth belongs to the measured tenant."""
    today = datetime.now(UTC).date()
    with db.maintaining() as connection:
        for back in range(DAYS):
            connection.exec_driver_sql(
                "SELECT mlcore.create_prediction_partition(%(day)s)", {"day": today - timedelta(days=back)}
            )
    with superuser(db) as session:
        for back in range(DAYS):
            session.execute(
                "INSERT INTO mlcore.predictions (tenant_id, request_id, row_number, at, model_id, version, environment,"
                " rollout, input_digest, prediction, latency_ms)"
                " SELECT 'tenant' || lpad((n %% 100)::text, 3, '0'), to_char(%(back)s, 'FM00') || md5(n::text), 0,"
                " %(day)s::timestamptz + n * interval '1 day' / %(rows)s, 'model' || (n / 100 %% 10),"
                " (1 + %(back)s / 10)::text, 'production', 'stable', sha256(n::text::bytea), '\"yes\"', 1.5"
                " FROM generate_series(0, %(rows)s - 1) n",
                {"back": back, "day": f"{today - timedelta(days=back)} 00:00+00", "rows": rows_a_day},
            )
        session.execute("VACUUM ANALYZE mlcore.predictions")


def reads(db: DatabaseConnection) -> dict[str, Operation]:
    """The measured reads of a prediction log with thirty days."""
    repository, now = PredictionRepository(db, tenant(7)), datetime.now(UTC)
    with db.tenant(tenant(7)) as connection:
        known = [row[0] for row in connection.exec_driver_sql("SELECT request_id FROM mlcore.predictions LIMIT 1000")]
    model, month = ModelId("model3"), now - timedelta(days=DAYS)

    def page(**wanted: Any) -> Operation:
        return Operation(lambda: None, lambda _: repository.list(**wanted, with_labels=True))

    middle = now - timedelta(days=DAYS / 2)
    return {
        "by request id": Operation(
            lambda: secrets.choice(known),
            lambda request_id: repository.list(request_id=request_id, with_labels=True),
        ),
        "newest 100 of the tenant": page(since=month),
        "newest 100 of a model": page(since=month, model_id=model),
        "newest 100 of an old version": page(since=month, model_id=model, version=VersionId("3")),
        "100 of one hour of a model": page(since=middle, until=middle + timedelta(hours=1), model_id=model),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000, help="rows of each ingest")
    parser.add_argument("--rows-a-day", type=int, default=50_000, help="rows of each of the thirty days that are read")
    parser.add_argument("--calls", type=int, default=200, help="measured calls of each query and repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/predictions.json"))
    options = parser.parse_args()
    result: dict[str, Any] = {"processors": os.cpu_count(), "rows": options.rows, "ingest": [], "reads": {}}
    result["stages_us"] = {str(policy): stages(policy) for policy in (PredictionPolicy.DIGEST, PredictionPolicy.INPUTS)}
    print("µs a row:", result["stages_us"])
    with temporary_registry() as db:
        for number in range(TENANTS):
            TenantRepository(db).create(tenant(number))
            PredictionRepository(db, tenant(number)).set_policy(PredictionPolicy.INPUTS)
        print(f"{'ingest':34} {'rows/s':>10} {'writer cpu':>11} {'postgres cpu':>13}")
        for writers, rows, policy in CASES:
            found = [ingest(db, options.rows, writers, rows, policy) for _ in range(options.repetitions)]
            figures = {name: round(statistics.median(each[name] for each in found), 2) for name in found[0]}
            result["ingest"].append({"writers": writers, "rows_a_request": rows, "policy": policy.value, **figures})
            name = f"{writers} writers, {rows} rows a request, {policy}"
            print(
                f"{name:34} {figures['rows_a_second']:10,.0f} {figures['writer_cpu_us']:8.1f} µs"
                f" {figures['postgres_cpu_us']:10.1f} µs"
            )
        with superuser(db) as session:
            session.execute("TRUNCATE mlcore.predictions")
        fill_days(db, options.rows_a_day)
        result["reads"] = {
            name: median_of([operation.measure(options.calls) for _ in range(options.repetitions)])
            for name, operation in reads(db).items()
        }
    print(f"\n{'reads, 30 days':34} {'p50 ms':>8} {'p95 ms':>8}")
    for name, times in result["reads"].items():
        print(f"{name:34} {times['p50_ms']:8.2f} {times['p95_ms']:8.2f}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
