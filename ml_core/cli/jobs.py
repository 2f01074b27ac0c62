"""``mlcore jobs``: work that the platform does in turn."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli import job_batches
from ml_core.cli.console import (
    answer,
    command,
    err,
    note,
    print_fields,
    print_items,
    print_page,
    print_rows,
    printed_as_json,
    say,
    wants_json,
)
from ml_core.cli.curves import print_curves
from ml_core.cli.datasets import stored
from ml_core.cli.options import FILES, CursorOption, EncodingOption, LimitOption, ModelOption, seconds_of
from ml_core.cli.target import platform
from ml_core.cli.training_options import pairs_of, trains
from ml_core.domain.job import ENDED, JobState, refuse_failure
from ml_core.domain.job_spec import OnError, PredictJobSpec
from ml_core.domain.tune_spec import AUTO, Sampler
from ml_core.exceptions import ConfigurationError, RunNotFoundError
from ml_core.ids import BatchId

if TYPE_CHECKING:
    from ml_core.api.schemas.jobs import Job
    from ml_core.client import MLClient

ASKS = "tenant"

app = typer.Typer(help="Submit work that the platform does in turn, and watch it.", no_args_is_help=True)
submit = typer.Typer(help="Submit a job.", no_args_is_help=True)
app.add_typer(submit, name="submit")
plan = typer.Typer(help="Show how a job would be done.", no_args_is_help=True)
app.add_typer(plan, name="plan")

CpusOption = Annotated[float, typer.Option(help="The cores that it gets.")]
PriorityOption = Annotated[int, typer.Option(help="-100 to 100; of the tenant's jobs a higher one goes first.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")]
JobArgument = Annotated[str, typer.Argument(help="The job's id, from `mlcore jobs list`, or that of a batch.")]
_COLUMNS = ["job_id", "kind", "model", "state", "stage", "attempt", "made", "submitted_at", "finished_at", "why"]
_NAME_LENGTH = 75  # a dataset's name has at most 80 characters, of which 5 are those of "-rows"
_WAIT_S = 5.0
"""Of one request; then the job is asked for again, and why it waits."""
_REDRAWN_S = 1.0
"""The same where a progress line is drawn."""


@submit.command("train")
@trains
def submit_train(
    model: ModelOption,
    training: dict[str, Any],
    dataset: Annotated[str, typer.Option(help="The dataset: tickets_2026, or tickets_2026@3.")],
    promote_to: Annotated[str | None, typer.Option(help="The environment that is moved to the new version.")] = None,
    cpus: CpusOption = 1.0,
    priority: PriorityOption = 0,
    wait: WaitOption = False,
    each_tenant: Annotated[
        bool, typer.Option("--each-tenant", help="One for each tenant that has the dataset, as the platform.")
    ] = False,
) -> None:
    """Submit a training on a registered dataset.

    Names, rights, columns, hyperparameters and quotas are checked at once; with --each-tenant, a column that a tenant's
    dataset lacks fails the tenant's job.
    """
    if each_tenant:
        options = {"promote_to": promote_to, "cpus": cpus, "priority": priority}
        job_batches.submit({"model_id": model, "training": {"dataset": dataset, **training}, **options}, wait=wait)
        return
    with platform() as client:
        job = client.jobs.train(model, dataset, training=training, promote_to=promote_to, cpus=cpus, priority=priority)
        _submitted(client, job, wait=wait)


@submit.command("tune")
@trains
def submit_tune(
    model: ModelOption,
    training: dict[str, Any],
    dataset: Annotated[str, typer.Option(help="The dataset: tickets_2026, or tickets_2026@3.")],
    algorithm: Annotated[
        str, typer.Option(help="auto: a linear model, boosted trees and a random forest.", show_default=True)
    ] = AUTO,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            "-s",
            help="Values to search: max_depth=2..12, learning_rate=log:0.001:0.3, l1_ratio=0..1:0.25 or "
            "criterion=gini,entropy; repeat for several. Default: by the algorithm.",
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Configurations to try at most; default: 60.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Time to search at most, such as 90s, 10m or 2h.")] = None,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation.")] = 5,
    metric: Annotated[str | None, typer.Option(help="What the best is chosen by, such as f1_macro.")] = None,
    sampler: Annotated[Sampler, typer.Option(help="How configurations are chosen.")] = Sampler.OPTUNA,
    seed: Annotated[int, typer.Option(help="Of folds and configurations.")] = 0,
    promote_to: Annotated[str | None, typer.Option(help="The environment that is moved to the new version.")] = None,
    cpus: CpusOption = 1.0,
    priority: PriorityOption = 0,
    wait: WaitOption = False,
) -> None:
    """Submit a search for hyperparameters, whose best configuration is trained and registered.

    Those of --param are the same in all trials. Each trial is a run, which mlcore runs shows. Each core does one trial
    at a time.
    """
    search: dict[str, Any] = {"algorithm": algorithm, "folds": folds, "sampler": sampler, "seed": seed}
    search |= {"space": dict(pairs_of(space, "--space", "max_depth=2..12")), "trials": trials, "metric": metric}
    search["seconds"] = None if timeout is None else seconds_of(timeout, "--timeout")
    options: dict[str, Any] = {"promote_to": promote_to, "cpus": cpus, "priority": priority}
    with platform() as client:
        _submitted(client, client.jobs.tune(model, dataset, training=training, search=search, **options), wait=wait)


@submit.command("predict")
def submit_predict(
    model: ModelOption,
    output: Annotated[str, typer.Option(help="The dataset that gets the predictions as its next version.")],
    file: Annotated[str | None, typer.Argument(help=f"The rows: {FILES}.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The rows: inbox, or inbox@7. With FILE, the dataset of which FILE becomes the next version; default: "
            "the output's name and -rows."
        ),
    ] = None,
    encoding: EncodingOption = "utf-8",
    version: Annotated[
        str | None, typer.Option("--version", "-v", help="The version that predicts, whatever is promoted.")
    ] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="The environment whose version predicts.")
    ] = None,
    proba: Annotated[bool, typer.Option("--proba", help="Add the probability of each class.")] = False,
    keep: Annotated[list[str] | None, typer.Option(help="A column to repeat, such as a key; may be repeated.")] = None,
    on_error: Annotated[
        OnError, typer.Option(help="fail: a row that does not fit fails the job; null: it has no prediction.")
    ] = OnError.FAIL,
    cpus: CpusOption = 1.0,
    priority: PriorityOption = 0,
    wait: WaitOption = False,
) -> None:
    """Submit the prediction of every row of a table. A file is registered as a dataset first.

    The version in production predicts; if nothing is in production, the newest version.
    """
    if file is None and dataset is None:
        raise ConfigurationError(
            "There are no rows to predict.", remedy="Give a FILE, or --dataset NAME.", setting="--dataset"
        )
    with platform() as client:
        rows = dataset or ""
        if file is not None:  # refused before an upload that would be for nothing
            PredictJobSpec.from_json(
                {"model_id": model, "dataset": rows, "output": output, "version": version, "environment": environment}
            )
            client.versions.get(model, version)
            made = stored(client, dataset or f"{output[:_NAME_LENGTH]}-rows", file, encoding)
            rows = made.reference
            note(f"{rows} has the rows, {made.row_count:,}.", style="")
        job = client.jobs.predict(
            model,
            rows,
            output,
            version=version,
            environment=environment,
            proba=proba,
            keep=keep or [],
            on_error=on_error,
            cpus=cpus,
            priority=priority,
        )
        _submitted(client, job, wait=wait)


@plan.command("train")
@trains
def plan_train(
    model: ModelOption,
    training: dict[str, Any],
    dataset: Annotated[str, typer.Option(help="The dataset: tickets_2026, or tickets_2026@3.")],
    cpus: CpusOption = 1.0,
) -> None:
    """Show the strategy of a training, each alternative with its estimate, and why. Nothing is submitted."""
    with platform() as client:
        found = client.jobs.plan(model, dataset, training=training, cpus=cpus)
    if printed_as_json(found):
        return
    say(f"The strategy is {found.strategy}.")
    rows = [{**dict(each), "seconds": _estimated(each.seconds)} for each in found.options]
    print_rows(rows, ["strategy", "seconds", "reason"], empty="")
    for sentence in found.missing:
        say(sentence, style="red")


def _estimated(seconds: float | None) -> str:
    return "no" if seconds is None else f"{seconds:.2g}" if seconds < 10 else f"{seconds:,.0f}"


@app.command("list")
def list_(
    state: Annotated[JobState | None, typer.Option(help="Only in this state.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Only those of this schedule.")] = None,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
) -> None:
    """List jobs, newest first."""
    with platform() as client:
        page = client.jobs.list(state=state, schedule=schedule).page(limit=limit, cursor=cursor)
    print_page(
        page,
        [name for name in _COLUMNS if name != "why" or any(job.error for job in page.items)],
        empty="No job matches. Submit one with mlcore jobs submit.",
        shown={"model": _model, "stage": _stage, "made": _made, "why": _why},
    )


@app.command("batches")
def batches(limit: LimitOption = 50, cursor: CursorOption = None) -> None:
    """List what was submitted for each tenant, newest first, as the platform."""
    with platform(of_tenant=False) as client:
        page = client.job_batches.list().page(limit=limit, cursor=cursor)
    columns = ["batch_id", "kind", "jobs", "percent", "states", "submitted_at", "submitted_by"]
    empty = "There is no batch. Submit one with mlcore jobs submit train --each-tenant."
    print_page(page, columns, empty=empty, shown={"states": job_batches.counted})


@app.command("active")
def active() -> None:
    """List the first hundred jobs of all tenants that run or wait, running ones first, as the platform."""
    with platform(of_tenant=False) as client:
        found = client.platform.jobs()
    columns = ["tenant_id", "job_id", "kind", "state", "cpus", "submitted_at", "started_at"]
    print_items(found, columns, empty="No job runs or waits.")


@app.command("show")
def show_job(job_id: JobArgument) -> None:
    """Show a job or a batch."""
    if _is_batch(job_id):
        job_batches.act("get", job_id)
        return
    with platform() as client:
        job = client.jobs.get(job_id)
        _show(job)
        if job.run_id is not None and not wants_json.get():
            with suppress(RunNotFoundError):  # it has not begun
                print_curves(client.run_record(job.run_id))


@app.command("logs")
def logs(
    job_id: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show what comes until the job has ended.")] = False,
) -> None:
    """Show what the attempts of a job said."""
    with platform() as client:
        part = client.jobs.log(job_id)
        answer(part, part.text.rstrip("\n"))
        while follow and not part.is_final:
            part = client.jobs.log(job_id, after=part.position, wait_s=_WAIT_S)
            if part.text:
                answer(part, part.text.rstrip("\n"))


@app.command("wait")
def wait_for(job_id: JobArgument) -> None:
    """Wait until a job has succeeded; fail with its error if it did not."""
    if _is_batch(job_id):
        job_batches.wait_for(job_id)
        return
    with platform() as client:
        _show(ended(client, client.jobs.get(job_id)))


@app.command("cancel")
def cancel(job_id: JobArgument) -> None:
    """Cancel a job: at once if it is queued, else its process is stopped within seconds."""
    if _is_batch(job_id):
        job_batches.act("cancel", job_id)
        return
    with platform() as client:
        job = client.jobs.cancel(job_id)
    answer(job, f"{job.job_id} is {job.state}.")


@app.command("retry")
def retry(job_id: JobArgument) -> None:
    """Queue a job again that failed or was cancelled, or all such jobs of a batch."""
    if _is_batch(job_id):
        job_batches.act("retry", job_id)
        return
    with platform() as client:
        job = client.jobs.retry(job_id)
    answer(job, f"{job.job_id} is {job.state}.")


def _is_batch(job_id: str) -> bool:
    return job_id.startswith(f"{BatchId.kind}_")


def _submitted(client: MLClient, job: Job, *, wait: bool) -> None:
    if wait:
        _show(ended(client, job))
    else:
        announce(client, job)


def announce(client: MLClient, job: Job) -> None:
    """Say that a job was submitted, and how to see it."""
    see = f"{command()} jobs show {job.job_id} --tenant {client.tenant_id}"
    answer(job, f"Submitted {job.job_id}. See it with: {see}")


def ended(client: MLClient, job: Job) -> Job:
    """A job once it has succeeded; meanwhile the command says why it waits.

    Args:
        client: Of the tenant.
        job: The job.

    Raises:
        TrainingError: It was cancelled.
        MLFrameworkError: Why it failed.
    """
    # Imported late: most verbs draw no progress.
    from ml_core.jobs.progress import is_live, watching

    said = None
    is_shown = is_live(err) and not wants_json.get()
    with watching(err, shown=is_shown) as show:
        while job.state not in ENDED:
            show(job)
            job = client.jobs.get(job.job_id, wait_s=_REDRAWN_S if is_shown else _WAIT_S)
            if job.waiting not in (None, said):
                said = job.waiting
                note(f"The job {job.job_id} is {job.state}. {said}", style="")
    refuse_failure(job.job_id, job.state, job.error)
    if not wants_json.get():
        note(f"{job.job_id} is {job.state}.")
    return job


def _show(job: Job) -> None:
    if printed_as_json(job):
        return
    lines: dict[str, Any] = {name: value for name, value in job if name not in ("spec", "progress", "result", "error")}
    lines |= {"model": _model(job), "stage": _stage(job), "made": _made(job), "error": _why(job)}
    print_fields((name, value) for name, value in lines.items() if value is not None)


def _model(job: Job) -> str | None:
    return job.spec.get("model_id")


def _stage(job: Job) -> str | None:
    return job.progress.get("stage") if job.state is JobState.RUNNING else None


def _made(job: Job) -> str | None:
    if "version" in job.result:
        return f"{job.result['model_id']}@{job.result['version']}"
    return job.result.get("dataset")


def _why(job: Job) -> str | None:
    return None if job.error is None else str(job.error.get("message", "")).partition("\n")[0]
