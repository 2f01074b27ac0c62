"""Quotas: what a token bucket admits, and what a caller beyond its quota is answered."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta
from ml_core.domain.tenant_policies import PredictionQuota
from ml_core.exceptions import InvalidRequestError, QuotaExceededError, RequestTooLargeError
from ml_core.inference.assignment import Assignment
from ml_core.inference.quotas import Quotas, TokenBucket
from ml_core.observability import Hooks
from ml_core.settings import ServingSettings
from support.inprocess_cell import ACME, GLOBEX, MEASURE, TICKET, Cell, promote, servable

RATES = st.floats(0.001, 1e6)
STEPS = st.lists(st.tuples(st.integers(0, 5 * 10**9), st.integers(1, 50)), max_size=60)
PREDICT = "/t/acme/models/measures/predict"


class Time:
    """A clock in nanoseconds that a test moves."""

    def __init__(self) -> None:
        self.ns = 10**12

    def __call__(self) -> int:
        return self.ns


class Refusals(Hooks):
    """Notes why requests were refused."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def request_refused(self, reason: str) -> None:
        self.reasons.append(reason)


@settings(deadline=timedelta(seconds=1))
@given(rate=RATES, size=st.integers(1, 50), steps=STEPS)
def test_no_window_admits_more_than_its_rate_and_a_burst(rate: float, size: int, steps: list[tuple[int, int]]) -> None:
    """From any admission to any later one: at most rate times time, plus the size."""
    bucket, now, admitted = TokenBucket(rate, size), 0, []
    for pause, tokens in steps:
        now += pause
        if tokens <= size and bucket.take(tokens, now) == 0:
            admitted.append((now, tokens))
    for first, (start, _) in enumerate(admitted):
        total = 0
        for end, tokens in admitted[first:]:
            total += tokens
            assert total <= rate * (end - start) / 1e9 + size + 1e-6


@settings(deadline=timedelta(seconds=1))
@given(rate=RATES, size=st.integers(1, 50), steps=STEPS)
def test_a_wait_is_exact(rate: float, size: int, steps: list[tuple[int, int]]) -> None:
    """After it the tokens are there; a nanosecond sooner they are not. A refusal takes nothing."""
    bucket, now = TokenBucket(rate, size), 0
    for pause, tokens in steps:
        now += pause
        if tokens > size:
            continue
        wait = bucket.take(tokens, now)
        assert wait >= 0
        if wait:
            assert bucket.take(tokens, now + wait - 1) == 1
            assert bucket.take(tokens, now + wait) == 0
            now += wait


@given(rate=RATES, size=st.integers(1, 1000))
def test_an_idle_bucket_is_full_again(rate: float, size: int) -> None:
    """And no fuller than before."""
    bucket = TokenBucket(rate, size)
    assert bucket.take(size, 0) == 0
    full_at = size * math.ceil(1e9 / rate)
    for later in (full_at, 100 * full_at):
        assert bucket.take(size, later) == 0
        assert bucket.take(1, later) > 0


def limited(
    quota: PredictionQuota | None, replicas: int = 1, **defaults: float
) -> tuple[Assignment, Quotas, Time, Refusals]:
    """The quotas of a replica that serves acme with a quota of its own, and globex without."""
    assignment, clock, hooks = Assignment(), Time(), Refusals()
    own = {ACME: quota} if quota else {}
    assignment.apply(AssignmentDelta(1, True, {ACME: True, GLOBEX: True}, {}, {}, quotas=own, replicas=replicas))
    return assignment, Quotas(assignment, ServingSettings(**defaults), hooks, clock), clock, hooks  # type: ignore[arg-type]


def taken(quotas: Quotas, tenant: str, most: int = 1000) -> int:
    """Requests that are admitted at once."""
    for count in range(most):
        try:
            quotas.take_request(tenant)
        except QuotaExceededError:
            return count
    return most


def test_a_quota_is_one_tenants_and_a_default_all_others():
    """Each has its own bucket; without either there is no bound."""
    _, quotas, _, hooks = limited(PredictionQuota(requests_per_s=7), requests_per_s=3)
    assert [taken(quotas, tenant) for tenant in (ACME, GLOBEX, ACME)] == [7, 3, 0]
    assert hooks.reasons == ["quota_requests"] * 3
    _, quotas, _, _ = limited(None)
    assert taken(quotas, ACME) == 1000
    quotas.take_rows(ACME, 10**9)


def test_whoever_waits_as_long_as_it_is_told_is_admitted():
    """The pause of the error is rounded up to a millisecond."""
    _, quotas, clock, _ = limited(PredictionQuota(requests_per_s=3, rows_per_s=100, burst_s=2))
    assert taken(quotas, ACME) == 6
    with pytest.raises(QuotaExceededError, match=r"requests_per_s of 3 is used up for 0\.334 s") as refused:
        quotas.take_request(ACME)
    assert (refused.value.quota, refused.value.limit, refused.value.retry_after_s) == ("requests_per_s", 3, 0.334)
    clock.ns += 333_000_000
    assert taken(quotas, ACME) == 0
    clock.ns += 1_000_000
    assert taken(quotas, ACME) == 1
    quotas.take_rows(ACME, 150)
    with pytest.raises(QuotaExceededError, match=r"rows_per_s of 100 is used up for 1 s"):
        quotas.take_rows(ACME, 150)
    clock.ns += 10**9
    quotas.take_rows(ACME, 150)


def test_more_rows_than_a_burst_are_refused_for_good():
    """Waiting is of no use: 413 says what fits. Nothing is taken."""
    _, quotas, _, hooks = limited(PredictionQuota(rows_per_s=100))
    with pytest.raises(RequestTooLargeError, match="101 rows; the tenant's quota permits 100 at once") as refused:
        quotas.take_rows(ACME, 101)
    assert (refused.value.limit, refused.value.actual, hooks.reasons) == (100, 101, ["quota_rows"])
    quotas.take_rows(ACME, 100)


def test_replicas_divide_the_rate_and_not_the_burst():
    """So that what fits is admitted whatever the number of replicas; it changes while they run."""
    assignment, quotas, clock, _ = limited(PredictionQuota(requests_per_s=100), replicas=4)
    assert taken(quotas, ACME) == 100
    clock.ns += 10**9
    assert taken(quotas, ACME) == 25
    assignment.apply(AssignmentDelta(2, False, {}, {}, {}, replicas=2))
    taken(quotas, ACME)
    clock.ns += 10**9
    assert taken(quotas, ACME) == 50


@pytest.mark.parametrize("replicas", [1, 2, 4, 8])
def test_what_is_used_up_stays_used_up(replicas):
    """Though replicas come and go, another policy of the tenant changes, or the assignment is read anew."""
    quota = PredictionQuota(requests_per_s=8, rows_per_s=16, burst_s=100)
    assignment, quotas, clock, _ = limited(quota, replicas=2)
    assert taken(quotas, ACME) == 800
    quotas.take_rows(ACME, 1000)
    same = PredictionQuota(requests_per_s=8, rows_per_s=16, burst_s=100)
    assignment.apply(AssignmentDelta(2, True, {ACME: True}, {}, {}, quotas={ACME: same}, replicas=replicas))
    assert taken(quotas, ACME) == 0
    with pytest.raises(QuotaExceededError):
        quotas.take_rows(ACME, 601)
    quotas.take_rows(ACME, 600)
    clock.ns += 10**9
    assert taken(quotas, ACME) == 8 // replicas
    quotas.take_rows(ACME, 16 // replicas)


def test_a_change_of_the_assignment_is_effective_at_once():
    """A new quota, and none any more."""
    assignment, quotas, _, _ = limited(PredictionQuota(requests_per_s=2))
    assert taken(quotas, ACME) == 2
    assignment.apply(AssignmentDelta(2, False, {GLOBEX: True}, {}, {}))
    assert taken(quotas, ACME) == 0
    assignment.apply(AssignmentDelta(3, False, {ACME: True}, {}, {}, quotas={ACME: PredictionQuota(requests_per_s=5)}))
    assert taken(quotas, ACME) == 5
    assignment.apply(AssignmentDelta(4, False, {ACME: True}, {}, {}))
    assert taken(quotas, ACME) == 1000


def test_deleted_tenants_are_forgotten():
    """What is kept is bounded by the tenants that there are."""
    assignment, quotas, _, _ = limited(None, requests_per_s=1)
    for number in range(1000):
        taken(quotas, f"t{number}")
    assert len(quotas._buckets) <= 2 * assignment.tenant_count + 100


@pytest.mark.parametrize(
    "wrong", [{"requests_per_s": 0}, {"rows_per_s": -1}, {"burst_s": 0}, {"weight": 0}, {"weight": float("nan")}]
)
def test_a_quota_that_can_not_be(wrong):
    """The error names the field and its range."""
    with pytest.raises(InvalidRequestError, match=f"{next(iter(wrong))} is") as caught:
        PredictionQuota(**wrong)
    assert "Give a number from" in str(caught.value)


def set_quota(cell: Cell, quota: PredictionQuota) -> None:
    """Give acme a quota, as a delta of the feed does."""
    generation = (cell.assignment.generation or 0) + 1
    cell.assignment.apply(AssignmentDelta(generation, False, {ACME: True}, {}, {}, quotas={ACME: quota}))


def test_a_request_beyond_the_quota_is_429_before_its_body_is_read(cell, key):
    """Whatever the body is; with the header rounded up to seconds and the exact pause in the details."""
    set_quota(cell, PredictionQuota(requests_per_s=0.01, burst_s=100))
    assert cell.predict("measures", [MEASURE], key=key).status_code == 200
    refused = cell.ask("POST", PREDICT, key=key, content=b"no JSON")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (429, "quota_exceeded")
    assert error["details"]["quota"] == "requests_per_s"
    assert 99 < error["details"]["retry_after_s"] <= 100
    assert refused.headers["retry-after"] == "100"
    assert refused.headers["x-request-id"] == error["request_id"]


def test_a_refusal_is_counted_for_its_tenant(cell, key, monkeypatch):
    """So that an operator sees whose quota is used up."""
    seen = []
    monkeypatch.setattr(cell.service.hooks, "request_ended", lambda *arguments: seen.append(arguments), raising=False)
    set_quota(cell, PredictionQuota(requests_per_s=1))
    for _ in range(2):
        cell.predict("measures", [MEASURE], key=key)
    assert [(status, tenant) for _, status, _, tenant in seen] == [(200, ACME), (429, ACME)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PREDICT, {"rows": [MEASURE] * 3}),
        ("/t/acme/models/measures/explain", {"rows": [MEASURE] * 3}),
        (
            "/t/acme/v2/models/measures/infer",
            {"inputs": [{"name": "m", "shape": [3, 12], "datatype": "FP64", "data": [0.5] * 36}]},
        ),
    ],
)
def test_every_route_that_predicts_counts_rows(cell, key, path, body):
    """Of one budget: the first takes the burst, the second waits for all of it."""
    set_quota(cell, PredictionQuota(rows_per_s=3, burst_s=1))
    answers = [cell.ask("POST", path, key=key, json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429], answers[0].text
    assert answers[1].headers["retry-after"] == "1"


@pytest.mark.parametrize("path", ["/t/acme/v2", "/t/acme/v2/models/measures/config"])
def test_every_request_of_a_tenant_counts(cell, key, path):
    """Also those for metadata; under v2 the error is that of the protocol. Health of the replica needs no quota."""
    set_quota(cell, PredictionQuota(requests_per_s=1))
    answers = [cell.ask("GET", path, key=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert "requests_per_s of 1 is used up" in answers[1].json()["error"]
    assert cell.ask("GET", "/healthz").status_code == 200


def test_rows_beyond_the_burst_are_413(cell, key):
    """With what fits, and the operation that shows the quota."""
    set_quota(cell, PredictionQuota(rows_per_s=2))
    refused = cell.predict("tickets", [TICKET] * 3, key=key)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["details"]) == (413, "too_large", {"limit": 2, "actual": 3})
    assert error["action"] == {"operation": "tenants.quota", "arguments": {"tenant": "acme"}}


def test_a_tenants_quota_is_not_anothers(cell, key, fitted_measures):
    """While one is refused, another is answered; a caller with a wrong key uses up nobody's quota."""
    other = cell.key(GLOBEX, Scope.PREDICT)
    promote(cell.table, servable(cell.store, fitted_measures, tenant=GLOBEX))
    set_quota(cell, PredictionQuota(requests_per_s=1))
    path = "/t/globex/models/measures/predict"
    assert cell.ask("POST", PREDICT, key=other, json={}).status_code == 404
    assert cell.predict("measures", [MEASURE], key=key).status_code == 200
    for _ in range(3):
        assert cell.predict("measures", [MEASURE], key=key).status_code == 429
        assert cell.ask("POST", path, key=other, json={"rows": [MEASURE]}).status_code == 200
