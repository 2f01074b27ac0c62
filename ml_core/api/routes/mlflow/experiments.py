"""Experiments in MLflow's protocol: an experiment is the runs of one model."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import Field

from ml_core.api.access import TenantAccess
from ml_core.api.routes.mlflow.filters import EXPERIMENTS
from ml_core.api.routes.mlflow.forms import Form, Key, KeyValue, experiment_form, experiment_id_of, model_of
from ml_core.api.routes.mlflow.routing import answer, page, rest
from ml_core.domain.api_key import Scope
from ml_core.domain.experiment import Experiment
from ml_core.exceptions import InvalidRequestError
from ml_core.registry.limits import MAX_PAGE_SIZE
from ml_core.registry.runs.experiments import ExperimentRepository

_VIEWS = {"ACTIVE_ONLY": False, "DELETED_ONLY": True, "ALL": None}
"""MLflow's views → whether they show what was deleted; None: that as well."""


def is_deleted_in(view: str) -> bool | None:
    """Whether a view shows what was deleted; None: it shows both.

    Raises:
        InvalidRequestError: There is no such view.
    """
    if view not in _VIEWS:
        raise InvalidRequestError(
            f"There is no view {view[:40]!r}.", remedy=f"Use one of {', '.join(_VIEWS)}.", field="view_type"
        )
    return _VIEWS[view]


class NewExperiment(Form):
    """An experiment to create. The platform decides where its files are."""

    name: str
    tags: list[KeyValue] = Field(default_factory=list)


class OfExperiment(Form):
    """The experiment that is meant."""

    experiment_id: str


class Renaming(OfExperiment):
    """A new name."""

    new_name: str


class ExperimentTag(OfExperiment):
    """A tag to set or remove."""

    key: Key
    value: str = ""


class ExperimentSearch(Form):
    """Which experiments, in which order."""

    max_results: int = MAX_PAGE_SIZE
    page_token: str | None = None
    filter: str | None = None
    order_by: list[str] = Field(default_factory=list)
    view_type: str = "ACTIVE_ONLY"


@rest("POST", "experiments/create", Scope.TRAIN)
def create(access: TenantAccess, body: NewExperiment) -> Response:
    """Create an experiment."""
    made = access.of(ExperimentRepository).create(body.name, {tag.key: tag.value for tag in body.tags})
    return answer({"experiment_id": experiment_id_of(made.model_id)})


@rest("GET", "experiments/get", Scope.READ)
def get(access: TenantAccess, experiment_id: str) -> Response:
    """An experiment, deleted or not."""
    return _shown(access.of(ExperimentRepository).get(model_of(experiment_id)))


@rest("GET", "experiments/get-by-name", Scope.READ)
def get_by_name(access: TenantAccess, experiment_name: str) -> Response:
    """An experiment by its name, deleted or not."""
    return _shown(access.of(ExperimentRepository).named(experiment_name))


@rest("POST", "experiments/search", Scope.READ)
def search(access: TenantAccess, body: ExperimentSearch) -> Response:
    """A page of experiments."""
    return _found(access, body)


@rest("GET", "experiments/search", Scope.READ)
def search_by_query(
    access: TenantAccess,
    max_results: int = MAX_PAGE_SIZE,
    page_token: str | None = None,
    filter: str | None = None,  # noqa: A002 - the protocol's name
    order_by: Annotated[list[str] | None, Query()] = None,
    view_type: str = "ACTIVE_ONLY",
) -> Response:
    """A page of experiments."""
    asked = {"max_results": max_results, "page_token": page_token, "filter": filter, "view_type": view_type}
    return _found(access, ExperimentSearch(**asked, order_by=order_by or []))


@rest("POST", "experiments/update", Scope.TRAIN)
def update(access: TenantAccess, body: Renaming) -> Response:
    """Give an experiment another name."""
    access.of(ExperimentRepository).rename(model_of(body.experiment_id), body.new_name)
    return answer({})


@rest("POST", "experiments/delete", Scope.TRAIN)
def delete(access: TenantAccess, body: OfExperiment) -> Response:
    """Hide an experiment until it is restored."""
    access.of(ExperimentRepository).archive(model_of(body.experiment_id))
    return answer({})


@rest("POST", "experiments/restore", Scope.TRAIN)
def restore(access: TenantAccess, body: OfExperiment) -> Response:
    """Show an experiment again."""
    access.of(ExperimentRepository).restore(model_of(body.experiment_id))
    return answer({})


@rest("POST", "experiments/set-experiment-tag", Scope.TRAIN)
def set_tag(access: TenantAccess, body: ExperimentTag) -> Response:
    """Set a tag of an experiment."""
    access.of(ExperimentRepository).tag(model_of(body.experiment_id), {body.key: body.value})
    return answer({})


@rest("POST", "experiments/delete-experiment-tag", Scope.TRAIN)
def delete_tag(access: TenantAccess, body: ExperimentTag) -> Response:
    """Remove a tag of an experiment."""
    access.of(ExperimentRepository).tag(model_of(body.experiment_id), {body.key: None})
    return answer({})


def _shown(experiment: Experiment) -> Response:
    return answer({"experiment": experiment_form(experiment)})


def _found(access: TenantAccess, asked: ExperimentSearch) -> Response:
    options: dict[str, Any] = {}
    # The order that is behind the first one would decide among equal ones only.
    for order in EXPERIMENTS.orders(asked.order_by)[:1]:
        options = {"sort": order.field.name, "is_descending": order.is_descending}
    found = access.of(ExperimentRepository).list(
        is_archived=is_deleted_in(asked.view_type),
        conditions=EXPERIMENTS.comparisons(asked.filter),
        limit=min(asked.max_results, MAX_PAGE_SIZE),
        cursor=asked.page_token or None,
        **options,
    )
    return page("experiments", [experiment_form(each) for each in found.items], found.next_cursor)
