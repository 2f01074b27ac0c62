"""From a fitted model to a registered version: save, prove that the saved bytes answer the same, publish.

Nothing is stored before the proof, and publishing leaves either both bytes and version or neither.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import Lineage, ModelVersion, ServableVersion, VersionDraft
from ml_core.exceptions import ModelLoadError, ModelSaveError, UnsafeArtifactError
from ml_core.ids import Digest, TenantId, VersionId, VersionRef
from ml_core.models import own_types
from ml_core.models.formats import skops_format
from ml_core.models.loading import open_version
from ml_core.models.store import ArtifactStore
from ml_core.registry.versions.publishing import Publisher
from ml_core.training.fit import FittedModel

# Stands in a servable version for what the registry will decide; the proof does not look at it.
_UNREGISTERED = VersionId("unregistered")
_NO_DIGEST = Digest("0" * 64)


@dataclass(frozen=True, slots=True)
class Naming:
    """What a caller says of the version to be.

    Attributes:
        version: Its name; None: the next number.
        run_id: The run that made it.
        parent_version: The version that it was made from.
        metadata: Notes.
        dataset_digest: Of the registered dataset that it was trained on; None: of none.
    """

    version: VersionId | None = None
    run_id: str | None = None
    parent_version: VersionId | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    dataset_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Registrar:
    """Registers fitted models of one tenant.

    Attributes:
        db: The registry.
        tenant_id: The tenant; it must exist.
        store: Where the bytes go.
        actor: Who is recorded; None: the operating system's user.
    """

    db: DatabaseConnection
    tenant_id: TenantId
    store: ArtifactStore
    actor: str | None

    def register(self, fitted: FittedModel, naming: Naming) -> ModelVersion:
        """Save, prove and publish a fitted model.

        Raises:
            ModelSaveError: It can't be saved, its saved form answers otherwise, or the disk refuses; nothing is left.
            ModelVersionConflictError: The version exists with other bytes.
        """
        data = skops_format.dump(fitted.pipeline)
        outside = tuple(sorted(self._prove(fitted, data)))
        draft = replace(_draft(fitted, naming, [*fitted.notes, *own_code(outside)]), outside_types=outside)
        return Publisher(self.db, self.tenant_id, self.store).publish(
            draft, data, skops_format.FORMAT, actor=self.actor
        )

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
                # The caller's own classes, objects of which this process holds already: it may load them again.
                outside = frozenset(error.attributes().get("types", ()))
                open_version(data, servable, own_types=outside)
                own_types.remember(outside)
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


def _draft(fitted: FittedModel, naming: Naming, notes: list[str]) -> VersionDraft:
    lineage = Lineage(
        run_id=naming.run_id,
        dataset_digest=naming.dataset_digest,
        parent_version=naming.parent_version,
        code_commit=fitted.code_commit,
        libraries=fitted.libraries,
        data_digest=fitted.data_digest,
    )
    training = {
        "algorithm": fitted.algorithm,
        "effective_hyperparameters": fitted.effective_hyperparameters,
        "baseline": fitted.baseline,
        "n_rows": dict(fitted.n_rows),
        "notes": notes,
    }
    return VersionDraft(
        model_id=fitted.model_id,
        model_type=fitted.model_type,
        signature=fitted.signature,
        self_test=fitted.self_test,
        version=naming.version,
        metrics=fitted.metrics,
        hyperparameters=fitted.hyperparameters,
        metadata={"training": training, **naming.metadata},
        lineage=lineage,
    )
