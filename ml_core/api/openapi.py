"""The OpenAPI document: FastAPI's, with the errors that every operation shares and the scheme of authentication."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ml_core.api.schemas.errors import ErrorAnswer

_DESCRIPTION = """
Everything that changes an ML Core platform goes through these operations; predictions have a plane of their own.

* Send `Authorization: Bearer mlk_<key id>_<secret>`. Each operation names the scope that it needs; `admin` has all.
* Lists are pages: send `next_cursor` as `cursor` until it is null.
* A write may carry an `Idempotency-Key`: sent again within a day, it is answered as the first time and not done twice.
* An error has a `code` for programs, a `message` for people, and an `action` where an operation mends it.
"""

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


def describe(app: FastAPI) -> None:
    """Give an application its OpenAPI document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=_DESCRIPTION, routes=app.routes)
            made["components"]["securitySchemes"] = {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of the issuer."}
            }
            _add_errors(made)
            _fill_in_examples(made)
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
            for status, meaning in meanings.items():
                operation["responses"][status] = {"description": meaning, "content": content}


def _fill_in_examples(document: dict[str, Any]) -> None:
    """Give each parameter the first example of its schema as its own: the value that Swagger UI fills in."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                examples = parameter["schema"].get("examples")
                if examples:
                    parameter.setdefault("example", examples[0])
