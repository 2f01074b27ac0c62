"""Rollouts: canaries and shadows are moves of a pointer, with everything that a move has."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.principal import Principal
from ml_core.domain.rollout import Canary, Change, RolloutState, Trigger
from ml_core.exceptions import (
    InvalidNameError,
    InvalidRequestError,
    InvalidTransitionError,
    ModelNotFoundError,
    PermissionDeniedError,
    PromotionConflictError,
    PromotionRefusedError,
    VersionInUseError,
)
from ml_core.ids import EnvironmentName, TenantId, VersionId
from ml_core.models.own_types import Trust
from ml_core.registry.model_registry import ModelRegistry
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.gates import GateRepository
from ml_core.registry.promotion.moving import MoveRequest, prepare, swap
from ml_core.registry.promotion.rollouts import RolloutRepository
from ml_core.registry.versions.models import ModelRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.system import MLSystem
from support.registry import TICKETS, register

ONE, TWO, THREE = (VersionId(name) for name in "123")


@pytest.fixture
def environments(db: DatabaseConnection, tenant_id: TenantId) -> EnvironmentRepository:
    """Three versions, the first of them promoted."""
    for name in (ONE, TWO, THREE):
        register(db, tenant_id, name, content=name)
    environments = EnvironmentRepository(db, tenant_id)
    environments.promote(TICKETS, ONE, PRODUCTION, actor="me")
    return environments


@pytest.fixture
def rollouts(db: DatabaseConnection, tenant_id: TenantId, environments: EnvironmentRepository) -> RolloutRepository:
    """Their rollouts."""
    return RolloutRepository(db, tenant_id)


def test_a_canary_from_start_to_finish(rollouts: RolloutRepository, environments: EnvironmentRepository) -> None:
    """It starts beside the stable version, grows, and becomes the stable one."""
    started = rollouts.start(TICKETS, TWO, 5, sticky="customer")
    assert (started.version, started.canary, started.generation) == (ONE, Canary(TWO, 5, "customer"), 2)
    assert rollouts.step(TICKETS, 50).canary == Canary(TWO, 50, "customer")
    finished = rollouts.finish(TICKETS, PRODUCTION)
    assert (finished.version, finished.canary, finished.generation) == (TWO, None, 4)
    assert environments.get(TICKETS, PRODUCTION) == finished


def test_the_same_in_plain_names(
    db: DatabaseConnection, tenant_id: TenantId, rollouts: RolloutRepository, environments: EnvironmentRepository
) -> None:
    """From a registry, and from a system, which hands out the registry's; a name that can't be one is refused."""
    plain = MLSystem(db, tenant_id=tenant_id).rollouts
    assert plain.start("tickets", "2", 5, sticky="customer").canary == Canary(TWO, 5, "customer")
    assert plain.step("tickets", 20, expected_generation=2).canary == Canary(TWO, 20, "customer")
    assert plain.shadow("tickets", "3").shadow == THREE
    assert plain.abort("tickets", reason="slow").canary is None
    assert plain.unshadow("tickets").state == RolloutState(ONE)
    plain.start("tickets", "2", 5)
    assert plain.finish("tickets") == ModelRegistry(db, tenant_id).environments.get("tickets", "production")
    with pytest.raises(InvalidRequestError, match="Did you mean production"):
        plain.start("tickets", "3", 5, "prodction")
    with pytest.raises(InvalidNameError):
        plain.start("../tickets", "3", 5)


def test_an_aborted_canary_leaves_the_stable_version(rollouts: RolloutRepository) -> None:
    """As it was before."""
    rollouts.start(TICKETS, TWO, 99)
    aborted = rollouts.abort(TICKETS, PRODUCTION)
    assert (aborted.version, aborted.canary) == (ONE, None)


def test_every_step_is_in_the_history(
    db: DatabaseConnection, tenant_id: TenantId, environments: EnvironmentRepository, rollouts: RolloutRepository
) -> None:
    """With what was served after it, by whom and why; and in the audit as an action of its own."""
    rollouts.start(TICKETS, TWO, 5, sticky="customer", reason="try it")
    rollouts.shadow(TICKETS, THREE, PRODUCTION)
    rollouts.step(TICKETS, 20)
    rollouts.finish(TICKETS, PRODUCTION, reason="it is better")
    rollouts.unshadow(TICKETS, PRODUCTION)
    history = environments.history(TICKETS, PRODUCTION).items[:-1]
    assert [(e.generation, e.action, e.version, e.canary, e.shadow, e.reason) for e in reversed(history)] == [
        (2, "start_canary", ONE, Canary(TWO, 5, "customer"), None, "try it"),
        (3, "start_shadow", ONE, Canary(TWO, 5, "customer"), THREE, ""),
        (4, "step", ONE, Canary(TWO, 20, "customer"), THREE, ""),
        (5, "finish", TWO, None, THREE, "it is better"),
        (6, "stop_shadow", TWO, None, None, ""),
    ]
    assert {entry.actor for entry in history} == {db.principal.name}
    digests = {v.version: v.servable.digest for v in VersionRepository(db, tenant_id).list(TICKETS).items}
    assert all(entry.version and entry.digest == digests[entry.version] for entry in history)
    with db.tenant(tenant_id) as connection:
        actions = connection.scalars(sa.text("SELECT action FROM mlcore.audit ORDER BY audit_id")).all()
    assert actions[-5:] == [
        "rollout.started",
        "shadow.started",
        "rollout.stepped",
        "rollout.finished",
        "shadow.stopped",
    ]


def test_a_running_canary_refuses_a_promotion_and_a_rollback(
    environments: EnvironmentRepository, rollouts: RolloutRepository
) -> None:
    """Whoever means it ends the canary first; nothing was moved or recorded."""
    environments.promote(TICKETS, THREE, PRODUCTION, actor="me")
    before = rollouts.start(TICKETS, TWO, 5)
    with pytest.raises(InvalidTransitionError, match="Promote is not possible while a canary runs") as caught:
        environments.promote(TICKETS, ONE, PRODUCTION, actor="me")
    assert caught.value.attributes()["environment"] == PRODUCTION
    with pytest.raises(InvalidTransitionError, match="Rollback"):
        environments.rollback(TICKETS, PRODUCTION, actor="me")
    assert environments.get(TICKETS, PRODUCTION) == before
    assert len(environments.history(TICKETS, PRODUCTION).items) == 3


def test_a_move_that_is_not_possible_is_refused_before_a_gate_is_asked(
    db: DatabaseConnection, tenant_id: TenantId, environments: EnvironmentRepository, rollouts: RolloutRepository
) -> None:
    """A gate may load models for seconds; here it would refuse, and what is told is that a canary runs."""
    rollouts.start(TICKETS, TWO, 5)
    GateRepository(db, tenant_id).set(TICKETS, PRODUCTION, "bytes", "digest_verified")  # no bytes were stored
    for move in (
        lambda: environments.promote(TICKETS, THREE, PRODUCTION),
        lambda: rollouts.start(TICKETS, THREE, 5),
    ):
        with pytest.raises(InvalidTransitionError, match="while a canary runs"):
            move()


def test_a_promotion_ends_a_shadow(environments: EnvironmentRepository, rollouts: RolloutRepository) -> None:
    """What it was compared with is no longer served."""
    rollouts.shadow(TICKETS, TWO, PRODUCTION)
    assert environments.promote(TICKETS, THREE, PRODUCTION, actor="me").shadow is None


def test_a_withdrawal_ends_everything(environments: EnvironmentRepository, rollouts: RolloutRepository) -> None:
    """Stable version, canary and shadow."""
    rollouts.start(TICKETS, TWO, 5)
    rollouts.shadow(TICKETS, THREE, PRODUCTION)
    withdrawn = environments.withdraw(TICKETS, PRODUCTION, actor="me")
    assert (withdrawn.version, withdrawn.canary, withdrawn.shadow) == (None, None, None)
    with pytest.raises(InvalidTransitionError, match="nothing is served"):
        rollouts.start(TICKETS, TWO, 5)


def test_a_rollback_goes_back_over_rollouts(environments: EnvironmentRepository, rollouts: RolloutRepository) -> None:
    """A finished canary is undone by one rollback; steps of a canary that was aborted are none to go back to."""
    rollouts.start(TICKETS, TWO, 5)
    rollouts.finish(TICKETS, PRODUCTION)
    rollouts.start(TICKETS, THREE, 5)
    rollouts.step(TICKETS, 10)
    rollouts.abort(TICKETS, PRODUCTION)
    assert environments.rollback(TICKETS, PRODUCTION, actor="me").version == ONE
    with pytest.raises(ModelNotFoundError, match="no version to go back to"):
        environments.rollback(TICKETS, PRODUCTION, actor="me")


@pytest.mark.parametrize("percent", [0, 100, -1, True, 2.5, None])
def test_a_percent_that_is_none(rollouts: RolloutRepository, percent: object) -> None:
    """Is refused with the range, at the start and at a step."""
    with pytest.raises(InvalidRequestError, match="from 1 to 99"):
        rollouts.start(TICKETS, TWO, percent)  # type: ignore[arg-type]
    rollouts.start(TICKETS, TWO, 1)
    with pytest.raises(InvalidRequestError, match="from 1 to 99"):
        rollouts.step(TICKETS, percent)  # type: ignore[arg-type]


def test_a_version_has_one_part(rollouts: RolloutRepository) -> None:
    """Neither the stable version nor the shadow can be the canary as well, and so on."""
    for start in (
        lambda: rollouts.start(TICKETS, ONE, 5),
        lambda: rollouts.shadow(TICKETS, ONE, PRODUCTION),
    ):
        with pytest.raises(InvalidRequestError, match="stable"):
            start()
    rollouts.shadow(TICKETS, TWO, PRODUCTION)
    with pytest.raises(InvalidRequestError, match="Stop the shadow"):
        rollouts.start(TICKETS, TWO, 5)


def test_another_generation_than_expected_is_a_conflict(rollouts: RolloutRepository) -> None:
    """As for a promotion: nothing is done, and the error says where the pointer stands."""
    rollouts.start(TICKETS, TWO, 5, expected_generation=1)
    with pytest.raises(PromotionConflictError) as caught:
        rollouts.step(TICKETS, 10, expected_generation=1)
    assert caught.value.attributes()["actual_generation"] == 2
    assert rollouts.step(TICKETS, 10, expected_generation=2).generation == 3
    for late in (rollouts.abort, rollouts.finish):
        with pytest.raises(PromotionConflictError):
            late(TICKETS, PRODUCTION, expected_generation=2)


def test_versions_that_can_not_be_tried(
    db: DatabaseConnection, rollouts: RolloutRepository, tenant_id: TenantId
) -> None:
    """One that does not exist, is archived, or that no server loads."""
    register(db, tenant_id, "own", outside_types=("mine.Sums",))
    VersionRepository(db, tenant_id).archive(TICKETS, THREE)
    for version, error in (("9", ModelNotFoundError), ("3", ModelNotFoundError), ("own", InvalidRequestError)):
        with pytest.raises(error):
            rollouts.start(TICKETS, VersionId(version), 5)
        with pytest.raises(error):
            rollouts.shadow(TICKETS, VersionId(version), PRODUCTION)


@pytest.mark.parametrize(
    ("move", "keyword", "told"),
    [
        ("rollback", "override", "Valid are: expected_generation, reason, actor"),
        ("promote", "reasn", "Did you mean reason"),
    ],
)
def test_a_keyword_that_a_move_has_not(environments: EnvironmentRepository, move: str, keyword: str, told: str) -> None:
    """An override of a move that evaluates no gate, and a typo, are no moves; the error names what there is."""
    versions = ["2"] if move == "promote" else []
    with pytest.raises(TypeError, match=rf"{move}\(\) has no keyword '{keyword}'. {told}"):
        getattr(environments, move)(TICKETS, *versions, PRODUCTION, **{keyword: "x"})
    assert environments.get(TICKETS).generation == 1


def test_nothing_to_roll_out(rollouts: RolloutRepository) -> None:
    """An environment to which nothing was promoted says what to do."""
    staging = EnvironmentName("staging")
    with pytest.raises(InvalidTransitionError, match="Promote a version first"):
        rollouts.start(TICKETS, TWO, 5, staging)
    with pytest.raises(InvalidTransitionError, match="Promote a version"):
        rollouts.finish(TICKETS, staging)


def test_a_principal_without_the_scope_moves_nothing(
    db: DatabaseConnection, rollouts: RolloutRepository, environments: EnvironmentRepository
) -> None:
    """Whatever the step."""
    reader = RolloutRepository(db.acting_as(Principal("key:1", frozenset({Scope.READ}))), rollouts._tenant_id)
    rollouts.start(TICKETS, TWO, 5)
    for step in (
        lambda: reader.step(TICKETS, 50),
        lambda: reader.finish(TICKETS, PRODUCTION),
        lambda: reader.abort(TICKETS, PRODUCTION),
        lambda: reader.shadow(TICKETS, THREE, PRODUCTION),
        lambda: reader.unshadow(TICKETS, PRODUCTION),
    ):
        with pytest.raises(PermissionDeniedError):
            step()
    assert environments.get(TICKETS, PRODUCTION).generation == 2


def test_the_gates_evaluate_a_canary_at_its_start_and_at_its_end(
    db: DatabaseConnection, tenant_id: TenantId, environments: EnvironmentRepository, rollouts: RolloutRepository
) -> None:
    """A refused start and a refused finish change nothing; an override is in the history. A shadow passes no gate."""
    gates = GateRepository(db, tenant_id)
    gates.set(TICKETS, PRODUCTION, "quality", "min_metric", {"metric": "accuracy", "value": 0.9})
    with pytest.raises(PromotionRefusedError, match="quality"):
        rollouts.start(TICKETS, TWO, 5)
    rollouts.shadow(TICKETS, TWO, PRODUCTION)
    rollouts.unshadow(TICKETS, PRODUCTION)
    rollouts.start(TICKETS, TWO, 5, override="we know")
    rollouts.step(TICKETS, 50)
    with pytest.raises(PromotionRefusedError, match="quality"):
        rollouts.finish(TICKETS, PRODUCTION)
    assert environments.get(TICKETS, PRODUCTION).canary == Canary(TWO, 50)
    gates.remove(TICKETS, PRODUCTION, "quality")
    assert rollouts.finish(TICKETS, PRODUCTION).version == TWO
    started = environments.history(TICKETS, PRODUCTION).items[2]
    assert (started.action, started.override_reason, len(started.gates)) == ("start_canary", "we know", 1)


def test_what_is_impossible_is_not_evaluated(
    db: DatabaseConnection, tenant_id: TenantId, rollouts: RolloutRepository
) -> None:
    """Who starts a second canary hears of the first one, and not of a gate."""
    rollouts.start(TICKETS, TWO, 5)
    GateRepository(db, tenant_id).set(
        TICKETS, PRODUCTION, "quality", "min_metric", {"metric": "accuracy", "value": 0.9}
    )
    with pytest.raises(InvalidTransitionError, match="a canary runs"):
        rollouts.start(TICKETS, THREE, 5)
    with pytest.raises(PromotionConflictError):
        rollouts.finish(TICKETS, PRODUCTION, expected_generation=1)


def test_a_canary_and_a_shadow_are_in_use(
    db: DatabaseConnection, tenant_id: TenantId, rollouts: RolloutRepository
) -> None:
    """Neither is archived or deleted, nor is the model; the error names environment and part."""
    rollouts.start(TICKETS, TWO, 5)
    rollouts.shadow(TICKETS, THREE, PRODUCTION)
    versions = VersionRepository(db, tenant_id)
    for version, part in ((TWO, "production (canary)"), (THREE, "production (shadow)")):
        for remove in (versions.archive, versions.delete):
            with pytest.raises(VersionInUseError) as caught:
                remove(TICKETS, version)
            assert caught.value.attributes()["used_by"] == [part]
    with pytest.raises(VersionInUseError) as caught:
        ModelRepository(db, tenant_id).archive(TICKETS)
    assert caught.value.attributes()["used_by"] == ["production", "production (canary)", "production (shadow)"]
    rollouts.abort(TICKETS, PRODUCTION)
    versions.archive(TICKETS, TWO)


def test_a_deletion_waits_for_a_canary_that_starts(
    db: DatabaseConnection, tenant_id: TenantId, environments: EnvironmentRepository
) -> None:
    """What is being started at that moment is in use to the deletion."""
    wanted = MoveRequest(TICKETS, PRODUCTION, Change(Trigger.START_CANARY, TWO, 5), actor="me")
    with ThreadPoolExecutor(1) as pool:
        with db.tenant(tenant_id) as connection:
            prepared = prepare(connection, tenant_id, wanted, Trust())
            deletion = pool.submit(VersionRepository(db, tenant_id).delete, TICKETS, TWO)
            with pytest.raises(TimeoutError):
                deletion.result(0.3)
            swap(connection, prepared)
        with pytest.raises(VersionInUseError, match="canary"):
            deletion.result(10)


@pytest.mark.parametrize(
    "values",
    [
        "canary_version = '2'",
        "canary_version = '2', canary_percent = 100",
        "canary_version = version, canary_percent = 5",
        "canary_percent = 5",
        "canary_sticky = 'a'",
        "shadow_version = version",
        "shadow_version = '2', canary_version = '2', canary_percent = 5",
        "version = NULL, shadow_version = '2'",
        "version = NULL, canary_version = '2', canary_percent = 5",
        "canary_version = 'none', canary_percent = 5",
        "shadow_version = 'none'",
    ],
)
def test_the_table_forbids_what_the_rules_forbid(
    db: DatabaseConnection, tenant_id: TenantId, environments: EnvironmentRepository, values: str
) -> None:
    """Not even raw SQL reaches such a state."""
    with pytest.raises(sa.exc.IntegrityError), db.tenant(tenant_id) as connection:
        connection.execute(sa.text(f"UPDATE mlcore.environments SET {values}"))
