"""Options that several verbs have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from ml_core.exceptions import InvalidRequestError

TenantOption = Annotated[
    str | None, typer.Option("--tenant", "-t", help="The tenant, such as acme; default: that of `mlcore login`.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="The model, such as tickets; default: that of `mlcore login`.")
]
EnvironmentOption = Annotated[str, typer.Option("--environment", "-e", help="The environment.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")]
CursorOption = Annotated[str | None, typer.Option("--cursor", help="Where the page before ended.")]
ArchivedOption = Annotated[bool, typer.Option("--archived", help="Archived ones too.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Don't ask.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


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
