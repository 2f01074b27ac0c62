"""Pointers: promoted, rolled back, withdrawn, resolved, and always with a history."""

from __future__ import annotations

import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from ml_core import MLSystem
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.rollout import Change, Trigger
from ml_core.domain.signature import Output, OutputKind, Signature
from ml_core.exceptions import (
    Action,
    InvalidRequestError,
    ModelNotFoundError,
    PromotionConflictError,
    VersionInUseError,
)
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.models.own_types import Trust
from ml_core.registry import pages
from ml_core.registry.model_registry import ModelRegistry
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.moving import MoveRequest, lock_promotable, prepare, swap
from ml_core.registry.promotion.rollouts import RolloutRepository
from ml_core.registry.versions.models import ModelRepository, lock_model
from ml_core.registry.versions.repository import VersionRepository
from ml_core.settings import RegistrySettings
from support.registry import TICKETS, register, superuser

STAGING = EnvironmentName("staging")


def promote(db: DatabaseConnection, tenant_id: TenantId, *versions: str) -> EnvironmentRepository:
    """Register what is not there, and promote one after the other."""
    environments = EnvironmentRepository(db, tenant_id)
    for version in versions:
        register(db, tenant_id, version, content=version)
        environments.promote(TICKETS, VersionId(version), PRODUCTION, actor="me")
    return environments


def with_environments(db: DatabaseConnection, names: str) -> DatabaseConnection:
    """The same connections under settings that name these environments."""
    other = copy.copy(db)
    other.settings = dataclasses.replace(db.settings, registry=RegistrySettings(environments=names))
    return other


def test_a_first_promotion(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The pointer stands at generation 1, with who moved it; other environments are not touched."""
    environments = promote(db, tenant_id, "1")
    pointer = environments.get(TICKETS, PRODUCTION)
    assert (pointer.version, pointer.generation, pointer.updated_by) == ("1", 1, "me")
    assert environments.list().items == environments.list(TICKETS).items == [pointer]
    with pytest.raises(ModelNotFoundError, match="staging"):
        environments.get(TICKETS, STAGING)


def test_every_move_is_in_the_history(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Who, when, why, what, newest first, without a gap, in pages."""
    environments = promote(db, tenant_id, "1", "2")
    environments.rollback(TICKETS, PRODUCTION, actor="you", reason="2 is worse")
    environments.withdraw(TICKETS, PRODUCTION, actor="boss", reason="closed")
    history = environments.history(TICKETS, PRODUCTION).items
    assert [(e.generation, e.action, e.version, e.actor, e.reason) for e in history] == [
        (4, "withdraw", None, "boss", "closed"),
        (3, "rollback", "1", "you", "2 is worse"),
        (2, "promote", "2", "me", ""),
        (1, "promote", "1", "me", ""),
    ]
    assert [e.at for e in history] == sorted((e.at for e in history), reverse=True)
    first = environments.history(TICKETS, PRODUCTION, limit=2)
    second = environments.history(TICKETS, PRODUCTION, limit=2, cursor=first.next_cursor)
    assert [*first.items, *second.items] == history
    assert second.next_cursor is None


def test_every_move_has_an_audit_row(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Written in the same transaction, in order."""
    promote(db, tenant_id, "1", "2").rollback(TICKETS, PRODUCTION, actor="you")
    with db.tenant(tenant_id) as connection:
        rows = connection.execute(
            sa.text("SELECT action, details FROM mlcore.audit WHERE action LIKE 'environment.%' ORDER BY audit_id")
        ).all()
    assert [(action, d["generation"], d["action"], d["version"]) for action, d in rows] == [
        ("environment.moved", 1, "promote", "1"),
        ("environment.moved", 2, "promote", "2"),
        ("environment.moved", 3, "rollback", "1"),
    ]


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_another_generation_than_expected_is_a_conflict(
    db: DatabaseConnection, tenant_id: TenantId, expected: int
) -> None:
    """The error says where the pointer stands and who moved it, and nothing was changed or recorded."""
    environments = promote(db, tenant_id, "1", "2")
    with pytest.raises(PromotionConflictError) as caught:
        environments.promote(TICKETS, VersionId("1"), PRODUCTION, expected_generation=expected, actor="late")
    error = caught.value.attributes()
    assert (error["expected_generation"], error["actual_generation"], error["moved_by"]) == (expected, 2, "me")
    assert environments.get(TICKETS, PRODUCTION).version == "2"
    assert len(environments.history(TICKETS, PRODUCTION).items) == 2
    with db.tenant(tenant_id) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.audit WHERE action LIKE 'environment.%'")) == 2


def test_the_expected_generation_moves(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """With the right expectation a promotion, a rollback and a withdrawal go through."""
    environments = promote(db, tenant_id, "1", "2")
    assert environments.rollback(TICKETS, PRODUCTION, expected_generation=2, actor="me").generation == 3
    assert environments.withdraw(TICKETS, PRODUCTION, expected_generation=3, actor="me").generation == 4
    promoted = environments.promote(TICKETS, VersionId("2"), PRODUCTION, expected_generation=4, actor="me")
    assert (promoted.version, promoted.generation) == ("2", 5)
    with pytest.raises(PromotionConflictError):
        environments.rollback(TICKETS, PRODUCTION, expected_generation=2, actor="me")


def test_rollback_walks_back(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Each rollback goes one version further back, and not to and fro; then there is none."""
    environments = promote(db, tenant_id, "1", "2", "3")
    assert [environments.rollback(TICKETS, PRODUCTION, actor="me").version for _ in range(2)] == ["2", "1"]
    with pytest.raises(ModelNotFoundError, match="no version to go back to"):
        environments.rollback(TICKETS, PRODUCTION, actor="me")


def test_rollback_after_a_rollback_and_a_promotion(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """1, 2, back to 1, then 3: the version before 3 is 1, and there is nothing before that."""
    environments = promote(db, tenant_id, "1", "2")
    environments.rollback(TICKETS, PRODUCTION, actor="me")
    promote(db, tenant_id, "3")
    assert environments.rollback(TICKETS, PRODUCTION, actor="me").version == "1"
    with pytest.raises(ModelNotFoundError):
        environments.rollback(TICKETS, PRODUCTION, actor="me")


def test_rollback_skips_what_is_no_other_version(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The same version promoted twice is one step; a withdrawn pointer goes back to what it served."""
    environments = promote(db, tenant_id, "1", "2")
    environments.promote(TICKETS, VersionId("2"), PRODUCTION, actor="me")
    assert environments.rollback(TICKETS, PRODUCTION, actor="me").version == "1"
    environments.withdraw(TICKETS, PRODUCTION, actor="me")
    assert environments.rollback(TICKETS, PRODUCTION, actor="me").version == "1"


def test_rollback_to_a_version_that_was_deleted(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """It is refused until the version is registered again, with the same bytes."""
    environments = promote(db, tenant_id, "a", "b")
    VersionRepository(db, tenant_id).delete(TICKETS, VersionId("a"))
    with pytest.raises(ModelNotFoundError, match="was deleted"):
        environments.rollback(TICKETS, PRODUCTION, actor="me")
    assert environments.get(TICKETS, PRODUCTION).version == "b"
    register(db, tenant_id, "a", content="a")
    assert environments.rollback(TICKETS, PRODUCTION, actor="me").version == "a"


def test_rollback_to_other_bytes_than_were_served(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Should a row be made behind the registry's back, its name alone does not bring it to production."""
    environments = promote(db, tenant_id, "a", "b")
    with superuser(db) as session:
        mine = "tenant_id = %s AND version = 'a'"
        session.execute(f"UPDATE mlcore.versions SET digest = repeat('0', 64) WHERE {mine}", (tenant_id,))
    with pytest.raises(ModelNotFoundError, match="was deleted"):
        environments.rollback(TICKETS, PRODUCTION, actor="me")


def test_rollback_to_an_archived_version(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """It is refused by name with the remedy, not skipped; restored it is served."""
    environments, versions = promote(db, tenant_id, "1", "2", "3"), VersionRepository(db, tenant_id)
    versions.archive(TICKETS, VersionId("2"))
    with pytest.raises(ModelNotFoundError, match=r"Version 2 .* is archived\. Restore it") as caught:
        environments.rollback(TICKETS, PRODUCTION, actor="me")
    assert caught.value.attributes()["version"] == "2"
    assert environments.get(TICKETS, PRODUCTION).version == "3"
    versions.restore(TICKETS, VersionId("2"))
    assert environments.rollback(TICKETS, PRODUCTION, actor="me").version == "2"


@pytest.mark.parametrize("what", ["version", "model"])
def test_a_promotion_waits_for_an_archive(db: DatabaseConnection, tenant_id: TenantId, what: str) -> None:
    """What is being hidden at that moment is hidden to the promotion too."""
    register(db, tenant_id, "1")
    environments = EnvironmentRepository(db, tenant_id)
    with ThreadPoolExecutor(1) as pool:
        with db.tenant(tenant_id) as connection:
            lock_model(connection, tenant_id, TICKETS)
            connection.execute(sa.text(f"UPDATE mlcore.{what}s SET archived_at = now()"))
            promotion = pool.submit(environments.promote, TICKETS, VersionId("1"), PRODUCTION, actor="me")
            with pytest.raises(TimeoutError):
                promotion.result(0.3)
        with pytest.raises(ModelNotFoundError, match="archived"):
            promotion.result(10)
    assert environments.list().items == []


def test_an_archive_waits_for_a_promotion(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """What is being promoted at that moment is in use to the archive."""
    register(db, tenant_id, "1")
    wanted = MoveRequest(TICKETS, PRODUCTION, Change(Trigger.PROMOTE, VersionId("1")), actor="me")
    with ThreadPoolExecutor(1) as pool:
        with db.tenant(tenant_id) as connection:
            prepared = prepare(connection, tenant_id, wanted, Trust())
            archive = pool.submit(VersionRepository(db, tenant_id).archive, TICKETS, VersionId("1"))
            with pytest.raises(TimeoutError):
                archive.result(0.3)
            swap(connection, prepared)
        with pytest.raises(VersionInUseError, match="production"):
            archive.result(10)


def test_promotions_of_a_model_do_not_wait_for_each_other(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """While one checks its version, another environment of the model moves."""
    register(db, tenant_id, "1")
    with db.tenant(tenant_id) as connection:
        lock_promotable(connection, tenant_id, TICKETS, VersionId("1"), Trust())
        pointer = EnvironmentRepository(db, tenant_id).promote(TICKETS, VersionId("1"), STAGING, actor="me")
    assert pointer.version == "1"


def test_a_version_that_no_server_loads_can_not_be_promoted(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The caller's own types are named, and what to do; nothing was moved."""
    register(db, tenant_id, "1", outside_types=("mine.Sums",))
    environments = EnvironmentRepository(db, tenant_id)
    with pytest.raises(
        InvalidRequestError, match=r"holds mine\.Sums, which no server loads\. Let the operator"
    ) as caught:
        environments.promote(TICKETS, VersionId("1"), PRODUCTION, actor="me")
    assert caught.value.attributes()["field"] == "version"
    assert environments.list().items == []


def test_nothing_to_withdraw_or_roll_back(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Both say so."""
    register(db, tenant_id)
    environments = EnvironmentRepository(db, tenant_id)
    for call in (environments.withdraw, environments.rollback):
        with pytest.raises(ModelNotFoundError):
            call(TICKETS, PRODUCTION, actor="me")


@pytest.mark.parametrize(("model", "version"), [("tickets", "9"), ("unknown", "1")])
def test_what_does_not_exist_can_not_be_promoted(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, model: str, version: str
) -> None:
    """Nor can what only another tenant has."""
    register(db, tenant_id, "1")
    register(db, other_tenant_id, "9")
    with pytest.raises(ModelNotFoundError):
        EnvironmentRepository(db, tenant_id).promote(ModelId(model), VersionId(version), PRODUCTION, actor="me")


def test_an_archived_version_can_not_be_promoted(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The remedy is to restore it."""
    register(db, tenant_id, "1")
    VersionRepository(db, tenant_id).archive(TICKETS, VersionId("1"))
    with pytest.raises(ModelNotFoundError, match="Restore"):
        EnvironmentRepository(db, tenant_id).promote(TICKETS, VersionId("1"), PRODUCTION, actor="me")


def test_a_version_without_a_signature_can_not_be_promoted(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """What can't be served is refused here, not in a replica."""
    register(db, tenant_id, "1", signature=Signature((), Output(OutputKind.NUMBER)))
    with pytest.raises(InvalidRequestError, match="signature"):
        EnvironmentRepository(db, tenant_id).promote(TICKETS, VersionId("1"), PRODUCTION, actor="me")


def test_a_mistyped_environment(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """It makes no new environment; the error offers the nearest name. The settings may name others."""
    register(db, tenant_id, "1")
    wrong = EnvironmentName("prodution")
    with pytest.raises(InvalidRequestError, match="Did you mean production"):
        EnvironmentRepository(db, tenant_id).promote(TICKETS, VersionId("1"), wrong, actor="me")
    environments = EnvironmentRepository(with_environments(db, wrong), tenant_id)
    assert environments.promote(TICKETS, VersionId("1"), wrong, actor="me").environment == wrong


def test_resolve_prefers_the_pointer(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The pointer's version where there is one, the newest that is not archived where there is none."""
    environments = EnvironmentRepository(db, tenant_id)
    with pytest.raises(ModelNotFoundError):
        environments.resolve(TICKETS)
    for version in ("1", "2", "3"):
        register(db, tenant_id, version)
    VersionRepository(db, tenant_id).archive(TICKETS, VersionId("3"))
    assert environments.resolve(TICKETS) == "2"
    environments.promote(TICKETS, VersionId("1"), PRODUCTION, actor="me")
    assert environments.resolve(TICKETS) == "1"
    assert environments.resolve(TICKETS, STAGING) == "2"
    environments.withdraw(TICKETS, PRODUCTION, actor="me")
    assert environments.resolve(TICKETS) == "2"


def test_generations_go_on_after_a_model_was_deleted(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A model of the same name continues the history instead of starting another under the same numbers."""
    environments = promote(db, tenant_id, "1")
    environments.withdraw(TICKETS, PRODUCTION, actor="me")
    ModelRepository(db, tenant_id).delete(TICKETS)
    version = register(db, tenant_id)
    assert environments.promote(TICKETS, version.version, PRODUCTION, actor="me").generation == 3


def test_reading_a_misspelt_environment_is_refused(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """It is told from one to which nothing was promoted: an answer of the newest version, or of none, would mislead."""
    register(db, tenant_id, "1")
    environments, typo = EnvironmentRepository(db, tenant_id), EnvironmentName("stging")
    for read in (environments.get, environments.pointed, environments.resolve, environments.history):
        with pytest.raises(InvalidRequestError, match=r"Did you mean staging\?"):
            read(TICKETS, typo)
    assert environments.resolve(TICKETS, STAGING) == "1"
    assert environments.history(TICKETS, STAGING).items == []


def test_what_a_removed_environment_served_can_be_read(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Settings that no longer name it hide neither its pointer nor its history."""
    promote(db, tenant_id, "1")
    left = EnvironmentRepository(with_environments(db, "elsewhere"), tenant_id)
    assert left.get(TICKETS, PRODUCTION).version == left.resolve(TICKETS, PRODUCTION) == "1"
    assert len(left.history(TICKETS, PRODUCTION).items) == 1


def test_a_move_without_an_actor_names_the_principal(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Whoever holds the connection, as for every other change."""
    register(db, tenant_id, "1")
    pointer = EnvironmentRepository(db, tenant_id).promote(TICKETS, VersionId("1"), PRODUCTION)
    assert pointer.updated_by == db.principal.name


def test_pointers_are_listed_in_pages(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """By model and environment, each once; a limit or a cursor that is not valid is refused."""
    environments = EnvironmentRepository(db, tenant_id)
    for model in ("churn", "tickets"):
        register(db, tenant_id, "1", model_id=ModelId(model))
        for environment in ("staging", "production"):
            environments.promote(model, "1", environment)
    seen, cursor = [], None
    while not seen or cursor is not None:
        page = environments.list(limit=3, cursor=cursor)
        seen, cursor = [*seen, *((each.model_id, each.environment) for each in page.items)], page.next_cursor
    assert seen == [(m, e) for m in ("churn", "tickets") for e in ("production", "staging")]
    with pytest.raises(InvalidRequestError, match="1 to 1000"):
        environments.list(limit=0)
    with pytest.raises(InvalidRequestError, match="cursor"):
        environments.history("churn", cursor="x")


def test_the_registrys_history_is_a_sequence_of_any_length(
    db: DatabaseConnection, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads as many pages as the limit needs."""
    environments = promote(db, tenant_id, "1", "2", "1", "2", "1")
    monkeypatch.setattr(pages, "MAX_PAGE_SIZE", 2)
    registry = ModelRegistry(db, tenant_id)
    whole = environments.history(TICKETS).items
    assert len(whole) == 5
    assert registry.history(TICKETS, PRODUCTION) == whole
    assert registry.history(TICKETS, PRODUCTION, limit=3) == whole[:3]


@pytest.mark.parametrize("door", ["system", "registry"])
def test_every_door_rolls_back_and_withdraws_by_the_expected_generation(
    db: DatabaseConnection, tenant_id: TenantId, door: str
) -> None:
    """Another generation is a conflict, and nothing moves."""
    promote(db, tenant_id, "1", "2")
    system = MLSystem(db, tenant_id=tenant_id)
    at = system if door == "system" else system.registry
    for move in (at.rollback, at.withdraw):
        with pytest.raises(PromotionConflictError):
            move("tickets", "production", expected_generation=1)
    assert at.rollback("tickets", "production", expected_generation=2).version == "1"
    assert at.withdraw("tickets", "production", expected_generation=3).version is None


def test_what_is_not_promoted_says_how_to_promote(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """As an operation with the names that are known."""
    register(db, tenant_id, "1")
    with pytest.raises(ModelNotFoundError) as caught:
        EnvironmentRepository(db, tenant_id).get("tickets")
    names = {"tenant": tenant_id, "model": "tickets", "environment": "production"}
    assert caught.value.action == Action.of("environments.promote", **names)


@pytest.mark.parametrize("trigger", ["rollback", "withdraw", "step", "finish"])
def test_a_move_of_a_model_that_does_not_exist(db: DatabaseConnection, tenant_id: TenantId, trigger: str) -> None:
    """It names the nearest, rather than saying that nothing is served."""
    register(db, tenant_id, "1")
    environments, rollouts = EnvironmentRepository(db, tenant_id), RolloutRepository(db, tenant_id)
    moves = {
        "rollback": lambda: environments.rollback("tikets"),
        "withdraw": lambda: environments.withdraw("tikets"),
        "step": lambda: rollouts.step("tikets", 5),
        "finish": lambda: rollouts.finish("tikets"),
    }
    with pytest.raises(ModelNotFoundError, match=r"Did you mean tickets\?"):
        moves[trigger]()
