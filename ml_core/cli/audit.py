"""``mlcore audit``: who changed what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli.console import print_page, shorten, show
from ml_core.cli.options import CursorOption, LimitOption, SinceOption, UntilOption, utc
from ml_core.cli.target import platform

if TYPE_CHECKING:
    from ml_core.api.schemas.audit import Change

ASKS = "tenant"

_SHOWN_FIRST = ("generation", "action", "version", "reason")
_MAX_CHARACTERS = 64  # a digest is whole
"""Of one value in the table; --json has them all."""


def audit(
    action: Annotated[
        str | None, typer.Option(help="Such as version.registered, or version. for all changes of versions.")
    ] = None,
    principal: Annotated[str | None, typer.Option(help="Who did it, such as key:0123456789abcdef.")] = None,
    request_id: Annotated[str | None, typer.Option(help="For which request.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
) -> None:
    """Show the changes of a tenant, newest first: who changed what, and when."""
    with platform() as client:
        changes = client.audit.list(
            descending=True,
            action=action,
            principal=principal,
            request_id=request_id,
            since=utc(since),
            until=utc(until),
        )
        page = changes.page(limit=limit, cursor=cursor)
    has_requests = any(change.request_id is not None for change in page.items)
    print_page(
        page,
        ["at", "principal", "action", "subject", "what", *(["request_id"] if has_requests else [])],
        empty="No such change is recorded.",
        shown={"subject": _words, "what": _details},
    )


def _details(change: Change) -> str | None:
    """The details as a person reads them: what is there, the move of a pointer first."""
    first = {name: change.details[name] for name in _SHOWN_FIRST if name in change.details}
    rest = {name: value for name, value in change.details.items() if name not in {*first, "actor"}}
    return _words({**first, **rest}) or None


def _words(values: Mapping[str, Any]) -> str:
    texts = {name: show(value) for name, value in values.items() if value not in (None, "", {}, [])}
    return " ".join(f"{name}={shorten(text, _MAX_CHARACTERS)}" for name, text in texts.items())
