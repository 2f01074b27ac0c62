"""The evaluation of an environment's gates for a version: what each needs is read, loaded or predicted here.

It takes seconds where a gate loads models and predicts, so call it outside of any transaction. The move that follows
(``ml_core.registry.promotion.moving``) requires the pointer and the gates that were evaluated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, assert_never

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import approvals
from ml_core.domain.api_key import Scope
from ml_core.domain.gates import (
    Approval,
    DigestVerified,
    Gate,
    GateKind,
    GateResult,
    MinMetric,
    NotWorse,
    SignatureCompatible,
    evaluate_approvals,
    evaluate_difference,
    evaluate_metric,
)
from ml_core.domain.principal import Principal
from ml_core.domain.signature import signature_problems
from ml_core.domain.version import ModelVersion
from ml_core.exceptions import (
    MLFrameworkError,
    ModelNotFoundError,
    PermissionDeniedError,
    PromotionRefusedError,
    RegistryUnavailableError,
    SchemaOutOfDateError,
)
from ml_core.ids import VersionId
from ml_core.models import own_types
from ml_core.models.store import ArtifactStore, platform_store
from ml_core.registry.missing import model_not_found
from ml_core.registry.promotion.pointers import state_before
from ml_core.registry.promotion.rules import Rules
from ml_core.registry.versions.repository import VersionRepository


@dataclass(frozen=True, slots=True)
class GateEvaluation:
    """The results of all gates of an environment for a version.

    Attributes:
        rules: The gates that were evaluated, and the pointer at that time.
        version: The version.
        results: One for each gate, in the gates' order; a failed gate does not stop the others.
    """

    rules: Rules
    version: VersionId
    results: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(result.passed for result in self.results)

    def to_json(self) -> list[dict[str, Any]]:
        """The results as moves and errors carry them."""
        return [result.to_json() for result in self.results]

    def enforce(self, principal: Principal, override: str | None = None) -> str | None:
        """Refuse the version if a gate failed, unless an admin who moves the pointer says why it may be served.

        Returns:
            The override's reason if it was needed, for the history; else None.

        Raises:
            PromotionRefusedError: A gate failed, and there is no override. Names each failed gate and by how much.
            PermissionDeniedError: The override is needed, and the principal lacks the scope ``admin``.
        """
        if self.passed:
            return None
        if override is None:
            raise self._refusal()
        if not principal.allows(Scope.ADMIN):
            raise PermissionDeniedError(
                f"{principal.name} may not override a gate: it lacks the scope {Scope.ADMIN.value!r}. "
                + self._refusal().message,
                remedy="Ask an admin, or promote a version that passes.",
                tenant_id=self.rules.tenant_id,
                scope=Scope.ADMIN.value,
            )
        return override.strip()

    def _refusal(self) -> PromotionRefusedError:
        failed = [result for result in self.results if not result.passed]
        rules, why = self.rules, "; ".join(result.message for result in failed)
        remedy, action = "Promote a version that passes, or let an admin override the gate with a reason.", None
        if any(result.kind is GateKind.APPROVAL for result in failed):
            remedy = f"Let somebody approve it with a key of their own that has the scope approve. Or: {remedy}"
            action = rules.action("environments.approve", version=self.version)
        return PromotionRefusedError(
            f"Version {self.version!s} of {rules.model_id!s} may not go to {rules.environment!s}: {why}.",
            remedy=remedy,
            action=action,
            **rules.key,
            version=self.version,
            gates=self.to_json(),
            details={"refused_by": [str(result.name) for result in failed]},
        )


def evaluate_gates(
    db: DatabaseConnection, rules: Rules, version: VersionId, store: ArtifactStore | None = None
) -> GateEvaluation:
    """Evaluate all gates of an environment for a version, whose artifact is in the store, or that of the platform.

    Raises:
        ModelNotFoundError: There is no such version.
    """
    case = _Case(db, rules, version, platform_store(db.settings) if store is None else store)
    return GateEvaluation(rules, version, tuple(case.evaluate(gate) for gate in rules.gates))


class _Case:
    """A version and the gates of an environment; what several gates need is read once."""

    def __init__(self, db: DatabaseConnection, rules: Rules, version: VersionId, store: ArtifactStore) -> None:
        self._db = db
        self._rules = rules
        self._store = store
        self._versions = VersionRepository(db, rules.tenant_id)
        self._candidate = self._versions.get(rules.model_id, version)

    def evaluate(self, gate: Gate) -> GateResult:
        """The result of a gate. An error that prevents its evaluation is a failure with that reason."""
        try:
            match gate.rule:
                case MinMetric() as rule:
                    return evaluate_metric(gate, rule, self._candidate.metrics)
                case NotWorse() as rule:
                    return self._difference(gate, rule)
                case SignatureCompatible():
                    return self._signature(gate)
                case DigestVerified():
                    artifact = self._candidate.servable
                    self._store.verify(self._rules.tenant_id, artifact.digest, artifact.size_bytes)
                    return gate.result(True, "the store has the bytes that were registered")
                case Approval() as rule:
                    return evaluate_approvals(gate, rule, self._approvers(), self._candidate.created_by)
                case _ as never:
                    assert_never(never)
        except (RegistryUnavailableError, SchemaOutOfDateError):
            raise  # says nothing about the version
        except MLFrameworkError as error:
            reason = error.message.removesuffix(".")
            return gate.result(False, f"gate {gate.name!r} could not be evaluated: {reason}")

    @cached_property
    def _reference(self) -> ModelVersion | None:
        """The version to compare with; None if nothing was served yet, or only the candidate itself is.

        Raises:
            ModelNotFoundError: It was deleted since it was served.
        """
        name = self._served
        if name in (None, self._candidate.version):
            return None
        try:
            return self._versions.get(self._rules.model_id, name)
        except ModelNotFoundError as error:
            why = f"was deleted, and {self._rules.environment!s} served it last: there is no version to compare with"
            raise model_not_found(self._rules.tenant_id, self._rules.model_id, name, why=why) from error

    @cached_property
    def _served(self) -> VersionId | None:
        """The version that the environment serves, or served last if it was withdrawn; None: it never served any.

        Whoever may promote may withdraw too, so a withdrawal must not count as "nothing was served yet".
        """
        rules = self._rules
        if rules.pointer is None or rules.version is not None:
            return rules.version
        with self._db.tenant(rules.tenant_id) as connection:
            last = state_before(connection, rules.pointer)
        if last is None or last.version is None:
            raise AssertionError("a pointer that serves nothing was withdrawn from a version, which its history has")
        return last.version

    def _signature(self, gate: Gate) -> GateResult:
        if self._reference is None:
            return self._nothing_to_compare(gate)
        present = self._reference.version
        problems = signature_problems(self._reference.servable.signature, self._candidate.servable.signature)
        if not problems:
            return gate.result(True, f"it accepts the rows that version {present!s} accepts", 0, 0)
        message = f"rows for version {present!s} may not fit, which gate {gate.name!r} asks for: {', '.join(problems)}"
        return gate.result(False, message, len(problems), 0)

    def _difference(self, gate: Gate, rule: NotWorse) -> GateResult:
        if self._reference is None:
            return self._nothing_to_compare(gate)
        # pandas, pyarrow and scikit-learn are loaded for this gate only
        from ml_core.evaluation.held_out import answer, check_output, check_size, held_out_rows
        from ml_core.evaluation.paired import compare
        from ml_core.registry.datasets import DatasetRepository

        both = self._candidate.servable, self._reference.servable
        for version in both:
            check_output(version, rule.metric)
        datasets = DatasetRepository(self._db, self._rules.tenant_id, self._store)
        dataset = datasets.get(rule.dataset, rule.number)
        if self._candidate.lineage.dataset_digest == dataset.digest:
            message = (
                f"it was trained on {dataset.reference}, the rows that gate {gate.name!r} holds out, so its answers to "
                "them show nothing"
            )
            return gate.result(False, message)
        check_size(dataset)
        rows = held_out_rows(datasets.open(dataset), dataset, rule, both)
        trust = own_types.trusted(self._db.settings)
        new, old = (answer(self._store, version, rows, rule.metric, trust) for version in both)
        interval = compare(
            rule.metric, rows.truth, new, old, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed
        )
        if not math.isfinite(interval.low):
            why = f"{rule.metric} is not defined on {rows.about}"
            return gate.result(False, f"gate {gate.name!r} could not be evaluated: {why}")
        name = f"version {self._reference.version!s}"
        is_served = self._rules.version is not None
        against = f"the present {name}" if is_served else f"{name}, which {self._rules.environment!s} served last"
        return evaluate_difference(gate, rule, interval, rows.about, against=against)

    def _nothing_to_compare(self, gate: Gate) -> GateResult:
        rules = self._rules
        if rules.pointer is None:
            why = "serves no version yet that it could be compared with"
        else:
            why = "served this version last" if rules.version is None else "serves this version already"
        return gate.result(True, f"{rules.environment!s} {why}")

    def _approvers(self) -> list[str]:
        statement = sa.select(approvals.c.approver).filter_by(**self._rules.key, version=self._candidate.version)
        with self._db.tenant(self._rules.tenant_id) as connection:
            return list(connection.scalars(statement))
