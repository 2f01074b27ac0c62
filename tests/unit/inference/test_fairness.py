"""What one tenant's models and requests keep from another, through the whole application."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import pytest

from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta
from ml_core.ids import ModelId
from ml_core.inference.batcher import CostModel
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
        return Sleepy(model, wake) if version.ref.tenant_id == GLOBEX else model

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
