"""``mlcore versions``: list, show, compare, tag, and where a version came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ml_core.cli import removal, version_search
from ml_core.cli.console import (
    AsKeyOption,
    CursorOption,
    JsonOption,
    LimitOption,
    ModelOption,
    TenantOption,
    err,
    out,
    print_json,
    print_rows,
    show,
)
from ml_core.cli.context import existing_tenant
from ml_core.cli.version_rows import no_roles, parse_tags, role_words, serving_roles, training_record, version_row
from ml_core.ids import ModelId, VersionId

if TYPE_CHECKING:
    from ml_core.domain.version import ModelVersion

_COLUMNS = ["version", "environments", "held_out", "size_bytes", "created_at", "created_by"]

app = typer.Typer(help="A model's versions.", no_args_is_help=True)

VersionOption = Annotated[str, typer.Option("--version", "-v", help="The version, such as 1.")]


@app.command("list")
def list_versions(
    tenant: TenantOption,
    model: ModelOption,
    archived: Annotated[bool, typer.Option("--archived", help="Hidden ones too.")] = False,
    limit: LimitOption = 1000,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a model's versions, newest first, with what environments use them for."""
    from ml_core.registry.missing import require_model
    from ml_core.registry.promotion.environments import EnvironmentRepository
    from ml_core.registry.versions.repository import VersionRepository

    model_id = ModelId(model)
    with existing_tenant(tenant) as (database, tenant_id):
        require_model(database, tenant_id, model_id)
        page = VersionRepository(database, tenant_id).list(
            model_id, include_archived=archived, limit=limit, cursor=cursor
        )
        roles = serving_roles(EnvironmentRepository(database, tenant_id).list(model_id).items)
    rows = [{**version_row(version), **roles.get(version.version, no_roles())} for version in page.items]
    names = f"--tenant {tenant_id} --model {model_id}"
    print_rows(
        rows if as_json else [{**row, "environments": role_words(row)} for row in rows],
        [*_COLUMNS, *(["archived_at"] if archived else [])],
        as_json=as_json,
        empty=f"{tenant_id}/{model_id} has no such version."
        if archived or cursor
        else f"{tenant_id}/{model_id} has no version, or only archived ones: mlcore versions list {names} --archived",
    )
    if page.next_cursor:
        err.print(f"More: --cursor {page.next_cursor}", style="dim")


@app.command("show")
def show_version(tenant: TenantOption, model: ModelOption, version: VersionOption, as_json: JsonOption = False) -> None:
    """Show what is known of a version: metrics, hyperparameters, columns, tags, and what environments use it for."""
    from ml_core.registry.promotion.environments import EnvironmentRepository
    from ml_core.registry.versions.repository import VersionRepository

    model_id, version_id = ModelId(model), VersionId(version)
    with existing_tenant(tenant) as (database, tenant_id):
        found = VersionRepository(database, tenant_id).get(model_id, version_id)
        roles = serving_roles(EnvironmentRepository(database, tenant_id).list(model_id).items).get(
            version_id, no_roles()
        )
    if as_json:
        signature = found.servable.signature.to_json()
        lineage = dataclasses.asdict(found.lineage)
        print_json(
            {**version_row(found), **roles, "signature": signature, "lineage": lineage} | {"metadata": found.metadata}
        )
        return
    for name, value in _told(found, roles):
        out.print(Text(f"{name:18} {value}"), soft_wrap=True)


@app.command("tag")
def tag_version(
    tenant: TenantOption,
    model: ModelOption,
    version: VersionOption,
    tags: Annotated[list[str], typer.Argument(help="KEY=VALUE to set, KEY= to remove.")],
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set or remove tags, by which `mlcore versions search --tag` finds the version."""
    from ml_core.registry.versions.repository import VersionRepository

    wanted = {key: value or None for key, value in parse_tags(tags).items()}
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        changed = VersionRepository(database, tenant_id).set_tags(ModelId(model), VersionId(version), wanted)
    if as_json:
        print_json({"tenant_id": tenant_id, "model_id": model, "version": version, "tags": changed.tags})
    else:
        out.print(f"{model} {version}: {', '.join(f'{k}={v}' for k, v in changed.tags.items()) or 'no tags'}")


@app.command("compare")
def compare(
    tenant: TenantOption,
    model: ModelOption,
    version1: Annotated[str, typer.Argument(help="The version to compare with.")],
    version2: Annotated[str, typer.Argument(help="The other version.")],
    as_json: JsonOption = False,
) -> None:
    """Show which of two versions is better in each metric, and what else differs."""
    from ml_core.registry.versions.repository import VersionRepository

    with existing_tenant(tenant) as (database, tenant_id):
        compared = VersionRepository(database, tenant_id).compare(model, version1, version2)
    if as_json:
        print_json(compared)
        return
    rows = [
        {
            "metric": f"{split}/{name}",
            version1: values["version1"],
            version2: values["version2"],
            "better": values["better"],
        }
        for split, metrics in compared["metrics"].items()
        for name, values in metrics.items()
    ]
    print_rows(rows, ["metric", version1, version2, "better"], as_json=False, empty="Neither has a metric.")
    for part in ("hyperparameters", "libraries"):
        for name, values in compared[part].items():
            out.print(f"{part}: {name} {show(values['version1'])} → {show(values['version2'])}")
    data = compared["data"]
    answers = {True: "the same", False: "not the same", None: "not known whether it is the same"}
    out.print(f"data: {answers[data['same']]}")
    signature = compared["signature"]
    for change in ("added", "removed", "changed"):
        if signature[change]:
            out.print(f"signature: {change} {', '.join(signature[change])}")


@app.command("lineage")
def lineage(tenant: TenantOption, model: ModelOption, version: VersionOption, as_json: JsonOption = False) -> None:
    """Show what a version was made from, and what was made from it."""
    from ml_core.registry.versions.repository import VersionRepository

    with existing_tenant(tenant) as (database, tenant_id):
        found = VersionRepository(database, tenant_id).lineage(model, version)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else show(value)
        out.print(f"{name.replace('_', ' '):16} {shown or '-'}", soft_wrap=True)


def _told(version: ModelVersion, roles: Mapping[str, list[str]]) -> Iterator[tuple[str, str]]:
    """What a person reads of a version: name and text, one a line."""
    yield "model", f"{version.tenant_id}/{version.model_id} ({version.servable.model_type})"
    yield "version", str(version.version) + (f"  archived {show(version.archived_at)}" if version.archived_at else "")
    yield "serves", show(role_words(roles))
    yield "registered", f"{show(version.created_at)} by {version.created_by}"
    for split, metrics in version.metrics.items():
        yield f"{split} metrics", "  ".join(f"{name} {show(value)}" for name, value in metrics.items())
    training = training_record(version)
    yield "baseline", _pairs(training.get("baseline", {}))
    yield "algorithm", show(training.get("algorithm"))
    yield "hyperparameters", _pairs(version.hyperparameters)
    yield "in force", _pairs(training.get("effective_hyperparameters", {}))
    yield "columns", show([column.name for column in version.servable.signature.inputs])
    yield "tags", _pairs(version.tags)
    yield from (("note", note) for note in training.get("notes", ()))
    yield "notes", _pairs({name: value for name, value in version.metadata.items() if name != "training"})
    yield "run", show(version.lineage.run_id)
    yield "size", f"{version.servable.size_bytes:,} bytes"
    yield "digest", str(version.servable.digest)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={show(value)}" for name, value in values.items()) or "-"


version_search.add_to(app)
removal.add_to(app)
