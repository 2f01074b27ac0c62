"""``mlcore datasets``: register tables, look at them and at their profiles, take them out again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli.actions import completing
from ml_core.cli.console import answer, print_fields, print_page, print_rows, printed_as_json, say, step, transferring
from ml_core.cli.options import FILES, ArchivedOption, CursorOption, EncodingOption, LimitOption
from ml_core.cli.quality import print_drifted
from ml_core.cli.target import platform
from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import parse_reference
from ml_core.exceptions import Action, ConfigurationError, InvalidRequestError
from ml_core.settings import Settings

if TYPE_CHECKING:
    from ml_core.api.schemas.datasets import ColumnProfile, DatasetDetail
    from ml_core.client import MLClient

ASKS = "tenant"

app = typer.Typer(help="Register, inspect and export datasets: immutable versions of tables.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The dataset, such as tickets_2026.")]
ReferenceArgument = Annotated[
    str, typer.Argument(help="A version of a dataset: tickets_2026@3, or tickets_2026 for the newest.")
]
VersionArgument = Annotated[str, typer.Argument(help="The version: tickets_2026@3.")]
_SOURCE = ("kind", "file", "url", "query", "dataset", "model_id", "version")
_LISTED = ["reference", "row_count", "column_count", "size_bytes", "source", "created_at", "created_by"]
_MOST_VALUES = 3  # of a category, in the table of the profile


@app.command("create")
def create(
    name: NameArgument,
    table: Annotated[str | None, typer.Argument(metavar="FILE", help=f"The table: {FILES}.")] = None,
    sql: Annotated[str | None, typer.Option(help="A SELECT statement, instead of a file; needs --connection.")] = None,
    connection: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE",
            help="The environment variable with the URL of the database that --sql queries from this machine, such as "
            "postgresql://user:password@host/database.",
        ),
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Refuse a query of more rows; default: MLCORE_MAX_UPLOAD_ROWS.")
    ] = None,
    encoding: EncodingOption = "utf-8",
) -> None:
    """Register a table as the next version of a dataset. A table equal to the newest version is not stored again."""
    if (table is None) == (sql is None) or (sql is None) != (connection is None):
        raise ConfigurationError(
            "A dataset is made from files, or from one query of a database.",
            remedy="Give a FILE, or --sql QUERY with --connection VARIABLE.",
            setting="FILE",
        )
    with platform() as client, _file(table, sql, connection, max_rows) as (file, source):
        what = table or "the rows of the query"
        with step(f"Storing {what}"), transferring() as progress, completing("datasets.create"):
            version = client.datasets.create(name, file, encoding=encoding, source=source, on_progress=progress)
        options = f"--tenant {client.tenant_id}"
    if printed_as_json(version):
        return
    say(
        f"{version.reference}{'' if version.is_new else ' holds this very table already'}: {version.row_count:,} rows, "
        f"{version.column_count:,} columns, {version.size_bytes:,} bytes.\n"
        f"Look at it:  mlcore datasets show {version.reference} {options}\n"
        f"Train on it: mlcore train {options} --dataset {version.reference} --model NAME --target COLUMN"
    )


def stored(client: MLClient, dataset_id: str, file: str, encoding: str) -> DatasetDetail:
    """The version of a dataset that a file becomes, or the newest one if that holds this very table."""
    with step(f"Storing {file}"), transferring() as progress:
        return client.datasets.create(dataset_id, file, encoding=encoding, on_progress=progress)


@contextmanager
def _file(
    file: str | None, sql: str | None, connection: str | None, max_rows: int | None
) -> Iterator[tuple[str | Path, dict[str, str] | None]]:
    """The file to send, and where it came from: a query's rows are written to one first."""
    if file is not None:
        yield file, None
        return
    from ml_core.registry.datasets.sql import limited, shown_url, write_query

    url = _url_in(connection or "")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "rows.parquet"
        with step("Reading the rows of the query"):
            write_query(url, sql or "", None, written, limited(Settings.from_environment().api, max_rows))
        yield written, {"kind": "sql", "url": shown_url(url), "query": sql or ""}


def _url_in(variable: str) -> str:
    """The URL that an environment variable has: on a command line others could read the password in it."""
    if not variable.isidentifier():  # not repeated: it may be the URL
        raise ConfigurationError(
            "--connection is not the name of an environment variable.",
            remedy="Set one, such as SHOP_URL, to the URL of the database, and give its name: --connection SHOP_URL.",
            setting="--connection",
        )
    if not (url := os.environ.get(variable)):
        raise ConfigurationError(
            f"The environment variable {variable} is not set.",
            remedy="Set it to the URL of the database: postgresql://user:password@host/database.",
            setting="--connection",
        )
    return url


@app.command("list")
def list_(archived: ArchivedOption = False, limit: LimitOption = 50, cursor: CursorOption = None) -> None:
    """List a tenant's datasets, each with its newest version."""
    with platform() as client:
        page = client.datasets.list(include_archived=archived).page(limit=limit, cursor=cursor)
        tenant = client.tenant_id
    names = ["dataset_id", "newest", "versions", "row_count", "size_bytes", "created_at", "created_by"]
    empty = f"{tenant} has no dataset. Create one: mlcore datasets create NAME FILE -t {tenant}"
    print_page(page, names, with_archived=archived, empty=empty)


@app.command("versions")
def versions(
    name: NameArgument, archived: ArchivedOption = False, limit: LimitOption = 50, cursor: CursorOption = None
) -> None:
    """List a dataset's versions, newest first."""
    with platform() as client:
        page = client.datasets.versions(name, include_archived=archived).page(limit=limit, cursor=cursor)
    empty = f"All versions of {name} are archived: --archived shows them."
    print_page(page, _LISTED, with_archived=archived, empty=empty, shown={"source": _source})


@app.command("show")
def show_version(reference: ReferenceArgument) -> None:
    """Show a version: where it came from, and what each of its columns holds."""
    with platform() as client:
        version = client.datasets.get(*parse_reference(reference))
    if printed_as_json(version):
        return
    names = ["reference", "row_count", "size_bytes", "digest", "created_at", "created_by", "archived_at"]
    print_fields([*((name, getattr(version, name)) for name in names), ("source", _source(version.source))])
    rows = [_profile_row(column) for column in version.profile.columns]
    print_rows(rows, ["column", "type", "kind", "missing", "distinct", "values"], empty="")
    if version.profile.sampled_rows < version.profile.row_count:
        say(f"Profiled on a random sample of {version.profile.sampled_rows:,} rows.", style="dim")


@app.command("compare")
def compare(
    version: VersionArgument,
    other: Annotated[int | None, typer.Argument(help="The number of the other version; default: the newest.")] = None,
) -> None:
    """Show what differs between two versions: columns, types, and which columns drifted by more than chance."""
    dataset_id, number = _version(version)
    with platform() as client:
        compared = client.datasets.compare(dataset_id, number, other)
    if printed_as_json(compared):
        return
    say(f"{dataset_id}@{compared.number2} against {version}: {compared.verdict}.", style="bold")
    for change in ("added", "removed", "changed"):
        if columns := getattr(compared, change):
            say(f"columns {change}: {', '.join(columns)}")
    print_drifted(compared.columns)


@app.command("export")
def export(
    reference: ReferenceArgument,
    output: Annotated[Path, typer.Option(help="A file that does not exist yet; .parquet or .csv.")],
) -> None:
    """Write a version to a file: Parquet, or CSV with the cells as they were given."""
    from ml_core.data.table_file import export_table

    with platform() as client, tempfile.TemporaryDirectory() as folder:
        version = client.datasets.get(*parse_reference(reference))
        downloaded = Path(folder) / "table.parquet"
        with transferring() as progress:
            client.datasets.download(version.dataset_id, downloaded, version.number, on_progress=progress)
        export_table(downloaded, output)
    document = {"reference": version.reference, "file": output, "row_count": version.row_count}
    answer(document, f"Wrote {version.row_count:,} rows of {version.reference} to {output}.")


@app.command("archive")
def archive(version: VersionArgument) -> None:
    """Archive a version. `mlcore gc` removes it after MLCORE_RETENTION_DAYS; until then it can be restored."""
    with platform() as client:
        client.datasets.archive(*_version(version))
    answer({"reference": version, "archived": True}, f"Archived {version}.")


@app.command("restore")
def restore(version: VersionArgument) -> None:
    """Restore an archived version."""
    with platform() as client:
        client.datasets.restore(*_version(version))
    answer({"reference": version, "restored": True}, f"Restored {version}.")


@app.command("delete")
def delete(version: VersionArgument) -> None:
    """Delete a version permanently, unless a model version was trained on it."""
    with platform() as client:
        client.datasets.delete(*_version(version))
    answer({"reference": version, "deleted": True}, f"Deleted {version}.")


def _version(reference: str) -> tuple[str, int]:
    dataset_id, number = parse_reference(reference)
    if number is None:
        raise InvalidRequestError(
            f"{reference} names a dataset, not one of its versions.",
            remedy=f"Write it like {reference}@1.",
            action=Action("datasets.versions", {"dataset": str(dataset_id)}),
            field="version",
        )
    return dataset_id, number


def _source(source: Any) -> str:
    return ", ".join(str(source[name]) for name in _SOURCE if name in source)


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
