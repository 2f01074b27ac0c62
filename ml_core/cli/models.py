"""``mlcore models``: what a tenant has, and the end of a whole model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ml_core.cli.console import AsKeyOption, JsonOption, LimitOption, TenantOption, err, out, print_json, print_rows
from ml_core.cli.context import existing_tenant
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import ModelId, TenantId

if TYPE_CHECKING:
    from ml_core.models.manager import ModelManager

app = typer.Typer(help="A tenant's models.", no_args_is_help=True)

ModelOption = Annotated[str, typer.Option("--model", "-m", help="The model, with all its versions.")]


@app.command("list")
def list_models(
    tenant: TenantOption,
    model_type: Annotated[str | None, typer.Option("--type", help="Only of this type.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Hidden ones too.")] = False,
    after: Annotated[str | None, typer.Option(help="Only names after this one: the last of the page before.")] = None,
    limit: LimitOption = 1000,
    as_json: JsonOption = False,
) -> None:
    """List a tenant's models by name."""
    from ml_core.registry.versions.models import ModelRepository

    last = None if after is None else ModelId(after)
    with existing_tenant(tenant) as (database, tenant_id):
        models = ModelRepository(database, tenant_id).list(
            model_type=model_type, include_archived=archived, limit=limit, after=last
        )
    columns = ["model_id", "model_type", "versions", "newest_version", "created_at"]
    train = f"Train one: mlcore train FILE --tenant {tenant_id} --model NAME --target COLUMN"
    is_restricted = model_type is not None or last is not None
    print_rows(
        [{"tenant_id": tenant_id, **dataclasses.asdict(model)} for model in models],
        [*columns, *(["archived_at"] if archived else [])],
        as_json=as_json,
        empty="No model is like that." if is_restricted else f"{tenant_id} has no model. {train}",
    )
    if not as_json and len(models) == limit:
        err.print(f"More: --after {models[-1].model_id}", style="dim")


@app.command("archive")
def archive(tenant: TenantOption, model: ModelOption, as_key: AsKeyOption = None, as_json: JsonOption = False) -> None:
    """Hide a model with all its versions. `mlcore gc` collects them after MLCORE_RETENTION_DAYS."""
    with _manager(tenant, as_key) as (manager, tenant_id):
        manager.archive_model(ModelId(model))
    _tell("Archived", tenant_id, model, as_json=as_json)


@app.command("restore")
def restore(tenant: TenantOption, model: ModelOption, as_key: AsKeyOption = None, as_json: JsonOption = False) -> None:
    """Show an archived model again."""
    with _manager(tenant, as_key) as (manager, tenant_id):
        manager.restore_model(ModelId(model))
    _tell("Restored", tenant_id, model, as_json=as_json)


@app.command("delete")
def delete(
    tenant: TenantOption,
    model: ModelOption,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a model with all its versions, at once and for good. Its history stays, and so do its versions' names."""
    model_id = ModelId(model)
    if as_json and not yes:
        raise InvalidRequestError(
            "With --json nothing is asked, so nothing was deleted.", remedy="Say it with --yes.", field="--yes"
        )
    if not yes:
        typed = typer.prompt(f"This deletes every version of {model_id}. Type its name", err=True)
        if typed.strip() != model_id:
            raise InvalidRequestError(
                "That is not the model's name; nothing was deleted.", remedy="Type it, or use --yes.", field="model"
            )
    with _manager(tenant, as_key) as (manager, tenant_id):
        manager.delete_model(model_id)
    _tell("Deleted", tenant_id, model_id, as_json=as_json)


@contextmanager
def _manager(tenant: str, as_key: str | None) -> Iterator[tuple[ModelManager, TenantId]]:
    from ml_core.models.manager import ModelManager

    with existing_tenant(tenant, as_key) as (database, tenant_id):
        yield ModelManager(database, database.settings.platform.artifact_root, tenant_id), tenant_id


def _tell(done: str, tenant_id: TenantId, model_id: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"tenant_id": tenant_id, "model_id": model_id, done.lower(): True})
    else:
        out.print(f"{done} {tenant_id}/{model_id}.")
