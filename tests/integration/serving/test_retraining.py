"""A stream whose concept changes, over HTTP: the platform trains, tries and promotes a version by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import httpx
import pandas as pd
import pytest
from river.datasets import synth

from ml_core.client import MLClient
from ml_core.database.tables import schedules
from ml_core.domain.api_key import Scope
from ml_core.domain.quality import Verdict
from ml_core.jobs.retraining import Retrainer
from ml_core.registry.datasets import DatasetRepository
from support.running_platform import RunningPlatform
from support.waiting import wait_until

WITHIN_S = 240.0
BEFORE, AFTER = 0, 2
"""Functions of Agrawal, whose classes depend on the age alone, and on age and education."""


def rows(concept: int, count: int, seed: int) -> list[tuple[dict[str, Any], str]]:
    """Rows with their class."""
    stream = synth.Agrawal(classification_function=concept, seed=seed)
    return [(x, f"g{y}") for x, y in islice(stream, count)]


class Program:
    """A client's program: it asks for each row, and reports the truth."""

    def __init__(self, url: str, key: str, tenant_id: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=f"{url}/t/{tenant_id}/models/loans", headers=headers, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def ask(self, asked: list[tuple[dict[str, Any], str]]) -> dict[str, int]:
        """Version → requests that it answered."""
        answered: dict[str, int] = {}
        for row, label in asked:
            answer = self._http.post("/predict", json={"rows": [row]}).raise_for_status().json()
            body = {"request_id": answer["request_id"], "label": label}
            self._http.post("/feedback", json=body).raise_for_status()
            answered[answer["version"]] = answered.get(answer["version"], 0) + 1
        return answered


def labels(client: MLClient) -> int:
    """Labels that the report counts; none as long as the replicas have not written a row."""
    return sum(day.labels for day in client.quality.report("loans").days)


@pytest.mark.timeout(600)
def test_a_changed_concept_is_learnt_without_anybody(platform: RunningPlatform) -> None:
    """An alert, a job on Ray with the labels, a canary that wins, and quality as before.

    The control loop begins, which takes a turn every half a minute; the next steps are those of a loop beside it.
    """
    tenant = platform.tenant("loans")
    key = platform.key(tenant.tenant_id, Scope.ADMIN)
    training = {"target": "group", "hyperparameters": {"algorithm": "gradient_boosting", "max_iter": 30}}
    program = Program(platform.url, tenant.key, tenant.tenant_id)
    retrainer = Retrainer(platform.db)

    def go_on_until(condition: Callable[[], Any]) -> Any:
        return wait_until(lambda: retrainer.turn() or condition(), WITHIN_S)

    with MLClient(platform.url, api_key=key, tenant_id=tenant.tenant_id) as client, closing(program):
        client.predictions.set_policy("inputs")
        table = pd.DataFrame([{**row, "group": label} for row, label in rows(BEFORE, 1_000, 0)])
        DatasetRepository(platform.db, tenant.tenant_id).create("loans", table)
        job = client.jobs.train("loans", "loans", training=training, promote_to="production")
        wait_until(lambda: client.jobs.get(job.job_id).state == "succeeded", WITHIN_S)
        wait_until(lambda: tenant.predict("loans", [rows(BEFORE, 1, 0)[0][0]]).status_code == 200)
        program.ask(rows(BEFORE, 150, 1))
        wait_until(lambda: labels(client) >= 150)
        assert client.quality.report("loans").verdict == Verdict.OK
        program.ask(rows(AFTER, 300, 2))
        wait_until(lambda: labels(client) >= 450)
        assert client.quality.report("loans").verdict == Verdict.ALERT
        client.schedules.create(
            "watch",
            "0 0 1 1 *",
            {"kind": "train", "model_id": "loans", "training": {**training, "dataset": "loans"}},
            on_drift={"canary_percent": 50, "min_labels": 60, "collect_labels": True},
        )
        with platform.db.tenant(tenant.tenant_id) as connection:
            connection.execute(schedules.update().values(next_at=datetime.now(UTC)))
        wait_until(lambda: client.schedules.get("watch").retraining is not None, WITHIN_S)
        go_on_until(lambda: client.environments.get("loans").canary is not None)
        assert client.datasets.get("loans").source["kind"] == "labels"
        wait_until(lambda: "2" in program.ask(rows(AFTER, 5, 3)))
        assert set(program.ask(rows(AFTER, 300, 4))) == {"1", "2"}
        go_on_until(lambda: client.environments.get("loans").version == "2")
        done = go_on_until(lambda: (found := client.schedules.get("watch")).retraining is None and found)
        assert done.note.startswith("Version 2 is served. Canary: accuracy")
        assert client.environments.get("loans").canary is None
        by_version = {day.version: day.score.value for day in client.quality.report("loans").days}
        assert by_version["2"] > by_version["1"] + 0.1
