"""Rollouts in a replica: a canary answers its share and no more, and nobody hears a shadow."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import Any

import pytest

from ml_core.domain.assignment import CanaryRollout, Rollout
from ml_core.domain.rollout import Side, choose
from ml_core.domain.version import ServableVersion
from ml_core.inference import fair_threads
from ml_core.inference import shadow as shadows
from ml_core.inference.shadow import agreements
from support.inprocess_cell import MEASURE, Cell, fitted, key_of, pointer, renamed, servable
from support.tables import measures, split_target
from support.waiting import wait_until

POINTER = ("acme", "measures", "production")
KEYS = [f"customer {i}" for i in range(40)]


@pytest.fixture(scope="session")
def other_measures() -> Any:
    """A classifier of the same columns that answers otherwise."""
    X, y = split_target(measures(seed=2), "outcome")
    return fitted("measures", (X, y.sample(frac=1, random_state=1).set_axis(y.index)), n_estimators=3)


@pytest.fixture
def stable(cell: Cell) -> ServableVersion:
    """What production of ``measures`` serves."""
    present = cell.table.pointer(POINTER)
    assert present is not None
    assert present.serving is not None
    return present.serving


@pytest.fixture
def trial(cell: Cell, other_measures: Any) -> ServableVersion:
    """Another version of it."""
    return servable(cell.store, other_measures, "2")


def serve(cell: Cell, stable: ServableVersion, **parts: Any) -> None:
    """Let the cell follow a rollout and settle."""
    cell.table.apply({pointer(stable): Rollout(stable, 2, **parts)})
    assert cell.table.wait_idle(10)


def counts(cell: Cell) -> dict[str, Any]:
    """What health says of the one shadow."""
    (found,) = cell.service.describe()["shadows"]
    return dict(found)


def wait_for(cell: Cell, **wanted: int) -> None:
    """Wait until the shadow's counts are these."""
    wait_until(lambda: wanted.items() <= counts(cell).items())


def ask(cell: Cell, api_key: str, row: dict[str, Any] | None = None, **body: Any) -> dict[str, Any]:
    """The answer for one row; the body's ``key`` is the sticky one."""
    rows = [{**MEASURE, **(row or {})}]
    answer = cell.ask("POST", "/t/acme/models/measures/predict", key=api_key, json={"rows": rows, **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def answered_by(cell: Cell, key: str, sticky: str | None = None, **row: Any) -> tuple[str, str]:
    """Version and side that answer a request."""
    body = ask(cell, key, row, key=sticky)
    return body["version"], body["rollout"]


def test_each_key_gets_the_side_that_the_rule_says(
    cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion
) -> None:
    """The answer names the version and the side, and both sides are asked."""
    serve(cell, stable, canary=CanaryRollout(trial, 50))
    told = {sticky: answered_by(cell, key, sticky) for sticky in KEYS}
    assert told == {
        sticky: ("2", "canary") if choose(POINTER, 50, sticky) is Side.CANARY else ("1", "stable") for sticky in KEYS
    }
    assert {side for _, side in told.values()} == {"stable", "canary"}


def test_a_sticky_column_is_the_key(cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion) -> None:
    """The first row's value, however it is written; the request's own key comes first."""
    serve(cell, stable, canary=CanaryRollout(trial, 50, "customer"))
    for number in range(20):
        side = choose(POINTER, 50, str(number)).value
        for value in (number, float(number), str(number)):
            assert answered_by(cell, key, customer=value)[1] == side
        assert answered_by(cell, key, "customer 1", customer=number)[1] == choose(POINTER, 50, "customer 1").value


@pytest.mark.parametrize("row", [{}, {"customer": None}, {"customer": ""}, {"customer": [1]}])
def test_without_a_key_each_request_is_its_own(
    cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion, row: dict[str, Any]
) -> None:
    """The request's id decides."""
    serve(cell, stable, canary=CanaryRollout(trial, 50, "customer"))
    for request_id in ("a", "b", "c", "d", "e", "f"):
        answer = cell.ask(
            "POST",
            "/t/acme/models/measures/predict",
            key=key,
            json={"rows": [{**MEASURE, **row}]},
            headers={"x-request-id": request_id},
        )
        assert answer.json()["rollout"] == choose(POINTER, 50, request_id).value


def test_a_version_by_its_name_is_no_rollout(
    cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion
) -> None:
    """It answers whatever the key; the canary's is known without the registry."""
    serve(cell, stable, canary=CanaryRollout(trial, 99))
    for version in ("1", "2"):
        for sticky in KEYS[:5]:
            body = ask(cell, key, key=sticky, version=version)
            assert (body["version"], body["rollout"]) == (version, "stable")


@pytest.mark.parametrize("sticky", ["customer 1", "customer 2", "customer 3", "customer 4"])
def test_the_open_inference_protocol_takes_part(
    cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion, sticky: str
) -> None:
    """The key is one of the request's parameters; the side is one of the answer's."""
    serve(cell, stable, canary=CanaryRollout(trial, 50))
    inputs = [{"name": name, "shape": [1], "datatype": "FP64", "data": [value]} for name, value in MEASURE.items()]
    body = {"inputs": inputs, "parameters": {"key": sticky}}
    answer = cell.ask("POST", "/t/acme/v2/models/measures/infer", key=key, json=body).json()
    side = choose(POINTER, 50, sticky)
    assert answer["parameters"] == {"rollout": side.value}
    assert answer["model_version"] == ("2" if side is Side.CANARY else "1")


def test_a_sticky_column_of_tensors(cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion) -> None:
    """It is found by its name, or by its place in the one tensor of all columns."""
    serve(cell, stable, canary=CanaryRollout(trial, 50, "m3"))
    for number in range(8):
        row = {**MEASURE, "m3": float(number)}
        columns = [{"name": name, "shape": [1, 1], "datatype": "FP64", "data": [value]} for name, value in row.items()]
        matrix = [{"name": "input", "shape": [1, 12], "datatype": "FP64", "data": list(row.values())}]
        for inputs in (columns, matrix):
            answer = cell.ask("POST", "/t/acme/v2/models/measures/infer", key=key, json={"inputs": inputs}).json()
            assert answer["parameters"]["rollout"] == choose(POINTER, 50, str(number)).value


def test_a_finished_canary_answers_everything(
    cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion
) -> None:
    """At once, for it is loaded."""
    serve(cell, stable, canary=CanaryRollout(trial, 1))
    cell.table.apply({pointer(trial): Rollout(trial, 3)})
    assert {answered_by(cell, key, sticky) for sticky in KEYS} == {("2", "stable")}


def test_an_aborted_canary_answers_nothing(
    cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion
) -> None:
    """From that moment."""
    serve(cell, stable, canary=CanaryRollout(trial, 99))
    cell.table.apply({pointer(stable): Rollout(stable, 3)})
    assert {answered_by(cell, key, sticky) for sticky in KEYS} == {("1", "stable")}


def test_a_step_takes_effect_at_once(cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion) -> None:
    """Without loading anything; who had the canary keeps it."""
    serve(cell, stable, canary=CanaryRollout(trial, 10))
    before = {sticky for sticky in KEYS if answered_by(cell, key, sticky)[1] == "canary"}
    cell.table.apply({pointer(stable): Rollout(stable, 3, CanaryRollout(trial, 90))})
    after = {sticky for sticky in KEYS if answered_by(cell, key, sticky)[1] == "canary"}
    assert before < after


def test_a_canary_that_fails_to_load_answers_nothing(
    cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion
) -> None:
    """The stable version answers its share, and health says what failed."""
    broken = dataclasses.replace(trial, digest=type(trial.digest)("0" * 64))
    serve(cell, stable, canary=CanaryRollout(broken, 99))
    assert {answered_by(cell, key, sticky) for sticky in KEYS} == {("1", "stable")}
    health = cell.ask("GET", "/healthz").json()
    assert health["failed_loads"] == 1
    assert health["failures"][0]["digest"] == "0" * 12


def test_a_canary_that_was_evicted_is_loaded_again(
    cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion
) -> None:
    """A key does not change sides because memory was short."""
    serve(cell, stable, canary=CanaryRollout(trial, 99))
    resident = cell.table.acquire(trial)
    assert resident is not None
    cell.table.release(resident)
    cell.table._residents._remove(resident.key)
    (sticky,) = [sticky for sticky in KEYS if choose(POINTER, 99, sticky) is Side.CANARY][:1]
    assert answered_by(cell, key, sticky) == ("2", "canary")


def test_a_canary_is_let_go_with_its_pointer(cell: Cell, stable: ServableVersion, trial: ServableVersion) -> None:
    """Once nothing names it, it is the first to be evicted."""
    serve(cell, stable, canary=CanaryRollout(trial, 50), shadow=renamed(trial, "3"))
    names = [(*key_of(stable)[:2], version, str(trial.digest)) for version in ("2", "3")]
    assert all(cell.table._pointers.names(name) for name in names)
    cell.table.apply({pointer(stable): None})
    assert not any(cell.table._pointers.names(name) for name in names)


def test_a_shadow_is_counted_and_not_heard(
    cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion
) -> None:
    """Rows on which it agrees and differs; the answers are the stable version's."""
    rows = measures(60, seed=5).drop(columns=["outcome"]).to_dict("records")
    alone = cell.predict("measures", rows, key=key).json()["predictions"]
    serve(cell, stable, shadow=trial)
    body = cell.predict("measures", rows, key=key).json()
    assert (body["version"], body["rollout"], body["predictions"]) == ("1", "stable", alone)
    wait_for(cell, rows=60)
    other = cell.predict("measures", rows, key=key, version="2").json()["predictions"]
    same = sum(mine == theirs for mine, theirs in zip(alone, other, strict=True))
    assert 0 < same < 60
    assert counts(cell) == {
        "digest": trial.digest[:12],
        "rows": 60,
        "agreements": same,
        "differences": 60 - same,
        "errors": 0,
        "not_loaded": 0,
        "dropped": 0,
    }


def test_a_shadow_that_can_not_answer_is_counted(
    cell: Cell, key: str, stable: ServableVersion, fitted_tickets: Any
) -> None:
    """One that wants other columns: the request is answered all the same."""
    tickets = servable(cell.store, fitted_tickets, "9")
    odd = dataclasses.replace(tickets, ref=dataclasses.replace(tickets.ref, model_id=stable.ref.model_id))
    odd = dataclasses.replace(odd, signature=dataclasses.replace(odd.signature, inputs=stable.signature.inputs[:1]))
    serve(cell, stable)
    cell.table._residents.add((*POINTER[:2], "9", str(odd.digest)), _Broken(odd))  # type: ignore[arg-type]
    cell.table.apply({pointer(stable): Rollout(stable, 3, shadow=odd)})
    assert cell.predict("measures", [MEASURE], key=key).status_code == 200
    wait_for(cell, errors=1, rows=0)


class _Broken:
    """A model that fails on every row."""

    memory_bytes = 1
    uncompiled = None

    def __init__(self, version: ServableVersion) -> None:
        self.version = version

    def predict(self, columns: Any) -> Any:
        raise ZeroDivisionError("a bug")


def test_what_the_queue_has_no_room_for_is_dropped_and_counted(
    cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request does not wait."""
    monkeypatch.setattr(shadows, "MAX_WAITING_REQUESTS", 0)
    serve(cell, stable, shadow=trial)
    assert cell.predict("measures", [MEASURE], key=key).status_code == 200
    assert counts(cell) == {**counts(cell), "dropped": 1, "rows": 0}


def test_large_requests_do_not_pile_up(
    cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may always wait; the next is dropped while it does, and there is room again afterwards."""
    monkeypatch.setattr(shadows, "MAX_WAITING_BYTES", 10)
    serve(cell, stable, shadow=trial)
    busy = threading.Event()

    async def ask() -> None:
        answer = await cell.ask_async("/t/acme/models/measures/predict", key, {"rows": [MEASURE]})
        assert answer.status_code == 200

    async def main() -> None:
        cell.service._shadows.threads.submit("other", busy.wait, 10)
        await ask()
        await ask()
        assert counts(cell)["dropped"] == 1
        busy.set()
        await asyncio.to_thread(wait_for, cell, rows=1)
        while cell.service._shadows._requests:
            await asyncio.sleep(0)
        await ask()
        await asyncio.to_thread(wait_for, cell, rows=2, dropped=1)

    asyncio.run(main())


def test_a_shadow_that_does_not_return_holds_up_no_other(
    cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one is asked on another thread."""
    serve(cell, stable, shadow=trial)
    monkeypatch.setattr(fair_threads, "LOST_AFTER_S", 0.0)
    wake = threading.Event()
    threads = cell.service._shadows.threads

    async def main() -> None:
        hanging = threads.submit("other", wake.wait, 10, deadline=asyncio.get_running_loop().time() + 0.05)
        await cell.ask_async("/t/acme/models/measures/predict", key, {"rows": [MEASURE]})
        await asyncio.wait([hanging])
        await asyncio.to_thread(wait_for, cell, rows=1, errors=0)
        wake.set()

    asyncio.run(main())


def test_a_part_that_can_not_be_read_is_told(cell: Cell, stable: ServableVersion) -> None:
    """Health counts the pointers that are served without it."""
    cell.table.apply({pointer(stable): Rollout(stable, 2, unreadable=("canary",))})
    assert cell.table.describe()["partly_read"] == 1
    cell.table.apply({pointer(stable): Rollout(stable, 3)})
    assert cell.table.describe()["partly_read"] == 0


def test_the_counts_end_with_the_shadow(cell: Cell, key: str, stable: ServableVersion, trial: ServableVersion) -> None:
    """What is not shadowed any more is not told, and another shadow begins at nothing."""
    serve(cell, stable, shadow=trial)
    cell.predict("measures", [MEASURE], key=key)
    wait_for(cell, rows=1)
    serve(cell, stable)
    assert cell.service.describe()["shadows"] == []
    serve(cell, stable, shadow=trial)
    cell.predict("measures", [MEASURE], key=key)
    wait_for(cell, rows=1)


def test_numbers_agree_within_a_hundredth() -> None:
    """Labels only when they are equal, whatever their types."""
    import numpy as np

    assert agreements(np.array([100.0, 100.0, 0.0, np.nan]), np.array([100.9, 101.1, 0.0, np.nan])) == 3
    assert agreements(np.array(["a", "b"]), np.array(["a", "c"])) == 1
    assert agreements(np.array([1, 2]), np.array(["1", "2"])) == 0
