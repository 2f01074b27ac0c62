"""``mlcore train``: a table, in a file or registered as a dataset, becomes a registered version."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from ml_core.cli.actions import completing
from ml_core.cli.console import command, in_background, note, print_rows, printed_as_json, say, step, transferring
from ml_core.cli.options import FILES, EncodingOption, ModelOption, json_or_text
from ml_core.cli.target import address, platform
from ml_core.domain.columns import ColumnKind
from ml_core.domain.run import RunStatus
from ml_core.exceptions import ConfigurationError, MLFrameworkError, RunNotFoundError, RunStateError, TrainingError
from ml_core.ids import ModelId, RunId

if TYPE_CHECKING:
    from ml_core.api.schemas.datasets import DatasetDetail
    from ml_core.api.schemas.trainings import ReportedColumn, TrainingReport
    from ml_core.client import MLClient

ASKS = "tenant"

_WAIT_S = 50.0
"""Of one request; a longer training is asked for again."""
_LOOK_EVERY_S = 1.0
_NAME_LENGTH = 69  # a dataset's name has at most 80 characters, of which 11 are those of "-validation"


def train(
    model: ModelOption,
    file: Annotated[str | None, typer.Argument(help=f"One row an example: {FILES}.")] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict; not with --type clustering.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The dataset to train on: tickets_2026, or tickets_2026@3. With FILE, the dataset of which FILE "
            "becomes the next version; default: the model's name."
        ),
    ] = None,
    model_type: Annotated[
        str | None,
        typer.Option(
            "--type", help="classification, regression, clustering or anomaly_detection; default: by the target."
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="As FILE, with the same columns: measured on instead of a held-out fifth of the rows."
        ),
    ] = None,
    rare_classes: Annotated[
        str | None,
        typer.Option(
            help="Classes of fewer than 2 rows: drop leaves their rows out, merge:other makes them one class; "
            "drop:5 and merge:other:5: of fewer than 5."
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", help="A hyperparameter, such as algorithm=logistic_regression; repeat for several."
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", "-k", help="The kind of a column, instead of the inferred one: zip=category; repeat for several."
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", help="A column to leave out; repeat for several.")
    ] = None,
    encoding: EncodingOption = "utf-8",
    version: Annotated[str | None, typer.Option(help="The name of the version; default: the next number.")] = None,
) -> None:
    """Train a model on a table and register it as a version. A file is registered as a dataset first.

    Text, dates, numbers, categories and missing values need no configuration; what was inferred is shown. A fifth of
    the rows is held out to measure the model on, beside a baseline that ignores the columns; equal rows stay together.
    """
    name = ModelId(model)
    if file is None and dataset is None:
        raise ConfigurationError(
            "There is no table to train on.", remedy="Give a FILE, or --dataset NAME.", setting="--dataset"
        )
    spec = _given(
        target=target,
        model_type=model_type,
        rare_classes=rare_classes,
        version=version,
        ignore=ignore,
        hyperparameters=hyperparameters(param),
        kinds={key: _kind(text) for key, text in _pairs(kind, "--kind", "zip=category")},
    )
    with platform() as client, completing("models.train", "datasets.create"), _column_hints(target, ignore or ()):
        made = None
        if file is not None or validation is not None:  # checked before an upload that may be for nothing
            for text in client.models.check_training(name, **spec).notes:
                note(f"Note: {text}", style="")
        if file is not None:
            made = _store(client, dataset or name, file, encoding)
        if validation is not None:
            held_out = _store(client, f"{(dataset or name)[:_NAME_LENGTH]}-validation", validation, encoding)
            spec["validation_dataset"] = held_out.reference
        reference = dataset if made is None else made.reference
        rows = "" if made is None else f" on {made.row_count:,} rows"
        with step(f"Training {client.tenant_id}/{name}{rows}"), _giving_way():
            report = trained(client, name, reference or "", **spec)
        if not printed_as_json(report):
            _print(client.tenant_id, made, report)


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _store(client: MLClient, dataset_id: str, file: str, encoding: str) -> DatasetDetail:
    with step(f"Storing {file}"), transferring() as progress:
        return client.datasets.create(dataset_id, file, encoding=encoding, on_progress=progress)


def _giving_way() -> AbstractContextManager[None]:
    """Leave the processors to replicas on this machine while this process trains; a platform does so by itself."""
    return in_background() if address()[0] is None else nullcontext()


def trained(client: MLClient, model_id: str, dataset: str, **spec: Any) -> TrainingReport:
    """The report of a training, once it has ended; interrupted, it is cancelled.

    Args:
        client: Of the tenant.
        model_id: The model.
        dataset: What it is trained on.
        **spec: Further fields of the training.

    Raises:
        MLFrameworkError: It failed.
    """
    run_id = RunId.new()
    try:
        training, asked_at = client.models.train(model_id, dataset, run_id=run_id, **spec), 0.0
        while training.report is None and training.run.status is RunStatus.RUNNING:
            # A platform that was started again does not know the training any more, and answers at once.
            time.sleep(max(0.0, asked_at + _LOOK_EVERY_S - time.monotonic()))
            asked_at = time.monotonic()
            training = client.models.training(model_id, run_id, wait_s=_WAIT_S)
    except KeyboardInterrupt:
        # Where it has not begun, there is no run: the platform drops it, since its client is gone.
        with suppress(RunNotFoundError, RunStateError):
            client.runs.cancel(run_id, "interrupted")
            note(f"Cancelled the run {run_id}.", style="")
        raise
    run = training.run
    if run.status is not RunStatus.FINISHED:
        raise TrainingError(
            f"The run {run.run_id} {'was' if run.status is RunStatus.CANCELLED else 'is'} {run.status.value}"
            f"{f': {run.error}' if run.error else '.'}",
            model_id=run.model_id,
            stage="fit",
            details={"run_id": run.run_id},
        )
    return training.report or client.versions.training(run.model_id, run.versions[0].rpartition("@")[2])


@contextmanager
def _column_hints(target: str | None, ignore: Sequence[str]) -> Iterator[None]:
    """Adds to an error about an input column the options with which its remedy is followed here."""
    try:
        yield
    except MLFrameworkError as error:
        column = getattr(error, "column", None)
        is_stored = getattr(error, "stage", None) not in ("read", "store")  # a table has all its columns, used or not
        if is_stored and column not in (None, target, *ignore) and "has no column" not in error.message:
            kind = f" or --kind {shlex.quote(f'{column}=category')}" if "kind" in str(error) else ""
            error.remedy = f"{error.remedy or ''} Here: --ignore {shlex.quote(str(column))}{kind}.".strip()
        raise


def _print(tenant: str, made: DatasetDetail | None, report: TrainingReport) -> None:
    print_columns(report.columns)
    print_metrics(report)
    say(f"Algorithm: {report.algorithm}")
    for text in report.notes:
        say(f"Note: {text}")
    names = f"--tenant {tenant} --model {report.model_id} --version {report.version}"
    row = orjson.dumps(report.example).decode()
    if made is not None:
        done = "Registered the table as" if made.is_new else "The table is registered already as"
        say(f"{done} {made.reference}, {made.row_count:,} rows.")
    say(f"Registered {tenant}/{report.model_id} version {report.version}.")
    say(f"Try it:    {command()} predict {names} --row {shlex.quote(row)}")
    say(f"Serve it:  {command()} promote {names}")


def print_columns(columns: Sequence[ReportedColumn]) -> None:
    """What was inferred for each column."""
    rows = []
    for column in columns:
        kind = column.kind.value if column.used and column.kind else "left out"
        rows.append({"column": column.name, "kind": kind, "why": column.reason.removeprefix(f"{kind}: ")})
    print_rows(rows, ["column", "kind", "why"], empty="")


def print_metrics(report: TrainingReport) -> None:
    """Held-out quality beside the baseline."""
    trained = report.metrics.get("train", {})
    rows = [
        {"metric": name, "held_out": value, "baseline": report.baseline.get(name), "train": trained.get(name)}
        for name, value in report.metrics.get("validation", {}).items()
    ]
    print_rows(rows, ["metric", "held_out", "baseline", "train"], empty="No row was held out.")


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


def hyperparameters(texts: list[str] | None) -> dict[str, Any]:
    """The hyperparameters that ``--param NAME=VALUE`` gives.

    Raises:
        ConfigurationError: One has another form.
    """
    return {key: json_or_text(text) for key, text in _pairs(texts, "--param", "max_depth=8")}


def _kind(text: str) -> ColumnKind:
    try:
        return ColumnKind(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is not a kind of column.", remedy=f"Use one of {', '.join(ColumnKind)}.", setting="--kind"
        ) from None
