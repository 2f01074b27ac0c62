"""Options that several verbs have. ``target.complete`` adds those that all have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer

from ml_core.exceptions import InvalidRequestError

TenantOption = Annotated[
    str | None, typer.Option("--tenant", "-t", help="The tenant, such as acme; default: that of `mlcore login`.")
]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="The model, such as tickets; default: that of `mlcore login`.")
]
"""Of a verb about one model; ``target.complete`` supplies the default."""
OnlyModelOption = Annotated[str | None, typer.Option("--model", "-m", help="Only of this model.")]
VersionOption = Annotated[str, typer.Option("--version", "-v", help="The version, such as 3.")]
EnvironmentOption = Annotated[str, typer.Option("--environment", "-e", help="The environment.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Maximum number of items.")]
CursorOption = Annotated[str | None, typer.Option("--cursor", help="Start where the previous page ended.")]
SinceOption = Annotated[datetime | None, typer.Option(help="Only at or after this moment, UTC.")]
UntilOption = Annotated[datetime | None, typer.Option(help="Only before this moment, UTC.")]
EncodingOption = Annotated[str, typer.Option(help="The character encoding of a CSV file.")]
FILES = "a CSV or Parquet file, a folder or quoted pattern of them ('data/*.csv'), or s3://BUCKET/PATH"
AscendingOption = Annotated[
    bool | None,
    typer.Option(
        "--ascending/--descending",
        help="Sort direction; default: the newest, or for a metric the best, first.",
        show_default=False,
    ),
]
ArchivedOption = Annotated[bool, typer.Option("--archived", help="Include archived ones.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def wanted_tags(texts: Iterable[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` texts as the tags that something must have.

    Raises:
        InvalidRequestError: One has no value.
    """
    return {key: _required(key, value) for key, value in tags_to_set(texts or ()).items()}


def tags_to_set(texts: Iterable[str]) -> dict[str, str | None]:
    """``KEY=VALUE`` texts as tags to set; ``KEY=`` removes one.

    Raises:
        InvalidRequestError: One has no equals sign, or no key before it.
    """
    tags: dict[str, str | None] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key.strip() and equals):
            raise InvalidRequestError(f"{text!r} is not a tag.", remedy="Write KEY=VALUE.", field="tag")
        tags[key] = value or None
    return tags


def _required(key: str, value: str | None) -> str:
    if value is None:
        raise InvalidRequestError(f"The tag {key!r} has no value.", remedy="Write KEY=VALUE.", field="tag")
    return value


def json_or_text(text: str) -> Any:
    """The value of a ``NAME=VALUE`` option: JSON where it is JSON (8, 0.1, true, null, [1, 2]), else the text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def seconds_of(text: str, option: str) -> float:
    """The seconds of a duration such as ``90s``, ``10m``, ``2h`` or ``90``.

    Raises:
        InvalidRequestError: The text has another form.
    """
    found = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smh]?)", text.strip())
    if found is None:
        raise InvalidRequestError(f"{option} is {text!r}.", remedy="Write it like 90s, 10m or 2h.", field=option)
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def utc(moment: datetime | None) -> datetime | None:
    """A moment that an option gave, which is in UTC."""
    return None if moment is None else moment.replace(tzinfo=UTC)


def require_one_owner(tenant: object, *, of_platform: bool) -> None:
    """Refuse a tenant beside ``--platform``.

    Raises:
        InvalidRequestError: There is one.
    """
    if tenant and of_platform:
        raise InvalidRequestError(
            "What is of the platform has no tenant.", remedy="Give either --tenant or --platform.", field="--platform"
        )
