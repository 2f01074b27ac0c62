"""Runs: experiment tracking."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import Query, Request
from starlette.concurrency import run_in_threadpool

from ml_core.api.access import TenantAccess
from ml_core.api.bodies import Download, received
from ml_core.api.operation import CursorQuery, LimitQuery, operations, tags_of
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.runs import NewRun, Points, Run, RunComparison, RunEnd, RunFile, Series, TagChanges
from ml_core.domain.api_key import Scope
from ml_core.domain.run import RunStatus
from ml_core.exceptions import InvalidRequestError
from ml_core.registry.runs import RunRepository

router = operations("runs", "/tenants/{tenant}")

_RUN = "/runs/{run}"
_ENDINGS = (RunStatus.FINISHED, RunStatus.FAILED, RunStatus.CANCELLED)
_FILE = "application/octet-stream"


@operation(router, "POST", "/runs", "runs.start", Scope.TRAIN, creates=True)
def start_run(access: TenantAccess, body: NewRun) -> Run:
    """Start a run. It counts as dead where it gives no sign of life."""
    runs = access.of(RunRepository)
    return Run.model_validate(runs.get(runs.start(**body.model_dump())))


@operation(router, "GET", "/runs", "runs.list", Scope.READ)
def list_runs(
    access: TenantAccess,
    model: Annotated[str | None, Query(description="Of this model.")] = None,
    kind: Annotated[str | None, Query(description="Of this kind.")] = None,
    status: Annotated[RunStatus | None, Query(description="In this state.")] = None,
    tag: Annotated[list[str] | None, Query(description="`key=value`; with all of these.")] = None,
    parameter: Annotated[list[str] | None, Query(description="`name=JSON`, such as `hyperparameters.C=0.5`.")] = None,
    metric: Annotated[list[str] | None, Query(description="Bounds on last values, such as `loss<=0.1`.")] = None,
    parent_run_id: Annotated[str | None, Query(description="Parts of this run.")] = None,
    since: Annotated[datetime | None, Query(description="Started at this moment or later.")] = None,
    until: Annotated[datetime | None, Query(description="Started before this moment.")] = None,
    sort: Annotated[str, Query(description="`started`, or a metric: then only runs that have it.")] = "started",
    descending: Annotated[
        bool | None, Query(description="Newest or highest first; by default the newest, or the best of the metric.")
    ] = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> Page[Run]:
    """List runs, newest first, or by a metric."""
    found = access.of(RunRepository).search(
        model,
        kind=kind,
        status=status,
        tags=tags_of(tag),
        parameters=dict(map(_parameter, parameter or ())),
        metrics=metric or (),
        parent_run_id=parent_run_id,
        started_from=since,
        started_before=until,
        sort=sort,
        descending=descending,
        limit=limit,
        cursor=cursor,
    )
    return Page[Run].model_validate(found)


@operation(router, "GET", "/run-comparison", "runs.compare", Scope.READ)
def compare_runs(
    access: TenantAccess, run: Annotated[list[str], Query(description="Two runs or more, in this order.")]
) -> RunComparison:
    """What differs between runs, and which is best in each metric."""
    return RunComparison.model_validate(access.of(RunRepository).compare(run))


@operation(router, "GET", _RUN, "runs.get", Scope.READ)
def get_run(access: TenantAccess, run: str) -> Run:
    """A run with the summary of its metrics."""
    return Run.model_validate(access.of(RunRepository).get(run))


@operation(router, "PATCH", _RUN, "runs.tag", Scope.TRAIN)
def tag_run(access: TenantAccess, run: str, body: TagChanges) -> Run:
    """Set tags; null removes one, others stay."""
    runs = access.of(RunRepository)
    runs.tag(run, body.tags)
    return Run.model_validate(runs.get(run))


@operation(router, "DELETE", _RUN, "runs.delete", Scope.ADMIN)
def delete_run(access: TenantAccess, run: str) -> None:
    """Delete a run with its files, permanently."""
    access.of(RunRepository).delete(run)


@operation(router, "POST", f"{_RUN}/beat", "runs.beat", Scope.TRAIN)
def beat(access: TenantAccess, run: str) -> None:
    """Give a sign of life."""
    access.of(RunRepository).beat(run)


@operation(router, "POST", f"{_RUN}/end", "runs.end", Scope.TRAIN)
def end_run(access: TenantAccess, run: str, body: RunEnd) -> Run:
    """End a run: it succeeded, failed or is no longer wanted. The job of a cancelled run is cancelled."""
    runs = access.of(RunRepository)
    if body.status is RunStatus.FINISHED:
        runs.finish(run)
    elif body.status is RunStatus.FAILED:
        runs.fail(run, body.error or "")
    elif body.status is RunStatus.CANCELLED:
        runs.cancel(run, body.error or "")
    else:
        raise InvalidRequestError(
            f"A run can't end as {body.status.value}.",
            remedy=f"Send one of: {', '.join(_ENDINGS)}.",
            field="status",
        )
    return Run.model_validate(runs.get(run))


@operation(router, "POST", f"{_RUN}/metrics", "runs.log_metrics", Scope.TRAIN)
def log_metrics(access: TenantAccess, run: str, body: Points) -> None:
    """Log values of metrics: one value a metric at each step."""
    if len(body.values) != len(body.metrics) * len(body.steps):
        raise InvalidRequestError(
            f"{len(body.metrics)} metrics at {len(body.steps)} steps are not {len(body.values)} values.",
            remedy="Send one value a metric at each step, step after step.",
            field="values",
        )
    metrics = [metric for _ in body.steps for metric in body.metrics]
    steps = [step for step in body.steps for _ in body.metrics]
    values = [math.nan if value is None else value for value in body.values]
    access.of(RunRepository).log_series(run, metrics, steps, values)


@operation(router, "GET", f"{_RUN}/series", "runs.series", Scope.READ)
def get_series(
    access: TenantAccess,
    run: str,
    metric: Annotated[str, Query(description="The name of the metric.")],
    max_points: Annotated[int, Query(ge=2, le=10_000, description="At most so many points.")] = 1000,
    after_step: Annotated[int | None, Query(description="Only points of later steps.")] = None,
    until_step: Annotated[int | None, Query(description="Only points up to this step, which is included.")] = None,
) -> Series:
    """A metric's points in the order of steps; of more than `max_points` a selection that keeps extremes."""
    runs = access.of(RunRepository)
    found = runs.series(run, metric, max_points=max_points, after_step=after_step, until_step=until_step)
    return Series.model_validate(found.to_json())


@operation(router, "GET", f"{_RUN}/files", "runs.files", Scope.READ)
def list_files(access: TenantAccess, run: str) -> list[RunFile]:
    """List the files of a run."""
    return [RunFile.model_validate(found) for found in access.of(RunRepository).artifacts.list(run)]


@operation(router, "PUT", f"{_RUN}/files/{{name:path}}", "runs.log_file", Scope.TRAIN, receives=(_FILE,))
async def log_file(access: TenantAccess, run: str, name: str, request: Request) -> RunFile:
    """Keep a file with a run."""
    settings = access.db.settings
    async with received(request, settings.platform.home / "uploads", settings.api.max_upload_bytes) as path:
        found = await run_in_threadpool(access.of(RunRepository).artifacts.log, run, name, path)
    return RunFile.model_validate(found)


@operation(router, "GET", f"{_RUN}/files/{{name:path}}", "runs.download_file", Scope.READ)
def download_file(access: TenantAccess, run: str, name: str) -> Download:
    """Download a file of a run."""
    return Download(access.of(RunRepository).artifacts.open(run, name), media_type=_FILE)


@operation(router, "DELETE", f"{_RUN}/files/{{name:path}}", "runs.delete_file", Scope.TRAIN)
def delete_file(access: TenantAccess, run: str, name: str) -> None:
    """Delete a file of a run."""
    access.of(RunRepository).artifacts.delete(run, name)


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        raise InvalidRequestError(
            f"{text[:100]!r} is not NAME=JSON." if equals else f"{text[:100]!r} has no value.",
            remedy='Write it like hyperparameters.C=0.5 or algorithm="ridge".',
            field="parameter",
        ) from None
