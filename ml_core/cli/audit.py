"""``mlcore audit``: who changed what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli.console import (
    CursorOption,
    JsonOption,
    LimitOption,
    TenantOption,
    err,
    print_json,
    print_rows,
    shorten,
    show,
)
from ml_core.cli.context import existing_tenant
from ml_core.exceptions import InvalidRequestError, shown

if TYPE_CHECKING:
    from ml_core.registry.audit import AuditEntry

_TOLD_FIRST = ("generation", "action", "version", "reason")
_MAX_CHARACTERS = 64  # a digest is whole
"""Of one value in the table; --json has them all."""


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("audit")(audit)


def audit(
    tenant: TenantOption,
    action: Annotated[
        str | None, typer.Option(help="Such as version.registered, or version. for all changes of versions.")
    ] = None,
    principal: Annotated[str | None, typer.Option(help="Who did it, such as key:0123456789abcdef.")] = None,
    request_id: Annotated[str | None, typer.Option(help="For which request.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only at or after this moment, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only before this moment, UTC.")] = None,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who changed what of a tenant, newest first."""
    from ml_core.registry.audit import AuditRepository

    _check_period(since, until)
    with existing_tenant(tenant) as (database, tenant_id):
        page = AuditRepository(database, tenant_id).list(
            after=cursor,
            limit=limit,
            descending=True,
            action=action,
            principal=principal,
            request_id=request_id,
            since=_utc(since),
            until=_utc(until),
        )
    if action is not None and not page.items:
        _check_action(action)
    if as_json:
        items = [{"tenant_id": tenant_id, **dataclasses.asdict(entry)} for entry in page.items]
        print_json({"items": items, "next_cursor": page.next_cursor})
        return
    has_requests = any(entry.request_id is not None for entry in page.items)
    print_rows(
        [_shown(entry) for entry in page.items],
        ["at", "principal", "action", "subject", "details", *(["request_id"] if has_requests else [])],
        as_json=False,
        empty="No such change is recorded.",
    )
    if page.next_cursor:
        err.print(f"More: --cursor {page.next_cursor}", style="dim")


def _shown(entry: AuditEntry) -> Mapping[str, Any]:
    """An entry as a person reads it: of the details, what is there, the move of a pointer first."""
    first = {name: entry.details[name] for name in _TOLD_FIRST if name in entry.details}
    rest = {name: value for name, value in entry.details.items() if name not in {*first, "actor"}}
    return {
        **dataclasses.asdict(entry),
        "subject": _words(entry.subject),
        "details": _words({**first, **rest}) or None,
    }


def _words(values: Mapping[str, Any]) -> str:
    texts = {name: show(value) for name, value in values.items() if value not in (None, "", {}, [])}
    return " ".join(f"{name}={shorten(text, _MAX_CHARACTERS)}" for name, text in texts.items())


def _check_period(since: datetime | None, until: datetime | None) -> None:
    """Refuse a period that holds no moment.

    Raises:
        InvalidRequestError: It ends before it begins.
    """
    if since is not None and until is not None and since >= until:
        raise InvalidRequestError(
            f"Nothing is at or after {show(since)} and before {show(until)}.",
            remedy="Give --since an earlier moment than --until.",
            field="--since",
        )


def _check_action(action: str) -> None:
    """Refuse an action that no change of this release has.

    Raises:
        InvalidRequestError: Names the nearest, or all that there are.
    """
    from ml_core.domain.permissions import MOVES, NEEDED
    from ml_core.registry.missing import did_you_mean

    known = sorted({*NEEDED, *MOVES})
    nouns = sorted({f"{name.split('.')[0]}." for name in known})
    if action in known or action in nouns:
        return
    raise InvalidRequestError(
        f"There is no action {shown(action)}.",
        remedy=f"{did_you_mean(action, [*known, *nouns])}Actions are: {', '.join(known)}. "
        "A noun with a dot, such as version., selects all of its actions.",
        field="--action",
    )


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
