"""What the operations of MLflow's protocol share: the router, and how they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Response

from ml_core.api.operation import Operation
from ml_core.api.routes.adding import operation
from ml_core.domain.api_key import Scope

F = TypeVar("F", bound=Callable[..., Any])

router = APIRouter(prefix="/v1/tenants/{tenant}/mlflow", route_class=Operation, include_in_schema=False)
"""All of them. MLflow documents them, so they are not in our own document."""


def rest(method: str, path: str, scope: Scope) -> Callable[[F], F]:
    """Add the decorated function as an operation below ``/api/2.0/mlflow``; its id is the path's."""
    name = "mlflow." + path.strip("/").replace("/", ".")
    return operation(router, method, f"/api/2.0/mlflow/{path}", f"{name}.{method.lower()}", scope)


def answer(form: dict[str, Any]) -> Response:
    """A form as the answer."""
    return Response(orjson.dumps(form), media_type="application/json")


def page(name: str, items: list[dict[str, Any]], token: str | None) -> Response:
    """A page of forms, with the token of the next one, if there is one."""
    return answer({name: items} if token is None else {name: items, "next_page_token": token})
