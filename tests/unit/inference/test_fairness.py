"""What one tenant's models and requests keep from another, through the whole application."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time

import pytest

from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta
from ml_core.ids import ModelId
from ml_core.inference import fair_threads
from ml_core.inference.costs import CostModel
from ml_core.inference.edge import routes
from ml_core.inference.edge.http import json_response
from ml_core.inference.fair_queue import FairQueue
from ml_core.models.loading import LoadedModel, load_version
from ml_core.settings import ServingSettings
from support.inprocess_cell import ACME, GLOBEX, MEASURE, make_cell, promote, servable

QUIET, BUSY = "/t/acme/models/measures/predict", "/t/globex/models/{}/predict"
SLEEPERS = [f"sleeper{number}" for number in range(20)]


class Sleepy:
    """A loaded model that sleeps until it is woken, once it was loaded and tested."""

    def __init__(self, model: LoadedModel, wake: threading.Event) -> None:
        self._model, self._wake = model, wake

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def predict(self, columns: object) -> object:
        assert self._wake.wait(20)
        return self._model.predict(columns)


@pytest.fixture
def wake():
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def cell(store, fitted_measures, wake):
    """The same model of two tenants; globex has it under several names, and there it sleeps."""

    def load(version):
        model = load_version(store, version)
        is_sleepy = version.ref.tenant_id == GLOBEX and version.ref.version == "1"
        return Sleepy(model, wake) if is_sleepy else model

    cell = make_cell(store, ServingSettings(), load)
    cell.assignment.apply(AssignmentDelta(1, True, {ACME: True, GLOBEX: True}, {}, {}))
    promote(cell.table, servable(store, fitted_measures))
    for name in SLEEPERS:
        model = dataclasses.replace(fitted_measures, model_id=ModelId(name))
        promote(cell.table, servable(store, model, tenant=GLOBEX))
    yield cell
    cell.table.close()
    cell.service.close()


def test_models_that_sleep_delay_their_own_callers_only(cell, wake, monkeypatch):
    """While 128 requests wait for 20 of them, another tenant is answered; its own beyond 128 are refused."""
    monkeypatch.setattr(CostModel, "estimate", lambda self, rows: 1.0)  # each call on a thread
    busy, quiet = cell.key(GLOBEX, Scope.PREDICT), cell.key(ACME, Scope.PREDICT)

    async def main():
        paths = [BUSY.format(SLEEPERS[number % 20]) for number in range(150)]
        asleep = [asyncio.create_task(cell.ask_async(path, busy, {"rows": [MEASURE]})) for path in paths]
        while not any(task.done() for task in asleep):  # until all places of the tenant are taken
            await asyncio.sleep(0.001)
        answers = [await cell.ask_async(QUIET, quiet, {"rows": [MEASURE]}) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 5
        early = sorted(task.result().status_code for task in asleep if task.done())
        assert early == [429] * (150 - 128)
        wake.set()
        late = {(await task).status_code for task in asleep}
        assert late == {200, 429}

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_request_does_not_wait_for_all_that_another_tenant_sent_before_it(cell):
    keys = {tenant: cell.key(tenant, Scope.PREDICT) for tenant in (ACME, GLOBEX)}
    answered = []

    async def ask(client, tenant):
        headers = {"authorization": f"Bearer {keys[tenant]}"}
        assert (await client.get(f"/t/{tenant}/v2", headers=headers)).status_code == 200
        answered.append(tenant)

    async def all_at_once():
        async with cell.client() as client:
            await asyncio.gather(*(ask(client, tenant) for tenant in [*[GLOBEX] * 100, ACME]))

    asyncio.run(all_at_once())
    assert answered.index(ACME) < 60


def test_a_model_that_never_returns_is_refused_until_its_tenant_rolls_back(cell, store, fitted_measures, monkeypatch):
    """Its callers get 504, and after two lost calls 503 at once, which says why; another version answers."""
    monkeypatch.setattr(CostModel, "estimate", lambda self, rows: 1.0)  # each call on a thread
    monkeypatch.setattr(fair_threads, "LOST_AFTER_S", 0.0)
    key, path = cell.key(GLOBEX, Scope.PREDICT), BUSY.format(SLEEPERS[0])
    headers = {"authorization": f"Bearer {key}", "x-request-timeout-ms": "150"}

    async def main():
        async with cell.client() as client:
            answers = [await client.post(path, headers=headers, json={"rows": [MEASURE]}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [504, 504, 503]
        error = answers[2].json()["error"]
        assert (error["code"], error["details"]["version"]) == ("not_ready", "1")
        assert "2 calls of version 1" in error["message"]
        assert "roll back to another version" in error["message"]
        assert answers[2].headers["retry-after"] == "30"
        sound = dataclasses.replace(fitted_measures, model_id=ModelId(SLEEPERS[0]))
        sound = servable(store, sound, "awake", tenant=GLOBEX)
        await asyncio.to_thread(promote, cell.table, sound, 2)
        assert (await cell.ask_async(path, key, {"rows": [MEASURE]})).status_code == 200
        assert cell.service.lost_calls == 2

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_flood_of_the_threads_places_nobody_behind_a_flood_of_the_loop(cell):
    """Who comes to the loop goes before what another has waiting there, whatever a third used on the threads."""

    def compute(seconds):
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    async def main():
        shares, queue = cell.service.loop_shares, FairQueue(cell.service.loop_shares)
        for _ in range(10):
            queue.push("flood", None)
        for _ in range(5):
            shares.end(queue.pop()[0], 1e-4)
        calls = [cell.service.on_thread(GLOBEX, compute, 0.01) for _ in range(20)]
        await asyncio.gather(*calls[:10])
        queue.push(GLOBEX, None)
        shares.end(queue.pop()[0], 1e-4)
        queue.push(ACME, None)
        assert [queue.pop()[0].tenant for _ in range(2)].count(ACME) == 1
        await asyncio.gather(*calls)

    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("rows", [10, 1_200])
def test_large_answers_are_rendered_on_threads(cell, rows, monkeypatch):
    """With the same content as small ones."""
    rendered_on = []
    monkeypatch.setattr(
        routes, "json_response", lambda data: rendered_on.append(threading.current_thread()) or made(data)
    )
    made = json_response
    body = {"rows": [MEASURE] * rows, "proba": True}
    answer = asyncio.run(cell.ask_async(QUIET, cell.key(ACME, Scope.PREDICT), body)).json()
    assert (len(answer["predictions"]), len(answer["probabilities"])) == (rows, rows)
    assert (rendered_on[0] is threading.main_thread()) is (rows == 10)


def test_large_requests_that_find_no_room_are_refused_unread(cell, wake, monkeypatch):
    """Once the queue of their model, where a part of the first one waits, is full, by what its last large one was."""
    parsed = []
    parse = routes.parse_predict
    monkeypatch.setattr(CostModel, "estimate", lambda self, rows: 1.0)  # each call on a thread
    monkeypatch.setattr(routes, "parse_predict", lambda *of: parsed.append(1) or parse(*of))
    key, path = cell.key(GLOBEX, Scope.PREDICT), BUSY.format(SLEEPERS[0])

    async def main():
        def ask():
            return asyncio.create_task(cell.ask_async(path, key, {"rows": [MEASURE] * 2_000}))

        first = ask()
        while not (cell.service.threads._running and cell.service._large):
            await asyncio.sleep(0.01)
        others = [ask() for _ in range(14)]
        while sum(task.done() for task in others) < 5:
            await asyncio.sleep(0.01)
        assert {task.result().status_code for task in others if task.done()} == {429}
        wake.set()
        assert sorted([(await task).status_code for task in (first, *others)]) == [200] * 10 + [429] * 5

    asyncio.run(asyncio.wait_for(main(), 20))
    assert len(parsed) == 10


def test_a_large_request_is_judged_by_its_own_rows_once_it_is_read(cell, wake, monkeypatch):
    """One with long texts is not refused because of the many short rows before it, and what is taken for one with long
    texts takes no more room than there is."""
    monkeypatch.setattr(CostModel, "estimate", lambda self, rows: 1.0)  # each call on a thread
    key, path = cell.key(GLOBEX, Scope.PREDICT), BUSY.format(SLEEPERS[0])
    short, long = [MEASURE] * 2_000, [{**MEASURE, "comment": "x" * 500_000}] * 10

    async def main():
        def ask(rows):
            return asyncio.create_task(cell.ask_async(path, key, {"rows": rows}))

        async def until(condition):
            while not condition():
                assert all(batcher._queued_rows <= 20_000 for batcher in cell.service._batchers.values())
                await asyncio.sleep(0.01)

        def large():
            return cell.service._large.get((GLOBEX, SLEEPERS[0]), (None, 0.0))[1]

        before = [ask(short), ask(short)]
        await until(lambda: sum(batcher._queued_rows for batcher in cell.service._batchers.values()) > 2_000)
        assert large() < 1_000
        good = ask(long)
        await until(lambda: large() > 100_000)
        many = [ask(short) for _ in range(14)]
        await until(lambda: sum(task.done() for task in many) >= 5)
        assert {task.result().status_code for task in many if task.done()} == {429}
        wake.set()
        assert {(await task).status_code for task in (*before, good)} == {200}
        assert {(await task).status_code for task in many} == {200, 429}

    asyncio.run(asyncio.wait_for(main(), 60))
