"""The platform's errors as exceptions."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import orjson

from ml_core import exceptions
from ml_core.exceptions import Action, MLFrameworkError


def error_from_response(response: httpx.Response) -> MLFrameworkError:
    """The exception that an error response describes."""
    try:
        error = orjson.loads(response.content)["error"]
        code, message, details = error["code"], error["message"], dict(error.get("details") or {})
        action = error.get("action")
        mending = None if action is None else Action(action["operation"], action["arguments"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return exceptions.PlatformError(
            f"The server answered {response.status_code} without an explanation.",
            remedy="Check that the address is that of an ML Core ingress.",
            component="ingress",
        )
    kind = _BY_CODE.get(code, MLFrameworkError)
    own = {name: details.pop(name) for name in kind.fields if name in details}
    return kind(message, action=mending, details={**details, "request_id": error.get("request_id")}, **own)


def _subclasses(cls: type[MLFrameworkError]) -> Iterator[type[MLFrameworkError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


_BY_CODE: dict[str, type[MLFrameworkError]] = {
    **{kind.code: kind for kind in _subclasses(MLFrameworkError)},
    # Unknown tenants and unknown models share a code: an answer must not reveal which it was.
    exceptions.ModelNotFoundError.code: exceptions.ModelNotFoundError,
}
