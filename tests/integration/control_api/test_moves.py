"""Moves over HTTP: what was seen is the condition of what is changed, by ``ETag`` and ``If-Match`` or by the body."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from support.registry import register

MOVES: list[Any] = [
    pytest.param("promote", {"version": "2"}, (), id="environments.promote"),
    pytest.param("rollback", {}, ("promote 2",), id="environments.rollback"),
    pytest.param("withdraw", {}, (), id="environments.withdraw"),
    pytest.param("canary", {"version": "2", "percent": 10}, (), id="rollouts.start"),
    pytest.param("canary/step", {"percent": 20}, ("canary",), id="rollouts.step"),
    pytest.param("canary/finish", {}, ("canary",), id="rollouts.finish"),
    pytest.param("canary/abort", {}, ("canary",), id="rollouts.abort"),
    pytest.param("shadow", {"version": "2"}, (), id="rollouts.shadow"),
    pytest.param("shadow/stop", {}, ("shadow",), id="rollouts.unshadow"),
]
"""Path and body of each move, and the moves that come before it."""
BEFORE = {
    "promote 2": ("promote", {"version": "2"}),
    "canary": ("canary", {"version": "2", "percent": 10}),
    "shadow": ("shadow", {"version": "2"}),
}


class Environment:
    """An environment of a model over HTTP."""

    def __init__(self, control: httpx.Client, tenant: str) -> None:
        self._control = control
        self.path = f"/api/v1/tenants/{tenant}/models/tickets/environments/production"

    def move(self, what: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        return self._control.post(f"{self.path}/{what}", json=body, headers=headers)

    def get(self) -> httpx.Response:
        return self._control.get(self.path)


@pytest.fixture
def production(control: httpx.Client, db: DatabaseConnection, tenant_id: TenantId) -> Environment:
    """One that serves the first of two versions."""
    for _ in range(2):
        register(db, tenant_id)
    environment = Environment(control, tenant_id)
    assert environment.move("promote", {"version": "1"}).status_code == 200
    return environment


def test_every_move_is_tested(control: httpx.Client) -> None:
    """Each operation that takes ``If-Match`` is in the table above."""
    paths = control.get("/api/openapi.json").json()["paths"]
    conditional = {
        operation["operationId"]
        for methods in paths.values()
        for operation in methods.values()
        if any(parameter["name"].lower() == "if-match" for parameter in operation.get("parameters", ()))
    }
    assert conditional == {move.id for move in MOVES}


@pytest.mark.parametrize(("what", "body", "before"), MOVES)
def test_a_move_is_made_only_from_the_generation_that_was_seen(
    production: Environment, what: str, body: dict[str, Any], before: tuple[str, ...]
) -> None:
    """Named in the header or in the body; the answer has the next generation as its tag."""
    for name in before:
        assert production.move(*BEFORE[name]).status_code == 200
    seen = production.get()
    generation, tag = seen.json()["generation"], seen.headers["etag"]
    assert tag == f'"{generation}"'
    for late in (
        production.move(what, body, **{"if-match": f'"{generation - 1}"'}),
        production.move(what, {**body, "expected_generation": generation + 1}),
    ):
        assert (late.status_code, late.json()["error"]["code"]) == (409, "promotion_conflict"), late.text
    for wrong in ("*", '"x"', ""):
        assert production.move(what, body, **{"if-match": wrong}).status_code == 400
    both = production.move(what, {**body, "expected_generation": generation}, **{"if-match": f'"{generation - 1}"'})
    assert (both.status_code, both.json()["error"]["details"]["field"]) == (400, "if-match")
    assert production.get().json() == seen.json(), "nothing has moved"
    moved = production.move(what, body, **{"if-match": tag})
    assert (moved.status_code, moved.headers["etag"]) == (200, f'"{generation + 1}"'), moved.text
    assert production.get().headers["etag"] == f'"{generation + 1}"'


def test_of_clients_that_saw_the_same_one_moves(production: Environment) -> None:
    """The others are answered 409 with what they can do."""
    tag = production.get().headers["etag"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: production.move("promote", {"version": "2"}, **{"if-match": tag}), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 7]
    assert {answer.json()["error"]["code"] for answer in answers if answer.status_code == 409} == {"promotion_conflict"}
    assert production.get().json()["generation"] == 2


def test_a_repeated_promotion_moves_once(production: Environment) -> None:
    """With its tag, its generation and its gates; a later move in between changes nothing of the answer."""
    first = production.move("promote", {"version": "2"}, **{"idempotency-key": "k"})
    production.move("promote", {"version": "1"})
    again = production.move("promote", {"version": "2"}, **{"idempotency-key": "k"})
    assert (again.status_code, again.json(), again.headers["etag"]) == (200, first.json(), first.headers["etag"])
    assert again.headers["idempotency-replayed"] == "true"
    assert (production.get().json()["version"], production.get().json()["generation"]) == ("1", 3)
