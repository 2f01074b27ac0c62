"""Version changes under load: failed and mixed answers, and the time until all replicas answer with the new version.

    .venv/bin/python benchmarks/flip.py [--seconds 20] [--rate 50] [--models 50] [--json FILE]

Starts a platform (PostgreSQL, Ray Serve behind its ingress, two replicas) and trains two versions of a small model (20
numbers, logistic regression) that answer the same row differently. Clients send that row all the time. First one model
changes its version every second; then ``--models`` models change theirs in turn, ``--rate`` times a second in total.
Authentication, the check of the signature, the prediction log, and the verification and self-test of each loaded
version are on.

An answer is mixed if its prediction is not that of the version that it names. The time is measured from the commit of a
promotion to the last answer of the old version; clients ask the models that changed last first, and the mean time
between two answers of a model just after its change, its resolution, is printed beside it.

There is no comparison with a peer: MLflow does not serve models itself, and KServe and Seldon restart a pod.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from live_platform import Answer, Clients, numbers, temporary_platform, wait_followed

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.version import StoredArtifact, VersionDraft
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.system import MLSystem

TENANT, CONNECTIONS, PROMOTERS = TenantId("benchmark"), 4, 4
WATCHED_S = 0.3
"""How long after its change a model is asked before others, unless its next change comes sooner."""


@dataclass
class Flips:
    """Models with two versions each, and the changes between them.

    Attributes:
        models: Their names.
        versions: The two versions, the same of all.
        predicts: Version → what it predicts for the row.
        done: Model → time and version of each change, oldest first.
    """

    db: DatabaseConnection
    models: Sequence[str]
    versions: tuple[str, str]
    predicts: dict[str, str]
    done: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    recent: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=64))

    def promote(self, model: str, version: str) -> None:
        """Point production of a model to a version."""
        environments = EnvironmentRepository(self.db, TENANT)
        environments.promote(ModelId(model), VersionId(version), PRODUCTION, actor="benchmark", reason="flip")
        at = time.monotonic()
        self.done[model].append((at, version))
        self.recent.append((at, model))

    def run(self, seconds: float, rate: float) -> float:
        """Change versions in turn; returns how many a second there were."""
        self.done = {model: [] for model in self.models}
        turns, lock, started = itertools.count(), threading.Lock(), time.monotonic()

        def work() -> None:
            while True:
                with lock:
                    turn = next(turns)
                due = started + turn / rate
                if due > started + seconds:
                    return
                time.sleep(max(0.0, due - time.monotonic()))
                round_, index = divmod(turn, len(self.models))
                self.promote(self.models[index], self.versions[(round_ + 1) % 2])

        # One thread for few models, so that the changes of one keep their order.
        threads = [threading.Thread(target=work) for _ in range(min(PROMOTERS, len(self.models)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(map(len, self.done.values())) / (time.monotonic() - started)


def prepare(db: DatabaseConnection, models: int) -> tuple[Flips, str, bytes]:
    """Train two versions, register them for all models, and promote the first; a key and the body of a request."""
    system = MLSystem(db, tenant_id=TENANT)
    names = [f"model{number}" for number in range(models)]
    row = numbers()[0].iloc[0].to_dict()
    versions, predicts = [], {}
    for sign in (1, -1):
        trained = system.train_model(
            names[0], "classification", numbers(sign=sign), None, {"algorithm": "logistic_regression"}
        )
        versions.append(trained["version"])
        predicts[trained["version"]] = str(system.predict(names[0], row, version=trained["version"]))
    if len(set(predicts.values())) != len(versions):
        raise RuntimeError(f"The versions predict the same: {predicts}")
    copy_versions(db, names, versions)
    flips = Flips(db, names, (versions[0], versions[1]), predicts, {name: [] for name in names})
    for name in names:
        flips.promote(name, versions[0])
    key = str(KeyRepository(db, TENANT).create("benchmark", [Scope.PREDICT]))
    wait_followed(db)
    return flips, key, json.dumps({"rows": [row]}).encode()


def copy_versions(db: DatabaseConnection, names: Sequence[str], versions: Sequence[str]) -> None:
    """Register the versions of the first model for the others, with the same artifacts."""
    repository = VersionRepository(db, TENANT)
    for version in versions:
        found = repository.get(ModelId(names[0]), VersionId(version)).servable
        artifact = StoredArtifact(found.digest, found.size_bytes, found.format)
        for name in names[1:]:
            draft = VersionDraft(ModelId(name), found.model_type, found.signature, found.self_test, VersionId(version))
            repository.register(draft, artifact, "benchmark")


def measure(flips: Flips, url: str, key: str, body: bytes, seconds: float, rate: float) -> dict[str, Any]:
    """Change versions under load; counts of answers, and the times in milliseconds."""
    everyone = itertools.cycle(flips.models)

    def choose() -> tuple[str, str, bytes]:
        now = time.monotonic()
        fresh = [model for at, model in tuple(flips.recent) if now - at < WATCHED_S]
        turn = next(everyone)
        model = fresh[hash((turn, now)) % len(fresh)] if fresh else turn
        return f"/t/{TENANT}/models/{model}/predict", key, body

    with Clients(url, choose, CONNECTIONS) as clients:
        time.sleep(1)
        reached = flips.run(seconds, rate)
        time.sleep(1)
    mixed = [one for one in clients.answers if one.body["predictions"] != [flips.predicts[one.body["version"]]]]
    delays, gaps = times(flips, clients.answers)
    return {
        "models": len(flips.models),
        "promotions": sum(map(len, flips.done.values())),
        "promotions_a_second": round(reached, 1),
        "answers": len(clients.answers),
        "failed": len(clients.failures),
        "mixed": len(mixed),
        "last_old_ms": _summary(delays),
        "resolution_ms": round(statistics.mean(gaps), 1) if gaps else None,
        "failures": clients.failures[:5],
    }


def times(flips: Flips, answers: Sequence[Answer]) -> tuple[list[float], list[float]]:
    """Milliseconds from each change to the last answer of another version, and between two answers after it."""
    by_model: dict[str, list[Answer]] = {model: [] for model in flips.models}
    for answer in sorted(answers, key=lambda each: each.at):
        by_model[answer.path.split("/")[4]].append(answer)
    delays, gaps = [], []
    for model, changes in flips.done.items():
        moments, following = [one.at for one in by_model[model]], [at for at, _ in changes[1:]] + [float("inf")]
        for (at, version), until in zip(changes, following, strict=True):
            window = by_model[model][np.searchsorted(moments, at) : np.searchsorted(moments, until)]
            old = [answer.at for answer in window if answer.body["version"] != version]
            delays.append((max(old, default=at) - at) * 1000)
            watched = [answer.at for answer in window if answer.at < at + WATCHED_S]
            gaps += [(later - sooner) * 1000 for sooner, later in itertools.pairwise(watched)]
    return delays, gaps


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {
        "p50": round(statistics.median(values), 1),
        "p99": round(float(np.quantile(values, 0.99)), 1),
        "max": round(max(values), 1),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="of each part")
    parser.add_argument("--rate", type=float, default=50, help="promotions a second over all models")
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/flip.json"))
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)  # or clients and promotions wait for each other here, 5 ms each, and not for replicas
    with temporary_platform() as (db, state):
        flips, key, body = prepare(db, options.models)
        one = Flips(db, flips.models[:1], flips.versions, flips.predicts)
        result = {
            "one model, every second": measure(one, state.url, key, body, options.seconds, 1),
            "many models": measure(flips, state.url, key, body, options.seconds, options.rate),
        }
    print(f"{'':24} {'promotions':>10} {'a second':>8} {'answers':>9} {'failed':>6} {'mixed':>6}   last old answer, ms")
    for name, found in result.items():
        print(
            f"{name:24} {found['promotions']:10,} {found['promotions_a_second']:8} {found['answers']:9,}"
            f" {found['failed']:6} {found['mixed']:6}   {found['last_old_ms']} (± {found['resolution_ms']})"
        )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
