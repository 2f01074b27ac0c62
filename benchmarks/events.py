"""Streams of events: how soon a change is told, what open streams cost, and what NOTIFY would cost instead.

    .venv/bin/python benchmarks/events.py [--tenants 1000] [--seconds 20] [--json FILE]

Starts an embedded PostgreSQL server with many tenants and the control API as one process, and opens as many streams as
a process takes, each of another tenant. Then tenants change one after the other, half of them with a stream. A latency
is from before the transaction of the change until its event has been read by a client on the same machine.

The last lines compare commits of eight sessions that each insert a row, with and without a NOTIFY in the transaction:
Postgres takes a lock of the whole database from the NOTIFY until the end of the commit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import threading
import time
from pathlib import Path

import httpx
import psutil
from populate import populate, superuser, temporary_registry, tenant_name
from registry_http import control_api

from ml_core.api.events import MAX_STREAMS
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.registry.changes import ChangeReader
from ml_core.registry.keys import KeyRepository

_SESSIONS = 8
_ROWS = 200
_CHANGES_PER_S = 20
_WITHIN_S = 30.0


async def _listen(
    client: httpx.AsyncClient, url: str, key: str, heard: dict[str, float], opened: asyncio.Event
) -> None:
    async with client.stream("GET", url, headers={"authorization": f"Bearer {key}"}) as response:
        assert response.status_code == 200, response.status_code
        async for line in response.aiter_lines():
            if line == "event: listening":
                opened.set()
            elif line == "event: changed":
                heard[url] = time.perf_counter()


async def _latencies(db: DatabaseConnection, port: int, tenants: int, seconds: float) -> dict[str, float]:
    """Open the streams, measure the process at rest, then change tenants."""
    keys = {index: str(KeyRepository(db, tenant_name(index)).create("x", [Scope.READ])) for index in range(MAX_STREAMS)}
    heard: dict[str, float] = {}
    url = "http://127.0.0.1:{}/v1/tenants/{}/events"
    server = next(
        each.pid for each in psutil.net_connections("tcp") if each.status == "LISTEN" and each.laddr.port == port
    )
    process = psutil.Process(server)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=None, limits=limits, trust_env=False) as client:
        listening = []
        for index, key in keys.items():
            opened = asyncio.Event()
            address = url.format(port, tenant_name(index))
            listening.append(asyncio.create_task(_listen(client, address, key, heard, opened)))
            await asyncio.wait_for(opened.wait(), _WITHIN_S)
        at_rest = await _cpu_of(process, seconds)
        found = []
        busy_from = sum(process.cpu_times()[:2])
        began = time.perf_counter()
        for number in range(int(seconds * _CHANGES_PER_S)):
            listened = number % 2 == 0
            index = random.randrange(MAX_STREAMS) if listened else random.randrange(MAX_STREAMS, tenants)
            heard.clear()
            before = time.perf_counter()
            await asyncio.to_thread(KeyRepository(db, tenant_name(index)).create, "y", [Scope.READ])
            if listened:
                address = url.format(port, tenant_name(index))
                async with asyncio.timeout(_WITHIN_S):
                    while address not in heard:
                        await asyncio.sleep(0.001)
                found.append(heard[address] - before)
            await asyncio.sleep(max(0.0, began + (number + 1) / _CHANGES_PER_S - time.perf_counter()))
        busy = (sum(process.cpu_times()[:2]) - busy_from) / (time.perf_counter() - began)
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
    return {
        "streams": len(keys),
        "p50_ms": 1000 * statistics.median(found),
        "p99_ms": 1000 * statistics.quantiles(found, n=100)[-1],
        "max_ms": 1000 * max(found),
        "cpu_at_rest": at_rest,
        "cpu_busy": busy,
    }


async def _cpu_of(process: psutil.Process, seconds: float) -> float:
    """Processors that a process uses."""
    before = sum(process.cpu_times()[:2])
    await asyncio.sleep(seconds)
    return (sum(process.cpu_times()[:2]) - before) / seconds


def _look_ms(db: DatabaseConnection) -> float:
    """A look at nothing new."""
    reader, took = ChangeReader(db), []
    look = reader.look(None)
    for _ in range(200):
        began = time.perf_counter()
        look = reader.look(look)
        took.append(time.perf_counter() - began)
    return 1000 * statistics.median(took)


def _commits_per_s(db: DatabaseConnection, *, notifies: bool) -> float:
    """Of sessions that insert a row and commit, as fast as they can."""
    with superuser(db) as session:
        session.execute("DROP TABLE IF EXISTS committed")
        session.execute("CREATE TABLE committed (n int)")

    def work() -> None:
        with superuser(db) as session:
            for number in range(_ROWS):
                with session.transaction():
                    session.execute("INSERT INTO committed VALUES (%s)", [number])
                    if notifies:
                        session.execute("NOTIFY benchmark")

    threads = [threading.Thread(target=work) for _ in range(_SESSIONS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _SESSIONS * _ROWS / (time.perf_counter() - began)


def main() -> None:
    """Measure, and print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tenants", type=int, default=1000)
    options.add_argument("--seconds", type=float, default=20)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    with temporary_registry() as db:
        populate(db, tenants=given.tenants, versions=2)
        with control_api(db, 0) as (port, _):
            found = asyncio.run(_latencies(db, port, given.tenants, given.seconds))
        found["look_ms"] = _look_ms(db)
        for name, notifies in (("commits_per_s", False), ("notifying_commits_per_s", True)):
            found[name] = statistics.median(_commits_per_s(db, notifies=notifies) for _ in range(3))
    for name, value in found.items():
        print(f"{name:<26}{value:10.3f}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
