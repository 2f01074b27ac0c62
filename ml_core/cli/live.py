"""``mlcore traffic`` and ``mlcore alerts``: what happens now, of a tenant or of the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli.console import print_items, print_page, print_rows, printed_as_json, say
from ml_core.cli.options import CursorOption, LimitOption, TenantOption, require_one_owner
from ml_core.cli.target import platform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_core.api.schemas.platform import TrafficPoint

ASKS = "tenant"

_SHOWN = 12
_COLUMNS = ["at", "requests_per_s", "refused_per_s", "errors_per_s", "p50_ms", "p99_ms"]
PlatformOption = Annotated[bool, typer.Option("--platform", help="Of the platform, with a key of it.")]


def traffic(tenant: TenantOption = None, of_platform: PlatformOption = False) -> None:
    """Show requests per second and their latency in the last two minutes; with --json in the last 15.

    Of a tenant they are counted from its prediction log, which has no refusals and no errors. Of the platform they are
    shown by cell, as the replicas report them.
    """
    require_one_owner(tenant, of_platform=of_platform)
    with platform(tenant, of_tenant=not of_platform) as client:
        found: Any = client.platform.traffic() if of_platform else client.predictions.traffic()
    if printed_as_json(found):
        return
    if not of_platform:
        _print_points(found)
        return
    if not found:
        say("Nothing was asked in the last 15 minutes.")
    for each in found:
        say(each.cell, style="bold")
        _print_points(each.points)


def alerts(
    tenant: TenantOption = None,
    of_platform: PlatformOption = False,
    limit: LimitOption = 100,
    cursor: CursorOption = None,
) -> None:
    """Show the versions of a tenant whose quality or rows differ from training; of the platform their number by tenant.

    The platform measures each version that is served about once an hour.
    """
    require_one_owner(tenant, of_platform=of_platform)
    empty = "No version that is served has an alert."
    with platform(tenant, of_tenant=not of_platform) as client:
        if not of_platform:
            page = client.quality.verdicts(only_alerts=True).page(limit=limit, cursor=cursor)
            print_page(page, ["model_id", "environment", "version", "quality", "drift", "measured_at"], empty=empty)
            return
        found = client.platform.alerts()
    print_items(found, ["tenant_id", "quality", "drift"], empty=empty)


def _print_points(points: Sequence[TrafficPoint]) -> None:
    print_rows([dict(each) for each in points[-_SHOWN:]], _COLUMNS, empty="Nothing was logged in the last 15 minutes.")
