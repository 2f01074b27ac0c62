"""``mlcore versions archive``, ``restore`` and ``delete``: the end of a version, and the way back."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_core.cli.console import AsKeyOption, JsonOption, ModelOption, TenantOption, out, print_json
from ml_core.cli.context import existing_tenant
from ml_core.ids import ModelId, TenantId, VersionId

VersionOption = Annotated[str, typer.Option("--version", "-v", help="The version.")]


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command("archive")(archive)
    app.command("restore")(restore)
    app.command("delete")(delete)


def archive(
    tenant: TenantOption,
    model: ModelOption,
    version: VersionOption,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hide a version. `mlcore gc` collects it after MLCORE_RETENTION_DAYS; until then it can be restored."""
    from ml_core.registry.versions.repository import VersionRepository

    model_id, version_id = ModelId(model), VersionId(version)
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        VersionRepository(database, tenant_id).archive(model_id, version_id)
    _tell("Archived", tenant_id, model_id, version_id, as_json=as_json)


def restore(
    tenant: TenantOption,
    model: ModelOption,
    version: VersionOption,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show an archived version again."""
    from ml_core.registry.versions.repository import VersionRepository

    model_id, version_id = ModelId(model), VersionId(version)
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        VersionRepository(database, tenant_id).restore(model_id, version_id)
    _tell("Restored", tenant_id, model_id, version_id, as_json=as_json)


def delete(
    tenant: TenantOption,
    model: ModelOption,
    version: VersionOption,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a version that nothing needs, at once and for good. Its name stays that of its bytes."""
    from ml_core.registry.versions.repository import VersionRepository

    model_id, version_id = ModelId(model), VersionId(version)
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        VersionRepository(database, tenant_id).delete(model_id, version_id)
    _tell("Deleted", tenant_id, model_id, version_id, as_json=as_json)


def _tell(done: str, tenant_id: TenantId, model_id: ModelId, version: VersionId, *, as_json: bool) -> None:
    if as_json:
        print_json({"tenant_id": tenant_id, "model_id": model_id, "version": version, done.lower(): True})
    else:
        out.print(f"{done} version {version} of {tenant_id}/{model_id}.")
