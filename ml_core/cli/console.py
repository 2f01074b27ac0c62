"""How the command line speaks: tables or JSON on standard output, progress and errors on standard error."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_core.exceptions import MLFrameworkError

_WIDTH_IN_A_PIPE = 160
"""Columns of a table where there is no terminal to ask; what reads a pipe does not mind."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_IN_A_PIPE)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDTH_IN_A_PIPE)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
TenantOption = Annotated[str, typer.Option("--tenant", "-t", help="The tenant, such as acme.")]
ModelOption = Annotated[str, typer.Option("--model", "-m", help="The model, such as tickets.")]


def command() -> str:
    """How this command can be called again: by its name where the shell finds it, else by its path."""
    if shutil.which("mlcore"):
        return "mlcore"
    path = Path(sys.argv[0])
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(orjson.dumps(data, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode())


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """A list of things as a table, or as a JSON list.

    Args:
        rows: One mapping a row.
        columns: Which keys to show in the table, in this order.
        as_json: JSON instead; carries every key.
        empty: What to say when there is no row; says how to make one.
    """
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        out.print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*(Text(show(row[column])) for column in columns))
    out.print(table)


def print_error(error: MLFrameworkError, *, as_json: bool) -> None:
    """An error with its remedy, on standard error."""
    if as_json:
        details = {**error.attributes(), **({"tenant_id": error.tenant_id} if error.tenant_id else {})}
        document = {"error": {"code": error.code, "message": str(error), "details": details}}
        typer.echo(orjson.dumps(document, default=_plain, option=orjson.OPT_INDENT_2).decode(), err=True)
        return
    err.print(Text("Error: ", style="bold red") + Text(error.message), soft_wrap=True)
    if error.remedy:
        err.print(Text(error.remedy), soft_wrap=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Show a step while it lasts, and how long it took. A spinner on a terminal, plain lines elsewhere."""
    started = time.monotonic()
    if err.is_terminal:
        with err.status(f"{name} …"):
            yield
    else:
        err.print(f"  {name} …")
        yield
    err.print(Text(f"✓ {name}  ", style="green") + Text(f"{time.monotonic() - started:.1f} s", style="dim"))


@contextmanager
def no_step(_name: str) -> Iterator[None]:
    """Shows nothing; for JSON output."""
    yield


def show(value: Any) -> str:
    """A value as a person reads it in a table."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value + 0.0:.4g}"  # no "-0"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple | frozenset | set):
        return ", ".join(sorted(map(str, value)) if isinstance(value, frozenset | set) else map(str, value)) or "-"
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
