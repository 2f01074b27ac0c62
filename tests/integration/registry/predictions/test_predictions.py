"""The prediction log over a real registry: what is kept, found, labelled, and reported as missing."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.prediction_record import Loss, LossReason
from ml_core.domain.principal import Principal
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.exceptions import InvalidRequestError, ModelNotFoundError, PermissionDeniedError, TenantNotFoundError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.feed import FeedReader
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.predictions.ingest import PredictionIngest
from support.predictions import answered, rendered, today, write
from support.registry import TICKETS, register, superuser

HOSTILE = ["tab\there", "line\nend\r", "back\\slash \\N \\.", 'quote"', "\u2028 \U0001f408", "", "\\u0000", "{}"]


@pytest.fixture
def predictions(db: DatabaseConnection, tenant_id: TenantId) -> PredictionRepository:
    """The prediction log of a tenant that keeps its inputs and has the model ``tickets``."""
    register(db, tenant_id)
    repository = PredictionRepository(db, tenant_id)
    repository.set_policy(PredictionPolicy.INPUTS)
    return repository


def test_an_answer_is_found_again(db, tenant_id, predictions):
    """Row by row, with everything that was noted of it."""
    rows = [{"text": "x", "amount": 2.5, "is_paying": False, "opened": "2026-02-01T10:00:00"}, {}]
    request = answered(tenant_id, rows, probabilities=np.array([[0.75, 0.25], [0.5, 0.5]]))
    assert write(db, request).kept == 2
    second, first = predictions.list().items
    assert (first.request_id, first.row, second.row) == (request.request_id, 0, 1)
    assert (first.model_id, first.version, first.environment, first.rollout) == ("tickets", "1", "production", "stable")
    assert (first.prediction, first.probabilities, first.latency_ms) == ("a", {"a": 0.75, "b": 0.25}, 1.5)
    assert abs(first.at - datetime.fromtimestamp(request.at, UTC)) <= timedelta(microseconds=1)
    opened = "2026-02-01T10:00:00+00:00"
    assert first.inputs == {"text": "x", "amount": 2.5, "is_paying": False, "opened": opened}
    assert second.inputs == {"text": None, "amount": None, "is_paying": None, "opened": None}


def test_a_request_is_read_by_its_id(db, tenant_id, predictions):
    """All of its rows in their order, with their labels, of the model that is asked for."""
    rows = [{"text": "x"}, {"text": "y"}]
    write(db, answered(tenant_id, rows, request_id="r"), answered(tenant_id, request_id="other"))
    predictions.add_label("tickets", "r", 1, "b")
    found = predictions.get("r")
    assert [(record.row, record.inputs["text"], record.label) for record in found] == [(0, "x", None), (1, "y", "b")]
    assert predictions.get("r", model_id="tickets") == found
    assert (list(predictions.get("r", model_id="churn")), list(predictions.get("none"))) == ([], [])


def test_kept_inputs_can_be_sent_again_and_have_the_same_digest(db, tenant_id, predictions):
    """What comes out goes in, and is known as the same."""
    write(
        db, answered(tenant_id, [{"text": "x", "amount": 0.1, "is_paying": True, "opened": "2026-02-01T10:00:00.25"}])
    )
    (kept,) = predictions.list().items
    write(db, answered(tenant_id, [kept.inputs]))
    assert [record.input_digest for record in predictions.list().items] == [kept.input_digest] * 2


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_kept_as_it_is(db, tenant_id, predictions, text):
    """Whatever means something to COPY, JSON or a terminal."""
    write(db, answered(tenant_id, [{"text": f"<{text}>"}]))
    assert predictions.list().items[0].inputs["text"] == f"<{text}>"


def test_a_nul_which_postgres_can_not_store_is_replaced(db, tenant_id, predictions):
    """It costs neither the row nor its batch."""
    assert write(db, answered(tenant_id, [{"text": "a\0b"}]), answered(tenant_id)).kept == 2
    assert "a\ufffdb" in {record.inputs["text"] for record in predictions.list().items}


@pytest.mark.parametrize(
    ("labels", "expected"), [([1.5, np.nan], [1.5, None]), ([3, 4], [3, 4]), ([True, False], [True, False])]
)
def test_labels_keep_their_type(db, tenant_id, predictions, labels, expected):
    """Numbers, clusters, truth; what is not finite is null."""
    write(db, answered(tenant_id, [{}, {}], predictions=np.array(labels)))
    assert [record.prediction for record in reversed(predictions.list().items)] == expected


@pytest.mark.parametrize(
    ("registered", "known", "kept", "has_inputs"),
    [
        (PredictionPolicy.INPUTS, PredictionPolicy.INPUTS, 1, True),
        (PredictionPolicy.INPUTS, PredictionPolicy.DIGEST, 1, False),
        (PredictionPolicy.DIGEST, PredictionPolicy.INPUTS, 1, False),
        (PredictionPolicy.NOTHING, PredictionPolicy.INPUTS, 0, False),
        (PredictionPolicy.INPUTS, PredictionPolicy.NOTHING, 0, False),
    ],
)
def test_the_stricter_of_what_the_registry_and_the_replica_know_holds(
    db, tenant_id, predictions, registered, known, kept, has_inputs
):
    """So what was queued before a tenant forbade it is not written after."""
    predictions.set_policy(registered)
    done = write(db, answered(tenant_id, policy=known))
    records = predictions.list().items
    assert (done.kept, done.withheld, done.lost) == (kept, 1 - kept, [])
    assert [record.inputs is not None for record in records] == [has_inputs] * kept
    assert all(len(record.input_digest) == 64 for record in records)


def test_inputs_that_were_rendered_already_are_taken_out_again(db, tenant_id, predictions):
    """Where the tenant forbade them meanwhile; all else of the row stays as it was."""
    rows = [{"text": f"<{text}>"} for text in HOSTILE]
    request = answered(tenant_id, rows, probabilities=np.full((len(rows), 2), 0.5))
    lines = rendered(request)
    ingest = PredictionIngest(db)
    ingest.write(lines, [], "one")
    with_inputs = predictions.list().items
    with superuser(db) as session:
        session.execute("DELETE FROM mlcore.predictions WHERE tenant_id = %s", (tenant_id,))
    predictions.set_policy(PredictionPolicy.DIGEST)
    ingest.write(lines, [], "two")
    without = predictions.list().items
    assert [record.inputs["text"] for record in reversed(with_inputs)] == [row["text"] for row in rows]
    assert without == [dataclasses.replace(record, inputs=None) for record in with_inputs]


def test_a_policy_is_journaled_and_reaches_the_feed(db, tenant_id, predictions):
    """Replicas hear of it with the next delta."""
    before = FeedReader(db).read(None)
    predictions.set_policy(PredictionPolicy.NOTHING)
    assert predictions.policy() is PredictionPolicy.NOTHING
    assert before.prediction_policies[tenant_id] is PredictionPolicy.INPUTS
    assert FeedReader(db).read(before.generation).prediction_policies == {tenant_id: PredictionPolicy.NOTHING}
    with db.tenant(tenant_id) as connection:
        actions = connection.scalars(
            sa.text("SELECT details FROM mlcore.audit WHERE action = 'predictions.policy_set'")
        )
        assert {"policy": "nothing"} in list(actions)


def test_a_tenant_that_keeps_nothing_said_otherwise_keeps_digests(db, tenant_id):
    """Without a word of the tenant nobody's inputs are kept."""
    assert PredictionRepository(db, tenant_id).policy() is PredictionPolicy.DIGEST


def test_a_policy_of_a_tenant_that_is_not_there_is_refused(db):
    """It is told as such."""
    nobody = PredictionRepository(db, TenantId("nobody"))
    with pytest.raises(TenantNotFoundError):
        nobody.policy()
    with pytest.raises(TenantNotFoundError):
        nobody.set_policy(PredictionPolicy.INPUTS)


def test_predictions_are_found_by_what_they_were(db, tenant_id, predictions):
    """Model, version, environment, request, and any of them together."""
    write(
        db,
        answered(tenant_id, request_id="r1"),
        answered(tenant_id, request_id="r2", version="2"),
        answered(tenant_id, request_id="r3", environment="staging"),
        answered(tenant_id, request_id="r4", environment=None, rollout="explicit", model_id="other"),
    )

    def found(**wanted):
        return {record.request_id for record in predictions.list(**wanted).items}

    assert found(model_id=TICKETS) == {"r1", "r2", "r3"}
    assert found(version=VersionId("2")) == {"r2"}
    assert found(environment=EnvironmentName("staging")) == {"r3"}
    assert found(request_id="r4") == {"r4"}
    assert found(model_id=TICKETS, version=VersionId("1"), environment=EnvironmentName("production")) == {"r1"}
    assert found(request_id="r4", model_id=TICKETS) == set()


def test_a_range_of_time_begins_with_its_first_moment_and_ends_before_its_last(db, tenant_id, predictions):
    """Half-open, so that ranges side by side count nothing twice."""
    now = datetime.now(UTC).replace(microsecond=0)
    moments = [now - timedelta(seconds=seconds) for seconds in (3, 2, 1)]
    write(db, *(answered(tenant_id, at=moment.timestamp()) for moment in moments))
    found = predictions.list(since=moments[0], until=moments[2])
    assert [record.at for record in found.items] == [moments[1], moments[0]]


def test_without_a_range_the_last_day_is_searched_and_a_request_anywhere(db, tenant_id, predictions):
    """A list costs a day; a request's id is worth a look into every day."""
    write(db, answered(tenant_id, request_id="old", at=(datetime.now(UTC) - timedelta(days=3)).timestamp()))
    assert predictions.list().items == []
    assert [record.request_id for record in predictions.list(request_id="old").items] == ["old"]


def test_pages_follow_each_other_without_gap_or_repetition(db, tenant_id, predictions):
    """Also where rows of one request have one time, and while newer ones come in."""
    requests = [answered(tenant_id, [{}] * 3) for _ in range(5)]
    write(db, *requests)
    seen, cursor = [], None
    while True:
        page = predictions.list(limit=4, cursor=cursor)
        seen += [(record.at, record.request_id, record.row) for record in page.items]
        write(db, answered(tenant_id))
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(seen) == 15
    assert seen == sorted(set(seen), reverse=True)


@pytest.mark.parametrize(
    "call",
    [
        lambda predictions: predictions.list(limit=0),
        lambda predictions: predictions.list(cursor="nonsense"),
        lambda predictions: predictions.list(since=datetime(2026, 1, 1)),  # noqa: DTZ001
        lambda predictions: predictions.list(since=datetime.now(UTC), until=datetime.now(UTC) - timedelta(1)),
    ],
)
def test_a_query_that_can_not_be_meant_is_refused(predictions, call):
    """With the field that is wrong."""
    with pytest.raises(InvalidRequestError):
        call(predictions)


def test_another_tenant_finds_nothing(db, tenant_id, other_tenant_id, predictions):
    """Neither predictions nor labels nor losses."""
    write(db, answered(tenant_id, request_id="mine"), answered(tenant_id, request_id="late", at=1e9))
    predictions.add_label(TICKETS, "mine", 0, "b")
    other = PredictionRepository(db, other_tenant_id)
    assert other.list(request_id="mine").items == []
    assert other.losses(today() - timedelta(days=36500), today()) == []


def test_a_label_joins_its_prediction_whichever_comes_first(db, tenant_id, predictions):
    """The row of the model it names, and no other."""
    predictions.add_label(TICKETS, "r", 0, "b")
    write(db, answered(tenant_id, [{}, {}], request_id="r"), answered(tenant_id, request_id="r", model_id="other"))
    predictions.add_label(TICKETS, "r", 1, "c", at=datetime(2026, 1, 1, tzinfo=UTC))
    found = {(record.model_id, record.row): record for record in predictions.list(with_labels=True).items}
    labels = {key: record.label for key, record in found.items()}
    assert labels == {("tickets", 0): "b", ("tickets", 1): "c", ("other", 0): None}
    assert found["tickets", 1].labelled_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert {record.label for record in predictions.list().items} == {None}


def test_a_later_label_replaces_the_one_before(db, tenant_id, predictions):
    """Telling it twice is telling it once; telling it better counts."""
    write(db, answered(tenant_id, request_id="r"))
    for label in ("b", "b", 7):
        predictions.add_label(TICKETS, "r", 0, label)
    assert [record.label for record in predictions.list(with_labels=True).items] == [7]


@pytest.mark.parametrize(
    ("request_id", "row", "label", "field"),
    [
        ("", 0, "b", "request_id"),
        ("a b", 0, "b", "request_id"),
        ("r", -1, "b", "row"),
        ("r", 2**31, "b", "row"),
        ("r", True, "b", "row"),
        ("r", 0, None, "label"),
        ("r", 0, [1], "label"),
        ("r", 0, float("nan"), "label"),
        ("r", 0, 2**63, "label"),
        ("r", 0, "\0", "label"),
    ],
)
def test_what_is_no_label_is_refused(predictions, request_id, row, label, field):
    """The field is named."""
    with pytest.raises(InvalidRequestError) as caught:
        predictions.add_label(TICKETS, request_id, row, label)
    assert caught.value.field == field


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope is not Scope.ADMIN])
def test_only_who_has_the_scope_labels(db, tenant_id, predictions, scope):
    """The scope is ``label``; none of the others implies it."""
    other = PredictionRepository(db.acting_as(Principal("key:1", frozenset({scope}))), tenant_id)
    if scope is Scope.LABEL:
        other.add_label(TICKETS, "r", 0, "b")
    else:
        with pytest.raises(PermissionDeniedError, match="'label'"):
            other.add_label(TICKETS, "r", 0, "b")


def test_a_label_of_a_model_that_is_not_there_is_refused(predictions):
    """It is told as such."""
    with pytest.raises(ModelNotFoundError):
        predictions.add_label(ModelId("nothing"), "r", 0, "b")


def test_a_batch_that_is_repeated_is_written_once(db, tenant_id, predictions):
    """After a commit whose answer was lost: rows and losses count once."""
    ingest, batch = PredictionIngest(db), uuid.uuid4().hex
    requests = rendered(answered(tenant_id, [{}, {}]), answered(tenant_id, at=1e9))
    losses = [Loss(tenant_id, "tickets", today(), LossReason.QUEUE_FULL, 5)]
    for is_repeated in (False, True, True):
        ingest.write(requests, losses, batch, is_repeated=is_repeated)
    assert len(predictions.list().items) == 2
    found = predictions.losses(today() - timedelta(days=36500), today())
    assert [(loss.reason, loss.rows) for loss in found] == [(LossReason.QUEUE_FULL, 5), (LossReason.WRONG_CLOCK, 1)]


def test_two_answers_of_one_request_id_do_not_harm_their_batch(db, tenant_id, predictions):
    """A client that sends one id twice in a microsecond has one of them in the log, and the batch is written."""
    twin = answered(tenant_id, request_id="twin")
    write(db, twin, twin, answered(tenant_id))
    assert len(predictions.list().items) == 2


@pytest.mark.parametrize("days", [-8, 2, 300_000])
def test_a_row_of_a_far_day_is_counted_as_lost(db, tenant_id, predictions, days):
    """A replica whose clock is wrong makes no partitions of far days, and its rows are not lost silently."""
    at = (datetime.now(UTC) + timedelta(days=days)).timestamp()
    done = write(db, answered(tenant_id, at=at), answered(tenant_id))
    assert (done.kept, [loss.reason for loss in done.lost]) == (1, [LossReason.WRONG_CLOCK])
    day = datetime.fromtimestamp(at, UTC).date()
    assert predictions.losses(day, day) == [Loss(tenant_id, "tickets", day, LossReason.WRONG_CLOCK, 1)]


def test_rows_of_a_tenant_that_is_gone_are_not_written(db, tenant_id, other_tenant_id, predictions):
    """Neither they nor a note of their loss: nothing of the tenant comes back."""
    with superuser(db) as session:
        session.execute("UPDATE mlcore.tenants SET deleted_at = now() WHERE tenant_id = %s", (other_tenant_id,))
    done = write(db, answered(other_tenant_id), answered(tenant_id))
    assert (done.kept, [loss.reason for loss in done.lost]) == (1, [LossReason.TENANT_GONE])
    with db.tenant(other_tenant_id) as connection:
        for table in ("predictions", "prediction_losses"):
            assert connection.scalar(sa.text(f"SELECT count(*) FROM mlcore.{table}")) == 0
    with pytest.raises(TenantNotFoundError):
        PredictionRepository(db, other_tenant_id).add_label(TICKETS, "r", 0, "b")
