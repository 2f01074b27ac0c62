"""Half of the maximum load for a long time, and ten times the maximum for a short one: failures, latency and memory.

    .venv/bin/python benchmarks/soak.py [--seconds 600] [--connections 64] [--overload-seconds 20] [--json FILE]

Starts a platform (PostgreSQL, Ray Serve behind its ingress, two replicas), serves a logistic regression over 20
numbers with authentication, metrics and prediction log, and loads it with ``wrk``, which must be installed.

1. The maximum: 64 connections, each of which sends the next request at once.
2. The soak: the same connections pause, so that half of the maximum is sent. By minute: requests, failures, p50 and
   p99, and the memory of each replica. ``grew`` compares the last minute with the first one after ``WARM_UP_S``.
3. The overload: ten times the connections, none of which pauses. Answers by status, and the highest memory; then half
   of the maximum again, until p99 is at most ``BACK_FACTOR`` times that of the soak.

Memory is the resident set of a replica.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from live_platform import numbers, temporary_platform, wait_followed

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.ids import TenantId
from ml_core.platform.processes import find_marked
from ml_core.platform.state import PlatformState
from ml_core.registry.keys import KeyRepository
from ml_core.system import MLSystem

TENANT, MODEL, THREADS = TenantId("benchmark"), "numbers", 2
WARM_UP_S = 60
"""Python and NumPy keep some memory that they needed once, and the prediction log fills its buffers."""
OVERLOAD = 10
BACK_FACTOR = 2.0
_BACK_WITHIN_S = 60
# `delay` spreads the pauses, so that the connections do not send together. wrk calls `done` in a separate interpreter.
_SCRIPT = """
wrk.method = "POST"
wrk.body = [[{body}]]
wrk.headers["Authorization"] = "Bearer {key}"
statuses = {{}}
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function response(status) statuses[status] = (statuses[status] or 0) + 1 end
{delay}
function done(summary, latency)
  local all = {{}}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do all[status] = (all[status] or 0) + count end
  end
  local parts = {{}}
  for status, count in pairs(all) do table.insert(parts, string.format('"%d": %d', status, count)) end
  local e = summary.errors
  print(string.format('RESULT {{"statuses": {{%s}}, "broken": %d, "timeouts": %d, "seconds": %f, "p50_ms": %f, ' ..
    '"p99_ms": %f, "max_ms": %f}}', table.concat(parts, ", "), e.connect + e.read + e.write, e.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
"""


def serve(db: DatabaseConnection) -> tuple[str, str]:
    """Train and promote a model; returns a key, and the body of a request."""
    frame, labels = numbers()
    system = MLSystem(db, tenant_id=TENANT)
    trained = system.train_model(MODEL, "classification", (frame, labels), None, {"algorithm": "logistic_regression"})
    system.promote(MODEL, trained["version"])
    key = str(KeyRepository(db, TENANT).create("benchmark", [Scope.PREDICT]))
    wait_followed(db)
    return key, json.dumps({"rows": [frame.iloc[0].round(4).to_dict()]})


class Platform:
    """A running platform under load.

    Args:
        state: The platform.
        home: Its folder, in which scripts are written.
        key: A key of the tenant.
        body: The body of each request.
    """

    def __init__(self, state: PlatformState, home: Path, key: str, body: str) -> None:
        self._state, self._home, self._key, self._body = state, home, key, body
        self._target = f"{state.url}/t/{TENANT}/models/{MODEL}/predict"

    def load(self, connections: int, seconds: float, *, rate: float | None = None) -> dict[str, Any]:
        """Load the platform: answers by status, ``failed`` ones, and latencies.

        Args:
            connections: How many connections send requests.
            seconds: For how long, at least 1.
            rate: Requests per second; None: as many as are answered.
        """
        pause_ms = None if rate is None else connections / rate * 1000
        # The latency of an answer is part of its turn; at half load it is a small one.
        delay = "" if pause_ms is None else f"function delay() return math.random(0, {2 * pause_ms:.0f}) end"
        script = self._home / "request.lua"
        script.write_text(_SCRIPT.format(body=self._body, key=self._key, delay=delay), encoding="utf-8")
        options = ["-t", str(THREADS), "-c", str(connections), "-d", f"{max(1, round(seconds))}s", "-s", str(script)]
        printed = subprocess.run(["wrk", *options, self._target], check=True, capture_output=True, text=True).stdout
        line = next(line for line in printed.splitlines() if line.startswith("RESULT "))
        result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
        answered = result["statuses"].get("200", 0)
        result["requests"] = sum(result["statuses"].values())
        result["failed"] = result["requests"] - answered + result["broken"] + result["timeouts"]
        result["answered_s"] = answered / result["seconds"]
        return result

    def memory_mb(self) -> dict[str, float]:
        """Process id → resident set of each replica of the cell, in MB."""
        found = {}
        for process in find_marked(self._home, self._state.session_id):
            with suppress(psutil.NoSuchProcess):
                if any(part.startswith("ray::ServeReplica:shared") for part in (process.name(), *process.cmdline())):
                    found[str(process.pid)] = process.memory_info().rss / 2**20
        return found


def soak(platform: Platform, connections: int, rate: float, seconds: int) -> dict[str, Any]:
    """Send requests at a rate; figures by minute, and the growth of the memory."""
    minutes: list[dict[str, Any]] = []
    platform.load(connections, min(WARM_UP_S, seconds), rate=rate)
    before = platform.memory_mb()
    ended = time.monotonic() + seconds
    while (left := ended - time.monotonic()) > 1:
        minute = platform.load(connections, min(60, left), rate=rate) | {"memory_mb": platform.memory_mb()}
        minutes.append(minute)
        memory = " ".join(f"{mb:.1f}" for mb in minute["memory_mb"].values())
        print(
            f"minute {len(minutes):3}  {minute['requests']:8,} requests  {minute['failed']} failed  "
            f"p50 {minute['p50_ms']:.2f} ms  p99 {minute['p99_ms']:.2f} ms  memory {memory} MB"
        )
    after = minutes[-1]["memory_mb"]
    return {
        "seconds": seconds,
        "rate": rate,
        "requests": sum(minute["requests"] for minute in minutes),
        "failed": sum(minute["failed"] for minute in minutes),
        "p99_ms": statistics.median(minute["p99_ms"] for minute in minutes),
        "memory_before_mb": before,
        # A replica that was replaced has no growth, which is a failure of the soak.
        "grew": {pid: after[pid] / before[pid] - 1 if pid in after else None for pid in before},
        "mb_a_minute": {pid: _slope([before, *(each["memory_mb"] for each in minutes)], pid) for pid in before},
        "minutes": minutes,
    }


def _slope(memory: list[dict[str, float]], pid: str) -> float | None:
    """The line through a replica's memory at the ends of the minutes; None if it was replaced."""
    if not all(pid in each for each in memory):
        return None
    return statistics.linear_regression(range(len(memory)), [each[pid] for each in memory]).slope


def overload(platform: Platform, connections: int, rate: float, seconds: int, p99_ms: float) -> dict[str, Any]:
    """Send as much as ten times the connections can, then look how long the platform takes to recover."""
    before, highest = platform.memory_mb(), dict[str, float]()
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.5):
            for pid, memory in platform.memory_mb().items():
                highest[pid] = max(memory, highest.get(pid, 0.0))

    watching = threading.Thread(target=watch)
    watching.start()
    result = platform.load(OVERLOAD * connections, seconds)
    is_over.set()
    watching.join()
    ended, recovered_s, left = time.monotonic(), None, platform.memory_mb()
    while recovered_s is None and time.monotonic() < ended + _BACK_WITHIN_S:
        begun = time.monotonic()
        after = platform.load(connections, 1, rate=rate)
        if after["failed"] == 0 and after["p99_ms"] <= BACK_FACTOR * p99_ms:
            recovered_s = round(begun - ended, 1)
    grew = {pid: highest[pid] / before[pid] - 1 if pid in left else None for pid in before}  # as in ``soak``
    return result | {"memory_before_mb": before, "highest_grew": grew, "recovered_s": recovered_s}


def measure(platform: Platform, options: argparse.Namespace) -> dict[str, Any]:
    """All three steps."""
    platform.load(options.connections, options.maximum_seconds)  # warms up
    maximum = platform.load(options.connections, options.maximum_seconds)
    print(
        f"maximum {maximum['answered_s']:,.0f} requests/s, p99 {maximum['p99_ms']:.1f} ms, {maximum['failed']} failed"
    )
    rate = maximum["answered_s"] / 2
    result = {"maximum": maximum, "soak": soak(platform, options.connections, rate, options.seconds)}
    soaked = result["soak"]
    print(
        f"soak: {soaked['requests']:,} requests, {soaked['failed']} failed; "
        f"memory of the replicas {_shares(soaked['grew'])}"
    )
    if options.overload_seconds:
        found = overload(platform, options.connections, rate, options.overload_seconds, soaked["p99_ms"])
        result["overload"] = found
        print(
            f"overload: {found['statuses']}, {found['answered_s']:,.0f} answered/s, {found['broken']} broken, "
            f"highest memory {_shares(found['highest_grew'])}; p99 is back after {found['recovered_s']} s"
        )
    return result


def _shares(grew: dict[str, float | None]) -> str:
    return ", ".join("replaced" if share is None else f"{share:+.2%}" for share in grew.values())


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="of the soak, after as long a warm-up of at most 60 s")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--maximum-seconds", type=int, default=10)
    parser.add_argument("--overload-seconds", type=int, default=20, help="0: no overload")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/soak.json"))
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed: https://github.com/wg/wrk")
    with temporary_platform() as (db, state):
        key, body = serve(db)
        result = measure(Platform(state, db.settings.platform.home, key, body), options)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
