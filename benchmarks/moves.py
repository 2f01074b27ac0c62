"""Moves of a tenant between the shared cell and a dedicated cell, under load.

    .venv/bin/python benchmarks/moves.py [--moves 20] [--json FILE]

Needs a running platform (`mlcore up`). Creates a tenant with a key and a small model (20 numbers, logistic regression),
and moves it to a dedicated cell and back while four connections send requests. A request that fails is not repeated.
Prints the requests that failed, the longest wait for an answer, and the time of a move: from the setting of the
placement until the other cell has let go of the tenant.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from bisect import bisect
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.placement import Placement
from ml_core.ids import TenantId
from ml_core.platform.local import LocalPlatform
from ml_core.registry.keys import KeyRepository
from ml_core.registry.placements import PlacementRepository
from ml_core.settings import Settings
from ml_core.system import MLSystem

TENANT, MODEL, CONNECTIONS = TenantId("benchmark-moves"), "moves", 4
LOOK_EVERY_S, WITHIN_S = 0.5, 300.0
AFTERWARDS_S = 3.0
"""For which requests go on after the last move, so that its late failures are seen."""
SLOW_S = 0.5
"""Longer waits are listed: the move, when they were sent in seconds since it began, and the wait in milliseconds."""


@dataclass
class Answers:
    """When each request was sent and how long it waited, in seconds, and the failures.

    Several threads append, which is safe in CPython.
    """

    waits_s: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def ask(self, url: str, key: str, row: dict[str, float]) -> None:
        """Send requests over one connection until stopped."""
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
            while not self.stop.is_set():
                started = time.monotonic()
                failure = None
                try:
                    response = client.post(f"/t/{TENANT}/models/{MODEL}/predict", json={"rows": [row]})
                    if response.status_code != httpx.codes.OK:
                        failure = f"{response.status_code} {response.text[:200]}"
                except httpx.HTTPError as error:
                    failure = repr(error)
                self.waits_s.append((started, time.monotonic() - started))
                if failure is not None:
                    print(f"  failed after {self.waits_s[-1][1]:.1f} s: {failure}", flush=True)
                    self.failures.append(failure)


def table(rows: int = 1000) -> tuple[pd.DataFrame, pd.Series]:
    """Twenty numbers; two of them determine the label."""
    values = np.random.default_rng(0).normal(size=(rows, 20))
    labels = np.where(values[:, 0] + values[:, 1] > 0, "yes", "no")
    return pd.DataFrame(values, columns=[f"x{i}" for i in range(20)]), pd.Series(labels)


def move(local: LocalPlatform, database: DatabaseConnection, *, to_dedicated: bool) -> float:
    """Move the tenant, and wait until the cell that it left has let go of it. Returns seconds."""
    placements, cell = PlacementRepository(database), f"t-{TENANT}"
    started = time.monotonic()
    placements.set(TENANT, Placement(is_dedicated=to_dedicated))
    while time.monotonic() - started < WITHIN_S:
        status = "" if to_dedicated else local.status().dedicated.get(cell, "DELETING")
        if placements.get(TENANT).has_moved == to_dedicated and (to_dedicated or status.startswith("DELETING")):
            return time.monotonic() - started
        time.sleep(LOOK_EVERY_S)
    raise SystemExit(f"the tenant did not move within {WITHIN_S:.0f} s")


def wait_until_served(url: str, key: str, row: dict[str, float]) -> None:
    """Wait until replicas know the new key and have loaded the new version."""
    started, path = time.monotonic(), f"{url}/t/{TENANT}/models/{MODEL}/predict"
    headers = {"authorization": f"Bearer {key}"}
    while httpx.post(path, json={"rows": [row]}, headers=headers, trust_env=False).status_code != httpx.codes.OK:
        if time.monotonic() - started > WITHIN_S:
            raise SystemExit(f"the model was not served within {WITHIN_S:.0f} s")
        time.sleep(LOOK_EVERY_S)


def measure(local: LocalPlatform, url: str, database: DatabaseConnection, moves: int) -> dict[str, object]:
    """Move there and back under load."""
    system, (X, y) = MLSystem(database, tenant_id=TENANT), table()
    trained = system.train_model(MODEL, "classification", (X, y), None, {"algorithm": "logistic_regression"})
    system.promote(MODEL, trained["version"])
    key = str(KeyRepository(database, TENANT).create("benchmark", [Scope.PREDICT]))
    move(local, database, to_dedicated=False)  # where an earlier run was interrupted
    answers, row = Answers(), X.iloc[0].to_dict()
    wait_until_served(url, key, row)
    threads = [threading.Thread(target=answers.ask, args=(url, key, row)) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    try:
        times: dict[bool, list[float]] = {True: [], False: []}
        began: list[float] = []
        for turn in range(moves):
            to_dedicated = turn % 2 == 0
            began.append(time.monotonic())
            times[to_dedicated].append(move(local, database, to_dedicated=to_dedicated))
            print(f"move {turn + 1}: {times[to_dedicated][-1]:.1f} s, {len(answers.failures)} failed", flush=True)
        answers.stop.wait(AFTERWARDS_S)
    finally:
        answers.stop.set()
        for thread in threads:
            thread.join()
    waits_s = [wait for _, wait in answers.waits_s]
    slow = [
        (bisect(began, sent), round(sent - max(each for each in began if each <= sent), 2), round(wait * 1000))
        for sent, wait in answers.waits_s
        if wait > SLOW_S and sent >= began[0]
    ]
    return {
        "moves": moves,
        "requests": len(answers.waits_s),
        "failed": len(answers.failures),
        "failures": answers.failures[:20],
        "worst_wait_ms": round(max(waits_s) * 1000, 1),
        "p99_ms": round(float(np.quantile(waits_s, 0.99)) * 1000, 1),
        "slow": slow,
        "there_s": round(statistics.median(times[True]), 1),
        "back_s": round(statistics.median(times[False] or [0.0]), 1),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/moves.json"))
    options = parser.parse_args()
    settings = Settings.from_environment()
    local = LocalPlatform(settings)
    if local.state is None:
        parser.error("no platform runs here: start one with `mlcore up`")
    with DatabaseConnection(settings=settings) as database:
        result = measure(local, local.state.url, database, options.moves)
    print(f"{result['moves']} moves, {result['requests']} requests, {result['failed']} failed")
    print(f"worst wait {result['worst_wait_ms']} ms, p99 {result['p99_ms']} ms")
    print(f"a move takes {result['there_s']} s, the way back {result['back_s']} s (medians)")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
