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
log       the same with the prediction log, spooled to memory, not to a file, and then dropped: all that is on
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
    import pandas as pd
    from serving_tables import tables

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
    (numbers, sign), _, (tickets, kind) = tables(400).values()
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
            return build_app(service)

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
    dumps = [path.read_text(encoding="utf-8", errors="replace") for path in Path.cwd().glob("callgrind.out.*.*")]
    found = {}
    for dump in dumps:
        name, total = re.search(r"^desc: Trigger: dump (\w+)$", dump, re.M), re.search(r"^totals: (\d+)$", dump, re.M)
        if name is not None and total is not None:
            found[name[1]] = int(total[1]) / COUNTED / 1000
    return {name: found[name] for name in asks}


def _callgrind(command: str) -> None:
    subprocess.run(["callgrind_control", command, str(os.getpid())], check=True, capture_output=True)


def run(checkout: Path, *, instructions: bool) -> dict[str, Any]:
    """Measure a checkout in a separate process."""
    me = [sys.executable, str(Path(__file__).resolve()), "--measure", "instructions" if instructions else "time"]
    paths = [str(checkout), str(checkout / "tests")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        if instructions:
            me = ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no", *me]
        done = subprocess.run(me, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def figures_of(checkout: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Stage → ``us``, ``added_us`` and, if asked for, ``k_instructions`` of a request."""
    seen: dict[str, list[float]] = {name: [] for name in STAGES}
    for _ in range(options.repetitions):
        for name, times in run(checkout, instructions=False).items():
            seen[name] += times
    times = {name: statistics.quantiles(found, n=10)[0] for name, found in seen.items()}
    counts = run(checkout, instructions=True) if options.instructions else {}
    figures: dict[str, dict[str, float]] = {}
    for index, name in enumerate(STAGES):
        before = times[STAGES[index - 1]] if index else 0.0
        figures[name] = {"us": times[name]}
        if name != "ticket":  # another request and not a further stage
            figures[name]["added_us"] = times[name] - before
        if name in counts:
            figures[name]["k_instructions"] = counts[name]
    return figures


def main() -> None:
    """Measure, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="another checkout")
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", choices=("time", "instructions"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        with stages() as asks:
            print(json.dumps(asyncio.run(timed(asks) if options.measure == "time" else counted(asks))))
        return
    checkouts = {"here": ROOT, **({"other": options.other.resolve()} if options.other else {})}
    result = {name: figures_of(checkout, options) for name, checkout in checkouts.items()}
    for stage in STAGES:
        columns = (f"{figure} {value:8.1f}" for found in result.values() for figure, value in found[stage].items())
        print(f"{stage:10}" + "   ".join(columns))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
