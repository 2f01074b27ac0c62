"""Jobs that train a model on a registered dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.dataset import parse_reference
from ml_core.domain.job_spec import TrainJobSpec
from ml_core.domain.train_spec import TrainSpec
from ml_core.ids import EnvironmentName, ModelId, TenantId
from ml_core.jobs.work import Work
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.promotion.rules import check_move
from ml_core.training.trainer import Trainer

_LATEST_MOVES: Final = 100


def check(db: DatabaseConnection, tenant_id: TenantId, spec: TrainJobSpec) -> TrainJobSpec:
    """See ``Kind``."""
    if spec.promote_to is not None:
        check_move(db, tenant_id, spec.model_id, spec.promote_to)
    Trainer(db, tenant_id).check_spec(spec.model_id, spec.training)
    return replace(spec, training=pinned(db, tenant_id, spec.training))


def execute(work: Work[TrainJobSpec]) -> Mapping[str, Any]:
    """Train, register and promote; an earlier attempt may have come as far as the version."""
    spec, made = work.spec, dict(work.made)
    if "version" not in made:
        trainer = Trainer(work.db, work.tenant_id, hooks=work.hooks)
        report = trainer.train_spec(spec.model_id, spec.training, work.as_training())
        for note in report.notes:
            work.progress.say(note)
        made = {"model_id": str(spec.model_id), "version": str(report.version), "run_id": work.run_id}
    return {**made, **promoted(work, spec.model_id, made["version"], spec.promote_to)}


def pinned(db: DatabaseConnection, tenant_id: TenantId, training: TrainSpec) -> TrainSpec:
    """A training whose datasets without a number have that of their newest version."""
    datasets = DatasetRepository(db, tenant_id)

    def reference(text: str | None) -> str | None:
        return None if text is None else datasets.get(*parse_reference(text)).reference

    held_out = reference(training.validation_dataset)
    return replace(training, dataset=reference(training.dataset), validation_dataset=held_out)


def promoted(
    work: Work[Any], model_id: ModelId, version: str, environment: EnvironmentName | None
) -> Mapping[str, Any]:
    """Move an environment to a version that the job made, once; what the job's result says of it."""
    if environment is None:
        return {}
    work.progress.enter("promote")
    environments, reason = EnvironmentRepository(work.db, work.tenant_id), f"job {work.attempt.job_id}"
    history = environments.history(model_id, environment, limit=_LATEST_MOVES).items
    if reason not in [move.reason for move in history]:  # an earlier attempt may have made the move
        environments.promote(model_id, version, environment, reason=reason)
    return {"promoted_to": str(environment)}
