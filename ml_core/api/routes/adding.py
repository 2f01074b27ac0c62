"""Adds operations to a noun's router, each in one line: method and path, id, and the scope that it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, status

from ml_core.api.access import needs
from ml_core.domain.api_key import Scope

F = TypeVar("F", bound=Callable[..., Any])


def operation(
    router: APIRouter, method: str, path: str, operation_id: str, scope: Scope, *, creates: bool = False, **needed: Any
) -> Callable[[F], F]:
    """Add the decorated function as an operation. It answers 204 if it returns None.

    Args:
        router: Of ``operations``.
        method: The HTTP method.
        path: Below the prefix of the router.
        operation_id: ``noun.verb``.
        scope: The scope that the caller needs.
        creates: Whether it answers 201.
        **needed: Further arguments of ``access.needs``.
    """

    def add(function: F) -> F:
        # A text, as in all modules with postponed annotations.
        returns_nothing = function.__annotations__["return"] in ("None", None)
        router.add_api_route(
            path,
            function,
            methods=[method],
            operation_id=operation_id,
            openapi_extra=needs(scope, **needed),
            status_code=status.HTTP_204_NO_CONTENT
            if returns_nothing
            else status.HTTP_201_CREATED
            if creates
            else status.HTTP_200_OK,
        )
        return function

    return add
