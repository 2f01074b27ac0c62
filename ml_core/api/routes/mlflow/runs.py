"""Runs in MLflow's protocol: their beginning, end, parameters, metrics, tags and datasets, and the search."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Response
from pydantic import Field

from ml_core.api.access import TenantAccess
from ml_core.api.routes.mlflow import forms
from ml_core.api.routes.mlflow.experiments import is_deleted_in
from ml_core.api.routes.mlflow.filters import RUNS
from ml_core.api.routes.mlflow.forms import (
    DELETED_TAG,
    PARENT_TAG,
    RUN_NAME_TAG,
    Form,
    Key,
    KeyValue,
    Metric,
    Parameter,
)
from ml_core.api.routes.mlflow.routing import answer, page, rest
from ml_core.domain import comparison
from ml_core.domain.api_key import Scope
from ml_core.domain.comparison import Comparison, FieldKind, Operator
from ml_core.domain.run import TRACKED, Run, RunStatus
from ml_core.exceptions import InvalidRequestError, RequestTooLargeError, RunStateError
from ml_core.registry.limits import MAX_PAGE_SIZE
from ml_core.registry.runs import RunRepository
from ml_core.registry.runs.documents import RunDocuments
from ml_core.registry.runs.experiments import ExperimentRepository

_MAX_BATCH = 1_000
_MAX_POINTS = 25_000
"""Of a metric in one answer: clients that ask for no page expect all, and this is what they ask for at most."""
_DELETED = comparison.Field(FieldKind.TAG, DELETED_TAG)


class NewRun(Form):
    """A run to start. It starts now, whatever time the client says."""

    experiment_id: str = "0"
    run_name: str | None = None
    tags: list[KeyValue] = Field(default_factory=list)


class OfRun(Form):
    """The run that is meant."""

    run_id: str


class RunUpdate(OfRun):
    """What changes of a run."""

    status: str | None = None
    run_name: str | None = None


class RunMetric(OfRun, Metric):
    """A value of a metric of a run."""


class RunParameter(OfRun, Parameter):
    """A parameter of a run."""


class RunTag(OfRun, KeyValue):
    """A tag of a run."""


class RunTagKey(OfRun):
    """A tag to remove."""

    key: Key


class Batch(OfRun):
    """Metrics, parameters and tags of a run."""

    metrics: Annotated[list[Metric], Field(max_length=_MAX_BATCH)] = Field(default_factory=list)
    params: Annotated[list[Parameter], Field(max_length=100)] = Field(default_factory=list)
    tags: Annotated[list[KeyValue], Field(max_length=100)] = Field(default_factory=list)


class Dataset(Form):
    """A table that a run read."""

    name: Annotated[str, Field(min_length=1, max_length=500)]
    digest: Annotated[str, Field(min_length=1, max_length=36)]
    source_type: str = ""
    source: str = ""
    schema_: str | None = Field(default=None, alias="schema")
    profile: str | None = None


class DatasetInput(Form):
    """A table and what the run used it for."""

    dataset: Dataset
    tags: list[KeyValue] = Field(default_factory=list)


class ModelId(Form):
    """A logged model."""

    model_id: str
    step: int | None = None


class Inputs(OfRun):
    """What a run read."""

    datasets: list[DatasetInput] = Field(default_factory=list)
    models: list[ModelId] = Field(default_factory=list)


class Outputs(OfRun):
    """The models that a run logged."""

    models: list[ModelId] = Field(default_factory=list)


class RunSearch(Form):
    """Which runs, in which order."""

    experiment_ids: list[str] = Field(default_factory=list)
    filter: str | None = None
    run_view_type: str = "ACTIVE_ONLY"
    max_results: int = MAX_PAGE_SIZE
    order_by: list[str] = Field(default_factory=list)
    page_token: str | None = None


@rest("POST", "runs/create", Scope.TRAIN)
def create(access: TenantAccess, body: NewRun) -> Response:
    """Start a run in an experiment that is not deleted."""
    experiment = access.of(ExperimentRepository).get(forms.model_of(body.experiment_id))
    if experiment.archived_at is not None:
        raise InvalidRequestError(
            f"The experiment {experiment.name!r} is deleted.", remedy="Restore it first.", field="experiment_id"
        )
    tags = {tag.key: tag.value for tag in body.tags}
    if body.run_name:
        tags[RUN_NAME_TAG] = body.run_name
    parent = tags.pop(PARENT_TAG, None)
    runs = access.of(RunRepository)
    return _shown(access, runs.start(experiment.model_id, kind=TRACKED, tags=tags, parent_run_id=parent))


@rest("GET", "runs/get", Scope.READ)
def get(access: TenantAccess, run_id: str) -> Response:
    """A run with all that it logged; of its metrics the last values."""
    return _shown(access, run_id)


@rest("POST", "runs/update", Scope.TRAIN)
def update(access: TenantAccess, body: RunUpdate) -> Response:
    """End a run, open it again, or give it another name."""
    runs = access.of(RunRepository)
    if body.status is not None:
        _set_status(runs, runs.get(body.run_id), body.status)
    if body.run_name:
        runs.tag(body.run_id, {RUN_NAME_TAG: body.run_name})
    return answer({"run_info": forms.info_form(runs.get(body.run_id))})


@rest("POST", "runs/delete", Scope.TRAIN)
def delete(access: TenantAccess, body: OfRun) -> Response:
    """Hide a run from clients until it is restored."""
    access.of(RunRepository).tag(body.run_id, {DELETED_TAG: "true"})
    return answer({})


@rest("POST", "runs/restore", Scope.TRAIN)
def restore(access: TenantAccess, body: OfRun) -> Response:
    """Show a run again."""
    access.of(RunRepository).tag(body.run_id, {DELETED_TAG: None})
    return answer({})


@rest("POST", "runs/log-metric", Scope.TRAIN)
def log_metric(access: TenantAccess, body: RunMetric) -> Response:
    """Log a value of a metric."""
    return _log(access, Batch(run_id=body.run_id, metrics=[body]))


@rest("POST", "runs/log-parameter", Scope.TRAIN)
def log_parameter(access: TenantAccess, body: RunParameter) -> Response:
    """Log a parameter, which keeps its value."""
    return _log(access, Batch(run_id=body.run_id, params=[body]))


@rest("POST", "runs/set-tag", Scope.TRAIN)
def set_tag(access: TenantAccess, body: RunTag) -> Response:
    """Set a tag."""
    return _log(access, Batch(run_id=body.run_id, tags=[body]))


@rest("POST", "runs/delete-tag", Scope.TRAIN)
def delete_tag(access: TenantAccess, body: RunTagKey) -> Response:
    """Remove a tag."""
    access.of(RunRepository).tag(body.run_id, {body.key: None})
    return answer({})


@rest("POST", "runs/log-batch", Scope.TRAIN)
def log_batch(access: TenantAccess, body: Batch) -> Response:
    """Log parameters, metrics and tags, in this order; after an error the whole can be sent again."""
    return _log(access, body)


@rest("POST", "runs/log-inputs", Scope.TRAIN)
def log_inputs(access: TenantAccess, body: Inputs) -> Response:
    """Log the datasets and models that a run read."""
    read = [each.model_dump(by_alias=True, exclude_none=True) for each in body.datasets]
    datasets = {_key(each["dataset"]["name"], each["dataset"]["digest"]): each for each in read}
    return _add(access, body.run_id, {forms.DATASET: datasets, forms.MODEL_INPUT: _models(body.models)})


@rest("POST", "runs/outputs", Scope.TRAIN)
def log_outputs(access: TenantAccess, body: Outputs) -> Response:
    """Log which models a run made."""
    return _add(access, body.run_id, {forms.MODEL_OUTPUT: _models(body.models)})


@rest("POST", "runs/search", Scope.READ)
def search(access: TenantAccess, body: RunSearch) -> Response:
    """A page of runs, without the datasets and models that they name."""
    comparisons = RUNS.comparisons(body.filter)
    is_deleted = is_deleted_in(body.run_view_type)
    if is_deleted is not None:
        comparisons.append(Comparison(_DELETED, Operator.IS_NOT_NULL if is_deleted else Operator.IS_NULL))
    found = access.of(RunRepository).query(
        [forms.model_of(each) for each in body.experiment_ids],
        comparisons,
        RUNS.orders(body.order_by),
        limit=min(body.max_results, MAX_PAGE_SIZE),
        cursor=body.page_token or None,
    )
    return page("runs", [forms.run_form(run) for run in found.items], found.next_cursor)


@rest("GET", "metrics/get-history", Scope.READ)
def get_history(
    access: TenantAccess,
    run_id: str,
    metric_key: str,
    max_results: int | None = None,
    page_token: str | None = None,
) -> Response:
    """The values of a metric in the order of steps: a page where one is asked for, else all."""
    runs = access.of(RunRepository)
    if metric_key not in runs.get(run_id).metrics:
        return page("metrics", [], None)
    wanted = _MAX_POINTS if max_results is None else min(max_results, _MAX_POINTS)
    points: list[dict[str, Any]] = []
    cursor = page_token or None
    while True:
        found = runs.points(run_id, metric_key, limit=min(wanted - len(points), MAX_PAGE_SIZE), cursor=cursor)
        points += [forms.point_form(metric_key, point) for point in found.items]
        cursor = found.next_cursor
        if cursor is None or len(points) >= wanted:
            return page("metrics", points, cursor)


def _set_status(runs: RunRepository, run: Run, status: str) -> None:
    """Bring a run to a status of MLflow's."""
    wanted = "RUNNING" if status == "SCHEDULED" else status
    if wanted not in forms.STATUSES.values():
        raise InvalidRequestError(
            f"There is no status {status[:40]!r}.",
            remedy=f"Use one of SCHEDULED, {', '.join(dict.fromkeys(forms.STATUSES.values()))}.",
            field="status",
        )
    is_running = run.finished_at is None
    if wanted == forms.STATUSES[RunStatus.RUNNING if is_running else run.status]:
        return
    if not is_running:
        runs.resume(run.run_id)
    if wanted == "FINISHED":
        runs.finish(run.run_id)
    elif wanted == "FAILED":
        runs.fail(run.run_id, "")
    elif wanted == "KILLED":
        runs.cancel(run.run_id)


def _log(access: TenantAccess, batch: Batch) -> Response:
    size = len(batch.metrics) + len(batch.params) + len(batch.tags)
    if size > _MAX_BATCH:
        raise RequestTooLargeError(
            f"The batch has {size:,} entries; {_MAX_BATCH:,} are allowed.",
            remedy="Send it in parts.",
            limit=_MAX_BATCH,
            actual=size,
        )
    runs = access.of(RunRepository)
    parameters: dict[str, str] = {}
    for each in batch.params:
        if parameters.setdefault(each.key, each.value) != each.value:
            raise InvalidRequestError(
                f"The batch has two values of the parameter {each.key!r}.", remedy="Send one.", field="params"
            )
    tags = {tag.key: tag.value for tag in batch.tags}
    _check_parent(runs, batch.run_id, tags.pop(PARENT_TAG, None))
    if parameters:
        runs.log_parameters(batch.run_id, parameters)
    if batch.metrics:
        runs.log_series(
            batch.run_id,
            [metric.key for metric in batch.metrics],
            [metric.step for metric in batch.metrics],
            [metric.value for metric in batch.metrics],
            [datetime.fromtimestamp(metric.timestamp / 1000, UTC) for metric in batch.metrics],
        )
    if tags or not size:  # an empty batch still asks for a run
        runs.tag(batch.run_id, tags)
    return answer({})


def _check_parent(runs: RunRepository, run_id: str, parent: str | None) -> None:
    if parent is not None and runs.get(run_id).parent_run_id != parent:
        raise RunStateError(
            f"The parent of the run {run_id} can't be changed.",
            remedy="Name the parent when the run is started.",
            run_id=run_id,
            trigger="tag",
        )


def _add(access: TenantAccess, run_id: str, documents: dict[str, dict[str, dict[str, Any]]]) -> Response:
    for kind, named in documents.items():
        access.of(RunDocuments).add(run_id, kind, named)
    return answer({})


def _models(models: list[ModelId]) -> dict[str, dict[str, Any]]:
    return {_key(each.model_id, str(each.step)): each.model_dump(exclude_none=True) for each in models}


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()


def _shown(access: TenantAccess, run_id: str) -> Response:
    documents = access.of(RunDocuments).list(run_id)
    return answer({"run": forms.run_form(access.of(RunRepository).get(run_id), documents)})
