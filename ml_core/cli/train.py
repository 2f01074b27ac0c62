"""``mlcore train``: a table in a file becomes a registered version."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.table import Table
from rich.text import Text

from ml_core.cli.console import JsonOption, ModelOption, TenantOption, command, no_step, out, print_json, show, step
from ml_core.cli.context import existing_tenant
from ml_core.domain.columns import ColumnKind
from ml_core.exceptions import ConfigurationError, DataProcessingError, TrainingError
from ml_core.ids import ModelId, TenantId, VersionId

if TYPE_CHECKING:
    from ml_core.data.kinds import InferredColumn
    from ml_core.training.fit import FittedModel


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("train")(train)


def train(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file with one row an example.")],
    tenant: TenantOption,
    model: ModelOption,
    target: Annotated[str, typer.Option(help="The column to predict.")],
    model_type: Annotated[
        str | None, typer.Option("--type", help="classification or regression; found from the target if left out.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="A hyperparameter, such as algorithm=logistic_regression.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", "-k", help="A column's kind where the guess is wrong: zip=category.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", help="A column to leave out; repeat for several.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="The CSV file's character encoding.")] = "utf-8",
    version: Annotated[str | None, typer.Option(help="The version's name; the next number if left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model on a table and register it as a version.

    Text, dates, numbers, categories and missing values need no configuration; what was inferred is shown. A fifth of
    the rows is held out to measure the model on, beside a baseline that ignores the columns.
    """
    from ml_core.data.reading import read_table
    from ml_core.training.trainer import Trainer

    model_id, version_id = ModelId(model), VersionId(version) if version else None
    hyperparameters = {name: _parse_value(text) for name, text in _pairs(param, "--param", "max_depth=8")}
    kinds = {name: _parse_kind(text) for name, text in _pairs(kind, "--kind", "zip=category")}
    show_step = no_step if as_json else step
    with existing_tenant(tenant) as (database, tenant_id):
        with show_step(f"Reading {file.name}"):
            frame = read_table(file, encoding=encoding)
            X, y = _split_target(frame, target, ignore or [])
        trainer = Trainer(database, tenant_id)
        with show_step(f"Training {tenant_id}/{model_id} on {len(X)} rows"), _column_hints(X.columns):
            result = trainer.train(
                model_id, model_type, (X, y), hyperparameters=hyperparameters, kinds=kinds, version=version_id
            )
    _print_result(tenant_id, result, as_json=as_json)


def _print_result(tenant: TenantId, result: dict[str, Any], *, as_json: bool) -> None:
    fitted: FittedModel = result.pop("fitted")
    result.pop("model")
    if as_json:
        columns = [_column_row(column) for column in fitted.columns]
        print_json({**result, "baseline": fitted.baseline, "columns": columns, "notes": fitted.notes})
        return
    print_columns(fitted.columns)
    print_metrics(fitted)
    for note in fitted.notes:
        out.print(f"Note: {note}", markup=False, soft_wrap=True)
    model, version = result["model_id"], result["version"]
    names = f"--tenant {tenant} --model {model} --version {version}"
    row = orjson.dumps(fitted.self_test.rows[0]).decode() if fitted.self_test.rows else "{}"
    out.print(
        f"Registered {tenant}/{model} version {version}.\n"
        f"Try it:    {command()} predict {names} --row {shlex.quote(row)}\n"
        f"Serve it:  {command()} promote {names}",
        markup=False,
        soft_wrap=True,
    )


@contextmanager
def _column_hints(columns: Collection[str]) -> Iterator[None]:
    """Adds to an error about an input column how to say its remedy on the command line."""
    try:
        yield
    except (TrainingError, DataProcessingError) as error:
        column = getattr(error, "column", None)
        if column in columns:
            kind = f" or --kind {shlex.quote(f'{column}=category')}" if "kind" in (error.remedy or "") else ""
            error.remedy = f"{error.remedy or ''} Here: --ignore {shlex.quote(str(column))}{kind}.".strip()
        raise


def print_columns(columns: Sequence[InferredColumn]) -> None:
    """What was inferred for each column."""
    table = Table("column", "kind", "why", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        kind = column.kind.value if column.used and column.kind else "left out"
        table.add_row(Text(column.name), kind, Text(column.reason.removeprefix(f"{kind}: ")))
    out.print(table)


def print_metrics(fitted: FittedModel) -> None:
    """Held-out quality beside the baseline."""
    table = Table("metric", "held out", "baseline", "train", box=None, pad_edge=False, header_style="bold")
    for name, value in fitted.metrics["validation"].items():
        table.add_row(name, show(value), show(fitted.baseline.get(name)), show(fitted.metrics["train"].get(name)))
    out.print(table)


def _split_target(frame: Any, target: str, ignore: Sequence[str]) -> tuple[Any, Any]:
    for name in [target, *ignore]:
        if name not in frame.columns:
            raise ConfigurationError(
                f"The file has no column {name!r}.",
                remedy=_columns_hint(name, [str(column) for column in frame.columns]),
                setting="--target" if name == target else "--ignore",
            )
    if target in ignore:
        raise ConfigurationError(
            f"The column {target!r} is both the target and ignored.",
            remedy="Leave out one of the two.",
            setting="--ignore",
        )
    return frame.drop(columns=[target, *ignore]), frame[target]


def _columns_hint(wanted: str, names: list[str]) -> str:
    if len(names) == 1:
        return f"It has one column only, {names[0]!r}: separate the values by commas, semicolons, tabs or bars."
    near = difflib.get_close_matches(wanted, names, n=1)
    meant = f"Did you mean {shlex.quote(near[0])}? " if near else ""
    return f"{meant}Its columns are: {', '.join(names)}."


def _column_row(column: InferredColumn) -> dict[str, Any]:
    return {"name": column.name, "kind": column.kind, "used": column.used, "reason": column.reason}


def _pairs(texts: list[str] | None, option: str, example: str) -> list[tuple[str, str]]:
    pairs = []
    for text in texts or []:
        name, separator, value = text.partition("=")
        if not (separator and name and value):
            raise ConfigurationError(
                f"{option} {text} is not of the form name=value.",
                remedy=f"Write it like {option} {example}.",
                setting=option,
            )
        pairs.append((name, value))
    return pairs


def _parse_value(text: str) -> Any:
    """JSON where it is JSON (8, 0.1, true, null, [1, 2]), else the text itself."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _parse_kind(text: str) -> ColumnKind:
    try:
        return ColumnKind(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is not a kind of column.", remedy=f"Use one of {', '.join(ColumnKind)}.", setting="--kind"
        ) from None
