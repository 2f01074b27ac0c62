"""``mlcore schedules``: jobs that the platform submits at the times of a cron line."""

from __future__ import annotations

import contextvars
from typing import Annotated, Any

import orjson
import typer
from typer.main import get_command

from ml_core.cli.console import answer, print_fields, print_page, printed_as_json
from ml_core.cli.jobs import announce
from ml_core.cli.options import CursorOption, LimitOption, json_or_text
from ml_core.cli.target import platform, recorded
from ml_core.exceptions import InvalidRequestError

ASKS = "tenant"

app = typer.Typer(help="Submit jobs at the times of a cron line.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="SCHEDULE", help="The schedule, such as nightly.")]
_NOT_OF_A_JOB = ("--tenant", "-t", "--url", "--key", "--json", "--wait")


@app.command("create")
def create(
    schedule: NameArgument,
    cron: Annotated[str, typer.Option(help='Minute, hour, day, month, weekday: "0 3 * * *" is each night at three.')],
    job: Annotated[list[str], typer.Argument(metavar="-- KIND OPTIONS...", help="The job, as for mlcore jobs submit.")],
    timezone: Annotated[str, typer.Option(help="The zone of the cron line, such as Europe/Berlin.")] = "UTC",
    on_drift: Annotated[
        str | None,
        typer.Option(metavar="ENVIRONMENT", help="Train only on an alert of mlcore quality in this environment."),
    ] = None,
    drift_rule: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="With --on-drift: days, canary_percent, canary_hours, and others."),
    ] = None,
) -> None:
    """Create a schedule: mlcore schedules create nightly --cron "0 3 * * *" -- train --model tickets --dataset tickets.

    A dataset without a number means its newest version each time. The jobs are done with the rights of whoever creates
    the schedule.

    With --on-drift the job is submitted on an alert only, and the version that it makes is tried as a canary: it is
    served if the labels show that it is better, and aborted otherwise.
    """
    rule = None if on_drift is None else {"environment": on_drift}
    for text in drift_rule or []:
        name, equals, value = text.partition("=")
        if rule is None or not equals:
            raise InvalidRequestError(
                f"--drift-rule is {text!r}.", remedy="Give --on-drift, and NAME=VALUE.", field="--drift-rule"
            )
        rule[name] = json_or_text(value)
    body = _job_of(job)
    with platform() as client:
        made = client.schedules.create(schedule, cron, body, timezone=timezone, on_drift=rule)
    answer(made, f"Created the schedule {made.name}; it is due at {made.next_at:%Y-%m-%d %H:%M} UTC.")


@app.command("list")
def list_(limit: LimitOption = 100, cursor: CursorOption = None) -> None:
    """List schedules by name."""
    with platform() as client:
        page = client.schedules.list().page(limit=limit, cursor=cursor)
    columns = ["name", "cron", "timezone", "kind", "state", "next_at", "last_at", "last_job_id", "note"]
    print_page(page, columns, empty="There is no schedule. Create one with mlcore schedules create.")


@app.command("show")
def show(schedule: NameArgument) -> None:
    """Show a schedule."""
    with platform() as client:
        found = client.schedules.get(schedule)
    if not printed_as_json(found):
        print_fields((name, value) for name, value in found if value is not None)


@app.command("pause")
def pause(schedule: NameArgument) -> None:
    """Submit no more jobs until it is resumed; jobs that were submitted go on."""
    with platform() as client:
        answer(client.schedules.pause(schedule), f"{schedule} is paused.")


@app.command("resume")
def resume(schedule: NameArgument) -> None:
    """Go on with the next time from now."""
    with platform() as client:
        found = client.schedules.resume(schedule)
    answer(found, f"{schedule} is due at {found.next_at:%Y-%m-%d %H:%M} UTC.")


@app.command("run-now")
def run_now(schedule: NameArgument) -> None:
    """Submit its job now, with your rights; its times stay as they are."""
    with platform() as client:
        announce(client, client.schedules.run_now(schedule))


@app.command("delete")
def delete(schedule: NameArgument) -> None:
    """Delete a schedule; jobs that were submitted go on."""
    with platform() as client:
        client.schedules.delete(schedule)
    answer({"deleted": schedule}, f"Deleted the schedule {schedule}.")


def _job_of(words: list[str]) -> dict[str, Any]:
    """The job that ``mlcore jobs submit`` would submit with these words, by that very command.

    Raises:
        InvalidRequestError: It submits none, or one that can't be scheduled.
    """
    from ml_core.cli.main import app as root  # which imports this module

    for word in words:
        if word.partition("=")[0] in _NOT_OF_A_JOB:
            raise InvalidRequestError(
                f"The job has the option {word}.", remedy="Give it before the two dashes, or not at all.", field=word
            )
    command: Any = get_command(root)
    submit = command.commands["jobs"].commands["submit"]
    # In a context of its own: what it says of the platform is not what this verb asks.
    context = contextvars.copy_context()
    request = context.run(recorded, lambda: submit.main(words, "mlcore jobs submit", standalone_mode=False))
    if request is None:
        raise typer.Exit  # it has shown its help
    if not request.url.path.endswith("/jobs"):
        raise InvalidRequestError(
            "A schedule submits one job of its tenant, on a registered dataset.",
            remedy="Leave out --each-tenant; name rows with --dataset, not with a FILE.",
            field="job",
        )
    job: dict[str, Any] = orjson.loads(request.content)
    return job
