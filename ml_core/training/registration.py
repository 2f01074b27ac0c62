"""From a fitted model to a registered version: save, prove that the saved bytes predict the same, publish.

Nothing is stored before the proof, and publishing stores bytes and version, or neither.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.train_spec import TRAINING_RECORD
from ml_core.domain.training_report import ReportedColumn, recorded_columns
from ml_core.domain.version import Lineage, ModelVersion, ServableVersion, VersionDraft
from ml_core.exceptions import ModelLoadError, ModelSaveError, UnsafeArtifactError
from ml_core.ids import Digest, TenantId, VersionId, VersionRef
from ml_core.models import own_types
from ml_core.models.formats import skops_format
from ml_core.models.loading import open_version
from ml_core.models.store import ArtifactStore
from ml_core.registry.versions.repository import VersionRepository
from ml_core.training.fit import FittedModel
from ml_core.training.plan import TrainingPlan
from ml_core.training.provenance import code_commit, library_versions

# Placeholders of a servable version for what the registry will decide; the proof does not read them.
_UNREGISTERED = VersionId("unregistered")
_NO_DIGEST = Digest("0" * 64)


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
        outside = tuple(sorted(self._prove(fitted, data)))
        draft = _draft(fitted, plan, run_id, outside)
        versions = VersionRepository(self.db, self.tenant_id, self.store)
        return versions.publish(draft, data, skops_format.FORMAT, actor=self.actor)

    def _prove(self, fitted: FittedModel, data: bytes) -> Collection[str]:
        """Load the saved bytes as a server would and run the self-test; returns types outside the platform's list."""
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
                open_version(data, servable)
            except UnsafeArtifactError as error:
                # The caller's own classes: this process already runs their code, so it may load them.
                outside = frozenset(error.attributes().get("types", ()))
                open_version(data, servable, own_types=outside)
                own_types.remember(outside)  # after the proof: what can't be loaded is not trusted
                return outside
        except ModelLoadError as error:
            raise ModelSaveError(
                f"The fitted model can't be saved: {error.message}",
                remedy=error.remedy,
                tenant_id=self.tenant_id,
                model_id=str(fitted.model_id),
                details=error.details,
            ) from error
        return ()


def own_code(outside_types: Sequence[str]) -> list[str]:
    """A sentence on types in a version that are not on the platform's list; none if all are."""
    if not outside_types:
        return []
    return [
        f"No server loads this version, so it can't be promoted: it uses {', '.join(outside_types)}, which is not on "
        "the platform's list of types. It predicts in the process that trained it. For a version to serve, use an "
        "algorithm of the platform and a plain DataProcessor, and prepare the columns before training."
    ]


def _draft(fitted: FittedModel, plan: TrainingPlan, run_id: str, outside_types: tuple[str, ...]) -> VersionDraft:
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
        "algorithm": fitted.algorithm,
        "selection": fitted.selection,
        **({"cross_validation": fitted.cross_validation} if fitted.cross_validation else {}),
        "effective_hyperparameters": fitted.effective_hyperparameters,
        "baseline": fitted.baseline,
        "n_rows": dict(fitted.n_rows),
        "dataset": None if source is None else source.reference,
        **spec.options(),
        "duration_s": fitted.duration_s,
        **recorded_columns(reported_columns(fitted)),
        "notes": [*fitted.notes, *own_code(outside_types)],
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
    )


def reported_columns(fitted: FittedModel) -> tuple[ReportedColumn, ...]:
    """The columns of a fitted model's data for its report."""
    return tuple(ReportedColumn(each.name, each.kind, each.input is not None, each.reason) for each in fitted.columns)
