"""``mlcore versions search``: over all models of a tenant."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_core.cli.console import CursorOption, JsonOption, LimitOption, TenantOption, err, print_json, print_rows
from ml_core.cli.context import existing_tenant
from ml_core.cli.version_rows import parse_tags, version_row


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("search")(search)


def search(
    tenant: TenantOption,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only of this model.")] = None,
    model_type: Annotated[str | None, typer.Option("--type", help="Only of models of this type.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="KEY=VALUE that it must have; repeat for several.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="A range of a metric, such as 'accuracy>=0.8' or 'train/mae<=3'; repeat for several."),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Text in a name, a note or a tag.")] = None,
    sort: Annotated[str, typer.Option(help="created, or a metric such as accuracy or train/mae.")] = "created",
    ascending: Annotated[
        bool | None,
        typer.Option(
            "--ascending/--descending",
            help="Oldest or lowest first, or the other way. Without it the newest or, of a metric, the best first.",
            show_default=False,
        ),
    ] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Hidden ones too.")] = False,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find versions over all models of a tenant, newest or best first."""
    from ml_core.registry.versions.repository import VersionRepository

    with existing_tenant(tenant) as (database, tenant_id):
        page = VersionRepository(database, tenant_id).search(
            model,
            model_type=model_type,
            tags=parse_tags(tag or []),
            metrics=metric or (),
            text=text,
            include_archived=archived,
            sort=sort,
            descending=None if ascending is None else not ascending,
            limit=limit,
            cursor=cursor,
        )
    rows = [version_row(found) for found in page.items]
    if as_json:
        print_json({"items": rows, "next_cursor": page.next_cursor})
        return
    columns = ["model_id", "version", "held_out", "tags", "created_at", "created_by"]
    shown = [{**row, "tags": [f"{key}={value}" for key, value in row["tags"].items()]} for row in rows]
    print_rows(
        shown, [*columns, *(["archived_at"] if archived else [])], as_json=False, empty="No version is like that."
    )
    if page.next_cursor:
        err.print(f"More: --cursor {page.next_cursor}", style="dim")
