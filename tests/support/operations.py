"""Requests of every operation of the control API, generated from its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from ml_core.api.app import PREFIX, create_app

_METHODS = ("get", "put", "post", "patch", "delete")
_SAMPLES = {"string": "x1", "integer": 1, "number": 1.0, "boolean": True, "object": {}, "null": None}

DOCUMENT: dict[str, Any] = create_app(None).openapi()
"""It needs no registry."""


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each operation."""
    for path, methods in DOCUMENT["paths"].items():
        for method, described in methods.items():
            if method in _METHODS:
                yield method, path, described


def sample(schema: dict[str, Any]) -> Any:
    """A value that a schema accepts: its example, or the least there is."""
    if "$ref" in schema:
        return sample(DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    for known in ("examples", "enum"):
        if known in schema:
            return schema[known][0]
    if "const" in schema:
        return schema["const"]
    if either := schema.get("anyOf") or schema.get("oneOf"):
        return sample(either[0])
    if schema.get("type") == "object" and "properties" in schema:
        return {name: sample(schema["properties"][name]) for name in schema.get("required", ())}
    if schema.get("type") == "array":
        return [sample(schema["items"])] * schema.get("minItems", 0)
    if schema.get("format") == "date-time":
        return "2026-01-01T00:00:00Z"
    if schema.get("format") == "date":
        return "2026-01-01"
    return schema.get("minimum", _SAMPLES[schema.get("type", "string")])


def request_of(
    method: str, path: str, described: dict[str, Any], tenant: str, content: bytes = b"x", **names: Any
) -> httpx.Request:
    """A request of an operation that is right in all but who sends it.

    Args:
        method: The method.
        path: Below the prefix of the application.
        described: The operation in the document.
        tenant: The tenant.
        content: The file, where the operation receives one.
        **names: Values of path parameters and of fields of a JSON body, instead of samples.
    """
    query: dict[str, Any] = {}
    for parameter in described.get("parameters", ()):
        value = names.get(parameter["name"], sample(parameter["schema"]))
        value = tenant if parameter["name"] == "tenant" else value
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(value))
        elif parameter["in"] == "query" and parameter.get("required"):
            query[parameter["name"]] = value
    media = described.get("requestBody", {}).get("content", {})
    body: dict[str, Any] = {}
    if "application/json" in media:
        body["json"] = sample(media["application/json"]["schema"])
        if isinstance(body["json"], dict):
            body["json"] |= {name: names[name] for name in body["json"].keys() & names.keys()}
    elif "multipart/form-data" in media:
        body["files"] = {"artifact": content, "version": (None, "{}")}
    elif media:
        body |= {"content": content, "headers": {"content-type": next(iter(media))}}
    return httpx.Request(method.upper(), f"http://platform{PREFIX}{path}", params=query, **body)
