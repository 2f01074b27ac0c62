"""``mlcore models`` and ``mlcore versions``: what a tenant has."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from ml_core.cli.console import JsonOption, ModelOption, TenantOption, print_rows
from ml_core.cli.context import existing_tenant
from ml_core.domain.version import ModelVersion
from ml_core.ids import ModelId

_HEADLINES = ("accuracy", "r2")

models_app = typer.Typer(help="A tenant's models.", no_args_is_help=True)
versions_app = typer.Typer(help="A model's versions.", no_args_is_help=True)


@models_app.command("list")
def list_models(tenant: TenantOption, as_json: JsonOption = False) -> None:
    """List a tenant's models."""
    from ml_core.registry.versions import VersionRepository

    with existing_tenant(tenant) as (database, tenant_id):
        models = VersionRepository(database, tenant_id).list_models()
    rows = [
        {
            "model_id": model.model_id,
            "model_type": model.model_type,
            "versions": model.versions,
            "created_at": model.created_at,
        }
        for model in models
    ]
    print_rows(
        rows,
        ["model_id", "model_type", "versions", "created_at"],
        as_json=as_json,
        empty=f"{tenant_id} has no model. Train one: mlcore train FILE -t {tenant_id} -m NAME --target COLUMN",
    )


@versions_app.command("list")
def list_versions(tenant: TenantOption, model: ModelOption, as_json: JsonOption = False) -> None:
    """List a model's versions, newest first, with the environments that point to them."""
    from ml_core.registry.environments import EnvironmentRepository
    from ml_core.registry.versions import VersionRepository

    model_id = ModelId(model)
    with existing_tenant(tenant) as (database, tenant_id):
        versions = VersionRepository(database, tenant_id).list(model_id)
        pointers = EnvironmentRepository(database, tenant_id).list(model_id)
    environments: dict[str, list[str]] = {}
    for pointer in pointers:
        environments.setdefault(str(pointer.version), []).append(str(pointer.environment))
    print_rows(
        [version_row(version, environments.get(version.version, [])) for version in versions],
        ["version", "environments", "held_out", "size_bytes", "created_at", "created_by"],
        as_json=as_json,
        empty=f"{tenant_id} has no model {model_id}, or it has no version.",
    )


def version_row(version: ModelVersion, environments: list[str]) -> dict[str, object]:
    """What a list shows of a version."""
    return {
        "version": version.version,
        "environments": environments,
        "model_type": version.servable.model_type,
        "held_out": _headline(version.metrics.get("validation", {})),
        "metrics": version.metrics,
        "hyperparameters": version.hyperparameters,
        "digest": version.servable.digest,
        "size_bytes": version.servable.size_bytes,
        "created_at": version.created_at,
        "created_by": version.created_by,
    }


def _headline(metrics: Mapping[str, float]) -> str | None:
    """The one metric that people ask for first; JSON output carries them all."""
    name = next((name for name in (*_HEADLINES, *metrics) if name in metrics), None)
    return f"{name} {metrics[name]:.3f}" if name else None
