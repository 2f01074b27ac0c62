"""``mlcore promote`` and ``rollback``: move what an environment serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ml_core.cli.console import JsonOption, ModelOption, TenantOption, out, print_json
from ml_core.cli.context import ACTOR, existing_tenant
from ml_core.ids import EnvironmentName, ModelId, VersionId

if TYPE_CHECKING:
    from ml_core.registry.environments import Pointer

EnvironmentOption = Annotated[str, typer.Option("--environment", "-e", help="The pointer to move.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command("promote")(promote)
    app.command("rollback")(rollback)


def promote(
    tenant: TenantOption,
    model: ModelOption,
    version: Annotated[str, typer.Option("--version", "-v", help="The version to serve.")],
    environment: EnvironmentOption = "production",
    expected_generation: Annotated[
        int | None, typer.Option(help="Refuse unless the pointer still stands at this generation.")
    ] = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Point an environment to a version: within about a second every replica serves it."""
    from ml_core.registry.environments import EnvironmentRepository

    model_id, version_id, name = ModelId(model), VersionId(version), EnvironmentName(environment)
    with existing_tenant(tenant) as (database, tenant_id):
        pointer = EnvironmentRepository(database, tenant_id).promote(
            model_id, version_id, name, expected_generation=expected_generation, actor=ACTOR, reason=reason
        )
    _print_pointer(pointer, as_json=as_json)


def rollback(
    tenant: TenantOption,
    model: ModelOption,
    environment: EnvironmentOption = "production",
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Point an environment back to the version that it served before."""
    from ml_core.registry.environments import EnvironmentRepository

    model_id, name = ModelId(model), EnvironmentName(environment)
    with existing_tenant(tenant) as (database, tenant_id):
        pointer = EnvironmentRepository(database, tenant_id).rollback(model_id, name, actor=ACTOR, reason=reason)
    _print_pointer(pointer, as_json=as_json)


def _print_pointer(pointer: Pointer, *, as_json: bool) -> None:
    if as_json:
        print_json(pointer)
    else:
        out.print(
            f"{pointer.environment} of {pointer.tenant_id}/{pointer.model_id} is now version {pointer.version} "
            f"(generation {pointer.generation})."
        )
