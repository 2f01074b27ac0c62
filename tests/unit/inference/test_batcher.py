"""The batcher: gathers while busy, answers each request its own rows, and keeps its bounds."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.exceptions import DeadlineExceededError, ModelNotReadyError, PredictionError, QueueFullError
from ml_core.ids import ModelId
from ml_core.inference import fair_threads
from ml_core.inference.batcher import MAX_LOST_CALLS, PART_S, TOGETHER, Batcher
from ml_core.inference.costs import FIRST_ROWS, CostModel, DrainRate
from ml_core.inference.fair_queue import FairQueue, Shares
from ml_core.inference.fair_threads import FairThreads
from ml_core.models.algorithms import ALGORITHMS
from ml_core.models.loading import load_version
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from support.inprocess_cell import TICKET, servable
from support.tables import measures

ROWS = measures(60, seed=4).drop(columns=["outcome"]).to_dict("records")
FAR = 1e12


class Watched:
    """A real loaded model that notes the size of each call, can be held, and fails on a marked row."""

    def __init__(self, model):
        self.model = model
        self.version = model.version
        self.calls = []
        self.go_on = threading.Event()
        self.go_on.set()

    def _note(self, columns):
        self.calls.append(len(columns["m0"]))
        assert self.go_on.wait(10)
        if (columns["m0"] == -999).any():
            raise PredictionError("a row that this model can't answer")
        if (columns["m0"] == -998).any():
            raise RuntimeError("a bug")

    def predict(self, columns):
        self._note(columns)
        return self.model.predict(columns)

    def predict_both(self, columns):
        self._note(columns)
        return self.model.predict_both(columns)


@pytest.fixture
def model(store, fitted_measures):
    return Watched(load_version(store, servable(store, fitted_measures)))


@pytest.fixture
def pool():
    threads = FairThreads(Shares(lambda _: 1.0), "test")
    yield threads
    threads.close()


@pytest.fixture
def batcher(model, pool):
    return made(model, pool)


def made(model, pool):
    return Batcher(model, pool, Shares(lambda _: 1.0), max_queued_rows=100, max_batch_rows=32)


def columns(model, *rows):
    return model.version.signature.columns_from_rows(rows)


def ask(batcher, model, *rows, size=100, proba=False, deadline=FAR, is_only=False):
    return batcher.predict(columns(model, *rows), len(rows), size=size, proba=proba, deadline=deadline, is_only=is_only)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def busy(batcher, model):
    """Start a request that holds the model until ``go_on`` is set."""
    model.go_on.clear()
    first = asyncio.ensure_future(ask(batcher, model, ROWS[0]))
    await until(lambda: model.calls)
    return first


def test_requests_gather_while_the_model_is_busy(batcher, model):
    """One call for all that waited, and each gets the answer to its own rows."""

    async def main():
        first = await busy(batcher, model)
        waiting = [asyncio.ensure_future(ask(batcher, model, row)) for row in ROWS[1:11]]
        await asyncio.sleep(0)
        model.go_on.set()
        return [await first, *[await item for item in waiting]]

    answers = asyncio.run(main())
    assert model.calls == [1, 10]
    expected = [model.model.predict(columns(model, row))[0] for row in ROWS[:11]]
    assert [answer.predictions[0] for answer in answers] == expected


def test_an_idle_model_answers_at_once(batcher, model):
    """One request after the other: each is a call of its own."""

    async def main():
        for row in ROWS[:3]:
            await ask(batcher, model, row)

    asyncio.run(main())
    assert model.calls == [1, 1, 1]


def test_a_batch_is_bounded(batcher, model):
    """More than the bound take several calls, of whole requests; a larger request is divided."""

    async def main():
        first = await busy(batcher, model)
        waiting = [asyncio.ensure_future(ask(batcher, model, *ROWS[:20])) for _ in range(3)]
        large = asyncio.ensure_future(ask(batcher, model, *ROWS[:40]))
        await asyncio.sleep(0)
        model.go_on.set()
        await asyncio.gather(first, large, *waiting)

    asyncio.run(main())
    assert model.calls == [1, 20, 20, 20, 32, 8]


def test_probabilities_go_to_who_asked_for_them(batcher, model):
    """Others in the same batch get none."""

    async def main():
        first = await busy(batcher, model)
        plain = asyncio.ensure_future(ask(batcher, model, ROWS[1]))
        with_proba = asyncio.ensure_future(ask(batcher, model, *ROWS[2:4], proba=True))
        await asyncio.sleep(0)
        model.go_on.set()
        await first
        return await plain, await with_proba

    plain, with_proba = asyncio.run(main())
    assert plain.probabilities is None
    expected = model.model.predict_proba(columns(model, *ROWS[2:4]))
    assert np.array_equal(with_proba.probabilities, expected)


def test_a_full_queue_refuses(batcher, model):
    """With a pause to take; what waits is answered all the same."""

    async def main():
        first = await busy(batcher, model)
        waiting = [asyncio.ensure_future(ask(batcher, model, *ROWS[:30])) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as caught:
            await ask(batcher, model, *ROWS[:11])
        model.go_on.set()
        await asyncio.gather(first, *waiting)
        return caught.value

    assert asyncio.run(main()).retry_after_s >= 1


def test_room_for_a_request_that_takes_long_to_read_is_kept(batcher, model):
    """Those for which there is none are refused before they are read, and room is free again after it was read."""

    async def main():
        first = await busy(batcher, model)
        with (
            batcher.reserved(80),
            pytest.raises(QueueFullError, match="has 80 rows; 21 more exceed"),
            batcher.reserved(21),
        ):
            raise AssertionError("it is read")
        with batcher.reserved(20):
            waiting = asyncio.ensure_future(ask(batcher, model, *(ROWS * 2)[:80]))
            await asyncio.sleep(0)
            with pytest.raises(QueueFullError):
                await ask(batcher, model, ROWS[0])
        last = asyncio.ensure_future(ask(batcher, model, *ROWS[:20]))
        await asyncio.sleep(0)
        model.go_on.set()
        await asyncio.gather(first, waiting, last)

    asyncio.run(main())


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time is what a test says."""

    now = 0.0

    def time(self):
        return self.now


@pytest.mark.parametrize(
    ("rate", "rows", "pause_s"), [(64, 1, 1), (64, 90, 2), (10, 90, 10), (10, 1_000, 11), (0.1, 90, 30)]
)
def test_a_refused_request_is_told_when_there_is_room(batcher, model, monkeypatch, rate, rows, pause_s):
    """From the rows that have to go first and the rate at which rows went before; 30 s at most. That the model was idle
    in between does not count."""
    monkeypatch.setattr(CostModel, "estimate", lambda self, rows: 1.0)  # each call on a thread
    clock = Clock()
    note = model._note

    def take_time(columns):
        note(columns)
        clock.now += len(columns["m0"]) / rate

    model._note = take_time

    async def fill():
        running = await busy(batcher, model)
        waiting = [asyncio.ensure_future(ask(batcher, model, row)) for row in ROWS[:50] * 2]
        await asyncio.sleep(0)
        return [running, *waiting]

    async def main():
        filled = await fill()
        model.go_on.set()
        await asyncio.gather(*filled)
        clock.now += 1_000
        model.calls.clear()
        filled = await fill()
        with pytest.raises(QueueFullError) as refused:
            await ask(batcher, model, *(ROWS * 20)[:rows])
        model.go_on.set()
        await asyncio.gather(*filled)
        return refused.value.retry_after_s

    with asyncio.Runner(loop_factory=lambda: clock) as runner:
        assert runner.run(main()) == pause_s


def test_a_drain_rate_is_of_rows_and_follows_the_newest():
    """Whatever the sizes of the batches; nothing is known before the first."""
    drain = DrainRate()
    assert drain.seconds_for(1_000) == 0.0
    for rows in (1, 100, 7):
        drain.observe(rows, rows / 50)
    assert drain.seconds_for(100) == pytest.approx(2.0)
    for _ in range(20):
        drain.observe(100, 100 / 5)
    assert drain.seconds_for(100) == pytest.approx(20.0, rel=0.02)


def test_who_has_left_costs_no_call(batcher, model):
    """A cancelled request is dropped from the queue."""

    async def main():
        first = await busy(batcher, model)
        leaving = asyncio.ensure_future(ask(batcher, model, *ROWS[:5]))
        staying = asyncio.ensure_future(ask(batcher, model, ROWS[1]))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        model.go_on.set()
        await asyncio.gather(first, staying)
        assert leaving.cancelled()

    asyncio.run(main())
    assert model.calls == [1, 1]


def test_who_is_late_gets_a_deadline_error_and_costs_no_call(batcher, model):
    """Those behind it are answered."""

    async def main():
        first = await busy(batcher, model)
        late = asyncio.ensure_future(ask(batcher, model, ROWS[1], deadline=asyncio.get_running_loop().time()))
        in_time = asyncio.ensure_future(ask(batcher, model, ROWS[2]))
        await asyncio.sleep(0)
        model.go_on.set()
        with pytest.raises(DeadlineExceededError):
            await late
        await asyncio.gather(first, in_time)

    asyncio.run(main())
    assert model.calls == [1, 1]


@pytest.mark.parametrize("poison", [-999, -998])
def test_one_bad_request_does_not_harm_its_neighbours(batcher, model, poison):
    """They are answered; only the bad one gets the error, a framework error in any case."""

    async def main():
        first = await busy(batcher, model)
        good = asyncio.ensure_future(ask(batcher, model, ROWS[1]))
        bad = asyncio.ensure_future(ask(batcher, model, {**ROWS[2], "m0": poison}))
        await asyncio.sleep(0)
        model.go_on.set()
        await first
        assert (await good).predictions.shape == (1,)
        with pytest.raises(PredictionError):
            await bad
        await ask(batcher, model, ROWS[3])  # and the batcher goes on

    asyncio.run(main())


def test_a_short_model_gathers_what_one_turn_of_the_loop_brings(batcher, model):
    """On the loop itself, without a thread, all requests that are there are one call."""
    for rows in (1, 8, 32):
        batcher._cost.observe(rows, 5e-4)

    async def main():
        await asyncio.gather(*[ask(batcher, model, row) for row in ROWS[:8]])

    asyncio.run(main())
    assert model.calls == [8]


def test_a_very_short_model_is_called_in_the_request(batcher, model):
    """Gathering would cost more than it saves."""
    batcher._cost.observe(1, 1e-5)
    asyncio.run(ask(batcher, model, ROWS[0]))
    assert batcher._queue == type(batcher._queue)()
    assert model.calls == [1]


def test_the_only_request_of_a_tenant_is_answered_in_its_turn_of_the_loop(batcher, model):
    """There is none that it could be predicted with; a longer one goes to a thread all the same."""
    batcher._cost.observe(1, 1e-3)

    async def main():
        asked = ask(batcher, model, ROWS[0], is_only=True)
        with pytest.raises(StopIteration) as answered:  # without a step of the loop
            asked.send(None)
        assert answered.value.value.predictions.shape == (1,)
        assert not batcher._queue
        batcher._cost.observe(1, 0.1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(batcher, model, ROWS[0], is_only=True), 0)

    asyncio.run(main())


def test_calls_on_the_loop_count_while_others_wait_for_it(batcher, model, monkeypatch):
    """And nothing is owed for those on an idle loop."""
    monkeypatch.setattr(CostModel, "estimate", lambda self, rows: 1e-3)
    queue, tenant = FairQueue(batcher._loop_shares), model.version.ref.tenant_id

    async def main():
        for row in ROWS:
            await ask(batcher, model, row)
        queue.push("flood", None)
        await ask(batcher, model, ROWS[0])

    asyncio.run(main())
    for _ in range(1000):
        queue.push("flood", None)
    queue.push(tenant, None)
    served = 0
    while (begun := queue.pop()[0]).tenant == "flood":
        batcher._loop_shares.end(begun, 1e-4)
        served += 1
    assert 10 <= served <= 11  # as much as one call took


def test_costs_are_learned_by_size():
    """Unknown sizes are bounded by their neighbours: a larger call's cost, or a smaller one's in proportion."""
    cost = CostModel()
    assert cost.estimate(1) == float("inf")
    cost.observe(1, 0.001)
    assert cost.estimate(1) == pytest.approx(0.001)
    assert cost.estimate(1024) == pytest.approx(0.001 * 1024)
    cost.observe(1024, 0.004)
    assert cost.estimate(512) == pytest.approx(0.004)
    for _ in range(30):
        cost.observe(1, 0.0001)
    assert cost.estimate(1) == pytest.approx(0.0001, rel=0.01)


@given(st.floats(0, 0.1), st.floats(1e-7, 1e-3), st.lists(st.integers(1, 1024), min_size=2, max_size=30), st.data())
def test_the_rows_of_a_call_follow_from_fixed_and_variable_costs(fixed, per_row, sizes, data):
    """A call takes about as long as wanted, or is so long that its fixed cost is a quarter of it; noise of a tenth
    changes little."""
    cost = CostModel()
    cost.observe(1, fixed + per_row)
    cost.observe(1024, fixed + 1024 * per_row)
    for rows in sizes:
        cost.observe(rows, (fixed + rows * per_row) * data.draw(st.floats(0.95, 1.05)))
    wanted = max(PART_S, 4 * fixed)
    rows = min(cost.rows_within(PART_S), 1024)
    assert fixed + rows * per_row <= 1.5 * wanted + fixed + per_row
    assert rows == 1024 or fixed + rows * per_row >= wanted / 2


def test_nothing_is_known_of_rows_before_the_first_call():
    """Then in proportion, until a second size shows what is fixed."""
    cost = CostModel()
    assert cost.rows_within(PART_S) == FIRST_ROWS
    cost.observe(100, 0.05)
    assert cost.rows_within(PART_S) == pytest.approx(10, abs=1)
    cost.observe(10, 0.05)  # more rows cost nothing
    assert cost.rows_within(PART_S) > 10_000


def contended(batcher, pool):
    """Keep another tenant's call on the threads."""
    wake = threading.Event()
    return wake, pool.submit("another", wake.wait, 10)


def ask_large(batcher, model, rows=100, **options):
    return asyncio.ensure_future(ask(batcher, model, *(ROWS * 3)[:rows], **options))


@pytest.mark.parametrize("proba", [False, True])
def test_large_requests_are_divided_while_others_want_the_threads(model, pool, proba):
    """Their answers are those of one call, bit for bit; those of the next request are not mixed up with them."""
    batcher = Batcher(model, pool, Shares(lambda _: 1.0), max_queued_rows=1_000, max_batch_rows=1_000)
    batcher._is_first = False
    for rows in (1, 100):
        batcher._work.observe(rows, rows * PART_S / 40)

    async def main():
        batcher._work.observe = lambda rows, seconds: None
        alone = await ask_large(batcher, model, proba=proba)
        wake, other = contended(batcher, pool)
        first, second = ask_large(batcher, model, proba=proba), asyncio.ensure_future(ask(batcher, model, *ROWS[:7]))
        divided, behind = await first, await second
        wake.set()
        await other
        return alone, divided, behind

    alone, divided, behind = asyncio.run(main())
    assert model.calls == [100, 32, 32, 32, 11]
    assert np.array_equal(divided.predictions, alone.predictions)
    assert behind.predictions.shape == (7,)
    assert (divided.probabilities is None) is not proba
    if proba:
        assert divided.probabilities.tobytes() == alone.probabilities.tobytes()


@pytest.mark.parametrize("most", [16, 17, 31, 40, 75, 99])
def test_parts_end_where_rows_that_are_computed_together_end(model, pool, most):
    """Whatever the bound of a call is."""
    batcher = Batcher(model, pool, Shares(lambda _: 1.0), max_queued_rows=1_000, max_batch_rows=most)
    asyncio.run(ask(batcher, model, *(ROWS * 3)[:150]))
    *parts, _ = model.calls
    assert sum(model.calls) == 150
    assert max(model.calls) <= most
    assert [rows % TOGETHER for rows in parts] == [0] * len(parts)


NUMBERS = np.random.default_rng(0).normal(size=(450, 20))
EVERY = [(model_type, name) for model_type, algorithms in ALGORITHMS.items() for name in algorithms]
SMALL = {"n_estimators": 8, "max_iter": 30, "n_clusters": 3, "n_components": 3}


@pytest.mark.parametrize(("model_type", "algorithm"), EVERY)
def test_the_parts_of_a_request_have_the_answers_of_one_call(store, pool, model_type, algorithm):
    """Of each algorithm, bit for bit."""
    frame = pd.DataFrame(NUMBERS, columns=[f"x{number}" for number in range(20)])
    target = {"classification": np.where(frame.x0 + frame.x1 > 0, "yes", "no"), "regression": frame.x0 + frame.x1}
    names = ALGORITHMS[model_type][algorithm].estimator_class()._get_param_names()
    parameters = {"algorithm": algorithm, **{name: value for name, value in SMALL.items() if name in names}}
    data = frame[:150], target[model_type][:150] if model_type in target else None
    fitted = fit_model(TrainingRequest(ModelId("parts"), model_type, data, hyperparameters=parameters))
    model = load_version(store, servable(store, fitted))
    asked = model.version.signature.columns_from_rows(frame[:439].to_dict("records"))

    def answer(max_batch_rows):
        batcher = Batcher(model, pool, Shares(lambda _: 1.0), max_queued_rows=1_000, max_batch_rows=max_batch_rows)
        return asyncio.run(batcher.predict(asked, 439, size=100, proba=True, deadline=FAR))

    whole, parts = answer(1_000), answer(48)
    for one, other in zip(whole, parts, strict=True):
        assert (one is None) is (other is None)
        assert one is None or (one.dtype == other.dtype and one.tobytes() == other.tobytes())


def test_a_divided_request_that_fails_or_is_left_goes_no_further(batcher, model, monkeypatch):
    """Its other parts cost no call."""
    monkeypatch.setattr(CostModel, "estimate", lambda self, rows: 1.0)  # each call on a thread

    async def main():
        failing = asyncio.ensure_future(ask(batcher, model, {**ROWS[0], "m0": -999}, *(ROWS * 2)[:63]))
        with pytest.raises(PredictionError):
            await failing
        assert model.calls == [32]
        model.go_on.clear()
        leaving = ask_large(batcher, model, 64)
        await until(lambda: len(model.calls) == 2)
        leaving.cancel()
        await asyncio.sleep(0)
        model.go_on.set()
        await ask(batcher, model, ROWS[0])

    asyncio.run(main())
    assert model.calls == [32, 32, 1]
    assert batcher._queued_rows == 0


def test_a_model_that_does_not_return_is_asked_again_and_then_no_more(batcher, model, pool, monkeypatch):
    """A call that is lost keeps neither the model nor its tenant busy; after two, callers learn at once why they get no
    answer, until one returns."""

    monkeypatch.setattr(fair_threads, "LOST_AFTER_S", 0.0)

    def deadline():
        return asyncio.get_running_loop().time() + 0.1

    async def main():
        model.go_on.clear()
        for calls in range(MAX_LOST_CALLS):
            with pytest.raises(DeadlineExceededError, match="did not return"):
                await ask(batcher, model, ROWS[0], deadline=deadline())
            assert pool.lost == calls + 1
        with pytest.raises(ModelNotReadyError, match="2 calls of version 1 of model measures have not returned"):
            await ask(batcher, model, ROWS[0], deadline=deadline())
        assert len(model.calls) == MAX_LOST_CALLS
        model.go_on.set()
        await until(lambda: not pool.lost)
        answer = await ask(batcher, model, ROWS[0])
        assert answer.predictions.shape == (1,)

    asyncio.run(main())


class Placed:
    """A real loaded model of texts that notes on which threads it was called."""

    def __init__(self, model):
        self.model, self.version, self.threads = model, model.version, []

    def predict(self, columns):
        self.threads.append(threading.current_thread())
        return self.model.predict(columns)


@pytest.fixture
def text_model(store, fitted_tickets):
    return Placed(load_version(store, servable(store, fitted_tickets)))


def short(batcher, rows=1):
    """Teach a batcher that its model is as short as can be."""
    for _ in range(50):
        batcher._cost.observe(rows, 1e-6)
    return batcher


def test_long_texts_never_run_on_the_event_loop(text_model, pool):
    """However short the model's calls of so few rows were, and it stays known as short."""
    batcher = short(made(text_model, pool))
    long = {**TICKET, "subject": "the invoice is wrong " * 20_000}

    async def main():
        await ask(batcher, text_model, long, size=420_000)
        assert text_model.threads[-1] is not threading.current_thread()
        await ask(batcher, text_model, TICKET)
        assert text_model.threads[-1] is threading.current_thread()

    asyncio.run(main())


def test_texts_that_are_long_together_never_run_on_the_event_loop(text_model, pool):
    """Each would, alone."""
    batcher = short(made(text_model, pool), rows=3)
    batcher._cost.observe(1, 1e-3)  # too long to be answered at once, short enough for the end of the loop's turn

    async def main():
        await asyncio.gather(*(ask(batcher, text_model, TICKET, size=6_000) for _ in range(3)))
        assert [thread is threading.current_thread() for thread in text_model.threads] == [False]

    asyncio.run(main())


def test_many_numbers_may_run_on_the_event_loop(model, pool):
    """What a model without strings costs does follow from its rows."""
    batcher = short(made(model, pool))
    model.predict = lambda columns: threads.append(threading.current_thread()) or model.model.predict(columns)
    threads = []
    asyncio.run(ask(batcher, model, ROWS[0], size=2**20))
    assert threads == [threading.current_thread()]
