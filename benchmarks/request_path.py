"""What one request costs the prediction plane, by stage, in one process without a server, a socket or a database.

    python benchmarks/request_path.py [--other /path/to/another/checkout] [--instructions] [--json FILE]

Requests run through the ASGI application, each on a task of its own as uvicorn runs them. The stages are requests that
do one thing more than the stage before them, so that any two checkouts can be compared:

========  ==============================================================================================
constant  an ASGI application that reads the body and answers 200
edge      ``GET /t/{tenant}/v2/health/live``: headers, route, API key, deadline, response
body      ``predict`` with one number for a model that answers a constant: body, JSON, rollout, rendering
columns   the same with 20 numbers
model     the same for a logistic regression
metrics   the same with the metrics of a replica
log       the same with the prediction log, whose batches are rendered and then dropped: all that is on
ticket    a raw ticket (two texts, a date, three categories), all on
========  ==============================================================================================

Figures are microseconds of processor time of the process per request, and what the stage adds. Stages alternate in
blocks of requests; a figure is the first decile of the blocks, because slow blocks were disturbed. ``--instructions``
adds instructions per request as ``valgrind --tool=callgrind`` counts them, which hardly depend on other load; it takes
minutes. ``--other`` runs the same stages with another checkout, such as the one before a change.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BLOCKS, REQUESTS = 60, 100
COUNTED = 300
"""Requests whose instructions are counted; they vary by less than 1 %."""
STAGES = ("constant", "edge", "body", "columns", "model", "metrics", "log", "ticket")
_LAST = "log"  # a ticket is another request and not a further stage

Ask = Callable[[], Awaitable[None]]


async def constant(_: Any, receive: Any, send: Any) -> None:
    """An application that answers nothing but ``200``."""
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def asking(app: Any, method: str, path: str, key: str = "", body: bytes = b"") -> Ask:
    """A function that sends one request on a task of its own, and fails unless the answer is 200."""
    headers = [
        (b"host", b"127.0.0.1:8000"),
        (b"authorization", f"Bearer {key}".encode()),
        (b"content-length", b"%d" % len(body)),
        (b"x-forwarded-for", b"127.0.0.1"),
        (b"x-request-disconnect-disabled", b"?1"),
    ]

    async def receive() -> dict[str, Any]:
        nonlocal is_read
        if is_read:  # asked for the end of the connection, because the request took long
            await asyncio.Future()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message.get("status", 200) != 200:
            raise SystemExit(f"{path} was answered with {message}")

    async def ask() -> None:
        nonlocal is_read
        is_read = False
        scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
        await asyncio.get_running_loop().create_task(app(scope, receive, send))

    is_read = False
    return ask


@contextmanager
def stages() -> Iterator[dict[str, Ask]]:
    """Stage → a function that sends one request."""
    sys.path[:0] = [str(Path.cwd() / "tests"), str(ROOT / "benchmarks")]
    import pandas as pd
    from serving import tables

    from ml_core.domain.api_key import Scope
    from ml_core.domain.assignment import AssignmentDelta
    from ml_core.inference.edge.app import build_app
    from ml_core.inference.prediction_log import PredictionLog, PredictionRecorder
    from ml_core.inference.replica import tune_process
    from ml_core.inference.service import PredictionService
    from ml_core.models.loading import LoadedModel, load_version
    from ml_core.models.store import LocalStore
    from ml_core.observability.prometheus import PrometheusHooks
    from ml_core.registry.predictions.ingest import Written
    from ml_core.settings import PredictionLogSettings, ServingSettings
    from support.inprocess_cell import ACME, fitted, make_cell, promote, servable

    class Constant(LoadedModel):
        """Answers ``yes`` for one row."""

        labels = np.array(["yes"], dtype=object)

        def predict(self, columns: Any) -> Any:  # noqa: ARG002
            return self.labels

        def predict_both(self, columns: Any, *, proba: bool = True) -> Any:  # noqa: ARG002
            return self.labels, None

    class Nowhere:
        """Takes the batches of the prediction log."""

        def write(self, requests: Any, losses: Any, batch_id: str, *, is_repeated: bool = False) -> Written:  # noqa: ARG002
            return Written(kept=sum(each.rows for each in requests))

    tune_process()
    limits = ServingSettings()
    (numbers, sign, _), _, (tickets, kind, _) = tables(400).values()
    one = pd.DataFrame({"x": numbers.x0 + numbers.x1})
    rows = {"one": one, "constant": numbers, "numbers": numbers, "tickets": tickets}
    with tempfile.TemporaryDirectory() as folder:

        def load(version: Any) -> LoadedModel:
            model = load_version(cell.store, version)
            is_constant = version.ref.model_id in ("one", "constant")
            return Constant(version, model.pipeline) if is_constant else model

        cell = make_cell(LocalStore(Path(folder)), limits, loader=load)
        cell.assignment.apply(AssignmentDelta(1, True, {ACME: True}, {}, {}))
        key = cell.key(ACME, Scope.PREDICT)
        for name, frame in rows.items():
            labels = kind if name == "tickets" else sign
            promote(cell.table, servable(cell.store, fitted(name, (frame, labels), algorithm="logistic_regression")))
        hooks = PrometheusHooks()
        log = PredictionLog(Nowhere(), PredictionLogSettings(), hooks)  # type: ignore[arg-type]
        recorder = PredictionRecorder(cell.assignment, log, None)  # type: ignore[arg-type]
        log.start()

        def app(**options: Any) -> Any:
            service = PredictionService(cell.assignment, cell.table, None, limits=limits, **options)  # type: ignore[arg-type]
            return build_app(service, host_sends_request_id=True)

        def predict(app: Any, model: str) -> Ask:
            body = json.dumps({"rows": [rows[model].iloc[0].to_dict()]}).encode()
            return asking(app, "POST", f"/t/acme/models/{model}/predict", key, body)

        plain, counting, logging = app(), app(hooks=hooks), app(hooks=hooks, recorder=recorder)
        yield {
            "constant": asking(constant, "POST", "/", key, b"{}"),
            "edge": asking(plain, "GET", "/t/acme/v2/health/live", key),
            "body": predict(plain, "one"),
            "columns": predict(plain, "constant"),
            "model": predict(plain, "numbers"),
            "metrics": predict(counting, "numbers"),
            "log": predict(logging, "numbers"),
            "ticket": predict(logging, "tickets"),
        }
        recorder.close()
        cell.table.close()


async def timed(asks: dict[str, Ask]) -> dict[str, list[float]]:
    """Stage → microseconds of processor time per request, by block."""
    times: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(BLOCKS):
        for name, ask in asks.items():
            started = time.process_time()
            for _ in range(REQUESTS):
                await ask()
            times[name].append((time.process_time() - started) / REQUESTS * 1e6)
    return times


async def counted(asks: dict[str, Ask]) -> dict[str, float]:
    """Stage → thousands of instructions per request; runs under callgrind, in the folder of its files."""
    for ask in asks.values():
        for _ in range(100):  # imports, caches and the measured cost of the models
            await ask()
    _callgrind("--instr=on")
    for name, ask in asks.items():
        _callgrind("--zero")
        for _ in range(COUNTED):
            await ask()
        _callgrind(f"--dump={name}")
    found = {}
    for path in Path.cwd().glob("callgrind.out.*"):
        text = path.read_text(encoding="utf-8", errors="replace")
        name, total = re.search(r"Client Request: (\w+)|--dump=(\w+)|Trigger: .*?(\w+)$", text, re.M), 0
        sums = re.search(r"^(?:summary|totals): (\d+)", text, re.M)
        if name is not None and sums is not None:
            total = int(sums[1])
            found[next(group for group in name.groups() if group)] = total / COUNTED / 1000
    return found


def _callgrind(command: str) -> None:
    subprocess.run(["callgrind_control", command, str(os.getpid())], check=True, capture_output=True)


def run(checkout: Path, *, instructions: bool) -> dict[str, Any]:
    """Measure a checkout in a separate process."""
    me = [sys.executable, str(Path(__file__).resolve()), "--measure", "instructions" if instructions else "time"]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    if instructions:
        environment["PYTHONHASHSEED"] = "0"
        me = ["valgrind", "--tool=callgrind", "--instr-atstart=no", *me]
    done = subprocess.run(me, cwd=checkout, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    """Measure, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="another checkout")
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", choices=("time", "instructions"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        with stages() as asks:
            print(json.dumps(asyncio.run(timed(asks) if options.measure == "time" else counted(asks))))


if __name__ == "__main__":
    main()
