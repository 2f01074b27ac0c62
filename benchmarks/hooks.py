"""The cost of hooks per request, measured on the prediction plane in one process without a server, socket or database.

    python benchmarks/hooks.py [--other /path/to/another/checkout]

Requests of one row for a logistic regression run through the ASGI application. The variants are ``off`` (no hooks),
``metrics`` (the default of a replica) and ``traces`` (a span per request and per prediction, discarded). ``--other``
also compares another checkout (``other``), such as the one before a change, with this one (``here``), both without
hooks and each in a separate process.

Figures are microseconds of processor time per request. The variants alternate in blocks of 100 requests; a figure is
the first decile of the blocks, because the fastest block is an outlier and slow blocks were disturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BLOCKS, REQUESTS = 100, 100
OWN = ("off", "metrics", "traces")


def hooks_of(variant: str) -> dict[str, Any]:
    """The keyword argument of the service; empty for ``off`` and for a checkout without hooks."""
    if variant == "metrics":
        from ml_core.observability.prometheus import PrometheusHooks

        return {"hooks": PrometheusHooks()}
    if variant == "traces":
        from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

        from ml_core.observability.tracing import TracingHooks

        class Nowhere(SpanExporter):
            def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002
                return SpanExportResult.SUCCESS

        return {"hooks": TracingHooks(Nowhere())}
    return {}


def measure(variants: Sequence[str]) -> dict[str, list[float]]:
    """Variant → microseconds of processor time per request, by block."""
    sys.path[:0] = [str(Path.cwd() / "tests")]
    from ml_core.domain.api_key import Scope
    from ml_core.domain.assignment import AssignmentDelta
    from ml_core.inference.edge.app import build_app
    from ml_core.inference.service import PredictionService
    from ml_core.models.store import LocalStore
    from ml_core.settings import ServingSettings
    from support.inprocess_cell import ACME, fitted, make_cell, promote, servable
    from support.tables import measures, split_target

    with tempfile.TemporaryDirectory() as folder:
        cell = make_cell(LocalStore(Path(folder)), ServingSettings())
        cell.assignment.apply(AssignmentDelta(1, True, {ACME: True}, {}, {}))
        model = fitted("m", split_target(measures(), "outcome"), algorithm="logistic_regression")
        promote(cell.table, servable(cell.store, model))
        apps: dict[str, Any] = {}
        for name in variants:
            given = hooks_of(name)
            service = PredictionService(cell.assignment, cell.table, None, limits=ServingSettings(), **given)  # type: ignore[arg-type]
            app: Any = build_app(service)
            apps[name] = given["hooks"].traced(app) if name == "traces" else app
        row = measures(1).drop(columns=["outcome"]).iloc[0].to_dict()
        times = asyncio.run(_ask(apps, cell.key(ACME, Scope.PREDICT), json.dumps({"rows": [row]}).encode()))
        cell.table.close()
    return times


async def _ask(apps: Mapping[str, Any], key: str, body: bytes) -> dict[str, list[float]]:
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/t/acme/models/m/predict", "headers": headers}
    statuses: set[int] = set()
    is_read = False

    async def receive() -> dict[str, Any]:
        nonlocal is_read
        if is_read:  # asked for the end of the connection, because the request took long
            await asyncio.Future()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if "status" in message:
            statuses.add(message["status"])

    times: dict[str, list[float]] = {name: [] for name in apps}
    for _ in range(BLOCKS):
        for name, app in apps.items():
            started = time.process_time()
            for _ in range(REQUESTS):
                is_read = False
                await app(dict(scope), receive, send)
            times[name].append((time.process_time() - started) / REQUESTS * 1e6)
    if statuses != {200}:
        raise SystemExit(f"requests were answered with {statuses}")
    return times


def run(checkout: Path, variants: Sequence[str]) -> dict[str, list[float]]:
    """``measure`` in a separate process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", *variants]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    """Measure, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="another checkout")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    seen: dict[str, list[float]] = {}
    for _ in range(arguments.repetitions):
        found = run(ROOT, OWN)
        if arguments.other is not None:
            found["other"] = run(arguments.other.resolve(), ["off"])["off"]
            found["here"] = run(ROOT, ["off"])["off"]
        for name, times in found.items():
            seen.setdefault(name, []).extend(times)
    figures = {name: statistics.quantiles(times, n=10)[0] for name, times in seen.items()}
    for name, figure in figures.items():
        base = figures["other" if name in ("other", "here") else "off"]
        print(f"{name:8} {figure:12.1f} {figure / base - 1:+8.2%}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
