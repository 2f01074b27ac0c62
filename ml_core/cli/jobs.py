"""``mlcore jobs``: work that the platform does in turn."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli.console import (
    answer,
    err,
    note,
    print_fields,
    print_page,
    print_rows,
    printed_as_json,
    say,
    wants_json,
)
from ml_core.cli.curves import print_curves
from ml_core.cli.options import CursorOption, LimitOption, ModelOption
from ml_core.cli.target import platform
from ml_core.domain.job import ENDED, JobState, refuse_failure
from ml_core.exceptions import RunNotFoundError

if TYPE_CHECKING:
    from ml_core.api.schemas.jobs import Job
    from ml_core.client import MLClient

ASKS = "tenant"

app = typer.Typer(help="Submit trainings that the platform does in turn, and watch them.", no_args_is_help=True)
submit = typer.Typer(help="Submit a job.", no_args_is_help=True)
app.add_typer(submit, name="submit")
plan = typer.Typer(help="Show how a job would be done.", no_args_is_help=True)
app.add_typer(plan, name="plan")

DatasetOption = Annotated[str, typer.Option(help="The dataset: tickets_2026, or tickets_2026@3.")]
TargetOption = Annotated[str | None, typer.Option(help="The column to predict; none for clustering.")]
TypeOption = Annotated[
    str | None, typer.Option("--type", help="classification or regression, found from the target if left out.")
]
ParamOption = Annotated[
    list[str] | None, typer.Option("--param", "-p", help="A hyperparameter, such as algorithm=logistic_regression.")
]
CpusOption = Annotated[float, typer.Option(help="The cores that it gets.")]
JobArgument = Annotated[str, typer.Argument(help="The job's id, from `mlcore jobs list`.")]
_COLUMNS = ["job_id", "kind", "model", "state", "stage", "attempt", "made", "submitted_at", "finished_at", "why"]
_WAIT_S = 20.0
"""Of one request; a longer job is asked for again."""
_REDRAWN_S = 1.0
"""The same where a progress line is drawn."""


@submit.command("train")
def submit_train(
    model: ModelOption,
    dataset: DatasetOption,
    target: TargetOption = None,
    model_type: TypeOption = None,
    param: ParamOption = None,
    promote_to: Annotated[str | None, typer.Option(help="The environment that is moved to the new version.")] = None,
    cpus: CpusOption = 1.0,
    priority: Annotated[int, typer.Option(help="-100 to 100; of the tenant's jobs a higher one goes first.")] = 0,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
) -> None:
    """Submit a training on a registered dataset.

    Names, rights, columns, hyperparameters and quotas are checked at once.
    """
    training = _training(target, model_type, param)
    with platform() as client:
        job = client.jobs.train(model, dataset, training=training, promote_to=promote_to, cpus=cpus, priority=priority)
        if wait:
            _show(_ended(client, job))
        else:
            answer(job, f"Submitted {job.job_id}. See it with: mlcore jobs show {job.job_id}")


@plan.command("train")
def plan_train(
    model: ModelOption,
    dataset: DatasetOption,
    target: TargetOption = None,
    model_type: TypeOption = None,
    param: ParamOption = None,
    cpus: CpusOption = 1.0,
) -> None:
    """Show the strategy of a training, each alternative with its estimate, and why. Nothing is submitted."""
    with platform() as client:
        found = client.jobs.plan(model, dataset, training=_training(target, model_type, param), cpus=cpus)
    if printed_as_json(found):
        return
    say(f"The strategy is {found.strategy}.")
    rows = [{**dict(each), "seconds": _estimated(each.seconds)} for each in found.options]
    print_rows(rows, ["strategy", "seconds", "reason"], empty="")
    for sentence in found.missing:
        say(sentence, style="red")


def _training(target: str | None, model_type: str | None, param: list[str] | None) -> dict[str, Any]:
    from ml_core.cli.train import hyperparameters

    given = {"target": target, "model_type": model_type, "hyperparameters": hyperparameters(param)}
    return {name: value for name, value in given.items() if value}


def _estimated(seconds: float | None) -> str:
    return "no" if seconds is None else f"{seconds:.2g}" if seconds < 10 else f"{seconds:,.0f}"


@app.command("list")
def list_(
    state: Annotated[JobState | None, typer.Option(help="Only in this state.")] = None,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
) -> None:
    """List jobs, newest first."""
    with platform() as client:
        page = client.jobs.list(state=state).page(limit=limit, cursor=cursor)
    print_page(
        page,
        [name for name in _COLUMNS if name != "why" or any(job.error for job in page.items)],
        empty="No job matches. Submit one with mlcore jobs submit.",
        shown={"model": _model, "stage": _stage, "made": _made, "why": _why},
    )


@app.command("show")
def show_job(job_id: JobArgument) -> None:
    """Show a job."""
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
    with platform() as client:
        _show(_ended(client, client.jobs.get(job_id)))


@app.command("cancel")
def cancel(job_id: JobArgument) -> None:
    """Cancel a job: at once if it is queued, else its process is stopped within seconds."""
    with platform() as client:
        job = client.jobs.cancel(job_id)
    answer(job, f"{job.job_id} is {job.state}.")


@app.command("retry")
def retry(job_id: JobArgument) -> None:
    """Queue a job again that failed or was cancelled."""
    with platform() as client:
        job = client.jobs.retry(job_id)
    answer(job, f"{job.job_id} is {job.state}.")


def _ended(client: MLClient, job: Job) -> Job:
    """A job once it has succeeded.

    Raises:
        TrainingError: It was cancelled.
        MLFrameworkError: Why it failed.
    """
    # Imported late: most verbs draw no progress.
    from ml_core.jobs.progress import is_live, watching

    is_shown = is_live(err) and not wants_json.get()
    with watching(err, shown=is_shown) as show:
        while job.state not in ENDED:
            show(job)
            job = client.jobs.get(job.job_id, wait_s=_REDRAWN_S if is_shown else _WAIT_S)
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
    return f"{job.result['model_id']}@{job.result['version']}" if "version" in job.result else None


def _why(job: Job) -> str | None:
    return None if job.error is None else str(job.error.get("message", "")).partition("\n")[0]
