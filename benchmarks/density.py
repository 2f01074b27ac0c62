"""Many models in one replica: memory, cold and warm latency, eviction and restart.

    .venv/bin/python benchmarks/density.py [--models 2000] [--loaded-mb MB] [--seconds 10] [--json FILE]

Fills a temporary registry with tenants of ten small models each (logistic regressions on 5 to 20 numbers and up to
three categories) and some with a forest of 100 trees; each tenant has its own files in the store. Then it starts a
replica in a process of its own and asks it over loopback HTTP, with a key for each tenant and the prediction log on.
Ray is not involved. Figures of 20,000 and 100,000: ``--models``; ``--loaded-mb`` forces eviction.

The parts: ``registered``, a replica that has room for hardly a model; ``first``, one on a machine where none was
before, until all models are loaded; ``resident``, the same under load; ``restart``, the next one on that machine, which
knows what was asked; ``bounded``, one that has room for a fifth of the models. With 100,000 it takes half an hour, 4 GB
of memory and 2.5 GB of disk.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psycopg

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.populate import superuser, temporary_registry
from ml_core.database.connection import DatabaseConnection
from ml_core.database.security import tenant_tables
from ml_core.database.tables import SCHEMA
from ml_core.domain.api_key import ApiKey, Scope
from ml_core.ids import TenantId, VersionRef
from ml_core.inference.model_table import Residents
from ml_core.observability import NO_HOOKS, Hooks
from ml_core.registry.tenants import TenantRepository
from ml_core.settings import Settings
from ml_core.system import MLSystem

MODELS_OF_A_TENANT = 10
_TABLES = ("tenants", "api_keys", "models", "versions", "environments", "environment_history")
_SECRET = "density-benchmark-only-secret-32"
_ZIPF = 1.1  # the exponent; traffic of web sites has 0.6 to 1.2 (Breslau et al., 1999)
_CONNECTIONS = 8
LOADED_WITHIN_S = 900.0


class Model(NamedTuple):
    """A model that can be asked: the request, complete with its headers."""

    request: bytes
    is_forest: bool


def small(seed: int, rows: int = 300) -> tuple[pd.DataFrame, pd.Series]:
    """Five to twenty numbers and up to three categories; two of the numbers determine the label, with noise."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, 5 + 2 * (seed % 8)))
    frame = pd.DataFrame(values, columns=[f"measure_{index}" for index in range(values.shape[1])])
    for index in range(seed % 4):
        frame[f"category_{index}"] = random.choice([f"value {index} {n}" for n in range(4 + index)], rows)
    labels = np.where(values[:, 0] + values[:, 1] + random.normal(scale=0.3, size=rows) > 0, "yes", "no")
    return frame, pd.Series(labels)


def fill(db: DatabaseConnection, models: int, forests: int) -> list[Model]:
    """Fill an empty registry and its store: tenants with ten small models each, and ``forests`` with a forest."""
    asked = []
    for name, tenants, of_tenant in (("s", -(-models // MODELS_OF_A_TENANT), MODELS_OF_A_TENANT), ("f", forests, 1)):
        is_forest, template = name == "f", TenantId(f"{name}00000")
        TenantRepository(db).create(template)
        paths = {}
        with MLSystem(db, tenant_id=template) as system:
            for index in range(of_tenant):
                data = small(index + 7 * is_forest, 2_000 if is_forest else 300)
                chosen = {"max_depth": 10} if is_forest else {"algorithm": "logistic_regression"}
                trained = system.train_model(f"m{index}", "classification", data, None, chosen)
                system.promote(f"m{index}", trained["version"])
                version = system.resolve(f"m{index}", version=trained["version"])
                paths[version.digest] = system.models.store.fetch(template, version.digest, version.size_bytes)
                bodies = json.dumps({"rows": [data[0].iloc[0].to_dict()]})
                asked += [_model(f"{name}{n:05}", index, bodies, is_forest) for n in range(tenants)]
        with superuser(db) as session:
            _copy(session, template, name, tenants)
        for n in range(1, tenants):
            for digest, path in paths.items():
                copied = path.parents[2] / f"{name}{n:05}" / digest[:2] / digest
                copied.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
                copied.write_bytes(path.read_bytes())
    return asked


def _copy(session: psycopg.Connection[Any], template: str, name: str, tenants: int) -> None:
    """Copy the rows of a template tenant in the database, each with documents of its own, and give each a key."""
    session.execute("SET session_replication_role = replica")  # no check per row: the template is consistent
    stamp = session.execute(f"SELECT generation FROM {SCHEMA}.feed_clock").fetchone()
    own = {
        "tenant_id": f"'{name}' || lpad(n::text, 5, '0')",
        "feed_generation": f"t.feed_generation + {stamp[0] if stamp else 0} * n",
        "signature": "jsonb_set(t.signature, '{output,classes,0}', to_jsonb('no ' || n))",
        "self_test": "jsonb_set(t.self_test, '{rows,0,unknown}', to_jsonb(n))",  # unknown columns are ignored
    }
    for table in (each for each in _TABLES if each in {"tenants", *tenant_tables()} and each != "api_keys"):
        columns = _columns(session, table)
        values = ", ".join(own.get(column, f"t.{column}") for column in columns)
        session.execute(
            f"INSERT INTO {SCHEMA}.{table} ({', '.join(columns)}) SELECT {values} FROM {SCHEMA}.{table} t"
            f" CROSS JOIN generate_series(1, {tenants - 1}) n WHERE t.tenant_id = '{template}'"
        )
    session.execute(
        f"INSERT INTO {SCHEMA}.api_keys (tenant_id, key_id, salt, hash, scopes, name, feed_generation)"
        f" SELECT tenant_id, substr(md5(tenant_id), 1, 16), '', %s, %s, 'benchmark', 1 FROM {SCHEMA}.tenants"
        " WHERE left(tenant_id, 1) = %s",
        (hashlib.sha256(_SECRET.encode()).digest(), [Scope.PREDICT.value], name),
    )
    session.execute(f"UPDATE {SCHEMA}.feed_clock SET generation = generation * {tenants + 1}")
    session.execute("VACUUM ANALYZE")


def _columns(session: psycopg.Connection[Any], table: str) -> list[str]:
    found = session.execute(
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " AND NOT attisdropped AND attgenerated = '' AND attidentity = '' ORDER BY attnum",
        (f"{SCHEMA}.{table}",),
    )
    return [row[0] for row in found]


def _model(tenant: str, index: int, body: str, is_forest: bool) -> Model:
    key = ApiKey(hashlib.md5(tenant.encode(), usedforsecurity=False).hexdigest()[:16], _SECRET)
    head = (
        f"POST /t/{tenant}/models/m{index}/predict HTTP/1.1\r\nhost: cell\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return Model((head + body).encode(), is_forest)


# The replica, in a process of its own.


class _Loads(Hooks):
    """Counts the loads."""

    count = 0

    def model_loaded(self, version: VersionRef, seconds: float) -> None:  # noqa: ARG002 - the hook's arguments
        self.count += 1


def serve() -> None:
    """Answer until the standard input ends; prints a line of JSON when the replica is ready, and one at the end."""
    import uvicorn

    from ml_core.inference.edge.app import build_app
    from ml_core.inference.replica import START_WAIT_S, Replica, tune_process

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    tune_process()
    loads = _Loads()
    replica = Replica(Settings.from_environment(), "density", loads)
    replica.start(START_WAIT_S)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        config = uvicorn.Config(build_app(replica.service), log_config=None, ws="none", lifespan="off")
        server = uvicorn.Server(config)

        def end() -> None:
            sys.stdin.read()
            server.should_exit = True

        threading.Thread(target=end, daemon=True).start()
        server.run([listener])
    replica.stop()
    print(json.dumps({"loads": loads.count}), flush=True)


@dataclass
class Seen:
    """A replica process; ``loads`` is known at its end."""

    port: int
    pid: int
    ready_s: float
    loads: int = 0


@contextmanager
def replica(db: DatabaseConnection, memory_mb: int) -> Iterator[Seen]:
    """A replica process that is ready."""
    environment = {**os.environ, **db.environment, "MLCORE_HOME": str(db.settings.platform.home)}
    environment["MLCORE_MAX_MEMORY_MB"] = str(memory_mb)
    started = time.monotonic()
    command = [sys.executable, __file__, "--serve"]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        seen = Seen(port, process.pid, round(time.monotonic() - started, 2))
        yield seen
        process.stdin.close()
        seen.loads = json.loads(process.stdout.readline())["loads"]
    finally:
        process.terminate()
        process.wait(30)


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_s(pid: int) -> float:
    """Seconds of processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Asking.


class Client:
    """Keep-alive connections to one port. Counts other statuses than 200."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.failed: Counter[str] = Counter()

    async def ask(self, models: Iterable[Model], seconds: float = 1e9) -> list[float]:
        """Ask one model after the other on one connection; the milliseconds of each answer."""
        times: list[float] = []
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        until = time.monotonic() + seconds
        for model in models:
            started = time.perf_counter()
            writer.write(model.request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            times.append((time.perf_counter() - started) * 1000)
            if not head.startswith(b"HTTP/1.1 200"):
                self.failed[head[9:12].decode()] += 1
            if time.monotonic() > until:
                break
        writer.close()
        return times


def health(port: int) -> dict[str, Any]:
    """What the replica says of itself."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def zipf(models: Sequence[Model], seed: int) -> Iterator[Model]:
    """Models by a Zipf law, for ever; which are popular is the same for all seeds."""
    ranks = np.random.default_rng(0).permutation(len(models))
    weights = np.cumsum(1.0 / np.arange(1, len(models) + 1) ** _ZIPF)
    random = np.random.default_rng(seed)
    while True:
        for place in np.searchsorted(weights, random.random(4096) * weights[-1]).tolist():
            yield models[ranks[min(place, len(models) - 1)]]


def hot(models: Sequence[Model], share: float) -> list[Model]:
    """The most popular ones."""
    ranks = np.random.default_rng(0).permutation(len(models))
    return [models[rank] for rank in ranks[: max(1, int(share * len(models)))]]


async def under_load(port: int, models: Sequence[Model], cold: Iterable[Model], seconds: float) -> dict[str, Any]:
    """A Zipf load on some connections, and beside it first requests of models that are not loaded."""
    client = Client(port)
    load = [asyncio.create_task(client.ask(zipf(models, seed), seconds)) for seed in range(1, _CONNECTIONS + 1)]
    first: dict[bool, list[float]] = {False: [], True: []}
    until = time.monotonic() + seconds
    for model in cold:
        first[model.is_forest] += await client.ask([model])
        await asyncio.sleep(0.02)
        if time.monotonic() > until:
            break
    warm = [each for task in load for each in await task]
    figures = {"requests_s": round(len(warm) / seconds), "failed": dict(client.failed), **_figures("warm", warm)}
    return figures | _figures("cold_small", first[False]) | _figures("cold_forest", first[True])


def _figures(name: str, times_ms: Sequence[float]) -> dict[str, float]:
    if not times_ms:
        return {}
    p50, p99 = np.percentile(times_ms, [50, 99])
    return {f"{name}_n": len(times_ms), f"{name}_p50_ms": round(p50, 2), f"{name}_p99_ms": round(p99, 2)}


async def started(seen: Seen, models: Sequence[Model]) -> dict[str, Any]:
    """Seconds from the start of the process until it is ready, and until the hot 1 % have answered."""
    client, began = Client(seen.port), time.monotonic()
    first = await client.ask(hot(models, 0.01))
    answered_s = round(seen.ready_s + time.monotonic() - began, 2)
    return {"ready_s": seen.ready_s, "hot_answered_s": answered_s, **_figures("hot_first", first), **_failed(client)}


async def loaded(seen: Seen, models: Sequence[Model]) -> dict[str, Any]:
    """Seconds from the start of the process until nothing is left to load, while it is asked."""
    client, began = Client(seen.port), time.monotonic()
    load = asyncio.create_task(client.ask(zipf(models, 9)))
    while (await asyncio.to_thread(health, seen.port))["models"]["loading"]:
        if load.done():
            load.result()
        await asyncio.sleep(0.25)
    load.cancel()
    all_loaded_s = round(seen.ready_s + time.monotonic() - began, 2)
    return {"all_loaded_s": all_loaded_s, "all_loaded_cpu_s": cpu_s(seen.pid), **_failed(client)}


def _failed(client: Client) -> dict[str, Any]:
    return {"failed": dict(client.failed)} if client.failed else {}


def measure(db: DatabaseConnection, models: list[Model], options: argparse.Namespace) -> dict[str, Any]:
    """All figures; prints each part when it is known."""
    results: dict[str, Any] = {"eviction": eviction(len(models))}
    _show("eviction", results["eviction"])
    with replica(db, 4) as seen:  # a bound that keeps nearly all models out
        _wait_loaded(seen)
        bare_mb = rss_mb(seen.pid)
        results["registered"] = {"pointers": len(models), "ready_s": seen.ready_s, "cpu_s": cpu_s(seen.pid)}
        results["registered"]["rss_mb"] = round(bare_mb)
        _show("registered", results["registered"])
    with replica(db, 64 * 1024) as seen:
        results["first"] = {**asyncio.run(started(seen, models)), **asyncio.run(loaded(seen, models))}
        _show("first", results["first"])
        found = health(seen.port)["models"]
        grown_mb, measured_mb = max(1.0, rss_mb(seen.pid) - bare_mb), found["memory_bytes"] / 1e6
        results["resident"] = {
            "loaded": found["loaded"],
            "rss_mb": round(rss_mb(seen.pid)),
            "model_kb": round(grown_mb * 1e3 / found["loaded"], 1),
            "measured_of_rss": round(measured_mb / grown_mb, 2),
            **asyncio.run(under_load(seen.port, models, [], options.seconds)),
        }
        _show("resident", results["resident"])
    with replica(db, 64 * 1024) as seen:
        results["restart"] = asyncio.run(started(seen, models))
        _show("restart", results["restart"])
    bound_mb = options.loaded_mb or max(8, round(measured_mb / 5))
    with replica(db, bound_mb) as seen:
        _wait_loaded(seen)
        before = health(seen.port)["models"]["loaded"]
        figures = asyncio.run(under_load(seen.port, models, _cold(models), options.seconds))
        results["bounded"] = {"bound_mb": bound_mb, "rss_mb": round(rss_mb(seen.pid)), **figures}
    # The cold requests are no part of the load, and each is a load.
    asked, cold = figures["warm_n"], figures["cold_small_n"] + figures.get("cold_forest_n", 0)
    results["bounded"]["hit_rate"] = round(1 - (seen.loads - before - cold) / asked, 3)
    _show("bounded", results["bounded"])
    return results


def _wait_loaded(seen: Seen) -> None:
    """Wait until a replica has loaded as much as it has room for.

    Raises:
        TimeoutError: It has not within a quarter of an hour.
    """
    deadline = time.monotonic() + LOADED_WITHIN_S
    while health(seen.port)["models"]["loading"]:
        if time.monotonic() > deadline:
            raise TimeoutError("the replica goes on loading")
        time.sleep(0.25)


def _cold(models: Sequence[Model]) -> Iterator[Model]:
    """Each model once, from the least popular: a forest after every second small one."""
    unpopular = hot(models, 1.0)[::-1]
    forests = (each for each in unpopular if each.is_forest)
    for number, model in enumerate(each for each in unpopular if not each.is_forest):
        yield model
        if number % 2 and (forest := next(forests, None)) is not None:
            yield forest


class _Sized(NamedTuple):
    """As much of a model as eviction knows."""

    memory_bytes: int
    uncompiled: str | None = None


def eviction(models: int, requests: int = 100_000) -> dict[str, float]:
    """Hit rates and milliseconds of loads for each request, of the table and of the least recently used.

    A tenth of the models are forests (1.9 MB, 25 ms), the others small (9 to 20 kB, 1 to 3 ms); memory has room for a
    fifth of their bytes.
    """
    random = np.random.default_rng(0)
    is_large = random.random(models) < 0.1
    sizes = np.where(is_large, 1_900_000, random.integers(9_000, 20_000, models)).tolist()
    loads_s = np.where(is_large, 0.025, random.uniform(0.001, 0.003, models)).tolist()
    weights = np.cumsum(1.0 / np.arange(1, models + 1) ** _ZIPF)
    asked = random.permutation(models)[np.searchsorted(weights, random.random(requests) * weights[-1])].tolist()
    figures: dict[str, float] = {}
    residents = Residents(sum(sizes) // 5, lambda _: True, NO_HOOKS)
    recent: OrderedDict[int, None] = OrderedDict()
    misses: dict[str, list[float]] = {"own": [], "lru": []}
    held = 0
    for number in asked:
        key = ("", "", str(number), "")
        if (resident := residents.take(key)) is None:
            misses["own"].append(loads_s[number])
            residents.add(key, _Sized(sizes[number]), loads_s[number])  # type: ignore[arg-type]
        else:
            resident.in_use -= 1
        if number not in recent:
            misses["lru"].append(loads_s[number])
            held += sizes[number]
        recent[number] = None
        recent.move_to_end(number)
        while held > residents.max_bytes:
            held -= sizes[recent.popitem(last=False)[0]]
    for name, missed in misses.items():
        figures[f"{name}_hit_rate"] = round(1 - len(missed) / requests, 3)
        figures[f"{name}_load_ms_per_request"] = round(sum(missed) / requests * 1000, 3)
    return figures


def _show(part: str, figures: dict[str, Any]) -> None:
    print(f"{part:10}", "  ".join(f"{name} {value}" for name, value in figures.items()), flush=True)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=2_000)
    parser.add_argument("--forests", type=int, default=40)
    parser.add_argument("--loaded-mb", type=int, help="bound of the run with eviction; default: a fifth of all models")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/density.json"))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    with temporary_registry() as db:
        began = time.monotonic()
        models = fill(db, options.models, options.forests)
        print(f"{len(models):,} models registered in {time.monotonic() - began:.0f} s")
        results = measure(db, models, options)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
