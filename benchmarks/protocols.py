"""Triton's and KServe's clients, unchanged, against a platform: equal answers, and requests a second of one client.

    .venv/bin/python benchmarks/protocols.py [--seconds 5] [--rounds 3] [--json FILE]

Starts a platform (PostgreSQL, Ray Serve behind its ingress, two replicas), which serves a logistic regression over 20
numbers, with authentication, signature check, metrics and the prediction log. Triton's and KServe's clients are
installed in an environment of their own, and ask over HTTP, in JSON and in binary, and over gRPC at the same port. Each
must get the labels and probabilities that ``MLClient`` gets. The rate is that of one client that sends one row after
another, so it has the time of the client in it: the rates say what a protocol costs from end to end, not what the
platform can do. The figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from live_platform import numbers, temporary_platform, wait_followed
from peers import peer_python

from ml_core.client import MLClient
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.ids import TenantId
from ml_core.registry.keys import KeyRepository
from ml_core.system import MLSystem

TENANT, MODEL = TenantId("benchmark"), "numbers"
CLIENTS = ("kserve==0.21.0", "tritonclient[grpc,http]==2.73.0")


def serve(db: DatabaseConnection, url: str) -> tuple[dict[str, Any], Any]:
    """Serve the model. Returns what clients need, and the answer that each must get."""
    frame, labels = numbers()
    system = MLSystem(db, tenant_id=TENANT)
    trained = system.train_model(MODEL, "classification", (frame, labels), None, {"algorithm": "logistic_regression"})
    system.promote(MODEL, trained["version"])
    key = str(KeyRepository(db, TENANT).create("benchmark", [Scope.PREDICT]))
    wait_followed(db)
    rows = frame.iloc[:50]
    with MLClient(url, api_key=key, tenant_id=TENANT) as client:
        expected = client.predict(MODEL, rows, proba=True)
    asked = {"address": urlsplit(url).netloc, "tenant": TENANT, "key": key, "model": MODEL}
    return {**asked, "rows": rows.to_numpy().tolist()}, expected


def measure(asked: dict[str, Any], expected: Any, rounds: int) -> dict[str, float]:
    """Requests per second by client, after each was shown to give the expected answer.

    Raises:
        RuntimeError: A client failed, or got another answer; names it.
    """
    python, rates = peer_python("protocols", CLIENTS), dict[str, list[float]]()
    probabilities = [list(row.values()) for row in expected.probabilities]
    script = Path(__file__).with_name("protocols_clients.py")
    for _ in range(rounds):
        for which in ("triton", "kserve"):
            command = [str(python), str(script), which]
            done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{which} failed:\n{done.stderr}")
            for found in json.loads(done.stdout):
                is_equal = found["predictions"] == expected.predictions
                if not (is_equal and np.allclose(found["probabilities"], probabilities)):
                    raise RuntimeError(f"{found['client']} got another answer")
                rates.setdefault(found["client"], []).append(found["requests_a_second"])
    return {client: statistics.median(found) for client, found in rates.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/protocols.json"))
    options = parser.parse_args()
    with temporary_platform() as (db, state):
        asked, expected = serve(db, state.url)
        rates = measure({**asked, "seconds": options.seconds}, expected, options.rounds)
    print(f"{'client':26} requests/s; labels and probabilities of {len(asked['rows'])} rows are equal")
    for client, rate in rates.items():
        print(f"{client:26} {rate:10,.0f}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"requests_a_second": rates}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
