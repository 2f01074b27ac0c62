"""Jobs that search for the hyperparameters of a training on a registered dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.dataset import parse_reference
from ml_core.domain.job_spec import TuneJobSpec
from ml_core.ids import TenantId
from ml_core.jobs.kinds.train import pinned, promoted
from ml_core.jobs.work import Work
from ml_core.models.algorithms import CLASSIFICATION
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.promotion.rules import check_move
from ml_core.training.cross_validation import check_folds
from ml_core.training.hold_out import MIN_ROWS
from ml_core.training.spaces import check_search
from ml_core.training.targets import invalid
from ml_core.training.trainer import Trainer
from ml_core.training.trial_log import TrialLog


def check(db: DatabaseConnection, tenant_id: TenantId, spec: TuneJobSpec) -> TuneJobSpec:
    """See ``Kind``."""
    if spec.promote_to is not None:
        check_move(db, tenant_id, spec.model_id, spec.promote_to)
    check_search(spec.search, spec.training)
    # The algorithm, whose fixed hyperparameters the search has checked, is not among those of the training.
    Trainer(db, tenant_id).check_spec(spec.model_id, replace(spec.training, hyperparameters={}))
    checked = replace(spec, training=pinned(db, tenant_id, spec.training))
    _check_rows(db, tenant_id, checked)
    return checked


def execute(work: Work[TuneJobSpec]) -> Mapping[str, Any]:
    """Search, train with what was found, register and promote; an earlier attempt may have come as far as any of it."""
    spec, made = work.spec, dict(work.made)
    if "version" not in made:

        def tell(log: TrialLog) -> None:
            work.progress.advance(len(log.ended), log.total, "trials", log.best_metric)

        found = Trainer(work.db, work.tenant_id, hooks=work.hooks).tune_spec(
            spec.model_id,
            spec.training,
            spec.search,
            max(1, int(work.attempt.cpus)),
            attempt=work.as_training(),
            on_trial=tell,
        )
        made = {name: found[name] for name in ("model_id", "version", "run_id", "search")}
    return {**made, **promoted(work, spec.model_id, made["version"], spec.promote_to)}


def _check_rows(db: DatabaseConnection, tenant_id: TenantId, spec: TuneJobSpec) -> None:
    """Refuse what the dataset's profile shows to be too small; the search itself counts the rows that it trains on."""
    training = spec.training
    dataset = DatasetRepository(db, tenant_id).get(*parse_reference(str(training.dataset)))
    if dataset.row_count < MIN_ROWS:
        raise invalid(f"There are {dataset.row_count} rows to train on, fewer than {MIN_ROWS}.", "Add rows.")
    column = None if training.target is None else dataset.profile.column(training.target)
    is_known = column is not None and column.values and not column.other and not dataset.profile.is_sample
    is_known = is_known and training.group is None and training.time is None  # by which folds are not stratified
    if column is not None and is_known and training.model_type == CLASSIFICATION and training.rare_classes is None:
        check_folds(dict(column.values), spec.search.folds)
