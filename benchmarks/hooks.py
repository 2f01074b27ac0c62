"""What hooks cost a request: the prediction plane in one process, with no server, no socket and no database.

    python benchmarks/hooks.py [--other /path/to/another/checkout]

One row is predicted by a logistic regression, again and again, through the whole ASGI application. ``off``: nobody
listens. ``metrics``: as in a replica by default. ``traces``: a span for each request and for its prediction, thrown
away when it is made. With ``--other``, that checkout is measured as well, such as the one before a change. The variants
take turns; a figure is the smallest of the repetitions, in microseconds of processor time a request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BLOCKS, REQUESTS = 40, 250
"""Blocks in one process, and requests in a block: 50 ms, so that some go by undisturbed on a busy machine as well."""


def hooks_of(variant: str) -> dict[str, Any]:
    """The keyword for the service: none for ``off`` and for a checkout that has no hooks."""
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


def measure(variant: str) -> float:
    """Microseconds of processor time a request takes, the best of the blocks."""
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
        keywords = hooks_of(variant)
        service = PredictionService(cell.assignment, cell.table, None, limits=ServingSettings(), **keywords)  # type: ignore[arg-type]
        app: Any = build_app(service)
        if variant == "traces":
            app = keywords["hooks"].traced(app)
        key = cell.key(ACME, Scope.PREDICT)
        row = measures(1).drop(columns=["outcome"]).iloc[0].to_dict()
        best = asyncio.run(_ask(app, key, json.dumps({"rows": [row]}).encode()))
        service.close()
        cell.table.close()
    return best


async def _ask(app: Any, key: str, body: bytes) -> float:
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
    statuses: set[int] = set()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if "status" in message:
            statuses.add(message["status"])

    scope = {"type": "http", "method": "POST", "path": "/t/acme/models/m/predict", "headers": headers}
    best = float("inf")
    for _ in range(BLOCKS):
        started = time.process_time()
        for _ in range(REQUESTS):
            await app(dict(scope), receive, send)
        best = min(best, (time.process_time() - started) / REQUESTS * 1e6)
    if statuses != {200}:
        raise SystemExit(f"requests were answered with {statuses}")
    return best


def run(variant: str, checkout: Path) -> float:
    """Microseconds a request, of a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", variant]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONHASHSEED": "0"}
    return float(subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def microseconds(variants: Mapping[str, Path], repetitions: int) -> dict[str, float]:
    """Variant → processor time of a request."""
    seen: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repetitions):
        for name, checkout in variants.items():
            seen[name].append(run(name, checkout))
    return {name: min(times) for name, times in seen.items()}


def main() -> None:
    """Print a table, and the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="another checkout")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(measure(arguments.measure))
        return
    variants = {"off": ROOT, "metrics": ROOT, "traces": ROOT}
    if arguments.other is not None:
        variants = {"other": arguments.other.resolve(), **variants}
    figures = microseconds(variants, arguments.repetitions)
    base = next(iter(figures.values()))
    for name, figure in figures.items():
        print(f"{name:8} {figure:12.1f} {figure / base - 1:+8.2%}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
