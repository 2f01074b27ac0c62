"""The prediction log without a registry: bounds, repetition, and that no row is lost without being counted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from types import SimpleNamespace

import numpy as np
import pytest

from ml_core.domain.prediction_record import Loss, LossReason
from ml_core.exceptions import DeadlineExceededError, InvalidRequestError, RegistryUnavailableError
from ml_core.ids import ModelId, TenantId, VersionId, VersionRef
from ml_core.inference import prediction_log
from ml_core.inference.assignment import Assignment
from ml_core.inference.batcher import Answer
from ml_core.inference.fair_queue import Shares
from ml_core.inference.fair_threads import FairThreads
from ml_core.inference.prediction_log import PredictionLog, PredictionRecorder
from ml_core.inference.prediction_spool import SEGMENT_BYTES
from ml_core.inference.routing import Target
from ml_core.inference.service import Prediction
from ml_core.registry.predictions.ingest import Written
from ml_core.registry.predictions.rendering import COLUMNS, RenderedRequest
from ml_core.settings import PredictionLogSettings
from support.predictions import SIGNATURE, spooled, today
from support.waiting import wait_until

REQUEST_ID = COLUMNS.index("request_id")


class Registry:
    """Takes batches, unless it is told to be away, to hang or to refuse a request."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[str], list[Loss], str, bool]] = []
        self.is_away = False
        self.poison: str | None = None
        self.most: int | None = None  # requests that it writes in time
        self.tried: list[str] = []  # ids of batches
        self.go_on = threading.Event()
        self.go_on.set()

    def write(self, requests, losses, batch_id, *, is_repeated=False):
        """See ``Ingest``."""
        self.tried.append(batch_id)
        assert self.go_on.wait(20)
        if self.is_away:
            raise RegistryUnavailableError("It is away.")
        ids = [lines.decode().split("\t")[REQUEST_ID] for request in requests for lines in request.parts]
        if self.poison in ids:
            raise InvalidRequestError("It can't be stored.")
        if self.most is not None and len(ids) > self.most:
            raise DeadlineExceededError("It takes too long.")
        self.batches.append((ids, list(losses), batch_id, is_repeated))
        return Written(kept=sum(request.rows for request in requests))

    @property
    def written(self) -> list[str]:
        """The requests' ids, in order."""
        return [request_id for ids, _, _, _ in self.batches for request_id in ids]

    @property
    def losses(self) -> dict[LossReason, int]:
        """Rows that were told to be lost."""
        return {loss.reason: loss.rows for _, losses, _, _ in self.batches for loss in losses}


@pytest.fixture
def registry() -> Registry:
    """A registry that takes everything."""
    return Registry()


@pytest.fixture
def open_log(registry: Registry) -> Iterator[Callable[..., PredictionLog]]:
    """Makes logs over the registry; what is left of them ends with the test."""
    logs: list[PredictionLog] = []

    def make(**settings: float) -> PredictionLog:
        logs.append(PredictionLog(registry, PredictionLogSettings(**{"flush_s": 0.01, **settings})))
        return logs[-1]

    yield make
    registry.go_on.set()
    for log in logs:
        log.close(0)


def counts_add_up(log: PredictionLog) -> bool:
    """What came in is accounted for."""
    counts = log.describe()
    return counts["accepted"] == sum(counts[name] for name in ("written", "withheld", "queued")) + sum(
        counts["lost"].values()
    )


def test_answers_are_written_in_order_and_together(registry, open_log):
    """What gathers within the flush interval is one batch."""
    log = open_log(flush_s=0.2)
    log.start()
    for number in range(50):
        log.append(spooled("acme", request_id=str(number)))
    wait_until(lambda: log.describe()["written"] == 50)
    assert registry.written == [str(number) for number in range(50)]
    assert len(registry.batches) == 1


def large(bytes_: int, **fields) -> RenderedRequest:
    """A request of one row with about as many bytes."""
    return spooled("acme", [{"text": "x" * bytes_}], **fields)


def test_a_full_segment_does_not_wait(registry, open_log):
    """Nor is a transaction larger than it has to be."""
    log = open_log(flush_s=1000)
    for _ in range(5):
        log.append(large(SEGMENT_BYTES // 5))
    log.start()
    wait_until(lambda: log.describe()["queued"] == 0)
    assert [len(ids) for ids, _, _, _ in registry.batches] == [4, 1]


def test_what_does_not_fit_is_counted_and_told(registry, open_log):
    """The newest goes; the next batch carries the count, and later ones do not repeat it."""
    log = open_log(queue_mb=2 * SEGMENT_BYTES >> 20)
    for number in range(5):
        log.append(large(SEGMENT_BYTES * 2 // 3, request_id=str(number)))
    assert log.describe()["lost"] == {"queue_full": 3}
    log.start()
    wait_until(lambda: log.describe()["queued"] == 0)
    assert registry.written == ["0", "1"]
    (loss,) = [loss for _, losses, _, _ in registry.batches for loss in losses]
    assert (loss.tenant_id, loss.model_id, loss.reason, loss.rows) == ("acme", "tickets", LossReason.QUEUE_FULL, 3)
    log.append(spooled("acme"))
    wait_until(lambda: len(registry.batches) == 3)
    assert registry.batches[2][1] == []
    assert counts_add_up(log)


def test_a_tenant_with_large_rows_leaves_space_for_the_others(registry, open_log):
    """It holds twice what is free at most; its further rows are its own loss, and counted as that."""
    log = open_log(queue_mb=12 * SEGMENT_BYTES >> 20)
    for number in range(30):
        log.append(large(SEGMENT_BYTES * 2 // 3, request_id=f"acme{number}"))
    lost_first = log.describe()["lost"]["queue_full"]
    assert 18 < lost_first < 24, "it has more than half, and not all"
    for number in range(1_000):
        log.append(spooled("globex", request_id=f"globex{number}"))
    assert log.describe()["lost"]["queue_full"] == lost_first
    log.start()
    wait_until(lambda: log.describe()["queued"] == 0)
    assert [each for each in registry.written if each.startswith("globex")] == [f"globex{n}" for n in range(1_000)]
    assert {loss.tenant_id for _, losses, _, _ in registry.batches for loss in losses} == {"acme"}
    log.append(large(SEGMENT_BYTES * 2 // 3, request_id="again"))  # what was written is no longer held
    wait_until(lambda: "again" in registry.written)
    assert log._held_bytes == {}
    assert counts_add_up(log)


def test_many_equal_tenants_share_the_whole_spool(registry, open_log):
    """Nobody is refused before it is full."""
    log = open_log(queue_mb=12 * SEGMENT_BYTES >> 20)
    for number in range(13):
        log.append(spooled(f"t{number % 6}", [{"text": "x" * (SEGMENT_BYTES * 2 // 3)}]))
    assert log.describe()["lost"] == {"queue_full": 1}


@pytest.mark.parametrize("most", [1, 2, 7])
def test_a_batch_that_takes_too_long_is_halved_until_it_is_written(registry, open_log, most):
    """Each request once, in order, and none is lost."""
    registry.most = most
    log = open_log(flush_s=0.2)
    for number in range(50):
        log.append(spooled("acme", request_id=str(number)))
    log.start()
    wait_until(lambda: log.describe()["written"] == 50)
    assert registry.written == [str(number) for number in range(50)]
    assert max(len(ids) for ids, _, _, _ in registry.batches) <= most
    assert len({batch_id for _, _, batch_id, _ in registry.batches}) == len(registry.batches)
    counts = log.describe()
    assert (counts["timeouts"], counts["lost"], counts["error"]) == (len(registry.batches) - 1, {}, None)


@pytest.mark.parametrize("requests", [1, 2, 9])
def test_losses_are_written_once_by_the_id_of_the_whole_batch(registry, open_log, requests):
    """Which is written again if the process ends before all parts are: then they must not count twice."""
    registry.most, registry.poison = 1, "0"
    log = open_log()
    log.lose(Loss("acme", "tickets", date(2026, 1, 1), LossReason.QUEUE_FULL, 7))
    for number in range(requests):
        log.append(spooled("acme", request_id=str(number)))
    log.start()
    wait_until(lambda: log.describe()["written"] == requests - 1)
    wait_until(lambda: LossReason.REFUSED in registry.losses)
    assert next((losses, batch_id) for _, losses, batch_id, _ in registry.batches if losses) == (
        [Loss("acme", "tickets", date(2026, 1, 1), LossReason.QUEUE_FULL, 7)],
        registry.tried[0],
    )
    assert sum(loss.rows for _, losses, _, _ in registry.batches for loss in losses) == 7 + 1


def test_a_request_that_always_takes_too_long_holds_up_no_other(registry, open_log, monkeypatch):
    """It is tried again, since the registry may be slow for all; then it is counted as lost."""
    monkeypatch.setattr(prediction_log, "_FIRST_PAUSE_S", 0.001)
    registry.most = 0
    log = open_log()
    log.append(spooled("acme", request_id="slow"))
    log.start()
    wait_until(lambda: log.describe()["lost"] == {"refused": 1})
    assert log.describe()["timeouts"] == 5
    registry.most = None
    log.append(spooled("acme", request_id="next"))
    wait_until(lambda: registry.written == ["next"])
    assert registry.losses == {LossReason.REFUSED: 1}
    assert counts_add_up(log)


def test_losses_of_too_many_models_are_counted_and_said_once(open_log, caplog):
    """Whoever asks 10,000 models while the registry is away writes no line for each request."""
    log = open_log(queue_mb=1)
    log.append(large(SEGMENT_BYTES - 2**19))
    for number in range(10_000):
        log.lose(Loss("acme", f"{'m' * 40}{number}", today(), LossReason.QUEUE_FULL, 1))
    assert log.describe()["lost"] == {"queue_full": 10_000}
    assert counts_add_up(log)
    assert len(caplog.records) == 1


def test_one_request_larger_than_the_queue_is_taken(registry, open_log):
    """It would never be noted otherwise."""
    log = open_log(queue_mb=1)
    log.append(large(2 * SEGMENT_BYTES))
    log.append(large(2 * SEGMENT_BYTES))
    assert (log.describe()["queued"], log.describe()["lost"]) == (1, {"queue_full": 1})


def test_a_registry_that_hangs_holds_up_no_answer(registry, open_log):
    """Appending goes on; the queue fills."""
    registry.go_on.clear()
    log = open_log()
    log.start()
    log.append(spooled("acme"))
    wait_until(lambda: len(registry.tried) == 1)
    request = spooled("acme")
    started = time.perf_counter()
    for _ in range(1000):
        log.append(request)
    assert time.perf_counter() - started < 1
    assert log.describe()["queued"] == 1001


def test_while_the_registry_is_away_nothing_is_lost_that_fits(registry, open_log):
    """The same batch is tried again, as one that may be there already."""
    registry.is_away = True
    log = open_log()
    log.start()
    log.append(spooled("acme", request_id="early"))
    wait_until(lambda: len(registry.tried) >= 2)
    log.append(spooled("acme", request_id="late"))
    assert log.describe()["error"] == "registry_unavailable"
    registry.is_away = False
    wait_until(lambda: log.describe()["written"] == 2)
    assert registry.written == ["early", "late"]
    assert [is_repeated for _, _, _, is_repeated in registry.batches] == [True, False]
    assert (log.describe()["error"], log.describe()["lost"]) == (None, {})


@pytest.mark.parametrize("poison", range(9))
def test_a_request_that_the_registry_refuses_goes_alone(registry, open_log, poison):
    """The rest of its batch is written, and it is counted. No two parts have one id: a count would be taken for that of
    the other."""
    registry.poison = str(poison)
    log = open_log(flush_s=0.2)
    log.start()
    for number in range(9):
        log.append(spooled("acme", [{}, {}], request_id=str(number)))
    wait_until(lambda: log.describe()["queued"] == 0)
    assert registry.written == [str(number) for number in range(9) if number != poison]
    log.append(spooled("acme"))
    wait_until(lambda: log.describe()["queued"] == 0)
    assert log.describe()["lost"] == {"refused": 2}
    assert registry.losses == {LossReason.REFUSED: 2}
    assert counts_add_up(log)
    assert len({batch_id for _, _, batch_id, _ in registry.batches}) == len(registry.batches)


def test_small_requests_of_a_model_and_a_day_are_written_together(registry, open_log, monkeypatch):
    """Others are not; each row is counted."""
    seen = []
    monkeypatch.setattr(registry, "write", lambda requests, *_, **__: (seen.extend(requests), Written(4))[1])
    log = open_log()
    for tenant, at in (("acme", 0.0), ("globex", 0.0), ("acme", 1.0), ("acme", 86_400.0)):
        log.append(spooled(tenant, at=at))
    log.start()
    wait_until(lambda: log.describe()["written"] == 4)
    assert [(each.tenant_id, each.day, each.rows) for each in seen] == [
        ("acme", 0, 2),
        ("globex", 0, 1),
        ("acme", 1, 1),
    ]


@pytest.fixture
def record(open_log):
    """Records answers with given values of a tenant; what it was made of are its attributes."""
    log, threads = open_log(), FairThreads(Shares(lambda _: 1.0), "test", threads=1)
    recorder = PredictionRecorder(Assignment(), log, None)
    version = SimpleNamespace(ref=VersionRef(TenantId("acme"), ModelId("tickets"), VersionId("1")), signature=SIGNATURE)

    async def record(values, tenant="acme", text=None, extra=0):
        target = Target(tenant, "tickets", request_id="good")
        columns = SIGNATURE.columns_from_rows([{"text": text}] * len(values))
        columns |= {f"x{number}": columns["amount"] for number in range(extra)}
        prediction = Prediction(version, Answer(np.array(values, dtype=object), None), columns)
        await recorder.record(target, prediction, 0.0, len(text or ""), threads)

    record.log, record.recorder = log, recorder
    yield record
    threads.close()
    recorder.close()


def test_a_value_without_json_costs_its_own_request_only(registry, record):
    """It is counted, and the rest is written."""
    for values in ([object()], [object()] * 100, ["a"], ["a"] * 100):
        asyncio.run(record(values))
    log = record.log
    log.start()
    wait_until(lambda: log.describe()["queued"] == 0)
    assert (registry.written, log.describe()["lost"]) == (["good", "good"], {"refused": 101})
    wait_until(lambda: registry.losses == {LossReason.REFUSED: 101})
    assert counts_add_up(log)


@pytest.mark.parametrize(
    ("rows", "given", "is_on_loop"),
    [(50, {}, True), (51, {}, False), (1, {"text": "x" * 100_000}, False), (1, {"extra": 3000}, False)],
)
def test_only_what_is_short_is_rendered_on_the_event_loop(record, monkeypatch, rows, given, is_on_loop):
    """Many rows, long texts and many columns are not: everybody's answers would wait."""
    names, render = [], record.recorder._renderer.render

    def noting(request):
        names.append(threading.current_thread().name)
        return render(request)

    monkeypatch.setattr(record.recorder._renderer, "render", noting)
    asyncio.run(record(["a"] * rows, **given))
    assert [name == threading.current_thread().name for name in names] == [is_on_loop]


def test_many_rows_are_rendered_when_it_is_their_tenant_s_turn(record, monkeypatch):
    """An answer waits for that, so it must not wait for all that another tenant asked before."""
    order, render = [], record.recorder._renderer.render
    monkeypatch.setattr(
        record.recorder._renderer, "render", lambda request: (order.append(request.tenant_id), render(request))[1]
    )

    async def flood():
        await asyncio.gather(*(record(["a"] * 1000) for _ in range(10)), record(["a"] * 100, "globex"))

    asyncio.run(flood())
    assert len(order) == 11
    assert order.index("globex") <= 2


def test_a_stream_of_answers_is_written_in_few_batches(registry, open_log):
    """What comes in while a batch is written waits for the next interval."""
    log = open_log(flush_s=0.2)
    log.start()
    for number in range(20):
        log.append(spooled("acme"))
        wait_until(lambda expected=number: registry.tried or expected < 10)
    wait_until(lambda: log.describe()["queued"] == 0)
    assert len(registry.batches) <= 3


def test_closing_writes_what_is_left(registry, open_log):
    """Without waiting for the flush interval."""
    log = open_log(flush_s=1000)
    log.start()
    log.append(spooled("acme"))
    log.close(10)
    assert log.describe()["written"] == 1


def test_closing_while_the_registry_is_away_counts_what_is_lost(registry, open_log):
    """It takes no longer than it may."""
    registry.is_away = True
    log = open_log()
    log.start()
    for _ in range(3):
        log.append(spooled("acme"))
    log.close(0.3)
    log.append(spooled("acme"))
    assert log.describe()["lost"] == {"shutdown": 4}
    assert counts_add_up(log)


@pytest.fixture
def open_spooled(registry, tmp_path) -> Iterator[Callable[..., PredictionLog]]:
    """Makes logs whose spools are in one folder."""
    logs: list[PredictionLog] = []

    def make(**settings: float) -> PredictionLog:
        given = PredictionLogSettings(**{"flush_s": 0.01, **settings})
        logs.append(PredictionLog(registry, given, folder=tmp_path / "spool"))
        return logs[-1]

    yield make
    registry.go_on.set()
    for log in logs:
        log.close(0)


def test_a_log_that_ends_without_the_registry_leaves_its_spool(registry, open_spooled, tmp_path):
    """The next one writes rows and counts as a batch that may be there already, once, and removes the files."""
    registry.is_away = True
    log = open_spooled(queue_mb=SEGMENT_BYTES >> 20)
    log.append(spooled("acme", request_id="kept"))
    log.append(large(SEGMENT_BYTES))
    log.start()
    wait_until(lambda: registry.tried)
    log.close(0.3)
    log._thread.join(10)
    assert (log.describe()["queued"], log.describe()["lost"]) == (1, {"queue_full": 1})
    registry.is_away = False
    following = open_spooled()
    following.append(spooled("acme", request_id="own"))
    following.start()
    wait_until(lambda: following.describe()["recovered"] == 1 and following.describe()["queued"] == 0)
    assert sorted(registry.written) == ["kept", "own"]
    ((_, losses, _, is_repeated),) = [batch for batch in registry.batches if batch[0] == ["kept"]]
    assert ([(loss.reason, loss.rows) for loss in losses], is_repeated) == ([(LossReason.QUEUE_FULL, 1)], True)
    assert counts_add_up(following)
    following.close(10)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_spool_uses_its_files_again(registry, open_spooled, tmp_path):
    """Two are enough while the registry keeps up, and a log that ends leaves none."""
    log = open_spooled()
    log.start()
    for number in range(5):
        log.append(spooled("acme", request_id=str(number)))
        wait_until(lambda expected=number + 1: log.describe()["written"] == expected)
        assert len(list((tmp_path / "spool").iterdir())) <= 2
    assert len({batch_id for _, _, batch_id, _ in registry.batches}) == 5
    log.close(10)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_full_disk_costs_no_answer(registry, tmp_path):
    """Rows are held in memory and written; health says so, and how many would have been lost with the process."""
    (tmp_path / "file").write_text("")
    log = PredictionLog(registry, PredictionLogSettings(flush_s=0.01), folder=tmp_path / "file")
    log.append(spooled("acme"))
    log.start()
    wait_until(lambda: log.describe()["written"] == 1)
    assert (log.describe()["unspooled"], bool(log.describe()["spool_fault"])) == (1, True)
    log.close(10)
