"""Versions of models, and holds on them."""

from __future__ import annotations

from typing import Annotated

from fastapi import File, Form, Query, UploadFile
from pydantic import TypeAdapter

from ml_core.api.access import TenantAccess
from ml_core.api.bodies import Download
from ml_core.api.operation import CursorQuery, LimitQuery, operations, parsed, tags_of
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.environments import Hold, NewHold
from ml_core.api.schemas.trainings import TrainingReport
from ml_core.api.schemas.versions import (
    Compilation,
    FullLineage,
    Lineage,
    Metric,
    NewVersion,
    RequiredModule,
    Version,
    VersionChanges,
    VersionComparison,
    VersionDetail,
    VersionFilter,
)
from ml_core.domain import training_report as domain_report
from ml_core.domain import version as domain
from ml_core.domain.api_key import Scope
from ml_core.ids import ModelId, VersionId
from ml_core.registry.collection.holds import HoldRepository
from ml_core.registry.versions.intake import Submission, split_metrics
from ml_core.registry.versions.repository import VersionRepository

router = operations("versions", "/tenants/{tenant}")

_MODEL = "/models/{model}"
_NEW_VERSION = TypeAdapter(NewVersion)
_VERSION = f"{_MODEL}/versions/{{version}}"


@operation(router, "POST", f"{_MODEL}/versions", "versions.register", Scope.TRAIN, creates=True)
def register_version(
    access: TenantAccess,
    model: str,
    artifact: Annotated[UploadFile, File(description="A `.skops` file.")],
    version: Annotated[str | None, Form(description="What is recorded of it: `NewVersion` as JSON.")] = None,
) -> VersionDetail:
    """Upload a `.skops` file as an immutable version.

    It is audited, and refused if it holds a type that is neither on the platform's list nor of a trusted module.
    """
    # Imported late: pandas takes longer to load than any other operation to run.
    import pandas as pd

    given = NewVersion() if version is None else parsed(_NEW_VERSION, version, "version")
    submission = Submission(
        model_id=ModelId(model),
        version=None if given.version is None else VersionId(given.version),
        model_type=given.model_type,
        lineage=domain.Lineage(parent_version=given.parent_version),
        metrics=split_metrics(given.metrics),
        hyperparameters=given.hyperparameters,
        metadata=given.metadata,
        sample=None if given.sample is None else pd.DataFrame(given.sample),
    )
    return _detail(access.of(VersionRepository).submit(submission, artifact.file.read()))


@operation(router, "GET", f"{_MODEL}/versions", "versions.list", Scope.READ)
def list_versions(access: TenantAccess, model: str, wanted: Annotated[VersionFilter, Query()]) -> Page[Version]:
    """List a model's versions, newest first; or find those with tags, metrics or a text."""
    return _page(access, model, wanted)


@operation(router, "GET", "/versions", "versions.search", Scope.READ)
def search_versions(access: TenantAccess, wanted: Annotated[VersionFilter, Query()]) -> Page[Version]:
    """Find versions over all models, newest first."""
    return _page(access, None, wanted)


@operation(router, "GET", "/versions/metrics", "versions.metrics", Scope.READ)
def list_metrics(access: TenantAccess) -> list[Metric]:
    """The metrics that the tenant's versions have, and whether a higher value of each is better."""
    return [Metric.model_validate(each) for each in access.of(VersionRepository).metrics()]


@operation(router, "GET", _VERSION, "versions.get", Scope.READ)
def get_version(access: TenantAccess, model: str, version: str) -> VersionDetail:
    """A version with everything that is known of it; `newest` is the newest that is not archived."""
    return _detail(access.of(VersionRepository).get(model, None if version == "newest" else version))


@operation(router, "PATCH", _VERSION, "versions.update", Scope.TRAIN)
def update_version(access: TenantAccess, model: str, version: str, body: VersionChanges) -> VersionDetail:
    """Set tags, and merge notes; the version itself never changes."""
    versions = access.of(VersionRepository)
    if body.tags is not None:
        versions.set_tags(model, version, body.tags)
    if body.metadata is not None:
        versions.update_metadata(model, body.metadata, version)
    return _detail(versions.get(model, version))


@operation(router, "GET", f"{_VERSION}/artifact", "versions.download", Scope.READ)
def download_version(access: TenantAccess, model: str, version: str) -> Download:
    """Download a version's artifact."""
    path = access.of(VersionRepository).artifact(model, version)
    return Download(path, media_type="application/octet-stream")


@operation(router, "GET", f"{_VERSION}/lineage", "versions.lineage", Scope.READ)
def get_lineage(access: TenantAccess, model: str, version: str) -> FullLineage:
    """Where a version came from, and what came of it."""
    return FullLineage.model_validate(access.of(VersionRepository).lineage(model, version))


@operation(router, "GET", f"{_VERSION}/training", "versions.training", Scope.READ)
def get_training(access: TenantAccess, model: str, version: str) -> TrainingReport:
    """What the training of a version found: columns, metrics beside the baseline, notes."""
    found = domain_report.TrainingReport.of_version(access.of(VersionRepository).get(model, version))
    return TrainingReport.model_validate(found)


@operation(router, "GET", f"{_VERSION}/compare/{{other}}", "versions.compare", Scope.READ)
def compare_versions(access: TenantAccess, model: str, version: str, other: str) -> VersionComparison:
    """What differs between two versions, and which is better in each metric."""
    return VersionComparison.model_validate(access.of(VersionRepository).compare(model, version, other))


@operation(router, "POST", f"{_VERSION}/archive", "versions.archive", Scope.TRAIN)
def archive_version(access: TenantAccess, model: str, version: str) -> None:
    """Hide a version, until it is restored or collected."""
    access.of(VersionRepository).archive(model, version)


@operation(router, "POST", f"{_VERSION}/restore", "versions.restore", Scope.TRAIN)
def restore_version(access: TenantAccess, model: str, version: str) -> None:
    """Show an archived version again."""
    access.of(VersionRepository).restore(model, version)


@operation(router, "DELETE", _VERSION, "versions.delete", Scope.ADMIN)
def delete_version(access: TenantAccess, model: str, version: str) -> None:
    """Delete a version that nothing needs, permanently; its name stays taken."""
    access.of(VersionRepository).delete(model, version)


@operation(router, "GET", "/holds", "holds.list", Scope.READ)
def list_holds(
    access: TenantAccess,
    model: Annotated[str | None, Query(description="Of this model.")] = None,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Hold]:
    """List the reasons to keep versions."""
    return Page[Hold].model_validate(access.of(HoldRepository).list(model, limit=limit, cursor=cursor))


@operation(router, "PUT", f"{_VERSION}/holds/{{hold}}", "holds.place", Scope.TRAIN)
def place_hold(access: TenantAccess, model: str, version: str, hold: str, body: NewHold) -> Hold:
    """Keep a version: while it is held, it can't be deleted or collected."""
    return Hold.model_validate(access.of(HoldRepository).place(model, version, hold, body.reason))


@operation(router, "DELETE", f"{_VERSION}/holds/{{hold}}", "holds.release", Scope.ADMIN)
def release_hold(access: TenantAccess, model: str, version: str, hold: str) -> None:
    """Release a hold."""
    access.of(HoldRepository).release(model, version, hold)


def _page(access: TenantAccess, model: str | None, wanted: VersionFilter) -> Page[Version]:
    others = wanted.model_dump(exclude={"tag", "metric"})
    found = access.of(VersionRepository).search(model, tags=tags_of(wanted.tag), metrics=wanted.metric, **others)
    return Page[Version].model_validate(found)


def _detail(version: domain.ModelVersion) -> VersionDetail:
    return VersionDetail(
        **{name: getattr(version, name) for name in Version.model_fields},
        signature=version.signature.to_json(),
        lineage=Lineage.model_validate(version.lineage),
        metadata=dict(version.metadata),
        effective_hyperparameters=dict(version.training.get("effective_hyperparameters", {})),
        modules=[RequiredModule.model_validate(each) for each in version.modules],
        compilation=Compilation.model_validate(version.compilation),
    )
