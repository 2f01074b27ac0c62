"""``mlcore train``: a table, in a file or registered as a dataset, becomes a registered version."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from ml_core.cli.console import (
    AsKeyOption,
    JsonOption,
    ModelOption,
    TenantOption,
    command,
    in_background,
    no_step,
    out,
    print_json,
    step,
)
from ml_core.cli.context import existing_tenant
from ml_core.cli.fitted import print_columns, print_metrics
from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import parse_reference
from ml_core.domain.train_spec import needs_target
from ml_core.domain.values import composed
from ml_core.exceptions import (
    ConfigurationError,
    DataProcessingError,
    TrainingError,
)
from ml_core.ids import ModelId, TenantId, VersionId

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection
    from ml_core.domain.dataset import DatasetVersion
    from ml_core.domain.training_report import TrainingReport


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("train")(train)


def train(
    tenant: TenantOption,
    model: ModelOption,
    target: Annotated[str | None, typer.Option(help="The column to predict; none with --type clustering.")] = None,
    file: Annotated[Path | None, typer.Argument(help="A CSV or Parquet file with one row an example.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="A registered dataset instead of a file: tickets_2026, or tickets_2026@3.")
    ] = None,
    register_dataset: Annotated[
        str | None, typer.Option(help="Register the file as the next version of this dataset, for the lineage.")
    ] = None,
    model_type: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="classification or regression, found from the target if left out; clustering or anomaly_detection.",
        ),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(help="A file with the same columns to measure on, instead of a fifth of the rows held out."),
    ] = None,
    rare_classes: Annotated[
        str | None,
        typer.Option(
            help="Classes of fewer than 2 rows: drop leaves their rows out, merge:other makes them one class; "
            "drop:5 and merge:other:5: of fewer than 5."
        ),
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
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model on a table and register it as a version.

    Text, dates, numbers, categories and missing values need no configuration; what was inferred is shown. A fifth of
    the rows is held out to measure the model on, beside a baseline that ignores the columns; equal rows stay together.
    """
    from ml_core.training.trainer import Trainer

    table = _Table(file, dataset, register_dataset, encoding)
    model_id, version_id = ModelId(model), VersionId(version) if version else None
    hyperparameters = {name: _parse_value(text) for name, text in _pairs(param, "--param", "max_depth=8")}
    kinds = {name: _parse_kind(text) for name, text in _pairs(kind, "--kind", "zip=category")}
    show_step = no_step if as_json else step
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        trainer = Trainer(database, tenant_id)
        trainer.refuse_in_vain(model_id, model_type, version_id)
        with show_step(f"Reading {table.name}"):
            frame, is_cells, reference = table.read(database, tenant_id)
            if target is None and needs_target(model_type):
                raise _no_target(frame.columns)
            X, y = _split_target(frame, target, ignore or [], is_cells=is_cells)
            held_out = None if validation is None else _read_validation(validation, encoding, target)
            registered = table.register(database, tenant_id)
            reference = reference if registered is None else registered.reference
        with show_step(f"Training {tenant_id}/{model_id} on {len(X)} rows"), in_background(), _column_hints(X.columns):
            result = trainer.train(
                model_id,
                model_type,
                (X, y),
                held_out,
                hyperparameters=hyperparameters,
                kinds=kinds,
                rare_classes=rare_classes,
                version=version_id,
                dataset=reference,
            )
    if as_json:
        _print_json(tenant_id, reference, result)
    else:
        _print_result(tenant_id, registered, result)


@dataclass(frozen=True, slots=True)
class _Table:
    """What to train on: a file, which may be registered as a dataset, or a dataset."""

    file: Path | None
    dataset: str | None
    register_as: str | None
    encoding: str

    def __post_init__(self) -> None:
        if (self.file is None) == (self.dataset is None) or (self.dataset and self.register_as):
            raise ConfigurationError(
                "A model is trained on one table: a file or a dataset.",
                remedy="Give FILE, with --register-dataset NAME to keep it, or --dataset NAME@3.",
                setting="--dataset",
            )

    @property
    def name(self) -> str:
        """The table's name, for messages."""
        return self.dataset or (self.file.name if self.file else "")

    def read(self, database: DatabaseConnection, tenant_id: TenantId) -> tuple[Any, bool, str | None]:
        """The table as a data frame, whether it holds cells of a text file, and the dataset's version that it is.

        The last is None where it is of no dataset.
        """
        if self.file is not None:
            return *_read_file(self.file, self.encoding), None
        from ml_core.registry.datasets import DatasetRepository
        from ml_core.training.plan import read_table_of

        version = DatasetRepository(database, tenant_id).get(*parse_reference(self.name))
        return *read_table_of(database, tenant_id, version), version.reference

    def register(self, database: DatabaseConnection, tenant_id: TenantId) -> DatasetVersion | None:
        """Register the file's table, if that was asked for; the version that it is."""
        if self.file is None or self.register_as is None:
            return None
        from ml_core.registry.datasets import DatasetRepository

        datasets = DatasetRepository(database, tenant_id)
        return datasets.from_file(self.register_as, self.file, encoding=self.encoding)


def _print_json(tenant: TenantId, dataset: str | None, result: dict[str, Any]) -> None:
    report: TrainingReport = result["report"]
    known = {name: value for name, value in result.items() if name not in ("fitted", "model", "report")}
    columns = [column.to_json() for column in report.columns]
    print_json({"tenant_id": tenant, **known, "dataset": dataset, "columns": columns})


def _print_result(tenant: TenantId, registered: DatasetVersion | None, result: dict[str, Any]) -> None:
    report: TrainingReport = result["report"]
    print_columns(report.columns)
    print_metrics(report)
    out.print(f"Algorithm: {report.algorithm}", markup=False)
    for note in report.notes:
        out.print(f"Note: {note}", markup=False, soft_wrap=True)
    model, version = report.model_id, report.version
    names = f"--tenant {tenant} --model {model} --version {version}"
    row = orjson.dumps(report.example).decode()
    if registered is not None:
        done = "Registered the table as" if registered.is_new else "The table is registered already as"
        out.print(f"{done} {registered.reference}, {registered.row_count:,} rows.", markup=False, soft_wrap=True)
    out.print(
        f"Registered {tenant}/{model} version {version}.\n"
        f"Try it:    {command()} predict {names} --row {shlex.quote(row)}\n"
        f"Serve it:  {command()} promote {names}",
        markup=False,
        soft_wrap=True,
    )


@contextmanager
def _column_hints(columns: Collection[str]) -> Iterator[None]:
    """Adds the options of the command line to the remedy of an error about an input column."""
    try:
        yield
    except (TrainingError, DataProcessingError) as error:
        column = getattr(error, "column", None)
        if column in {str(name) for name in columns}:
            kind = f" or --kind {shlex.quote(f'{column}=category')}" if "kind" in (error.remedy or "") else ""
            error.remedy = f"{error.remedy or ''} Here: --ignore {shlex.quote(str(column))}{kind}.".strip()
        raise


def _no_target(columns: Collection[str]) -> ConfigurationError:
    return ConfigurationError(
        "Nothing says which column to predict.",
        remedy=f"Give --target, one of: {', '.join(map(str, columns))}. Only --type clustering and anomaly_detection "
        "need none.",
        setting="--target",
    )


def _read_file(file: Path, encoding: str) -> tuple[Any, bool]:
    """The table of a file, and whether its strings are the cells of a text file."""
    from ml_core.data.reading import is_csv, read_table

    return read_table(file, encoding=encoding), is_csv(file)


def _read_validation(file: Path, encoding: str, target: str | None) -> tuple[Any, Any]:
    """The columns to measure on and their target; what else the table has is ignored."""
    frame, is_cells = _read_file(file, encoding)
    return _split_target(frame, target, (), "The validation table", is_cells=is_cells)


def _split_target(
    frame: Any, target: str | None, ignore: Sequence[str], table: str = "The table", *, is_cells: bool
) -> tuple[Any, Any | None]:
    """The columns to predict from, and the target. Names are compared as text: a Parquet file may have numbers."""
    from ml_core.data.cells import Cells

    names = [composed(str(name)) for name in frame.columns]
    target, ignore = None if target is None else composed(target), [composed(name) for name in ignore]
    left_out = [*ignore] if target is None else [target, *ignore]
    for name in left_out:
        setting = "--target" if name == target else "--ignore"
        if names.count(name) > 1:
            raise ConfigurationError(
                f"{table} has {names.count(name)} columns that are written {name}.",
                remedy="Rename them so that each has a name of its own.",
                setting=setting,
            )
        if name not in names:
            raise ConfigurationError(
                f"{table} has no column {name!r}.", remedy=_columns_hint(name, names), setting=setting
            )
    if target in ignore:
        raise ConfigurationError(
            f"The column {target!r} is both the target and ignored.",
            remedy="Leave out one of the two.",
            setting="--ignore",
        )
    used = frame.iloc[:, [position for position, name in enumerate(names) if name not in left_out]]
    if target is None:
        return used, None
    labels = frame.iloc[:, names.index(target)]
    return used, Cells.of(frame, labels) if is_cells else labels


def _columns_hint(wanted: str, names: list[str]) -> str:
    if len(names) == 1:
        return f"It has one column only, {names[0]!r}: separate the values by commas, semicolons, tabs or bars."
    near = difflib.get_close_matches(wanted, names, n=1)
    meant = f"Did you mean {shlex.quote(near[0])}? " if near else ""
    return f"{meant}Its columns are: {', '.join(names)}."


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
