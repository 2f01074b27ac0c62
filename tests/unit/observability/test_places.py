"""Where the hooks of serving are called: a real table, a real batcher and the real application."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import numpy as np
import pytest

from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta, Rollout
from ml_core.exceptions import DeadlineExceededError, ModelLoadError, QueueFullError
from ml_core.ids import Digest
from ml_core.inference.batcher import Batcher
from ml_core.inference.fair_queue import Shares
from ml_core.inference.fair_threads import FairThreads
from ml_core.inference.model_table import ModelTable
from ml_core.models.loading import load_version
from ml_core.models.store import LocalStore
from ml_core.observability import Hooks
from ml_core.settings import ServingSettings
from support.inprocess_cell import ACME, MEASURE, make_cell, pointer, promote, renamed, servable

PREDICT = "/t/{tenant}/models/{model}/predict"
FAR = 1e12


# The edge.


@pytest.mark.parametrize(
    ("method", "path", "route", "status", "caller"),
    [
        ("POST", "/t/acme/models/measures/predict", PREDICT, 200, "acme"),
        ("POST", "/t/acme/models/nosuch/predict", PREDICT, 404, "acme"),
        ("GET", "/t/acme/models/measures/predict", PREDICT, 405, None),
        ("POST", "/t/globex/models/measures/predict", PREDICT, 404, None),
        ("GET", "/readyz", "/readyz", 200, None),
        ("GET", "/wp-admin/setup.php", "unmatched", 404, None),
    ],
)
def test_each_request_is_counted_by_route_and_status(cell, key, noted, method, path, route, status, caller):
    """Never by a path or a tenant that anybody may make up."""
    body = {"json": {"rows": [MEASURE]}} if method == "POST" else {}
    assert cell.ask(method, path, key=key, **body).status_code == status
    ((found, code, seconds, tenant),) = noted.of("request_ended")
    assert (found, code, tenant) == (route, status, caller)
    assert 0 < seconds < 30


def test_a_client_that_left_is_counted_too(cell, key, noted):
    """With the status that nginx gives it; nobody was answered."""

    async def leave() -> None:
        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            raise AssertionError(message)

        headers = [(b"authorization", f"Bearer {key}".encode())]
        scope = {"type": "http", "method": "POST", "path": "/t/acme/models/measures/predict", "headers": headers}
        await cell.app(scope, receive, send)

    asyncio.run(leave())
    assert [args[:2] for args in noted.of("request_ended")] == [(PREDICT, 499)]


def test_a_hook_that_raises_does_not_break_an_answer(store_with, fitted_measures):
    """Wherever it is called."""

    class Broken(Hooks):
        def request_ended(self, *args):
            raise RuntimeError("broken")

        batch_predicted = request_predicted = models_resident = model_loaded = request_ended

    cell = store_with(Broken())
    promote(cell.table, servable(cell.store, fitted_measures))
    assert cell.predict("measures", [MEASURE], key=cell.key(ACME, Scope.PREDICT)).status_code == 200


@pytest.fixture
def store_with(tmp_path):
    """Makes an empty cell with hooks."""
    made = []

    def make(hooks):
        made.append(make_cell(LocalStore(tmp_path), ServingSettings(), hooks=hooks))
        made[-1].assignment.apply(AssignmentDelta(1, True, {ACME: True}, {}, {}))
        return made[-1]

    yield make
    for cell in made:
        cell.table.close()
        cell.service.close()


# The batcher.


class Held:
    """A real model whose calls wait until they may go on."""

    def __init__(self, model):
        self.model, self.version = model, model.version
        self.go_on = threading.Event()

    def predict(self, columns):
        assert self.go_on.wait(10)
        return self.model.predict(columns)


def test_rows_that_wait_are_counted_in_and_out(cell, fitted_measures, noted):
    """With the wait of each request, and the size of each batch."""
    model = Held(load_version(cell.store, servable(cell.store, fitted_measures)))
    columns = {name: np.array([value]) for name, value in MEASURE.items()}

    async def run(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.predict(columns, 1, size=1, proba=False, deadline=FAR))
        await asyncio.sleep(0.02)  # the batch of one row runs on its thread, and waits there
        others = [asyncio.create_task(batcher.predict(columns, 1, size=1, proba=False, deadline=FAR)) for _ in range(3)]
        late = asyncio.create_task(batcher.predict(columns, 1, size=1, proba=False, deadline=0.0))
        await asyncio.sleep(0.02)
        with pytest.raises(QueueFullError):
            await batcher.predict(columns, 1, size=1, proba=False, deadline=FAR)
        model.go_on.set()
        await asyncio.gather(first, *others)
        with pytest.raises(DeadlineExceededError):
            await late

    threads = FairThreads(Shares(lambda _: 1.0), "test", threads=1)
    asyncio.run(run(Batcher(model, threads, Shares(lambda _: 1.0), max_queued_rows=4, max_batch_rows=32, hooks=noted)))
    threads.close()
    assert noted.of("rows_queued") == [(1,)] * 5
    assert sum(rows for (rows,) in noted.of("rows_dequeued")) == 5
    assert sorted(noted.of("request_refused")) == [("deadline",), ("queue_full",)]
    assert [args[:2] for args in noted.of("batch_predicted")] == [(1, 1), (3, 3)]
    waits = [waited_s for _, _, waited_s, _ in noted.of("request_predicted")]
    assert waits[0] < 0.02 < min(waits[1:])


def test_a_request_that_need_not_wait_is_counted_as_well(cell, key, noted):
    """Or else the percentiles of the wait would be those of the unlucky."""
    for _ in range(40):
        assert cell.predict("measures", [MEASURE], key=key).status_code == 200
    assert len(noted.of("request_predicted")) == 40
    assert sum(requests for requests, _, _ in noted.of("batch_predicted")) == 40


# The model table.


def test_a_load_is_timed_and_what_is_in_memory_known(cell, noted):
    """From the moment that the model can answer."""
    ((ref, seconds),) = noted.of("model_loaded")
    assert (str(ref.model_id), 0 < seconds < 30) == ("measures", True)
    counts = cell.table.describe()
    assert noted.of("models_resident")[-1] == (counts["loaded"], counts["memory_bytes"])


def test_a_failed_load_says_why(cell, noted, fitted_measures):
    """By the code of its error."""
    broken = dataclasses.replace(servable(cell.store, fitted_measures, "2"), digest=Digest("0" * 64))
    with pytest.raises(ModelLoadError), cell.table.using(broken):
        pass
    ((ref, code, _),) = noted.of("model_load_failed")
    assert (str(ref.version), code) == ("2", "artifact_corrupt")


def test_evictions_are_counted(cell, noted, fitted_measures):
    """Each with what is left in memory."""
    first = servable(cell.store, fitted_measures)
    size = load_version(cell.store, first).memory_bytes
    table = ModelTable(lambda version: load_version(cell.store, version), max_memory_bytes=int(1.5 * size), hooks=noted)
    for version in (first, renamed(first, "2")):
        table.apply({pointer(version): Rollout(version, int(version.ref.version))})
        assert table.wait_idle(10)
    assert noted.of("model_evicted") == [()]
    assert noted.of("models_resident")[-1] == (1, table.describe()["memory_bytes"])
    table.close()


def test_a_withdrawn_tenant_leaves_the_count(cell, noted):
    """Its models are freed, which is no eviction."""
    cell.table.drop_tenant(ACME)
    assert noted.of("models_resident")[-1] == (0, 0)
    assert noted.of("model_evicted") == []
