"""Logged models in MLflow's protocol: documents of the runs that logged them, with their files among the run's.

They are bytes that are only stored. What the platform serves is a version, which is registered and checked.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

import orjson
from fastapi import Response
from pydantic import Field

from ml_core.api.access import TenantAccess
from ml_core.api.routes.mlflow import forms
from ml_core.api.routes.mlflow.filters import MODELS
from ml_core.api.routes.mlflow.forms import MODEL, RUN_NAME_TAG, Form, KeyValue, Parameter
from ml_core.api.routes.mlflow.routing import answer, page, rest
from ml_core.domain.api_key import Scope
from ml_core.domain.run import TRACKED
from ml_core.exceptions import InvalidRequestError, RequestTooLargeError, RunNotFoundError, shown
from ml_core.ids import RunId
from ml_core.registry.limits import MAX_TAG
from ml_core.registry.runs import RunRepository
from ml_core.registry.runs.documents import RunDocument, RunDocuments

_MODEL: Final = "logged-models/{model_id}"
_ID: Final = re.compile(r"m-([0-9a-f]{16})[0-9a-f]{16}")
_STATUSES: Final = ("LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED")
_HISTORY_TAG: Final = "mlflow.log-model.history"

_MOST: Final = 50
"""Models of a page: a document has up to 512 KiB."""


class NewModel(Form):
    """A model to log."""

    experiment_id: str = "0"
    name: str = Field(default="model", min_length=1, max_length=500)
    model_type: str | None = None
    source_run_id: str | None = None
    params: list[Parameter] = Field(default_factory=list)
    tags: list[KeyValue] = Field(default_factory=list)


class Ending(Form):
    """How the upload of a model's files ended."""

    status: str


class Tags(Form):
    """Tags to set."""

    tags: list[KeyValue]


class Parameters(Form):
    """Parameters to add."""

    params: list[Parameter]


class OrderBy(Form):
    """A field to sort by."""

    field_name: str
    ascending: bool = True


class ModelSearch(Form):
    """Which models."""

    experiment_ids: list[str] = Field(default_factory=list)
    filter: str | None = None
    max_results: int = 100
    order_by: list[OrderBy] = Field(default_factory=list)
    page_token: str | None = None


class ModelRecord(Form):
    """What clients before MLflow 3 say of a model that they logged."""

    run_id: str
    model_json: str


@rest("POST", "logged-models", Scope.TRAIN)
def create(access: TenantAccess, body: NewModel) -> Response:
    """Begin to log a model. One that is logged outside a run gets a run of its own."""
    run_id = body.source_run_id or _own_run(access, body)
    model_id = f"m-{RunId(run_id).removeprefix('run_')}{secrets.token_hex(8)}"
    document = {
        "name": body.name,
        "model_type": body.model_type or "",
        "status": _STATUSES[0],
        "params": {each.key: each.value for each in body.params},
        "tags": {each.key: each.value for each in body.tags},
        "updated_ms": _now_ms(),
        "deleted": "false",
    }
    access.of(RunDocuments).add(run_id, MODEL, {model_id: document})
    return _shown(access.of(RunDocuments).get(run_id, MODEL, model_id))


@rest("GET", _MODEL, Scope.READ)
def get(access: TenantAccess, model_id: str, allow_deleted: bool = False) -> Response:
    """A logged model."""
    found = access.of(RunDocuments).get(_run_of(model_id), MODEL, model_id)
    if found.document["deleted"] == "true" and not allow_deleted:
        raise _not_found(model_id)
    return _shown(found)


@rest("PATCH", _MODEL, Scope.TRAIN)
def finalize(access: TenantAccess, model_id: str, body: Ending) -> Response:
    """Note how the upload of its files ended."""
    if body.status not in _STATUSES:
        raise InvalidRequestError(
            f"There is no status {body.status[:40]!r}.", remedy=f"Use one of {', '.join(_STATUSES)}.", field="status"
        )
    return _changed(access, model_id, lambda document: {**document, "status": body.status})


@rest("DELETE", _MODEL, Scope.TRAIN)
def delete(access: TenantAccess, model_id: str) -> Response:
    """Hide a logged model. Its files stay with the run."""
    _changed(access, model_id, lambda document: {**document, "deleted": "true"})
    return answer({})


@rest("PATCH", f"{_MODEL}/tags", Scope.TRAIN)
def set_tags(access: TenantAccess, model_id: str, body: Tags) -> Response:
    """Set tags."""
    tags = {each.key: each.value for each in body.tags}
    return _changed(access, model_id, lambda document: {**document, "tags": {**document["tags"], **tags}})


@rest("DELETE", f"{_MODEL}/tags/{{key}}", Scope.TRAIN)
def delete_tag(access: TenantAccess, model_id: str, key: str) -> Response:
    """Remove a tag."""

    def without(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "tags": {name: value for name, value in document["tags"].items() if name != key}}

    _changed(access, model_id, without)
    return answer({})


@rest("POST", f"{_MODEL}/params", Scope.TRAIN)
def log_parameters(access: TenantAccess, model_id: str, body: Parameters) -> Response:
    """Add parameters."""
    params = {each.key: each.value for each in body.params}
    _changed(access, model_id, lambda document: {**document, "params": {**document["params"], **params}})
    return answer({})


@rest("POST", "logged-models/search", Scope.READ)
def search(access: TenantAccess, body: ModelSearch) -> Response:
    """A page of logged models, newest first."""
    for order in body.order_by:
        if order.field_name not in ("creation_timestamp", "creation_time") or order.ascending:
            raise InvalidRequestError(
                f"Logged models are not sorted by {shown(order.field_name, 60)}.",
                remedy="They come newest first: leave order_by out.",
                field="order_by",
            )
    token = body.page_token or "0"
    if not re.fullmatch(r"\d{1,9}", token):
        raise InvalidRequestError("The page token can't be read.", remedy="Use that of the answer before.")
    limit, offset = max(1, min(body.max_results, _MOST)), int(token)
    experiments = [forms.model_of(each) for each in body.experiment_ids]
    comparisons = [*MODELS.comparisons(body.filter), *MODELS.comparisons("deleted = 'false'")]
    found = access.of(RunDocuments).search(MODEL, experiments, comparisons, limit=limit + 1, offset=offset)
    following = str(offset + limit) if len(found) > limit else None
    return page("models", [_form(each) for each in found[:limit]], following)


@rest("POST", "runs/log-model", Scope.TRAIN)
def record_model(access: TenantAccess, body: ModelRecord) -> Response:
    """Add a model to the history of a run, which is a tag."""
    runs = access.of(RunRepository)
    try:
        orjson.loads(body.model_json)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(
            f"The model is not valid JSON: {error}.", remedy="Send the model as MLflow writes it.", field="model_json"
        ) from error
    before = runs.get(body.run_id).tags.get(_HISTORY_TAG, "[]")
    text = f"[{', '.join(part for part in (before.strip()[1:-1], body.model_json) if part)}]"
    if len(text) > MAX_TAG:
        raise RequestTooLargeError(
            f"The history of models of the run {body.run_id} would have {len(text):,} characters.",
            remedy="The model's files are stored; log further models in runs of their own.",
            limit=MAX_TAG,
            actual=len(text),
        )
    runs.tag(body.run_id, {_HISTORY_TAG: text})
    return answer({})


def _own_run(access: TenantAccess, body: NewModel) -> str:
    runs = access.of(RunRepository)
    run_id = runs.start(forms.model_of(body.experiment_id), kind=TRACKED, tags={RUN_NAME_TAG: body.name})
    runs.finish(run_id)
    return run_id


def _run_of(model_id: str) -> str:
    """The run that logged a model."""
    found = _ID.fullmatch(model_id)
    if found is None:
        raise _not_found(model_id)
    return f"run_{found[1]}"


def _not_found(model_id: str) -> RunNotFoundError:
    return RunNotFoundError(f"There is no logged model {shown(model_id, 60)}.", remedy="Search the logged models.")


def _changed(access: TenantAccess, model_id: str, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> Response:
    documents = access.of(RunDocuments)
    made = documents.change(
        _run_of(model_id), MODEL, model_id, lambda document: {**changed(document), "updated_ms": _now_ms()}
    )
    return _shown(made)


def _shown(found: RunDocument) -> Response:
    return answer({"model": _form(found)})


def _form(found: RunDocument) -> dict[str, Any]:
    document = found.document
    return {
        "info": {
            "model_id": found.name,
            "experiment_id": forms.experiment_id_of(found.model_id),
            "name": document["name"],
            "creation_timestamp_ms": forms.milliseconds(found.created_at),
            "last_updated_timestamp_ms": document["updated_ms"],
            "artifact_uri": f"{forms.ARTIFACTS}{found.run_id}/models/{found.name}",
            "status": document["status"],
            "model_type": document["model_type"],
            "source_run_id": found.run_id,
            "tags": forms.pairs(document["tags"]),
        },
        "data": {"params": forms.pairs(document["params"]), "metrics": []},
    }


def _now_ms() -> int:
    return int(time.time() * 1000)
