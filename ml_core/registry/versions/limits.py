"""What a version may hold besides its artifact, checked before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ml_core.database.strict_json import dumps, is_storable, plain
from ml_core.database.tables.sizes import MAX_SERVED_BYTES
from ml_core.domain.version import VersionDraft
from ml_core.exceptions import InvalidRequestError, RequestTooLargeError, shown

MAX_DOCUMENT_BYTES = 64 * 2**10
"""Of a version's metadata, and of its hyperparameters, as JSON; the same as of a run's parameters."""
MAX_MODEL_NOTES_BYTES = 16 * 2**10
"""Of a model's own metadata, as JSON: each of its versions has them beside notes of its own."""
MAX_DESCRIPTION_BYTES = MAX_SERVED_BYTES // 2
"""Of a version's signature, and of its self-test, as JSON: Postgres prints it with blanks."""
MAX_METRICS = 1_000
"""Of a version, over all splits: each is a row, and a statement has at most 65,535 parameters."""
MAX_METRIC_NAME = 200
"""Characters of the name of a metric, and of a split: an index holds both."""


def check_draft(draft: VersionDraft) -> None:
    """Refuse a draft whose documents or metrics can't be stored.

    Raises:
        InvalidRequestError: One has no JSON form; or a metric has too long a name or is no number. A number that is not
            finite is allowed.
        RequestTooLargeError: One is over ``MAX_DOCUMENT_BYTES`` or, if it is the signature or the self-test, over
            ``MAX_DESCRIPTION_BYTES``; or there are more than ``MAX_METRICS``.
    """
    check_metrics(draft.metrics)
    for field, document in (("signature", draft.signature.to_json()), ("self-test", draft.self_test.to_json())):
        size_bytes = len(dumps(document).encode())
        if size_bytes > MAX_DESCRIPTION_BYTES:
            raise RequestTooLargeError(
                f"The version's {field} would take {size_bytes:,} bytes; {MAX_DESCRIPTION_BYTES:,} are allowed.",
                remedy="Train on fewer columns, or on shorter texts: every replica keeps this in memory.",
                limit=MAX_DESCRIPTION_BYTES,
                actual=size_bytes,
            )
    check_document(draft.metadata, "metadata")
    check_document(draft.hyperparameters, "hyperparameters")


def check_document(document: Mapping[str, Any], field: str, *, reserved_bytes: int = 0) -> dict[str, Any]:
    """A document of a version as it is stored.

    Args:
        document: The document.
        field: Which one it is.
        reserved_bytes: Room for what the platform adds to it later.

    Raises:
        InvalidRequestError, RequestTooLargeError: As ``check_draft``.
    """
    stored: dict[str, Any] = plain(dict(document), field)
    size_bytes, allowed_bytes = len(orjson.dumps(stored)), MAX_DOCUMENT_BYTES - reserved_bytes
    if size_bytes > allowed_bytes:
        raise RequestTooLargeError(
            f"The version's {field} would take {size_bytes:,} bytes as JSON; {allowed_bytes:,} are allowed.",
            remedy="Keep large values in a file of the run that made the version: log_artifact.",
            limit=allowed_bytes,
            actual=size_bytes,
        )
    return stored


def check_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse metrics by split that can't be stored.

    Raises:
        InvalidRequestError, RequestTooLargeError: As ``check_draft``.
    """
    for split, values in metrics.items():
        _check_name(split)
        if not isinstance(values, Mapping):
            raise _no_metric(f"The metrics of the split {split!r} are not a mapping", "Give name → number by split.")
        for name, value in values.items():
            _check_name(name)
            if not _is_number(value):
                raise _no_metric(
                    f"The metric {name!r} is a {type(value).__name__}, not a number", "Give a number or leave it out."
                )
    count = sum(map(len, metrics.values()))
    if count > MAX_METRICS:
        raise RequestTooLargeError(
            f"The version has {count:,} metrics; {MAX_METRICS:,} are allowed.",
            remedy="Keep what versions are compared by, and log the rest to the run.",
            limit=MAX_METRICS,
            actual=count,
        )


def _check_name(name: object) -> None:
    if not (isinstance(name, str) and 1 <= len(name) <= MAX_METRIC_NAME and is_storable(name)):
        raise _no_metric(
            f"{shown(name)} can't be the name of a metric or a split",
            f"Use a text of 1 to {MAX_METRIC_NAME} characters.",
        )


def _is_number(value: object) -> bool:
    """Whether it is a number or holds one, as a tensor may; a text does not count, whatever it says."""
    if isinstance(value, str | bytes):
        return False
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _no_metric(what: str, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(f"{what}.", remedy=remedy, field="metrics")
