"""``mlcore jobs``: work that the platform does in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ml_core.cli.console import out, print_json, print_page, show, step
from ml_core.cli.options import CursorOption, JsonOption, LimitOption, ModelOption, TenantOption
from ml_core.cli.target import given, platform
from ml_core.domain.job import ENDED, JobState
from ml_core.exceptions import TrainingError, error_from_json

if TYPE_CHECKING:
    from ml_core.api.schemas.jobs import Job
    from ml_core.client import MLClient

ASKS_PLATFORM = True

app = typer.Typer(help="Jobs: work that the platform does in turn, and that survives it.", no_args_is_help=True)
submit = typer.Typer(help="Submit a job.", no_args_is_help=True)
app.add_typer(submit, name="submit")

JobArgument = Annotated[str, typer.Argument(help="The job's id, from `mlcore jobs list`.")]
_COLUMNS = ["job_id", "kind", "model", "state", "stage", "attempt", "result", "submitted_at", "finished_at", "error"]
_WAIT_S = 20.0
"""Of one request; a longer job is asked for again."""


@submit.command("train")
def submit_train(
    dataset: Annotated[str, typer.Option(help="The dataset: tickets_2026, or tickets_2026@3.")],
    tenant: TenantOption = None,
    model: ModelOption = None,
    target: Annotated[str | None, typer.Option(help="The column to predict; none for clustering.")] = None,
    model_type: Annotated[
        str | None, typer.Option("--type", help="classification or regression, found from the target if left out.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="A hyperparameter, such as algorithm=logistic_regression.")
    ] = None,
    promote_to: Annotated[str | None, typer.Option(help="The environment that is moved to the new version.")] = None,
    cpus: Annotated[float, typer.Option(help="The cores that it gets.")] = 1.0,
    priority: Annotated[int, typer.Option(help="-100 to 100; of the tenant's jobs a higher one goes first.")] = 0,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a training on a registered dataset.

    What can be known beforehand is checked at once: names, rights, columns, hyperparameters and quotas.
    """
    from ml_core.cli.train import hyperparameters

    training = {"target": target, "model_type": model_type, "hyperparameters": hyperparameters(param)}
    with platform(tenant) as client:
        job = client.jobs.train(
            given("model", model, "--model"),
            dataset,
            training={name: value for name, value in training.items() if value},
            promote_to=promote_to,
            cpus=cpus,
            priority=priority,
        )
        if wait:
            job = _ended(client, job)
        if as_json:
            print_json(job)
        elif wait:
            _print(job)
        else:
            out.print(f"Submitted {job.job_id}. See it with: mlcore jobs show {job.job_id}", markup=False)


@app.command("list")
def list_(
    tenant: TenantOption = None,
    state: Annotated[JobState | None, typer.Option(help="Jobs in this state only.")] = None,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with platform(tenant) as client:
        page = client.jobs.list(state=state).page(limit=limit, cursor=cursor)
    print_page(
        page,
        [name for name in _COLUMNS if name != "error" or any(job.error for job in page.items)],
        as_json=as_json,
        empty="No job matches. Submit one with mlcore jobs submit.",
        shown={"model": _model, "stage": _stage, "result": _made, "error": _why},
    )


@app.command("show")
def show_job(job_id: JobArgument, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """Show a job."""
    with platform(tenant) as client:
        job = client.jobs.get(job_id)
    print_json(job) if as_json else _print(job)


@app.command("wait")
def wait_for(job_id: JobArgument, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """Wait until a job has ended; its error is this command's."""
    with platform(tenant) as client:
        job = _ended(client, client.jobs.get(job_id))
    print_json(job) if as_json else _print(job)


@app.command("cancel")
def cancel(job_id: JobArgument, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """Cancel a job: at once where it waits, else its process is stopped within seconds."""
    with platform(tenant) as client:
        _said(client.jobs.cancel(job_id), as_json=as_json)


@app.command("retry")
def retry(job_id: JobArgument, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """Queue a job again that failed or was cancelled."""
    with platform(tenant) as client:
        _said(client.jobs.retry(job_id), as_json=as_json)


def _ended(client: MLClient, job: Job) -> Job:
    """A job once it has succeeded.

    Raises:
        TrainingError: It was cancelled.
        MLFrameworkError: Why it failed.
    """
    with step(f"Waiting for {job.job_id}"):
        while job.state not in ENDED:
            job = client.jobs.get(job.job_id, wait_s=_WAIT_S)
    if job.error is not None:
        raise error_from_json(job.error)
    if job.state is not JobState.SUCCEEDED:
        raise TrainingError(f"The job {job.job_id} was {job.state}.", remedy="Retry it.", stage="fit")
    return job


def _print(job: Job) -> None:
    lines: dict[str, Any] = {name: value for name, value in job if name not in ("spec", "progress", "result", "error")}
    lines |= {"model": _model(job), "stage": _stage(job), "result": _made(job), "error": _why(job.error)}
    lines = {name: value for name, value in lines.items() if value is not None}
    width = max(map(len, lines))
    for name, value in lines.items():
        label = Text(f"{name.replace('_', ' '):{width}}  ", style="bold")
        out.print(label + Text(show(value)), soft_wrap=True)


def _said(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        out.print(f"{job.job_id} is {job.state}.", markup=False)


def _model(job: Job) -> str | None:
    return job.spec.get("model_id")


def _stage(job: Job) -> str | None:
    return job.progress.get("stage") if job.state is JobState.RUNNING else None


def _made(job: Any) -> str | None:
    result = job.result if hasattr(job, "result") else job
    return f"{result['model_id']}@{result['version']}" if "version" in result else None


def _why(error: Any) -> str | None:
    return error and str(error.get("message", "")).partition("\n")[0]
