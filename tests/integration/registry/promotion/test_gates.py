"""Gates: set, listed and removed by admins; evaluated before a promotion; a refusal says which and by how much."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
import sqlalchemy as sa

from ml_core import MLSystem, ModelRegistry
from ml_core.database import tables
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn
from ml_core.exceptions import (
    InvalidRequestError,
    InvalidTransitionError,
    ModelNotFoundError,
    PermissionDeniedError,
    PromotionConflictError,
    PromotionRefusedError,
)
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.models.store import platform_store
from ml_core.registry.audit import AuditRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.gate_evaluation import GateEvaluation, evaluate_gates
from ml_core.registry.promotion.gates import GateRepository
from ml_core.registry.promotion.rollouts import RolloutRepository
from ml_core.registry.promotion.rules import read_rules
from ml_core.registry.versions.repository import VersionRepository
from support.gated import WatchedStore, somebody
from support.registry import SIGNATURE, TICKETS, artifact_of, register, superuser

STAGING = EnvironmentName("staging")
QUALITY = {"metric": "accuracy", "value": 0.75}
ONE, TWO, THREE = (VersionId(name) for name in "123")


def accuracy(value: float) -> dict[str, dict[str, float]]:
    return {"validation": {"accuracy": value}}


@pytest.fixture
def gates(db: DatabaseConnection, tenant_id: TenantId) -> GateRepository:
    """Two versions, the first good and promoted, the second not so good; and a gate that asks for 0.75."""
    register(db, tenant_id, "1", content="one", metrics=accuracy(0.8))
    register(db, tenant_id, "2", content="two", metrics=accuracy(0.71))
    EnvironmentRepository(db, tenant_id).promote(TICKETS, ONE, PRODUCTION, actor="me")
    gates = GateRepository(db, tenant_id)
    gates.set(TICKETS, PRODUCTION, "quality", "min_metric", QUALITY)
    return gates


def store_bytes(db: DatabaseConnection, tenant_id: TenantId, *contents: str) -> None:
    """What ``register`` registered, into the store."""
    for content in contents:
        platform_store(db.settings).put(tenant_id, content.encode(), "skops/1")


def promote(db: DatabaseConnection, tenant_id: TenantId, version: VersionId = TWO, **options: object) -> int:
    """Promote to production; the new generation."""
    environments = EnvironmentRepository(db, tenant_id)
    return environments.promote(TICKETS, version, PRODUCTION, actor="me", **options).generation  # type: ignore[arg-type]


def test_a_refusal_says_which_gate_and_by_how_much(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """In the message and as data; nothing moved and nothing is in the history."""
    with pytest.raises(PromotionRefusedError) as caught:
        promote(db, tenant_id)
    error = caught.value
    assert "accuracy 0.71 is 0.04 below the 0.75 that gate 'quality' requires" in error.message
    assert error.attributes() == {
        "model_id": TICKETS,
        "version": TWO,
        "environment": PRODUCTION,
        "refused_by": ["quality"],
        "gates": [
            {
                "name": "quality",
                "kind": "min_metric",
                "passed": False,
                "message": "accuracy 0.71 is 0.04 below the 0.75 that gate 'quality' requires",
                "measured": 0.71,
                "required": 0.75,
            }
        ],
    }
    assert [e.generation for e in EnvironmentRepository(db, tenant_id).history(TICKETS, PRODUCTION).items] == [1]


def test_a_version_that_passes_is_promoted_with_the_findings_in_the_history(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """What each gate found stays known."""
    register(db, tenant_id, "3", metrics=accuracy(0.9))
    assert promote(db, tenant_id, THREE) == 2
    entry = EnvironmentRepository(db, tenant_id).history(TICKETS, PRODUCTION).items[0]
    (found,) = entry.gates
    assert (found["name"], found["passed"], found["measured"]) == ("quality", True, 0.9)
    assert entry.override_reason is None


def test_all_gates_are_evaluated(db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository) -> None:
    """Whatever the first says: one look tells everything that is to be mended."""
    gates.set(TICKETS, PRODUCTION, "approved", "approval")
    gates.set(TICKETS, PRODUCTION, "same_rows", "signature_compatible")
    with pytest.raises(PromotionRefusedError) as caught:
        promote(db, tenant_id)
    found = {gate["name"]: gate["passed"] for gate in caught.value.attributes()["gates"]}
    assert list(found.items()) == [("approved", False), ("quality", False), ("same_rows", True)]
    assert "quality" in caught.value.message
    assert "0 of 1 approvals" in caught.value.message


def test_a_gate_binds_its_own_model_and_environment_only(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, gates: GateRepository
) -> None:
    """Not staging, not another model, not another tenant."""
    environments = EnvironmentRepository(db, tenant_id)
    assert environments.promote(TICKETS, TWO, STAGING, actor="me").generation == 1
    other = register(db, tenant_id, model_id=ModelId("other"), metrics=accuracy(0.1))
    assert environments.promote(ModelId("other"), other.version, PRODUCTION, actor="me").generation == 1
    theirs = register(db, other_tenant_id, metrics=accuracy(0.1))
    assert promote(db, other_tenant_id, theirs.version) == 1
    assert GateRepository(db, other_tenant_id).list(TICKETS) == []


def test_an_admin_overrides_with_a_reason(db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository) -> None:
    """The history and the audit keep the reason and what was overridden."""
    assert promote(somebody(db, "boss", Scope.ADMIN), tenant_id, override=" incident 7 ") == 2
    entry = EnvironmentRepository(db, tenant_id).history(TICKETS, PRODUCTION).items[0]
    assert entry.override_reason == "incident 7"
    assert [gate["passed"] for gate in entry.gates] == [False]
    (noted, *_) = AuditRepository(db, tenant_id).list(action="environment.moved", descending=True).items
    assert noted.details["override_reason"] == "incident 7"
    assert noted.details["gates"] == list(entry.gates)


def test_only_an_admin_overrides(db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository) -> None:
    """Who may promote may not pass a gate; nothing moved."""
    with pytest.raises(PermissionDeniedError, match=r"override.*quality") as caught:
        promote(somebody(db, "dev", Scope.PROMOTE), tenant_id, override="please")
    assert caught.value.attributes() == {"scope": "admin"}
    assert EnvironmentRepository(db, tenant_id).get(TICKETS, PRODUCTION).generation == 1


@pytest.mark.parametrize("version", [ONE, TWO])
def test_an_override_needs_a_reason(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository, version: VersionId
) -> None:
    """Whether or not it would be needed."""
    with pytest.raises(InvalidRequestError, match="reason") as caught:
        promote(db, tenant_id, version, override=" ")
    assert caught.value.attributes() == {"field": "override"}


def test_an_override_that_was_not_needed_is_not_recorded(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """Nothing was overridden, so no admin is needed either."""
    promote(somebody(db, "dev", Scope.PROMOTE), tenant_id, ONE, override="to be safe")
    assert EnvironmentRepository(db, tenant_id).history(TICKETS, PRODUCTION).items[0].override_reason is None


def test_going_back_and_withdrawing_pass_no_gate(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A way out stays open, whatever gates were set since."""
    for version in "12":
        register(db, tenant_id, version)
        promote(db, tenant_id, VersionId(version))
    GateRepository(db, tenant_id).set(TICKETS, PRODUCTION, "quality", "min_metric", QUALITY)
    environments = EnvironmentRepository(db, tenant_id)
    assert environments.rollback(TICKETS, PRODUCTION, actor="me").version == ONE
    assert environments.withdraw(TICKETS, PRODUCTION, actor="me").version is None


def test_a_gate_that_is_not_understood_keeps_nobody_from_going_back(
    db: DatabaseConnection, tenant_id: TenantId
) -> None:
    """One that a newer release set: it stops promotions, which must not slip through, and nothing else."""
    for version in "12":
        register(db, tenant_id, version)
        promote(db, tenant_id, VersionId(version))
    with db.tenant(tenant_id) as connection:
        gate = {"model_id": TICKETS, "environment": PRODUCTION, "name": "x", "kind": "of-tomorrow", "created_by": "x"}
        connection.execute(tables.gates.insert().values(tenant_id=tenant_id, **gate))
    with pytest.raises(InvalidRequestError, match="of-tomorrow"):
        promote(db, tenant_id)
    assert EnvironmentRepository(db, tenant_id).rollback(TICKETS, PRODUCTION, actor="me").version == ONE


def test_the_registrys_face_has_it_all(db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository) -> None:
    """In plain names: gates, approvals, protection, an override."""
    registry = ModelRegistry(db, tenant_id)
    registry.gates.set("tickets", "production", "signed", "approval")
    assert [record.name for record in registry.gates.list("tickets")] == ["quality", "signed"]
    registry.gates.remove("tickets", "production", "quality")
    assert registry.gates.approve("tickets", "2", "production", "looks right").approver == db.principal.name
    assert registry.environments.protect("production").is_protected
    assert registry.promote_version("tickets", "2", "production").generation == 2
    assert not registry.environments.unprotect("production").is_protected


def test_the_systems_face_promotes_with_an_override(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """``MLSystem`` refuses and overrides as the registry does."""
    with MLSystem(db, tenant_id=tenant_id) as system:
        system.gates.set("tickets", "production", "signed", "approval")
        system.gates.approve("tickets", "2", reason="looks right")
        assert len(system.gates.list("tickets", "production")) == 2
        with pytest.raises(PromotionRefusedError, match="quality"):
            system.promote("tickets", "2")
        assert system.promote("tickets", "2", override="an incident").generation == 2
        system.gates.remove("tickets", "production", "quality")
        assert system.promote("tickets", "2").generation == 3


def test_a_canary_passes_the_gates_when_it_starts_and_when_it_finishes(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """The first request that a version answers is one too many if a gate refuses it."""
    rollouts = RolloutRepository(db, tenant_id)
    with pytest.raises(PromotionRefusedError, match="quality"):
        rollouts.start(TICKETS, TWO, 5)
    rollouts.start(TICKETS, TWO, 5, override="a try")
    with pytest.raises(PromotionRefusedError, match="quality"):
        rollouts.finish(TICKETS, PRODUCTION)


def test_bytes_that_are_missing_or_changed_are_refused(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """With the store's own reason; once they are there the version passes."""
    gates.set(TICKETS, PRODUCTION, "bytes", "digest_verified")
    gates.remove(TICKETS, PRODUCTION, "quality")
    with pytest.raises(PromotionRefusedError, match="missing"):
        promote(db, tenant_id)
    store_bytes(db, tenant_id, "two")
    path = platform_store(db.settings).fetch(tenant_id, artifact_of("two").digest, 3)
    path.chmod(0o600)
    path.write_bytes(b"owt")
    with pytest.raises(PromotionRefusedError, match="bytes"):
        promote(db, tenant_id)
    path.write_bytes(b"two")
    assert hashlib.sha256(b"two").hexdigest() == artifact_of("two").digest
    assert promote(db, tenant_id) == 2


def test_a_signature_that_clients_do_not_fit_is_refused(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """Each problem in words; the first version of an environment has nothing to be compared with."""
    gates.remove(TICKETS, PRODUCTION, "quality")
    for environment in (PRODUCTION, STAGING):
        gates.set(TICKETS, environment, "same_rows", "signature_compatible")
    extra = InputColumn("age", ColumnKind.NUMBER, nullable=False)
    stricter = dataclasses.replace(SIGNATURE, inputs=(dataclasses.replace(SIGNATURE.inputs[0], nullable=False), extra))
    register(db, tenant_id, "3", signature=stricter)
    with pytest.raises(PromotionRefusedError) as caught:
        promote(db, tenant_id, THREE)
    assert "'text' is now required" in caught.value.message
    assert "'age' is new and required" in caught.value.message
    pointer = EnvironmentRepository(db, tenant_id).promote(TICKETS, THREE, STAGING, actor="me")
    assert pointer.version == THREE
    (entry,) = EnvironmentRepository(db, tenant_id).history(TICKETS, STAGING).items
    assert "serves no version yet" in entry.gates[0]["message"]


def test_who_moves_the_pointer_while_gates_are_evaluated_wins(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """The evaluated promotion gets the conflict: it was compared with what is served no longer."""
    register(db, tenant_id, "3", content="three", metrics=accuracy(0.9))
    store_bytes(db, tenant_id, "three")
    gates.set(TICKETS, PRODUCTION, "bytes", "digest_verified")
    others = EnvironmentRepository(db, tenant_id)

    def meanwhile() -> None:
        others.withdraw(TICKETS, PRODUCTION, actor="somebody else")

    environments = EnvironmentRepository(db, tenant_id, store=WatchedStore(db, meanwhile))
    with pytest.raises(PromotionConflictError, match="somebody else") as caught:
        environments.promote(TICKETS, THREE, PRODUCTION, actor="me")
    assert (caught.value.attributes()["expected_generation"], caught.value.attributes()["actual_generation"]) == (1, 2)
    assert [e.action for e in environments.history(TICKETS, PRODUCTION).items] == ["withdraw", "promote"]


def test_gates_that_change_while_they_are_evaluated_are_a_conflict(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """A version is never served by the evaluation of gates that hold no longer."""
    register(db, tenant_id, "3", content="three", metrics=accuracy(0.9))
    store_bytes(db, tenant_id, "three")
    gates.set(TICKETS, PRODUCTION, "bytes", "digest_verified")

    def meanwhile() -> None:
        gates.set(TICKETS, PRODUCTION, "quality", "min_metric", {**QUALITY, "value": 0.99})

    environments = EnvironmentRepository(db, tenant_id, store=WatchedStore(db, meanwhile))
    with pytest.raises(PromotionConflictError, match="gates"):
        environments.promote(TICKETS, THREE, PRODUCTION, actor="me")
    assert environments.get(TICKETS, PRODUCTION).version == ONE


def test_no_transaction_is_open_while_gates_are_evaluated(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """An evaluation takes seconds; a lock or a snapshot held so long would make others wait."""
    register(db, tenant_id, "3", content="three", metrics=accuracy(0.9))
    store_bytes(db, tenant_id, "three")
    gates.set(TICKETS, PRODUCTION, "bytes", "digest_verified")
    seen = []

    def meanwhile() -> None:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mlcore' AND xact_start IS NOT NULL"
        with superuser(db) as session:
            seen.append(session.execute(query).fetchone())

    environments = EnvironmentRepository(db, tenant_id, store=WatchedStore(db, meanwhile))
    environments.promote(TICKETS, THREE, PRODUCTION, actor="me")
    assert seen == [(0,)]


def test_an_expectation_that_is_wrong_already_costs_no_evaluation(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """The conflict comes first, not the refusal that would follow from it."""
    with pytest.raises(PromotionConflictError):
        promote(db, tenant_id, expected_generation=0)


IMPOSSIBLE = {
    "scope": PermissionDeniedError,
    "generation": PromotionConflictError,
    "state": InvalidTransitionError,
    "archived": ModelNotFoundError,
    "unknown": ModelNotFoundError,
}


@pytest.mark.parametrize(
    ("trigger", "why"),
    [*((t, why) for t in ("promote", "start") for why in IMPOSSIBLE)]
    + [("finish", why) for why in ("scope", "generation", "state")],
)
def test_what_is_not_possible_evaluates_no_gate(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository, trigger: str, why: str
) -> None:
    """Whatever makes a move impossible is found before a gate loads or predicts anything, for each trigger."""
    store_bytes(db, tenant_id, "one", "two")
    gates.remove(TICKETS, PRODUCTION, "quality")
    canary_is_wanted = trigger == "finish"
    if canary_is_wanted != (why == "state"):
        RolloutRepository(db, tenant_id).start(TICKETS, TWO, 5)
    gates.set(TICKETS, PRODUCTION, "bytes", "digest_verified")
    if why == "archived":
        VersionRepository(db, tenant_id).archive(TICKETS, TWO)
    evaluated: list[str] = []
    store = WatchedStore(db, lambda: evaluated.append(trigger))
    who = somebody(db, "reader", Scope.READ) if why == "scope" else db
    environments, rollouts = EnvironmentRepository(who, tenant_id, store), RolloutRepository(who, tenant_id, store)
    expected = 7 if why == "generation" else None
    version = "9" if why == "unknown" else "2"
    moves = {
        "promote": lambda: environments.promote(TICKETS, version, expected_generation=expected),
        "start": lambda: rollouts.start(TICKETS, version, 10, expected_generation=expected),
        "finish": lambda: rollouts.finish(TICKETS, expected_generation=expected),
    }
    with pytest.raises(IMPOSSIBLE[why]):
        moves[trigger]()
    assert evaluated == []


def test_a_promotion_takes_few_statements(db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository) -> None:
    """Without gates all rules are read in one statement, in the one transaction of the move; with gates in two."""
    register(db, tenant_id, "3", metrics=accuracy(0.9))
    statements: list[str] = []
    begun: list[object] = []
    engine = db._engine(db.urls.app)

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    def note_begin(connection: object) -> None:
        begun.append(connection)

    sa.event.listen(engine, "before_cursor_execute", note)
    sa.event.listen(engine, "begin", note_begin)
    try:
        for environment, transactions, most in ((STAGING, 1, 7), (PRODUCTION, 3, 11)):
            statements.clear()
            begun.clear()
            EnvironmentRepository(db, tenant_id).promote(TICKETS, THREE, environment)
            assert len(begun) == transactions
            assert len([text for text in statements if "environment_policies" in text]) == min(transactions, 2)
            assert len(statements) <= most, statements
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
        sa.event.remove(engine, "begin", note_begin)


def test_gates_are_set_listed_and_removed(db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository) -> None:
    """By environment and name, with who set them; setting one again replaces it; each change is in the audit."""
    admin = GateRepository(somebody(db, "boss", Scope.ADMIN), tenant_id)
    admin.set(TICKETS, PRODUCTION, "quality", "min_metric", {**QUALITY, "value": 0.5})
    admin.set(TICKETS, STAGING, "approved", "approval", {"count": 2})
    assert [(r.environment, r.name, r.created_by) for r in gates.list(TICKETS)] == [
        (PRODUCTION, "quality", "boss"),
        (STAGING, "approved", "boss"),
    ]
    assert promote(db, tenant_id) == 2
    admin.remove(TICKETS, PRODUCTION, "quality")
    assert gates.list(TICKETS, PRODUCTION) == []
    with pytest.raises(InvalidRequestError, match="no gate"):
        gates.remove(TICKETS, PRODUCTION, "quality")
    noted = AuditRepository(db, tenant_id).list(action="gate.", descending=True).items
    assert [(entry.action, entry.principal) for entry in noted[:3]] == [
        ("gate.removed", "boss"),
        ("gate.set", "boss"),
        ("gate.set", "boss"),
    ]
    assert noted[0].subject == {"model_id": TICKETS, "environment": PRODUCTION, "gate": "quality"}


def test_only_an_admin_changes_gates(db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository) -> None:
    """Whom they bind can't remove them."""
    bound = GateRepository(somebody(db, "dev", Scope.PROMOTE, Scope.APPROVE), tenant_id)
    with pytest.raises(PermissionDeniedError, match="admin"):
        bound.remove(TICKETS, PRODUCTION, "quality")
    with pytest.raises(PermissionDeniedError, match="admin"):
        bound.set(TICKETS, PRODUCTION, "quality", "min_metric", {**QUALITY, "value": 0.0})
    assert gates.list(TICKETS)[0].settings["value"] == 0.75


def test_a_gate_belongs_to_a_model_and_an_environment_that_exist(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """A typo is named rather than kept."""
    with pytest.raises(ModelNotFoundError, match=r"Did you mean tickets\?"):
        gates.set(ModelId("tikcets"), PRODUCTION, "quality", "min_metric", QUALITY)
    with pytest.raises(InvalidRequestError, match="production"):
        gates.set(TICKETS, EnvironmentName("prodction"), "quality", "min_metric", QUALITY)


def test_a_split_that_no_version_has_is_named(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """But those of training may come with the next version, and another that a version has will do."""
    with pytest.raises(InvalidRequestError, match=r"'valdation'.*Did you mean validation\?") as caught:
        gates.set(TICKETS, PRODUCTION, "split", "min_metric", {**QUALITY, "split": "valdation"})
    assert caught.value.field == "settings.split"
    gates.set(TICKETS, PRODUCTION, "split", "min_metric", {**QUALITY, "split": "train"})
    register(db, tenant_id, "3", metrics={"last_month": {"accuracy": 0.9}})
    gates.set(TICKETS, PRODUCTION, "split", "min_metric", {**QUALITY, "split": "last_month"})


def test_a_misspelt_metric_is_named(db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository) -> None:
    """Also with a direction; one of a team's own may be asked for before it is recorded, or after."""
    settings = {"value": 0.5, "higher_is_better": True}
    with pytest.raises(InvalidRequestError, match=r"'acuracy'.*Did you mean accuracy\?") as caught:
        gates.set(TICKETS, PRODUCTION, "own", "min_metric", {"metric": "acuracy", **settings})
    assert caught.value.field == "settings.metric"
    gates.set(TICKETS, PRODUCTION, "own", "min_metric", {"metric": "tickets_saved", **settings})
    register(db, tenant_id, "3", metrics={"validation": {"acuracy": 0.9}})
    gates.set(TICKETS, PRODUCTION, "own", "min_metric", {"metric": "acuracy", **settings})


def test_gates_are_evaluated_without_moving_anything(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """A dry run: what would happen."""

    def evaluate(version: VersionId) -> GateEvaluation:
        with db.tenant(tenant_id) as connection:
            rules = read_rules(connection, tenant_id, TICKETS, PRODUCTION)
        return evaluate_gates(db, rules, version)

    found = evaluate(TWO)
    assert (found.passed, found.rules.generation, found.version) == (False, 1, TWO)
    assert evaluate(ONE).enforce(db.principal) is None
    with pytest.raises(ModelNotFoundError):
        evaluate(VersionId("9"))


def test_a_move_returns_the_results_of_its_gates(
    db: DatabaseConnection, tenant_id: TenantId, gates: GateRepository
) -> None:
    """What each measured, as the history keeps it, also when it passes; a read has none."""
    register(db, tenant_id, "3", metrics=accuracy(0.9))
    environments = EnvironmentRepository(db, tenant_id)
    moved = environments.promote(TICKETS, THREE)
    assert [(gate["name"], gate["passed"], gate["measured"]) for gate in moved.gates] == [("quality", True, 0.9)]
    assert moved.gates == environments.history(TICKETS).items[0].gates
    assert environments.get(TICKETS).gates == ()
