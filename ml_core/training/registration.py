"""From a fitted model to a registered version: save, prove that the saved bytes predict the same, publish.

Nothing is stored before the proof, and publishing stores bytes and version, or neither.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.train_spec import TRAINING_RECORD
from ml_core.domain.training_report import ReportedColumn, recorded_columns
from ml_core.domain.version import Lineage, ModelVersion, RequiredModule, ServableVersion, VersionDraft
from ml_core.exceptions import ModelLoadError, ModelSaveError, UnsafeArtifactError
from ml_core.ids import Digest, TenantId, VersionId, VersionRef
from ml_core.models import own_types
from ml_core.models.compiling import compile_model
from ml_core.models.formats import skops_format
from ml_core.models.loading import LoadedModel, open_version
from ml_core.models.store import ArtifactStore
from ml_core.registry.versions.repository import VersionRepository
from ml_core.training.fit import FittedModel
from ml_core.training.plan import TrainingPlan
from ml_core.training.provenance import code_commit, library_versions

_log = logging.getLogger(__name__)

# Placeholders of a servable version for what the registry will decide; the proof does not read them.
_UNREGISTERED = VersionId("unregistered")
_NO_DIGEST = Digest("0" * 64)
# Columns whose importances a version shows.
_IMPORTANCES = 8


@dataclass(frozen=True, slots=True)
class Registrar:
    """Registers fitted models of one tenant, which must exist.

    Attributes:
        store: Where the bytes go.
        actor: Who is recorded; None: the connection's principal.
    """

    db: DatabaseConnection
    tenant_id: TenantId
    store: ArtifactStore
    actor: str | None

    def register(self, fitted: FittedModel, plan: TrainingPlan, run_id: str) -> ModelVersion:
        """Save, prove and publish a fitted model of a planned training, which a run recorded.

        Raises:
            ModelSaveError: It can't be saved, its saved form predicts otherwise, or the store fails; nothing is left.
            ModelVersionConflictError: The version exists with other bytes.
        """
        data = skops_format.dump(fitted.pipeline)
        # The bytes are proved, not the pipeline in memory: only they will serve.
        proved, outside_types = self._prove(fitted, data)
        outside = tuple(sorted(outside_types))
        modules = own_types.required_by(outside)
        said = _own_code(outside, own_types.trusted(self.db.settings), modules)
        draft = _draft(replace(fitted, notes=(*fitted.notes, *said)), plan, run_id, outside, modules)
        compiled = compile_model(proved, fitted.held_out)
        draft = replace(draft, compilation=compiled.compilation)
        versions = VersionRepository(self.db, self.tenant_id, self.store)
        made = versions.publish(draft, data, skops_format.FORMAT, compiled=compiled.data, actor=self.actor)
        for note in said:
            _log.warning("%s version %s: %s", made.model_id, made.version, note)
        return made

    def _prove(self, fitted: FittedModel, data: bytes) -> tuple[LoadedModel, Collection[str]]:
        """Load the saved bytes as a server would and run the self-test.

        Returns:
            The model, and types outside the platform's list.
        """
        servable = ServableVersion(
            ref=VersionRef(self.tenant_id, fitted.model_id, _UNREGISTERED),
            model_type=fitted.model_type,
            digest=_NO_DIGEST,
            size_bytes=len(data),
            format=skops_format.FORMAT,
            signature=fitted.signature,
            self_test=fitted.self_test,
        )
        try:
            try:
                return open_version(data, servable), ()
            except UnsafeArtifactError as error:
                # The caller's own classes: this process already runs their code, so it may load them.
                outside = frozenset(error.attributes().get("types", ()))
                model = open_version(data, servable, own_types.Trust(types=outside))
                own_types.remember(outside)  # after the proof: what can't be loaded is not trusted
                return model, outside
        except ModelLoadError as error:
            raise ModelSaveError(
                f"The fitted model can't be saved: {error.message}",
                remedy=error.remedy,
                tenant_id=self.tenant_id,
                model_id=str(fitted.model_id),
                details=error.details,
            ) from error


def _own_code(types: Sequence[str], trust: own_types.Trust, modules: Sequence[RequiredModule]) -> list[str]:
    """A sentence on types in a version that no server loads; none if all are on the platform's list, or trusted."""
    refused = [name for name in types if name not in trust]
    if not refused:
        return []
    return [
        f"No server loads this version, so it can't be promoted: it uses {', '.join(refused)}, and "
        f"{'; '.join(trust.refusals(modules))}. It predicts in the process that trained it. {own_types.REMEDY}"
    ]


def _draft(
    fitted: FittedModel,
    plan: TrainingPlan,
    run_id: str,
    outside_types: tuple[str, ...],
    modules: tuple[RequiredModule, ...],
) -> VersionDraft:
    spec, source = plan.spec, plan.checked.source
    lineage = Lineage(
        run_id=run_id,
        dataset_digest=None if source is None else source.digest,
        parent_version=spec.parent_version,
        code_commit=code_commit(),
        libraries=library_versions(),
        data_digest=fitted.data_digest,
    )
    record = {
        **spec.options(),  # first: the result of a cross-validation takes the place of the number of its folds
        "algorithm": fitted.algorithm,
        "selection": fitted.selection,
        **({"cross_validation": fitted.cross_validation} if fitted.cross_validation else {}),
        "effective_hyperparameters": fitted.effective_hyperparameters,
        "baseline": fitted.baseline,
        **_importances(fitted),
        "n_rows": dict(fitted.n_rows),
        "dataset": None if source is None else source.reference,
        "duration_s": fitted.duration_s,
        **recorded_columns(reported_columns(fitted)),
        "notes": list(fitted.notes),
    }
    return VersionDraft(
        model_id=fitted.model_id,
        model_type=fitted.model_type,
        signature=fitted.signature,
        self_test=fitted.self_test,
        version=spec.version,
        metrics=fitted.metrics,
        hyperparameters=fitted.hyperparameters,
        metadata={TRAINING_RECORD: record, **plan.checked.metadata},
        lineage=lineage,
        outside_types=outside_types,
        modules=modules,
    )


def _importances(fitted: FittedModel) -> dict[str, Any]:
    """The most important columns; all are in the diagnostics of the run."""
    found = fitted.diagnostics
    if found is None or not found.importances:
        return {}
    largest = [asdict(each) for each in found.importances[:_IMPORTANCES]]
    return {"importances": {"metric": found.importance_metric, "largest": largest}}


def reported_columns(fitted: FittedModel) -> tuple[ReportedColumn, ...]:
    """The columns of a fitted model's data for its report."""
    return tuple(ReportedColumn(each.name, each.kind, each.input is not None, each.reason) for each in fitted.columns)
