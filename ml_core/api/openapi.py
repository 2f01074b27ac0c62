"""The OpenAPI document: FastAPI's, with the errors that every operation shares and the scheme of authentication."""

from __future__ import annotations

import re
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ml_core.api import examples
from ml_core.api.schemas.base import ErrorAnswer

_DESCRIPTION = """
Everything that changes an ML Core platform goes through these operations; predictions have a plane of their own.

* Send `Authorization: Bearer mlk_<key id>_<secret>`. Each operation names the scope that it needs; `admin` has all.
* Lists are pages: send `next_cursor` as `cursor` until it is null.
* A write may carry an `Idempotency-Key`: sent again within a day, it is answered as the first time and not done twice.
* An error has a `code` for programs, a `message` for people, and an `action` where an operation mends it.
"""

_NOUNS = {
    "platform": "The cells, their replicas, and what these serve.",
    "tenants": "Each has its own keys, datasets, models and predictions, which no other can see.",
    "placements": "Which cell serves a tenant, and the bounds of the cells.",
    "keys": "API keys of a tenant, each with its scopes.",
    "platform_keys": "API keys of operators, which act in all tenants.",
    "datasets": "Names with immutable versions of a table.",
    "models": "Names with versions; trainings make them.",
    "versions": "Immutable versions of models: artifact, metrics, lineage, notes.",
    "holds": "Reasons to keep versions, which then can't be deleted.",
    "environments": "What each environment of a model serves, how it is moved, and who may move it.",
    "rollouts": "Canaries and shadows.",
    "gates": "What a version must meet before an environment serves it.",
    "jobs": "Work that the platform does in turn, and that survives its processes.",
    "schedules": "Jobs that the platform submits at the times of a cron line.",
    "job_batches": "Jobs that an operator submits for each tenant that has a dataset.",
    "runs": "Parameters, metrics and files of trainings, also of those that are done elsewhere.",
    "predictions": "The prediction log, with the labels that were recorded later.",
    "quality": "How good live versions are by their labels, and what drifted from their training.",
    "audit": "The ordered feed of what changed.",
    "events": "That something changed, told as it happens.",
}
"""The first part of an operation's id → what it is about."""

_MEANINGS = {
    400: "The request is malformed; `details.field` is the path of the field.",
    401: "There is no key, or it is malformed, unknown or revoked.",
    403: "The key lacks the scope.",
    404: "There is no such thing, or it belongs to another tenant.",
    409: "The state of the platform does not allow it.",
    413: "It is over a limit.",
    422: "The data can't be used.",
    429: "A quota or a queue is full; try again after `Retry-After` seconds.",
    503: "A part that the operation needs is away; try again after `Retry-After` seconds.",
}

_SCHEMAS = "#/components/schemas/"
_PATH = {
    "batch": "The batch of jobs.",
    "dataset": "The dataset.",
    "environment": "The environment.",
    "gate": "The gate.",
    "hold": "The hold.",
    "job": "The job.",
    "key": "The id of the key, which is not secret.",
    "model": "The model.",
    "name": "The file.",
    "number": "The number of the dataset's version, or `newest`.",
    "other": "The version to compare with.",
    "request": "The request, as its answer names it.",
    "run": "The run.",
    "schedule": "The schedule.",
    "tenant": "The tenant.",
    "version": "The version.",
}


def describe(app: FastAPI) -> None:
    """Give an application its OpenAPI document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=_DESCRIPTION, routes=app.routes)
            made["components"]["securitySchemes"] = {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of the issuer."}
            }
            _add_errors(made)
            made = _with_readable_names(made)
            made["tags"] = [{"name": noun, "description": text} for noun, text in _NOUNS.items()]
            for operations in made["paths"].values():
                for operation in operations.values():
                    _complete(operation)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI documents it


def _add_errors(document: dict[str, Any]) -> None:
    """Add the errors that every operation may answer with.

    FastAPI would build a model for each error of each operation when the application starts: half of the time it takes.
    """
    schema = ErrorAnswer.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}")
    schemas = document["components"]["schemas"]
    schemas |= {**schema.pop("$defs"), ErrorAnswer.__name__: schema}
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shape, which is never sent
        schemas.pop(name, None)
    content = {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{ErrorAnswer.__name__}"}}}
    meanings = {**{str(status): _MEANINGS[status] for status in sorted(_MEANINGS)}, "default": "Any other failure."}
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, text in meanings.items():
                operation["responses"][status] = {"description": text, "content": content}


def _with_readable_names(document: dict[str, Any]) -> dict[str, Any]:
    """``ModelPage`` instead of pydantic's ``Page_Model_``, and ``VersionForm`` instead of FastAPI's ``register``."""
    schemas = document["components"]["schemas"]
    names = {name: re.sub(r"^Page_(\w+)_$", r"\1Page", name) for name in schemas} | {"register": "VersionForm"}
    for name, schema in schemas.items():
        schema["title"] = names[name]
    document["components"]["schemas"] = {names[name]: schema for name, schema in schemas.items()}
    text = orjson.dumps(document).decode()
    renamed: dict[str, Any] = orjson.loads(
        re.sub(r'"#/components/schemas/(\w+)"', lambda found: f'"#/components/schemas/{names[found[1]]}"', text)
    )
    return renamed


def _complete(operation: dict[str, Any]) -> None:
    """Give an operation its tag, a title in plain writing, and examples where Swagger UI looks for them."""
    name = operation["operationId"]
    operation["tags"] = [name.partition(".")[0]]
    operation["summary"] = operation["summary"].capitalize()
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            parameter["example"] = examples.PATH[parameter["name"]]
            parameter.setdefault("description", _PATH[parameter["name"]])
    if name in examples.BODIES:
        operation["requestBody"]["content"]["application/json"]["example"] = examples.BODIES[name]
