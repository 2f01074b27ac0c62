"""Requests per second of the platform, of a constant answer in the same Serve stack, and of other model servers.

    python benchmarks/serving.py [--peers mlserver,bentoml,kserve,fastapi] [--other PYTHON] [--seconds 4] [--rounds 3]
                                 [--models raw_ticket,…] [--json FILE]

Ours has all on: authentication, signature check, quota, metrics and prediction log. ``constant`` is a bare deployment
with as many replicas that answers ``{}``, in the same Ray Serve with the same flags: the most that this stack can do.
The peers serve the same scikit-learn pipelines, each in an environment that is installed on first use (see
``serving_peers.py``); one that can't be installed or does not answer is skipped, and the reason is printed. ``--other``
is the interpreter of another checkout's environment, such as the release before.

``wrk``, which must be installed, loads all of them in turn with 1, 16 and 64 connections, one row per request; the
order is reversed in every other round. A figure is the median of the rounds, and ``ratio`` the median of the ratios of
ours to each. Then p50 and p99 of ours and of the constant answer at half of our highest rate (``open_loop.py``), once
the prediction log of the rounds is written; and a request of 1,000 rows, whose time without that of the same body for
the constant answer is compared with ``predict`` of these rows in process.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from live_platform import wait_followed, wait_logged
from open_loop import OpenLoop
from peers import peer_python
from serving_peers import REQUIREMENTS, request_of
from serving_tables import ALGORITHMS, tables

TENANT, CONNECTIONS, MANY = "benchmark", (1, 16, 64), 1000
STARTED_WITHIN_S = 120.0
"""Seconds until a peer answers."""
HERE = Path(__file__).resolve().parent


class Ask(NamedTuple):
    """A POST request."""

    url: str
    body: str
    headers: dict[str, str]

    def milliseconds(self, calls: int = 30) -> float:
        """The median time of the request over one connection."""
        host, _, path = self.url.removeprefix("http://").partition("/")
        connection, times = http.client.HTTPConnection(host, timeout=30), []
        for _ in range(calls):
            started = time.perf_counter()
            connection.request("POST", f"/{path}", self.body, self.headers)
            response = connection.getresponse()
            response.read()
            times.append((time.perf_counter() - started) * 1000)
            if response.status != 200:
                raise RuntimeError(f"{self.url} was answered with {response.status}")
        connection.close()
        return statistics.median(times)

    def rate(self, connections: int, seconds: int) -> float:
        """Requests per second.

        Raises:
            RuntimeError: A request failed.
        """
        headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in self.headers.items())
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(f'wrk.method = "POST"\nwrk.body = [==[{self.body}]==]\n{headers}')
            script.flush()
            options = ["-t", str(min(2, connections)), "-c", str(connections), "-d", f"{seconds}s", "-s", script.name]
            options += ["--timeout", "10s"]
            printed = subprocess.run(["wrk", *options, self.url], check=True, capture_output=True, text=True).stdout
        found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
        if found is None or "Non-2xx" in printed or "Socket errors" in printed:
            raise RuntimeError(f"{self.url} at {connections} connections: {printed}")
        return float(found[1])


Asks = dict[str, Ask]
"""Model → the request for one row."""


# In the interpreter of a checkout.


def serve() -> dict[str, Any]:
    """Start the platform of the settings and serve the models; their requests, and ``predict`` in process in ms."""
    from ml_core.database.connection import DatabaseConnection
    from ml_core.domain.api_key import Scope
    from ml_core.ids import TenantId
    from ml_core.platform.local import LocalPlatform
    from ml_core.registry.keys import KeyRepository
    from ml_core.settings import Settings
    from ml_core.system import MLSystem

    settings = Settings.from_environment()
    url = LocalPlatform(settings).up().url
    db = DatabaseConnection(settings=settings)
    system = MLSystem(db, tenant_id=TENANT)
    one, many, in_process = {}, {}, {}
    for model, (rows, labels) in tables().items():
        trained = system.train_model(model, "classification", (rows, labels), None, {"algorithm": ALGORITHMS[model]})
        system.promote(model, trained["version"])
        path = f"{url}/t/{TENANT}/models/{model}/predict"
        records = rows.head(MANY).to_dict("records")
        one[model] = (path, json.dumps({"rows": records[:1]}))
        many[model] = (path, json.dumps({"rows": records}))
        loaded = system.models.load_model(model)
        in_process[model] = median_ms(lambda loaded=loaded, records=records: loaded.predict_rows(records))
    key = str(KeyRepository(db, TenantId(TENANT)).create("benchmark", [Scope.PREDICT]))
    wait_followed(db)
    headers = {"authorization": f"Bearer {key}"}
    asks = {name: {m: Ask(*ask, headers) for m, ask in of.items()} for name, of in {"one": one, "many": many}.items()}
    return {"url": url, **asks, "in_process_ms": in_process}


def median_ms(call: Callable[[], object], calls: int = 20) -> float:
    """The median time of a call."""
    times = []
    for _ in range(calls + 3):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[3:])


def serve_constant() -> None:
    """Add the bare deployment to the Serve of the platform that runs in ``MLCORE_HOME``."""
    from ml_core.platform.ray_cluster import NODE_ENVIRONMENT, temporary_folder, token_path

    home = Path(os.environ["MLCORE_HOME"])
    os.environ.update(NODE_ENVIRONMENT)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_path(home))}
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray
    from ray import serve as ray_serve

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": f"{(await receive())['type']}.complete"})
            return
        await receive()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    class Constant:
        def __serve_build_asgi_app__(self) -> Any:
            return answer

    ray.init(address=(temporary_folder(home) / "r" / "ray_current_cluster").read_text().strip(), log_to_driver=False)
    replicas = ray_serve.status().applications["shared"].deployments["Cell"].replica_states["RUNNING"]
    bare = ray_serve.deployment(
        num_replicas=replicas,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0.1},
        logging_config={"enable_access_log": False},
    )(ray_serve.ingress()(Constant)).bind()
    ray_serve.run(bare, name="constant", route_prefix="/constant")


# In the interpreter of the benchmark.


@contextlib.contextmanager
def platform(python: str, *, with_constant: bool) -> Iterator[dict[str, Any]]:
    """A platform of a checkout in a home of its own; gives what ``serve`` returned."""
    from ml_core.platform.ports import free_ports

    home = Path(tempfile.mkdtemp(prefix="mlcore-serving-"))
    home.chmod(0o711)  # root runs PostgreSQL as a user that must get through
    environment = {**os.environ, "MLCORE_HOME": str(home), "MLCORE_HTTP_PORT": str(free_ports(1)[0])}
    me = [python, str(Path(__file__).resolve())]
    try:
        done = subprocess.run([*me, "--child", "serve"], env=environment, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        for name in ("one", "many"):
            found[name] = {model: Ask(*ask) for model, ask in found[name].items()}
        if with_constant:
            subprocess.run([*me, "--child", "constant"], env=environment, check=True, stdout=subprocess.DEVNULL)
        yield found
    finally:
        subprocess.run([python, "-m", "ml_core.cli", "down"], env=environment, check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def peer(name: str) -> Iterator[Asks]:
    """A peer that answers.

    Raises:
        RuntimeError: It can't be installed, or did not answer in time.
    """
    from ml_core.platform.ports import free_ports

    python, port = peer_python(f"serving-{name}", REQUIREMENTS[name]), free_ports(1)[0]
    asks = {}
    for model, (rows, _) in tables().items():
        path, body = request_of(name, model, rows.iloc[0].to_dict())
        asks[model] = Ask(f"http://127.0.0.1:{port}{path}", body, {"content-type": "application/json"})
    with tempfile.NamedTemporaryFile("w+") as log:
        command = [str(python), str(HERE / "serving_peers.py"), name, str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            for ask in asks.values():
                _wait_for(ask, process, Path(log.name))
            yield asks
        finally:
            # MLServer does not end when it is asked to, and BentoML's workers have sessions of their own.
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()


def _wait_for(ask: Ask, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTED_WITHIN_S
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(ask.url, ask.body.encode(), ask.headers), timeout=10):
                return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{ask.url}: {error}; {log.read_text()[-500:]}") from error
            time.sleep(0.5)


def compare(contestants: dict[str, Asks], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rates of all contestants, and the ratio of ours to each."""
    rows = []
    for model in options.models:
        for connections in CONNECTIONS:
            rates: dict[str, list[float]] = {name: [] for name in contestants}
            for turn in range(options.rounds):
                for name in sorted(contestants, reverse=turn % 2 == 1):
                    rates[name].append(contestants[name][model].rate(connections, options.seconds))
            row: dict[str, Any] = {"model": model, "connections": connections}
            row["requests_s"] = {name: round(statistics.median(found)) for name, found in rates.items()}
            row["ratio"] = {
                name: round(statistics.median(own / it for own, it in zip(rates["ours"], found, strict=True)), 2)
                for name, found in rates.items()
                if name != "ours"
            }
            rows.append(row)
            figures = "  ".join(
                f"{name} {rate:>5} ({row['ratio'].get(name, 1):.2f})" for name, rate in row["requests_s"].items()
            )
            print(f"{model:20} {connections:>3}  {figures}", flush=True)
    return rows


def at_half_load(
    contestants: dict[str, Asks], rows: list[dict[str, Any]], seconds: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Model → contestant → latencies at half of the highest rate of ours."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for model in {row["model"]: None for row in rows}:
        highest = max(row["requests_s"]["ours"] for row in rows if row["model"] == model)
        found[model] = {}
        for name, asks in contestants.items():
            wait_logged(contestants["ours"][model].url)
            figures = found[model][name] = OpenLoop(*asks[model]).run(highest / 2, max(4, seconds))
            printed = "  ".join(f"{figure} {value:.2f}" for figure, value in figures.items())
            print(f"{model:20} half load  {name:8} {printed}", flush=True)
    return found


def many_rows(own: dict[str, Any], models: list[str]) -> dict[str, dict[str, float]]:
    """Model → milliseconds of a request of 1,000 rows, of its transport, and of ``predict`` in process."""
    found = {}
    for model in models:
        ask: Ask = own["many"][model]
        request = ask.milliseconds()
        transport = ask._replace(url=f"{own['url']}/constant").milliseconds()
        in_process = own["in_process_ms"][model]
        figures = {"request_ms": request, "transport_ms": transport, "in_process_ms": in_process}
        found[model] = {**figures, "ratio": in_process / (request - transport)}
        print(f"{model:20} {MANY} rows  " + "  ".join(f"{name} {value:.2f}" for name, value in found[model].items()))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="", help=f"any of {', '.join(REQUIREMENTS)}, with commas")
    parser.add_argument("--models", default=",".join(ALGORITHMS))
    parser.add_argument("--other", help="the interpreter of another checkout")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=("serve", "constant"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.models = options.models.split(",")
    if options.child == "constant":
        serve_constant()
        return
    if options.child == "serve":
        print(json.dumps(serve()))
        return
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as running:
        own = running.enter_context(platform(sys.executable, with_constant=True))
        constant = {model: ask._replace(url=f"{own['url']}/constant") for model, ask in own["one"].items()}
        contestants = {"ours": own["one"], "constant": constant}
        if options.other:
            contestants["other"] = running.enter_context(platform(options.other, with_constant=False))["one"]
        for name in filter(None, options.peers.split(",")):
            try:
                contestants[name] = running.enter_context(peer(name))
            except RuntimeError as error:
                skipped[name] = str(error)
                print(f"{name} is skipped: {error}", file=sys.stderr)
        rows = compare(contestants, options)
        latencies = at_half_load({"ours": own["one"], "constant": constant}, rows, options.seconds)
        many = many_rows(own, options.models)
    if options.json:
        result = {"rates": rows, "half_load": latencies, "many_rows": many, "skipped": skipped}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
