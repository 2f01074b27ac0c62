"""``mlcore datasets``: register tables, look at them and at their profiles, take them out again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ml_core.cli.console import (
    CursorOption,
    JsonOption,
    LimitOption,
    TenantOption,
    no_step,
    out,
    print_json,
    print_rows,
    show,
    step,
)
from ml_core.cli.context import existing_tenant
from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import ColumnProfile, DatasetEntry, DatasetSummary, DatasetVersion, parse_reference
from ml_core.exceptions import ConfigurationError, InvalidRequestError
from ml_core.ids import DatasetId

app = typer.Typer(help="A tenant's datasets: immutable versions of tables.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The dataset, such as tickets_2026.")]
ReferenceArgument = Annotated[
    str, typer.Argument(help="The dataset, or one of its versions: tickets_2026 (the newest), tickets_2026@3.")
]
VersionArgument = Annotated[str, typer.Argument(help="The version: tickets_2026@3.")]
AllOption = Annotated[bool, typer.Option("--all", help="Archived ones too.")]
_LISTED = ["version", "row_count", "column_count", "size_bytes", "source", "created_at", "created_by"]
_MOST_VALUES = 3  # of a category, in the table of the profile


@app.command("create")
def create(
    name: NameArgument,
    tenant: TenantOption,
    from_: Annotated[Path | None, typer.Option("--from", help="A CSV or Parquet file.")] = None,
    sql: Annotated[str | None, typer.Option(help="A SELECT instead of a file; needs --url.")] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="The database that --sql asks, such as postgresql://user@host/database; for a password set PGPASSWORD."
        ),
    ] = None,
    encoding: Annotated[str, typer.Option(help="The CSV file's character encoding.")] = "utf-8",
    as_json: JsonOption = False,
) -> None:
    """Register a table as the next version of a dataset; the very table of the newest version is that version."""
    from ml_core.registry.datasets import DatasetRepository

    if (from_ is None) == (sql is None) or (sql is None) != (url is None):
        raise ConfigurationError(
            "A dataset is made from one file, or from one query of a database.",
            remedy="Give --from FILE, or --sql QUERY with --url URL.",
            setting="--from",
        )
    dataset_id = DatasetId(name)
    show_step = no_step if as_json else step
    with existing_tenant(tenant) as (database, tenant_id):
        datasets = DatasetRepository(database, tenant_id)
        with show_step(f"Storing {from_.name if from_ else 'the rows of the query'}"):
            if from_ is None:
                version = datasets.from_sql(dataset_id, sql or "", url or "")
            else:
                version = datasets.from_file(dataset_id, from_, encoding=encoding)
    if as_json:
        print_json({**_row(version), "created": version.is_new})
        return
    names = f"--tenant {tenant_id} --dataset {version.reference}"
    out.print(
        f"{version.reference}{'' if version.is_new else ' holds this very table already'}: {version.row_count:,} rows, "
        f"{version.column_count:,} columns, {version.size_bytes:,} bytes.\n"
        f"Look at it:  mlcore datasets show {version.reference} --tenant {tenant_id}\n"
        f"Train on it: mlcore train {names} --model NAME --target COLUMN",
        markup=False,
        soft_wrap=True,
    )


@app.command("list")
def list_(
    tenant: TenantOption,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
    all_: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """List a tenant's datasets, each with its newest version."""
    from ml_core.registry.datasets import DatasetRepository

    with existing_tenant(tenant) as (database, tenant_id):
        page = DatasetRepository(database, tenant_id).list(limit=limit, cursor=cursor, include_archived=all_)
    rows = [
        {"tenant_id": tenant_id, **{name: getattr(dataset, name) for name in DatasetSummary.__slots__}}
        for dataset in page.items
    ]
    empty = f"{tenant_id} has no dataset. Create one: mlcore datasets create NAME -t {tenant_id} --from FILE"
    names = ["dataset_id", "newest", "versions", "row_count", "size_bytes", "created_at", "created_by"]
    _print_page(rows, _marked(names, all_), page.next_cursor, as_json=as_json, empty=empty)


@app.command("versions")
def versions(
    name: NameArgument,
    tenant: TenantOption,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
    all_: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """List a dataset's versions, newest first."""
    from ml_core.registry.datasets import DatasetRepository

    with existing_tenant(tenant) as (database, tenant_id):
        datasets = DatasetRepository(database, tenant_id)
        page = datasets.versions(name, limit=limit, cursor=cursor, include_archived=all_)
        if not page.items and cursor is None and not datasets.versions(name, limit=1, include_archived=True).items:
            datasets.get(name)  # says that there is no such dataset
    empty = f"All versions of {name} are archived: --all shows them."
    rows = [_row(entry) for entry in page.items]
    if not as_json:
        rows = [{**row, "source": _source(row["source"])} for row in rows]
    _print_page(rows, _marked(_LISTED, all_), page.next_cursor, as_json=as_json, empty=empty)


@app.command("show")
def show_version(reference: ReferenceArgument, tenant: TenantOption, as_json: JsonOption = False) -> None:
    """Show a version: where it came from, and what each of its columns holds."""
    from ml_core.registry.datasets import DatasetRepository

    with existing_tenant(tenant) as (database, tenant_id):
        version = DatasetRepository(database, tenant_id).get(*parse_reference(reference))
    if as_json:
        print_json({**_row(version), "profile": version.profile.to_json()})
        return
    shown = _row(version)
    for name in ("version", "row_count", "size_bytes", "digest", "created_at", "created_by", "archived_at"):
        if shown[name] is not None:
            out.print(f"{name.replace('_', ' ')}: {show(shown[name])}", markup=False, soft_wrap=True)
    out.print(f"source: {_source(version.source)}", markup=False, soft_wrap=True)
    rows = [_profile_row(column) for column in version.profile.columns]
    print_rows(rows, ["column", "type", "kind", "missing", "distinct", "values"], as_json=False, empty="")
    if version.profile.is_sample:
        out.print(f"Profiled on a random sample of {version.profile.sampled_rows:,} rows.", style="dim")


@app.command("export")
def export(
    reference: ReferenceArgument,
    file: Annotated[Path, typer.Argument(help="A file that does not exist yet; .parquet or .csv.")],
    tenant: TenantOption,
    as_json: JsonOption = False,
) -> None:
    """Write a version to a file: Parquet, or CSV with the cells as they were given."""
    from ml_core.data.table_file import export_table
    from ml_core.registry.datasets import DatasetRepository

    with existing_tenant(tenant) as (database, tenant_id):
        datasets = DatasetRepository(database, tenant_id)
        version = datasets.get(*parse_reference(reference))
        export_table(datasets.open(version.dataset_id, version.number), file)
    if as_json:
        print_json({"version": version.reference, "file": file, "row_count": version.row_count})
    else:
        out.print(f"Wrote {version.row_count:,} rows of {version.reference} to {file}.", markup=False, soft_wrap=True)


@app.command("archive")
def archive(version: VersionArgument, tenant: TenantOption, as_json: JsonOption = False) -> None:
    """Hide a version; `mlcore datasets restore` shows it again."""
    _change("archive", version, tenant, "archived", as_json=as_json)


@app.command("restore")
def restore(version: VersionArgument, tenant: TenantOption, as_json: JsonOption = False) -> None:
    """Show an archived version again."""
    _change("restore", version, tenant, "restored", as_json=as_json)


@app.command("delete")
def delete(version: VersionArgument, tenant: TenantOption, as_json: JsonOption = False) -> None:
    """Delete a version for good, unless a model version was trained on it."""
    _change("delete", version, tenant, "deleted", as_json=as_json)


def _change(verb: str, reference: str, tenant: str, done: str, *, as_json: bool) -> None:
    from ml_core.registry.datasets import DatasetRepository

    dataset_id, number = parse_reference(reference)
    if number is None:
        raise InvalidRequestError(
            f"{reference} names a dataset, not one of its versions.",
            remedy=f"Write it like {reference}@1; `mlcore datasets versions {reference}` lists them.",
            field="version",
        )
    with existing_tenant(tenant) as (database, tenant_id):
        getattr(DatasetRepository(database, tenant_id), verb)(dataset_id, number)
    if as_json:
        print_json({"tenant_id": tenant_id, "version": reference, done: True})
    else:
        out.print(f"{done.capitalize()} {reference} of {tenant_id}.", markup=False)


def _print_page(
    rows: list[dict[str, Any]], columns: list[str], next_cursor: str | None, *, as_json: bool, empty: str
) -> None:
    if as_json:
        print_json({"items": rows, "next_cursor": next_cursor})
        return
    print_rows(rows, columns, as_json=False, empty=empty)
    if next_cursor:
        out.print(f"More: --cursor {next_cursor}", style="dim", soft_wrap=True)


def _marked(columns: list[str], all_: bool) -> list[str]:
    """With when each was archived, where archived ones are shown too."""
    return [*columns, "archived_at"] if all_ else columns


def _row(entry: DatasetEntry | DatasetVersion) -> dict[str, Any]:
    row = {name: getattr(entry, name) for name in DatasetEntry.__slots__}
    return {"version": entry.reference, **row, "source": dict(entry.source)}


def _source(source: Any) -> str:
    return ", ".join(str(source[name]) for name in ("kind", "file", "url", "query") if name in source)


def _profile_row(column: ColumnProfile) -> dict[str, Any]:
    rows = column.count + column.missing
    return {
        "column": column.name,
        "type": column.type,
        "kind": column.kind,
        "missing": f"{column.missing / rows:.1%}" if column.missing else "0",
        "distinct": column.distinct,
        "values": _values(column),
    }


def _values(column: ColumnProfile) -> str | None:
    if column.minimum is None or column.maximum is None:
        first = [f"{value} {count / column.count:.0%}" for value, count in column.values[:_MOST_VALUES]]
        return ", ".join(first) + (", …" if column.distinct > _MOST_VALUES else "") or None
    low, high = column.minimum, column.maximum
    if column.kind is ColumnKind.DATETIME:
        return " to ".join(datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S") for at in (low, high))
    if column.kind is ColumnKind.TEXT:
        return f"{low:.0f} to {high:.0f} characters"
    return f"{low:.6g} to {high:.6g}, mean {column.mean:.4g}"
