"""What a run may hold, checked before the database sees it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_core.database.strict_json import dumps
from ml_core.exceptions import InvalidRequestError, RequestTooLargeError, shown

MAX_PARAMETER_BYTES = 64 * 2**10
"""Of all parameters of a run as JSON. They are read with each list; what is larger is a file (``log_artifact``)."""
MAX_METRICS = 1000
"""Series of one run: each costs a line in every read of the run."""
MAX_STEP = 2**53
"""Steps are also read as 64-bit floats, which hold whole numbers up to here; below zero likewise."""
_MAX_NAME = 200  # characters, as of tags
_ARTIFACT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that can be stored.

    Raises:
        InvalidRequestError: A name is not a text, or a value has no JSON form; says which.
        RequestTooLargeError: They are over ``MAX_PARAMETER_BYTES``.
    """
    size = len(dumps(dict(parameters)).encode())
    if size > MAX_PARAMETER_BYTES:
        raise RequestTooLargeError(
            f"The run's parameters take {size:,} bytes as JSON; {MAX_PARAMETER_BYTES:,} are allowed.",
            remedy="Keep large values in a file of the run: log_artifact.",
            limit=MAX_PARAMETER_BYTES,
            actual=size,
        )
    return dict(parameters)


def check_word(text: str, field: str) -> str:
    """A name of 1 to 200 printable characters, such as a metric's.

    Raises:
        InvalidRequestError: The text is not such a name.
    """
    if not isinstance(text, str) or not 1 <= len(text) <= _MAX_NAME or not text.isprintable():
        raise InvalidRequestError(
            f"{shown(text, 60)} can't be the name of a {field}.",
            remedy=f"Use 1 to {_MAX_NAME} printable characters.",
            field=field,
        )
    return text


def check_steps(steps: Iterable[int]) -> None:
    """Refuse a step that is beyond ``MAX_STEP``.

    Raises:
        InvalidRequestError: One is; names it.
    """
    for step in steps:
        if not -MAX_STEP <= step <= MAX_STEP:
            raise InvalidRequestError(
                f"The step {step} can't be stored.", remedy="Steps lie between -2**53 and 2**53.", field="step"
            )


def check_artifact_name(name: str) -> str:
    """A file's name without any meaning to a file system.

    Raises:
        InvalidRequestError: The name is not valid.
    """
    if not isinstance(name, str) or not _ARTIFACT_NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{shown(name, 60)} can't be the name of a run's file.",
            remedy="Use 1 to 128 of letters, digits, '.', '_' and '-', beginning with a letter or digit.",
            field="name",
        )
    return name
