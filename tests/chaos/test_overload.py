"""Ten times as many requests as a cell can answer, and thousands one after another: 429, flat memory, recovery.

The cell is in this process, behind a real server. ``MLCORE_TEST_REQUESTS`` is the number of requests of each
kind over which memory is watched; ``benchmarks/soak.py`` loads a whole platform for minutes.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import time
from contextlib import ExitStack

import orjson
import pytest

from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta
from ml_core.models.loading import LoadedModel, load_version
from ml_core.models.store import LocalStore
from ml_core.observability.prometheus import PrometheusHooks
from ml_core.settings import ServingSettings
from support.http_server import served
from support.inprocess_cell import ACME, GLOBEX, fitted, make_cell, promote, servable
from support.load import load, prediction
from support.tables import measures, split_target
from support.waiting import wait_until

REQUESTS = int(os.environ.get("MLCORE_TEST_REQUESTS", "150"))
ROW = measures(1).drop(columns=["outcome"]).iloc[0].to_dict()
CALL_S = 0.02
QUEUED_ROWS = 16


class Slow(LoadedModel):
    """Each call takes a while, of which the cell knows only by the wall clock of its thread."""

    def predict_both(self, columns, *, proba=True):
        if self.version.ref.tenant_id == ACME:
            ended = time.thread_time() + CALL_S / 4
            while time.thread_time() < ended:
                pass
            time.sleep(CALL_S * 3 / 4)
        return super().predict_both(columns, proba=proba)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """A cell with metrics and small queues; acme's model is slow."""
    store = LocalStore(tmp_path_factory.mktemp("artifacts"))
    limits = ServingSettings(max_queued_rows=QUEUED_ROWS, max_batch_rows=4, max_body_bytes=100_000)

    def load_slow(version):
        model = load_version(store, version)
        return Slow(version, model.pipeline)

    made = make_cell(store, limits, load_slow, hooks=PrometheusHooks())
    made.assignment.apply(AssignmentDelta(1, True, {ACME: True, GLOBEX: True}, {}, {}))
    model = fitted("measures", split_target(measures(), "outcome"), algorithm="logistic_regression")
    for tenant in (ACME, GLOBEX):
        promote(made.table, servable(store, model, tenant=tenant))
    yield made
    made.table.close()
    made.service.close()


def test_an_overload_is_refused_and_forgotten(cell):
    """Whoever is not answered gets 429 at once, with a pause to take; the other tenant is answered, and when it is over
    an answer takes as long as before."""
    mine = prediction("acme", "measures", cell.key(ACME, Scope.PREDICT), ROW)
    other = prediction("globex", "measures", cell.key(GLOBEX, Scope.PREDICT), ROW)
    with served(cell.app, keep_alive_s=60) as port, load(port, other, connections=1) as others:
        others.goes_on(20)
        with load(port, mine, connections=1) as before:
            before.goes_on(20)
        with ExitStack() as stack:
            refused = [stack.enter_context(load(port, mine, connections=10, allowed={429})) for _ in range(4)]
            wait_until(lambda: sum(each.statuses[429] for each in refused) > 400, 60)
            answered = sum(each.answered for each in refused)
            others.goes_on(20)
            wait_until(lambda: sum(each.answered for each in refused) >= answered + 40, 60)
        with load(port, mine, connections=1) as after:
            after.goes_on(20)
    assert [failure for each in (others, before, after, *refused) for failure in each.failures] == []
    assert after.p99_s() < max(2 * before.p99_s(), 1)


LONG = "{0}" * 20
# What a client may send again and again, each time with another name: status, path and body. Names of columns are
# longer than those that orjson remembers.
KINDS = {
    "answered": (200, "/t/acme/models/measures/predict", {"rows": [ROW]}),
    "with probabilities": (200, "/t/globex/models/measures/predict", {"rows": [ROW] * 3, "proba": True}),
    "another protocol": (400, "/t/globex/v2/models/measures/infer", {"inputs": [], "id": "{0}"}),
    "unknown column": (200, "/t/globex/models/measures/predict", {"rows": [{**ROW, LONG: 1}], "key": "{0}"}),
    "unknown field": (400, "/t/globex/models/measures/predict", {"rows": [ROW], LONG: 1}),
    "unknown model": (404, "/t/globex/models/{0}/predict", {"rows": [ROW]}),
    "unknown environment": (404, "/t/globex/models/measures/predict", {"rows": [ROW], "environment": "{0}"}),
    "unknown tenant": (404, "/t/{0}/models/measures/predict", {"rows": [ROW]}),
    "unknown path": (404, "/{0}", {}),
    "not a number": (422, "/t/globex/models/measures/predict", {"rows": [{**ROW, "m0": "{0}"}]}),
    "too large": (413, "/t/globex/models/measures/predict", {"rows": ["{0}" * 50_000]}),
}


async def ask(app, path, key, name, body):
    """One request to the application, without a client in between; the status."""
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"x-request-id", name.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    sent = []

    async def receive():
        return waiting.pop() if waiting else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"]


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_requests(cell, kind):
    """Whatever comes of them, and although each has a request id and a name of its own."""
    status, path, body = KINDS[kind]
    keys = {tenant: cell.key(tenant, Scope.PREDICT) for tenant in (ACME, GLOBEX)}
    template, names = orjson.dumps(body).decode(), (f"n{turn}" for turn in itertools.count())

    async def blocks_after(count):
        for name in itertools.islice(names, count):
            url, content = path.replace("{0}", name), template.replace("{0}", name).encode()
            key = keys[ACME if url.startswith("/t/acme/") else GLOBEX]
            assert await ask(cell.app, url, key, name, content) == status
            await asyncio.sleep(0)  # the loop forgets cancelled timers
        gc.collect()
        return sys.getallocatedblocks()

    async def grown(count):
        await blocks_after(count)  # what is allocated once
        return [await blocks_after(count) for _ in range(3)]

    count = REQUESTS // 5 if kind == "answered" else REQUESTS
    gc.collect()
    gc.freeze()  # so that later collections are short
    try:
        found = asyncio.run(grown(count))
    finally:
        gc.unfreeze()
    # A request that leaves one object behind would show in each part.
    assert min(after - before for before, after in itertools.pairwise(found)) < max(count / 5, 40), found
