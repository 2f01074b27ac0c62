"""The platform's errors as exceptions."""

from __future__ import annotations

import httpx
import orjson

from ml_core.exceptions import MLFrameworkError, PlatformError, error_from_json


def error_from_response(response: httpx.Response) -> MLFrameworkError:
    """The exception that an error response describes."""
    try:
        document = orjson.loads(response.content)["error"]
        error = error_from_json(document)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return PlatformError(
            f"The server answered {response.status_code} without an explanation.",
            remedy="Check that the address is that of an ML Core ingress.",
            component="ingress",
        )
    error.details["request_id"] = document.get("request_id")
    return error
