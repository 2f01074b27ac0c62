"""The gatekeeper: asks every gate of an environment about a version.

A gate may load models and predict, which takes seconds. No transaction is open meanwhile; instead the verdict says
where the pointer stood, and the move that follows expects it there (compare-and-swap) and reads the gates again
(``confirm``). So nothing is served on a judgement about another state.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import assert_never

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import approvals
from ml_core.domain.compatibility import signature_problems
from ml_core.domain.gate_outcomes import Outcome, judge_approvals, judge_difference, judge_metric
from ml_core.domain.gates import Approval, DigestVerified, Gate, MinMetric, NotWorse, SignatureCompatible
from ml_core.domain.version import ModelVersion
from ml_core.exceptions import (
    MLFrameworkError,
    ModelNotFoundError,
    PromotionConflictError,
    RegistryUnavailableError,
    SchemaOutOfDateError,
)
from ml_core.ids import DatasetId, EnvironmentName, ModelId, TenantId, VersionId
from ml_core.models.store import ArtifactStore, platform_store
from ml_core.registry.missing import model_not_found
from ml_core.registry.promotion.gates.held_out import answer, check_output, held_out_rows
from ml_core.registry.promotion.gates.paired import compare
from ml_core.registry.promotion.gates.rules import Rules, read_rules
from ml_core.registry.promotion.gates.verdict import Verdict
from ml_core.registry.promotion.pointer_rows import state_before
from ml_core.registry.versions.repository import VersionRepository


class Gatekeeper:
    """Judges versions of one tenant.

    Args:
        db: The registry; its principal is on whose behalf.
        tenant_id: The tenant.
        store: Where the artifacts are; None: the platform's store.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId, store: ArtifactStore | None = None) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._given_store = store
        self._versions = VersionRepository(db, tenant_id)

    def judge(self, model_id: ModelId, version: VersionId, environment: EnvironmentName) -> Verdict:
        """Ask all gates of an environment about a version. Call it outside of any transaction.

        Raises:
            PermissionDeniedError: The principal may not move the environment.
            ModelNotFoundError: There is no such version.
        """
        with self._db.tenant(self._tenant_id) as connection:
            rules = read_rules(connection, self._tenant_id, model_id, environment)
        rules.check_permission(self._db.principal)
        return self.judge_by(rules, version)

    def judge_by(self, rules: Rules, version: VersionId) -> Verdict:
        """As ``judge``, by rules that were read and whose permission was checked.

        Raises:
            ModelNotFoundError: There is no such version.
        """
        outcomes: tuple[Outcome, ...] = ()
        if gates := rules.gates:
            case = _Case(self._db, self.store, rules, self._versions, version)
            outcomes = tuple(case.ask(gate) for gate in gates)
        return Verdict(rules, version, self._db.principal, outcomes)

    def confirm(self, connection: Connection, verdict: Verdict) -> None:
        """Make sure that the rules are those by which a verdict was found, in the transaction that moves the pointer.

        Raises:
            PermissionDeniedError: The environment was protected meanwhile.
            PromotionConflictError: The gates were changed meanwhile.
        """
        seen = verdict.rules
        now = read_rules(connection, self._tenant_id, seen.model_id, seen.environment)
        now.check_permission(self._db.principal)
        if now.documents != seen.documents:
            raise PromotionConflictError(
                f"The gates of {seen.environment!s} of {seen.model_id!s} were changed while they were judged.",
                remedy="Promote again: the version is then judged by the gates that hold now.",
                tenant_id=self._tenant_id,
                model_id=seen.model_id,
                environment=seen.environment,
                expected_generation=seen.generation,
                actual_generation=now.generation,
            )

    @property
    def store(self) -> ArtifactStore:
        """Where the artifacts are."""
        return platform_store(self._db.settings) if self._given_store is None else self._given_store


class _Case:
    """One version before the gates of one environment; what several gates need is read once."""

    def __init__(
        self,
        db: DatabaseConnection,
        store: ArtifactStore,
        rules: Rules,
        versions: VersionRepository,
        version: VersionId,
    ) -> None:
        self._db = db
        self._store = store
        self._rules = rules
        self._versions = versions
        self._candidate = versions.get(rules.model_id, version)

    @cached_property
    def _reference(self) -> ModelVersion | None:
        """What the version is compared with; None: there is nothing, or it is that version itself.

        Raises:
            ModelNotFoundError: It was deleted since it was served.
        """
        name = self._served
        if name in (None, self._candidate.version):
            return None
        try:
            return self._versions.get(self._rules.model_id, name)
        except ModelNotFoundError as error:
            why = f"was deleted, and {self._rules.environment!s} served it last: nothing is left to compare with"
            raise model_not_found(self._rules.tenant_id, self._rules.model_id, name, why=why) from error

    @cached_property
    def _served(self) -> VersionId | None:
        """The version that the environment serves, or served last if it was withdrawn; None: it never served any.

        Whoever may promote may withdraw too, so what a withdrawal leaves must not count as "nothing served yet".
        """
        rules = self._rules
        if rules.pointer is None or rules.version is not None:
            return rules.version
        with self._db.tenant(rules.tenant_id) as connection:
            last = state_before(connection, rules.pointer)
        if last is None or last.version is None:
            raise AssertionError("a pointer that serves nothing was withdrawn from a version, which its history has")
        return last.version

    def ask(self, gate: Gate) -> Outcome:
        """What a gate finds. What keeps it from finding anything is a refusal with that reason."""
        try:
            return self._ask(gate)
        except (RegistryUnavailableError, SchemaOutOfDateError):
            raise  # says nothing about the version
        except MLFrameworkError as error:
            message = f"gate {gate.name!r} could not be judged: {error.message.removesuffix('.')}"
            return Outcome(gate.name, gate.kind, False, message)

    def _ask(self, gate: Gate) -> Outcome:
        match gate.rule:
            case MinMetric() as rule:
                return judge_metric(gate, rule, self._candidate.metrics)
            case NotWorse() as rule:
                return self._difference(gate, rule)
            case SignatureCompatible():
                return self._signature(gate)
            case DigestVerified():
                return self._digest(gate)
            case Approval() as rule:
                return judge_approvals(gate, rule, self._approvers(), self._candidate.created_by)
            case _ as never:
                assert_never(never)

    def _digest(self, gate: Gate) -> Outcome:
        artifact = self._candidate.servable
        self._store.verify(self._rules.tenant_id, artifact.digest, artifact.size_bytes)
        return Outcome(gate.name, gate.kind, True, "the store has the bytes that were registered")

    def _signature(self, gate: Gate) -> Outcome:
        if self._reference is None:
            return self._nothing_to_compare(gate)
        problems = signature_problems(self._reference.servable.signature, self._candidate.servable.signature)
        if not problems:
            return Outcome(gate.name, gate.kind, True, f"it takes what version {self._reference.version!s} takes", 0, 0)
        message = (
            f"rows for version {self._reference.version!s} may not fit, which gate {gate.name!r} asks for: "
            + ", ".join(problems)
        )
        return Outcome(gate.name, gate.kind, False, message, len(problems), 0)

    def _difference(self, gate: Gate, rule: NotWorse) -> Outcome:
        if self._reference is None:
            return self._nothing_to_compare(gate)
        from ml_core.registry.datasets import DatasetRepository  # pandas and pyarrow: only for this gate

        both = self._candidate.servable, self._reference.servable
        for version in both:
            check_output(version, rule.metric)
        datasets = DatasetRepository(self._db, self._rules.tenant_id, self._store)
        dataset = datasets.get(DatasetId(rule.dataset), rule.number)
        if self._candidate.lineage.dataset_digest == dataset.digest:
            return self._trained_on_it(gate, dataset.reference)
        rows = held_out_rows(datasets, dataset, rule, both)
        new, old = (answer(self._store, version, rows, rule.metric) for version in both)
        interval = compare(
            rule.metric,
            rows.truth,
            new,
            old,
            confidence=rule.confidence,
            resamples=rule.resamples,
            seed=rule.seed,
        )
        if not math.isfinite(interval.low):
            message = f"gate {gate.name!r} could not be judged: {rule.metric} is not defined on {rows.about}"
            return Outcome(gate.name, gate.kind, False, message)
        return judge_difference(gate, rule, interval, rows.about, against=self._called(self._reference.version))

    def _trained_on_it(self, gate: Gate, reference: str) -> Outcome:
        message = (
            f"it was trained on {reference}, the very rows that gate {gate.name!r} holds out, so what it answers to "
            "them shows nothing"
        )
        return Outcome(gate.name, gate.kind, False, message)

    def _called(self, version: VersionId) -> str:
        if self._rules.version is None:
            return f"version {version!s}, which {self._rules.environment!s} served last"
        return f"the present version {version!s}"

    def _nothing_to_compare(self, gate: Gate) -> Outcome:
        at = self._rules
        if at.pointer is None:
            message = f"{at.environment!s} serves no version yet that it could be compared with"
        elif at.version is None:
            message = f"{at.environment!s} served this version last"
        else:
            message = f"{at.environment!s} serves this version already"
        return Outcome(gate.name, gate.kind, True, message)

    def _approvers(self) -> list[str]:
        statement = sa.select(approvals.c.approver).where(
            approvals.c.tenant_id == self._rules.tenant_id,
            approvals.c.model_id == self._rules.model_id,
            approvals.c.version == self._candidate.version,
            approvals.c.environment == self._rules.environment,
        )
        with self._db.tenant(self._rules.tenant_id) as connection:
            return list(connection.scalars(statement))
