"""Replicas tell the registry what they serve, so that whoever promotes is told what became of it."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, ProgrammingError

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.principal import Principal
from ml_core.domain.replica_report import MAX_PENDING, MAX_REASON, LoadState, PendingVersion, ReplicaReport
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.registry.feed import FeedReader, renew_epoch
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.replicas import ReplicaReports, SeenReplica, ask_replicas, seen_replicas
from ml_core.registry.tenants import tenant_ids
from ml_core.training.trainer import Trainer
from support.registry import TICKETS, new_tenant, register, settings_for, superuser, temporary_home
from support.replicas import damage, running_replica
from support.tables import measures, split_target
from support.waiting import wait_until

M = ModelId("m")
WAIT_S = 20.0


@pytest.fixture(scope="module")
def own() -> Iterator[DatabaseConnection]:
    """A registry of these tests' own: a replica follows all tenants of a cell."""
    with temporary_home() as home, DatabaseConnection(settings=settings_for(home)) as connection:
        yield connection


@pytest.fixture
def acme(own: DatabaseConnection) -> Iterator[TenantId]:
    """A tenant with versions 1 and 2 of ``m``, of which 1 is promoted; withdrawn afterwards."""
    tenant_id = new_tenant(own)
    trainer = Trainer(own, tenant_id)
    for n_estimators in (2, 3):
        trainer.train(M, None, split_target(measures(60), "outcome"), hyperparameters={"n_estimators": n_estimators})
    promote(own, tenant_id, "1")
    yield tenant_id
    EnvironmentRepository(own, tenant_id).withdraw(M, PRODUCTION)


def promote(db: DatabaseConnection, tenant_id: TenantId, version: str) -> None:
    EnvironmentRepository(db, tenant_id).promote(M, VersionId(version), PRODUCTION)


def ask(db: DatabaseConnection, tenant_id: TenantId, wait_s: float = WAIT_S) -> dict[str, tuple[LoadState, str | None]]:
    """Replica → how far it is, and what it answers with."""
    answers = ask_replicas(db, tenant_id, M, PRODUCTION, wait_s=wait_s)
    return {answer.replica_id: (answer.state, answer.serves) for answer in answers}


def seen(db: DatabaseConnection) -> dict[str, SeenReplica]:
    return {replica.replica_id: replica for replica in seen_replicas(db)}


def test_each_replica_says_that_it_serves_the_promoted_version(own: DatabaseConnection, acme: TenantId) -> None:
    """A promotion, a rollback and a withdrawal are each answered by both."""
    with running_replica(own, "a"), running_replica(own, "b"):
        assert ask(own, acme) == dict.fromkeys("ab", (LoadState.LOADED, "1"))
        promote(own, acme, "2")
        assert ask(own, acme) == dict.fromkeys("ab", (LoadState.LOADED, "2"))
        EnvironmentRepository(own, acme).rollback(M, PRODUCTION)
        assert ask(own, acme) == dict.fromkeys("ab", (LoadState.LOADED, "1"))
        EnvironmentRepository(own, acme).withdraw(M, PRODUCTION)
        assert ask(own, acme) == dict.fromkeys("ab", (LoadState.LOADED, None))
        promote(own, acme, "1")


def test_a_replica_that_can_not_load_says_why_and_what_answers(own: DatabaseConnection, acme: TenantId) -> None:
    """The reason is the load's own; the version before answers on; once the bytes are back it is loaded."""
    damage(own, acme, M, VersionId("2"))
    with running_replica(own, "a"):
        promote(own, acme, "2")
        (answer,) = ask_replicas(own, acme, M, PRODUCTION, wait_s=WAIT_S)
        assert (answer.state, answer.version, answer.serves) == (LoadState.FAILED, "2", "1")
        assert answer.code == "artifact_corrupt"
        place = str(own.settings.platform.artifact_root)
        assert place in (answer.reason or "")
        tenant = own.acting_as(Principal("key:1", frozenset({Scope.READ}), tenant_id=acme))
        (told,) = ask_replicas(tenant, acme, M, PRODUCTION)
        assert told.reason
        assert place not in told.reason, "only the operator sees where"
        (replica,) = seen_replicas(own)
        assert (replica.failed, [each.version for each in replica.failures]) == (1, ["2"])
        assert place in (replica.failures[0].reason or "")
        damage(own, acme, M, VersionId("2"))  # the same bit again: repaired
        promote(own, acme, "2")
        assert ask(own, acme) == {"a": (LoadState.LOADED, "2")}
        wait_until(lambda: seen(own)["a"].failed == 0)


def test_a_replica_that_starts_without_the_store_refuses_and_says_so(own: DatabaseConnection, acme: TenantId) -> None:
    """The one that has the model serves on; the one that was restarted can't, and both say what is so."""
    artifacts = own.settings.platform.artifact_root
    with running_replica(own, "old"):
        away = artifacts.rename(artifacts.with_name("away"))
        try:
            with running_replica(own, "new"):
                wait_until(lambda: seen(own)["new"].failed == 1)
                assert seen(own)["old"].failed == 0
                (failure,) = seen(own)["new"].failures
                assert (failure.tenant_id, failure.model_id, failure.serves) == (acme, M, None)
        finally:
            away.rename(artifacts)


def test_what_was_evicted_and_can_not_be_loaded_again_is_reported(own: DatabaseConnection, acme: TenantId) -> None:
    """A pointer that was proved once and answers no more is a failed one."""
    with running_replica(own, "a") as replica:
        assert ask(own, acme) == {"a": (LoadState.LOADED, "1")}
        damage(own, acme, M, VersionId("1"))
        pointer = replica.table.pointer((acme, M, PRODUCTION))
        assert pointer is not None
        version = pointer.serving
        assert version is not None
        replica.table._residents.drop_tenant(acme)
        with pytest.raises(Exception, match="artifact"):
            replica.table.request_load(version).result(WAIT_S)
        wait_until(lambda: ask(own, acme, 0) == {"a": (LoadState.FAILED, None)})
        damage(own, acme, M, VersionId("1"))


def test_a_version_for_which_there_is_no_room_is_deferred(own: DatabaseConnection, acme: TenantId) -> None:
    """It is loaded with the first request, so nobody waits for it and nothing is degraded."""
    with running_replica(own, "a") as replica:
        assert ask(own, acme) == {"a": (LoadState.LOADED, "1")}
        replica.table._residents.max_bytes = 1
        other = new_tenant(own)
        Trainer(own, other).train(M, None, split_target(measures(60), "outcome"), hyperparameters={"n_estimators": 2})
        promote(own, other, "1")
        assert ask(own, other) == {"a": (LoadState.DEFERRED, None)}
        wait_until(lambda: (seen(own)["a"].deferred, seen(own)["a"].failed) == (1, 0))
        EnvironmentRepository(own, other).withdraw(M, PRODUCTION)


def test_no_replica_gives_no_answer_and_no_wait(own: DatabaseConnection, acme: TenantId) -> None:
    """A registry without a serving plane is none that anybody waits for."""
    assert ask(own, acme) == {}


def test_a_stopped_replica_takes_its_report_back(own: DatabaseConnection, acme: TenantId) -> None:
    """So that a promotion right after does not wait for it."""
    with running_replica(own, "a"):
        assert set(ask(own, acme)) == {"a"}
    assert seen_replicas(own) == []


def test_a_change_that_loads_nothing_is_followed_as_well(own: DatabaseConnection, acme: TenantId) -> None:
    """The generation that is reported is that of the last change of any kind, such as a new tenant's."""
    with running_replica(own, "a"):
        new_tenant(own)
        wait_until(lambda: not seen(own)["a"].is_behind)


# Reports without a replica: what the rows mean.


def report(db: DatabaseConnection, **fields: object) -> ReplicaReport:
    """A report of a replica that is at the registry's generation."""
    now = FeedReader(db).read(None)
    return dataclasses.replace(ReplicaReport(now.generation, now.epoch, True, 1, 1), **fields)  # type: ignore[arg-type]


def pending(tenant_id: TenantId, version: str, state: LoadState = LoadState.FAILED, **fields: str) -> PendingVersion:
    return PendingVersion(tenant_id, M, PRODUCTION, version, state, **fields)


@pytest.fixture
def reports(own: DatabaseConnection) -> Iterator[ReplicaReports]:
    """The reports of a replica ``x``."""
    mine = ReplicaReports(own, "x")
    yield mine
    mine.remove()


def test_a_replica_that_has_not_read_the_move_is_behind(
    own: DatabaseConnection, acme: TenantId, reports: ReplicaReports
) -> None:
    """Also one that counts in an epoch before a restore, whatever its generation."""
    reports.write(report(own), 60)
    assert ask(own, acme, 0) == {"x": (LoadState.LOADED, "1")}
    promote(own, acme, "2")
    assert ask(own, acme, 0) == {"x": (LoadState.BEHIND, None)}
    assert seen(own)["x"].is_behind
    reports.write(report(own, generation=10**6), 60)
    assert ask(own, acme, 0) == {"x": (LoadState.LOADED, "2")}
    with own._engine(own.urls.owner).begin() as connection:
        renew_epoch(connection)
    assert ask(own, acme, 0) == {"x": (LoadState.BEHIND, None)}


def test_a_dead_replica_is_passed_over_and_then_removed(
    own: DatabaseConnection, acme: TenantId, reports: ReplicaReports
) -> None:
    """One that gives no sign of life is not waited for; another one's sign of life clears it away."""
    dead = ReplicaReports(own, "dead")
    dead.write(report(own, failed=1, pending=(pending(acme, "1"),)), 60)
    reports.write(report(own), 60)
    with superuser(own) as session:
        session.execute("UPDATE mlcore.replica_reports SET expires_at = now() WHERE replica_id = 'dead'")
    assert set(ask(own, acme, 0)) == set(seen(own)) == {"x"}
    assert reports.touch(60)
    assert rows(own) == ["dead", "x"]  # it may come back, within a minute
    with superuser(own) as session:
        session.execute(
            "UPDATE mlcore.replica_reports SET expires_at = now() - interval '2 minutes' WHERE replica_id = 'dead'"
        )
    assert reports.touch(60)
    assert rows(own) == ["x"]
    assert not dead.touch(60)


def rows(db: DatabaseConnection) -> list[str]:
    with superuser(db) as session:
        return [row[0] for row in session.execute("SELECT replica_id FROM mlcore.replica_reports ORDER BY 1")]


def test_a_report_lists_so_many_versions_and_counts_the_others(
    own: DatabaseConnection, acme: TenantId, reports: ReplicaReports
) -> None:
    """What is not listed may be any version, so a pointer that is not named counts as loading; the database agrees."""
    listed = tuple(pending(acme, f"v{number}") for number in range(MAX_PENDING))
    reports.write(report(own, failed=MAX_PENDING + 1, pending=listed), 60)
    other = new_tenant(own)
    register(own, other)
    EnvironmentRepository(own, other).promote(TICKETS, VersionId("1"), PRODUCTION)
    reports.write(report(own, failed=MAX_PENDING + 1, pending=listed), 60)
    (answer,) = ask_replicas(own, other, TICKETS, PRODUCTION)
    assert answer.state is LoadState.LOADING
    with pytest.raises(IntegrityError, match="ck_replica_pending_position"):
        reports.write(report(own, failed=MAX_PENDING + 1, pending=(*listed, pending(acme, "one-more"))), 60)
    assert len(seen(own)["x"].failures) == MAX_PENDING, "the report before still stands"
    EnvironmentRepository(own, other).withdraw(TICKETS, PRODUCTION)


@pytest.mark.parametrize("reason", ["x" * 100_000, "nul \0 in it", "half \ud800 a pair", "ü" * 1000, "", "'; --"])
def test_any_reason_can_be_reported(
    own: DatabaseConnection, acme: TenantId, reports: ReplicaReports, reason: str
) -> None:
    """An error's text may hold anything; what is kept of it is bounded."""
    reports.write(report(own, failed=1, pending=(pending(acme, "1", reason=reason),)), 60)
    (failure,) = seen(own)["x"].failures
    assert failure.reason is not None
    assert failure.reason[:5] == reason.replace("\0", "?")[:5].replace("\ud800", "?")
    assert len(failure.reason) <= MAX_REASON


def test_a_pointer_that_is_gone_does_not_lose_the_report(
    own: DatabaseConnection, acme: TenantId, reports: ReplicaReports
) -> None:
    """Such as one of a tenant that was removed while the replica reported."""
    gone = TenantId(f"t{uuid.uuid4().hex[:12]}")
    reports.write(report(own, failed=2, pending=(pending(gone, "1"), pending(acme, "1"))), 60)
    assert [each.tenant_id for each in seen(own)["x"].failures] == [acme]


def test_a_tenant_sees_its_own_failures_and_no_count(
    own: DatabaseConnection, acme: TenantId, reports: ReplicaReports
) -> None:
    """Of another's pointers it sees nothing, not even how many could not be loaded."""
    reports.write(report(own, failed=1, pending=(pending(acme, "1"),)), 60)
    other = new_tenant(own)
    with own.tenant(other) as connection:
        assert connection.execute(sa.text("SELECT * FROM mlcore.replica_pending")).all() == []
        assert connection.scalar(sa.text("SELECT count(replica_id) FROM mlcore.replica_reports")) == 1
    for column in ("failed", "pointers", "loading", "resident"):
        with pytest.raises(ProgrammingError, match="permission denied"), own.tenant(other) as connection:
            connection.execute(sa.text(f"SELECT {column} FROM mlcore.replica_reports"))


def test_a_tenant_can_not_write_a_report(own: DatabaseConnection, acme: TenantId, reports: ReplicaReports) -> None:
    """What replicas say is theirs to say: not a row can be added, changed or removed by the runtime role."""
    reports.write(report(own, failed=1, pending=(pending(acme, "1"),)), 60)
    for statement in (
        "DELETE FROM mlcore.replica_reports",
        "UPDATE mlcore.replica_reports SET expires_at = now()",
        "DELETE FROM mlcore.replica_pending",
        "UPDATE mlcore.replica_pending SET reason = 'fine'",
    ):
        with pytest.raises(ProgrammingError, match="permission denied"), own.tenant(acme) as connection:
            connection.execute(sa.text(statement))


def test_a_tenants_rows_go_with_the_tenant(own: DatabaseConnection, reports: ReplicaReports, tmp_path: Path) -> None:
    """Its failures are removed with its pointers, while the replica's report stays."""
    from ml_core.models.store import platform_store
    from ml_core.registry.collection.tenant_deletion import TenantDeletion

    tenant_id = new_tenant(own)
    register(own, tenant_id)
    EnvironmentRepository(own, tenant_id).promote(TICKETS, VersionId("1"), PRODUCTION)
    failure = PendingVersion(tenant_id, TICKETS, PRODUCTION, "1", LoadState.FAILED)
    reports.write(report(own, failed=1, pending=(failure,)), 60)
    assert len(seen(own)["x"].failures) == 1
    TenantDeletion(own, platform_store(own.settings)).delete(tenant_id)
    assert seen(own)["x"].failures == []
    assert tenant_id not in set(tenant_ids(own))
