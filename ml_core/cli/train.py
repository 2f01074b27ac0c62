"""``mlcore train``: a table, in a file or registered as a dataset, becomes a registered version."""

from __future__ import annotations

import secrets
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from ml_core.cli.actions import completing
from ml_core.cli.console import (
    command,
    configured,
    in_background,
    note,
    print_rows,
    printed_as_json,
    say,
    wants_json,
)
from ml_core.cli.context import executor
from ml_core.cli.datasets import stored
from ml_core.cli.jobs import ended
from ml_core.cli.options import FILES, EncodingOption, ModelOption
from ml_core.cli.target import platform
from ml_core.cli.training_options import trains
from ml_core.data.sources import require_source
from ml_core.domain.dataset import parse_reference
from ml_core.exceptions import ConfigurationError, JobStateError, MLFrameworkError
from ml_core.ids import DatasetId, ModelId

if TYPE_CHECKING:
    from ml_core.api.schemas.datasets import DatasetDetail
    from ml_core.api.schemas.jobs import Job
    from ml_core.api.schemas.trainings import ReportedColumn, TrainingReport
    from ml_core.client import MLClient

ASKS = "tenant"

_LISTED_COLUMNS = 20
_NAME_LENGTH = 69  # a dataset's name has at most 80 characters, of which 11 are those of "-validation"


@trains
def train(
    model: ModelOption,
    training: dict[str, Any],
    file: Annotated[str | None, typer.Argument(help=f"One row an example: {FILES}.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The dataset to train on: tickets_2026, or tickets_2026@3. With FILE, the dataset of which FILE "
            "becomes the next version; default: the model's name."
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="As FILE, with the same columns: measured on instead of a held-out fifth of the rows."
        ),
    ] = None,
    encoding: EncodingOption = "utf-8",
    verbose: Annotated[bool, typer.Option("--verbose", help="List each column of a wide table.")] = False,
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
    if validation is not None and "validation_dataset" in training:
        raise ConfigurationError(
            "--validation and --validation-dataset are the same rows.",
            remedy="Give one of them.",
            setting="--validation",
        )
    table = DatasetId(dataset or name) if file is not None else parse_reference(dataset or "")[0]
    with (
        platform() as client,
        completing("jobs.submit", "datasets.create"),
        _column_hints(
            {training.get(name) for name in ("target", "group", "time", "weight")} | {*training.get("ignore", ())}
        ),
    ):
        made = None
        if file is not None or validation is not None:  # checked before an upload that may be for nothing
            for source in (file, validation):
                if source is not None:
                    require_source(source, encoding)
            for text in client.models.check_training(name, **training).notes:
                note(f"Note: {text}", style="")
        if file is not None:
            made = stored(client, table, file, encoding)
        if validation is not None:
            held_out = stored(client, f"{table[:_NAME_LENGTH]}-validation", validation, encoding)
            training["validation_dataset"] = held_out.reference
        reference = dataset if made is None else made.reference
        report = trained(client, name, reference or "", None if made is None else made.row_count, **training)
        if not printed_as_json(report):
            _print(client.tenant_id, made, report, verbose=verbose)


def trained(client: MLClient, model_id: str, dataset: str, rows: int | None = None, **training: Any) -> TrainingReport:
    """The report of a training, once its job has ended; interrupted, the job is cancelled.

    Where the command asks no platform, and none runs here, it executes the job itself.

    Args:
        client: Of the tenant.
        model_id: The model.
        dataset: What it is trained on.
        rows: How many rows that are, if it is known.
        **training: Further fields of the training.

    Raises:
        MLFrameworkError: Why the job failed.
    """
    key, execute = secrets.token_hex(16), executor()
    attempts = 3 if execute is None else 1  # nobody would make another one
    job = None

    def submitted() -> Job:
        return client.jobs.train(model_id, dataset, training=training, max_attempts=attempts, idempotency_key=key)

    try:
        job = submitted()
        if not wants_json.get():
            size = "" if rows is None else f" on {rows:,} rows"
            note(f"Training {client.tenant_id}/{model_id}{size}: {job.job_id}", style="")
        if execute is None:
            made = ended(client, job).result
        else:
            with in_background(), execute(str(client.tenant_id), job.job_id):
                made = ended(client, job).result
    except KeyboardInterrupt:
        _cancel(client, job, submitted)
        raise
    return client.versions.training(made["model_id"], made["version"])


def _cancel(client: MLClient, job: Job | None, submitted: Callable[[], Job]) -> None:
    """Cancel a job, also one whose submission was not answered: the key of the submission finds it again."""
    try:
        job_id = (job or submitted()).job_id
        with suppress(JobStateError):  # it has ended, or is being cancelled
            client.jobs.cancel(job_id, "interrupted")
        note(f"The job {job_id} is {client.jobs.get(job_id).state}.", style="")
    except MLFrameworkError as error:
        note(f"The training could not be cancelled: {error}", style="")


@contextmanager
def _column_hints(others: Set[str | None]) -> Iterator[None]:
    """Adds to an error about a column that is none of the others the options with which its remedy is followed."""
    try:
        yield
    except MLFrameworkError as error:
        column = getattr(error, "column", None)
        is_stored = getattr(error, "stage", None) not in ("read", "store")  # a table has all its columns, used or not
        if is_stored and column not in {None, *others} and "has no column" not in error.message:
            kind = f" or --kind {shlex.quote(f'{column}=category')}" if "kind" in str(error) else ""
            error.remedy = f"{error.remedy or ''} Here: --ignore {shlex.quote(str(column))}{kind}.".strip()
        raise


def _print(tenant: str, made: DatasetDetail | None, report: TrainingReport, *, verbose: bool) -> None:
    print_columns(report.columns, most=None if verbose else _LISTED_COLUMNS, omitted=report.columns_omitted)
    print_metrics(report)
    print_selection(report)
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


def print_columns(columns: Sequence[ReportedColumn], most: int | None = None, omitted: int = 0) -> None:
    """What was inferred for each column; of more than ``most`` only of the first that are left out."""
    shown, n_columns = columns, len(columns) + omitted
    if most is not None and n_columns > most:
        counts = Counter(column.kind.value for column in columns if column.used and column.kind)
        say(f"{sum(counts.values())} of {n_columns} columns are used: {_counted(counts)}. --verbose lists them.")
        shown = [column for column in columns if not column.used][:most]
        if (others := n_columns - sum(counts.values()) - len(shown)) > 0:
            say(f"Left out are these, and {others} more:")
    rows = []
    for column in shown:
        kind = column.kind.value if column.used and column.kind else "left out"
        rows.append({"column": column.name, "kind": kind, "why": column.reason.removeprefix(f"{kind}: ")})
    if rows:
        print_rows(rows, ["column", "kind", "why"], empty="")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda each: -each[1]))


def print_selection(report: TrainingReport) -> None:
    """The algorithm, and the scores of the candidates if it was selected."""
    of = report.selection
    if not of:
        say(f"Algorithm: {report.algorithm}")
        return
    say(f"Algorithm: {report.algorithm}, selected by {of['metric']} in {of['folds']} folds of {of['rows']:,} rows:")
    rows = [
        {
            "candidate": configured(each["hyperparameters"]),
            of["metric"]: each.get("score", each.get("error")),
            "std": each.get("std"),
            "selected": "yes" if each["selected"] else "",
        }
        for each in of["candidates"]
    ]
    print_rows(rows, ["candidate", of["metric"], "std", "selected"], empty="")


def print_metrics(report: TrainingReport) -> None:
    """Held-out quality beside the baseline."""
    trained, repeated = report.metrics.get("train", {}), report.cross_validation
    folds = f"in {repeated['folds']} folds" if repeated else ""
    rows: list[dict[str, Any]] = []
    for name, value in report.metrics.get("validation", {}).items():
        row = {"metric": name, "held_out": value, "baseline": report.baseline.get(name), "train": trained.get(name)}
        of = repeated.get("metrics", {}).get(name)
        rows.append(row | {folds: "" if of is None else f"{of['mean']:.4g} ± {of['std']:.2g}"})
    columns = ["metric", "held_out", *([folds] if folds else []), "baseline", "train"]
    print_rows(rows, columns, empty="No row was held out.")
