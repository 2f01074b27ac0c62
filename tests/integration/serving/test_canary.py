"""Canaries and shadows over HTTP: real replicas, two versions, one answer a request and no failed one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ml_core.domain.rollout import Side, choose
from ml_core.ids import EnvironmentName, ModelId, VersionId
from ml_core.registry.promotion.rollouts import RolloutRepository
from support.running_platform import RunningPlatform, TestTenant
from support.tables import measures, split_target
from support.waiting import wait_until

MODEL, PRODUCTION = ModelId("measures"), EnvironmentName("production")
KEYS = [f"customer {i}" for i in range(60)]


class Trial:
    """A tenant whose production serves one version, with another to try."""

    def __init__(self, platform: RunningPlatform, name: str) -> None:
        self.platform = platform
        self.tenant: TestTenant = platform.tenant(name)
        self.rollouts = RolloutRepository(platform.db, self.tenant.tenant_id)
        X, y = split_target(measures(), "outcome")
        self.row: dict[str, Any] = X.iloc[0].to_dict()
        self.rows = X.head(50).to_dict("records")
        self.old = self.tenant.train("measures", (X, y), n_estimators=5)
        self.new = self.tenant.train("measures", (X, y), n_estimators=6)
        self.tenant.promote("measures", self.old, wait_for=self.row)
        self.answers: list[httpx.Response] = []

    def ask(self, **body: Any) -> dict[str, Any]:
        """One row; the answer is kept."""
        answer = self.tenant.predict("measures", [self.row], **body)
        self.answers.append(answer)
        return dict(answer.json())

    def expected(self, key: str, percent: int) -> tuple[VersionId, str]:
        """Version and side that the rule gives a key."""
        side = choose((self.tenant.tenant_id, MODEL, PRODUCTION), percent, key)
        return (self.new if side is Side.CANARY else self.old), side.value

    def wait_until_all(self, condition: Callable[[], bool]) -> None:
        """Wait until it held twenty times in a row: both replicas answer so."""
        wait_until(lambda: all(condition() for _ in range(20)))

    def check_no_failure(self) -> None:
        """Whatever happened meanwhile, each request was answered."""
        assert {answer.status_code for answer in self.answers} == {200}


@pytest.fixture
def trial(platform: RunningPlatform, request: pytest.FixtureRequest) -> Trial:
    """One for each test."""
    return Trial(platform, f"trial-{abs(hash(request.node.name)) % 10**9}")


def start(trial: Trial, percent: int, sticky: str | None = None) -> None:
    """Start a canary and wait until each replica serves it."""
    trial.rollouts.start(MODEL, VersionId(trial.new), percent, sticky=sticky)
    mine = next(key for key in KEYS if trial.expected(key, percent)[1] == "canary")
    trial.wait_until_all(lambda: trial.ask(key=mine)["rollout"] == "canary")


def test_a_canary_answers_its_keys_and_then_everything(trial: Trial) -> None:
    """Each key keeps its version on both replicas, both versions answer, and the finish moves the rest; under load."""
    with trial.tenant.traffic("measures", trial.row) as report:
        start(trial, 50)
        for key in KEYS * 2:
            body = trial.ask(key=key)
            assert (body["version"], body["rollout"]) == trial.expected(key, 50)
        assert len({trial.expected(key, 50) for key in KEYS}) == 2
        trial.rollouts.finish(MODEL, PRODUCTION)
        theirs = next(key for key in KEYS if trial.expected(key, 50)[1] == "stable")
        trial.wait_until_all(lambda: trial.ask(key=theirs)["version"] == trial.new)
        bodies = [trial.ask(key=key) for key in KEYS]
    assert {(body["version"], body["rollout"]) for body in bodies} == {(trial.new, "stable")}
    trial.check_no_failure()
    assert report.failures == []
    assert set(report.answers) == {trial.old, trial.new}


def test_an_aborted_canary_is_gone(trial: Trial) -> None:
    """The old version answers every key, as it did before; a step to more kept those who had it."""
    start(trial, 20)
    had = [key for key in KEYS if trial.expected(key, 20)[1] == "canary"]
    trial.rollouts.step(MODEL, 80)
    more = next(key for key in KEYS if trial.expected(key, 80) != trial.expected(key, 20))
    trial.wait_until_all(lambda: trial.ask(key=more)["rollout"] == "canary")
    assert {trial.ask(key=key)["rollout"] for key in had} == {"canary"}
    trial.rollouts.abort(MODEL, PRODUCTION)
    trial.wait_until_all(lambda: trial.ask(key=had[0])["version"] == trial.old)
    assert {trial.ask(key=key)["version"] for key in KEYS} == {trial.old}
    trial.check_no_failure()


def test_a_sticky_column_that_the_model_does_not_know(trial: Trial) -> None:
    """A customer's number decides, without being a feature; a key that the client sends comes before it."""
    start(trial, 50, "customer")
    for number in range(20):
        body = trial.tenant.predict("measures", [{**trial.row, "customer": number}]).json()
        assert (body["version"], body["rollout"]) == trial.expected(str(number), 50)
    with trial.tenant.client() as client:
        for key in KEYS[:20]:
            result = client.predict("measures", [{**trial.row, "customer": 7}], key=key)
            assert (result.version, result.rollout) == trial.expected(key, 50)


def test_a_shadow_is_never_heard(trial: Trial) -> None:
    """Every answer is the stable version's; health counts what the shadow made of the same rows."""
    trial.rollouts.shadow(MODEL, VersionId(trial.new), PRODUCTION)
    alone = trial.tenant.predict("measures", trial.rows, version=trial.old).json()["predictions"]

    def is_counted() -> bool:
        # Twice: the ingress takes turns, so that with one predict for each look the looks would meet the other replica.
        for _ in range(2):
            answer = trial.tenant.predict("measures", trial.rows)
            assert answer.status_code == 200
            body = answer.json()
            assert (body["version"], body["rollout"], body["predictions"]) == (trial.old, "stable", alone)
        health = httpx.get(f"{trial.platform.url}/healthz", trust_env=False).json()
        return any(shadow["agreements"] + shadow["differences"] == shadow["rows"] > 0 for shadow in health["shadows"])

    wait_until(is_counted)
    trial.rollouts.unshadow(MODEL, PRODUCTION)
    assert trial.ask()["version"] == trial.old
    trial.check_no_failure()
