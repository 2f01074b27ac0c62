"""``mlcore gc``: remove for good what was archived long enough and nothing needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli.console import advancing, note, print_error, print_rows, printed_as_json, say
from ml_core.cli.context import registry_connection
from ml_core.exceptions import MLFrameworkError
from ml_core.ids import TenantId

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection
    from ml_core.registry.collection.collector import Collector

_EXIT_INCOMPLETE = 1
_OUTAGE = 3
"""Tenants in a row that fail: then the store is down, and asking it for the others would take a time limit each."""

_WITH_BYTES = ("artifact", "temporary", "tenant")
"""Kinds of which something goes from the store."""


def gc(
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Only this tenant; otherwise all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
) -> None:
    """Remove what was archived for MLCORE_RETENTION_DAYS and nothing needs, and bytes without a row.

    A version goes with its bytes unless an environment, a rollback, a hold or a version made from it needs it. Also old
    idempotency keys, half-written files, days of the prediction log whose retention ended, and what is left of
    deleted tenants. The audit is kept. The prediction log is pruned for all tenants together, so not with --tenant.
    Exit code 1: something could not be removed; run it again.
    """
    from ml_core.models.store import platform_store
    from ml_core.registry.collection.collector import Collector

    report = _Report(dry_run)
    with registry_connection() as database:
        collector = Collector(database, platform_store(database.settings))
        with advancing("Collecting", lambda: f"{len(report.items):,} items") as advance:
            tenants = list(_wanted(database, collector, tenant))
            for done, tenant_id in enumerate(tenants, 1):
                report.add_tenant(collector, tenant_id)
                advance(done, len(tenants))
        if tenant is None:
            report.add_prediction_log(database)
    report.show()
    if report.failed:
        raise typer.Exit(_EXIT_INCOMPLETE)


def _wanted(database: DatabaseConnection, collector: Collector, tenant: str | None) -> Iterator[TenantId]:
    """All tenants, or the one that was named, if it is there or was."""
    if tenant is None:
        yield from collector.tenants()
        return
    from ml_core.registry.missing import tenant_not_found
    from ml_core.registry.tenants import TenantRepository

    found = TenantRepository(database).find(tenant)
    if found is None:
        raise tenant_not_found(TenantId(tenant))
    yield found.tenant_id


class _Report:
    """What went, or would go, of all tenants."""

    def __init__(self, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.items: list[dict[str, Any]] = []
        self.kept: list[dict[str, Any]] = []
        self.log: dict[str, Any] = {}
        self.failed = 0
        self._failed_in_a_row = 0

    def add_tenant(self, collector: Collector, tenant_id: TenantId) -> None:
        """Plan a tenant and, unless it is a dry run, collect it; report one that can't be planned."""
        try:
            plan = collector.plan(tenant_id)
        except MLFrameworkError as error:
            self.failed += 1
            self._failed_in_a_row += 1
            if self._failed_in_a_row == _OUTAGE:
                raise
            note(f"{tenant_id}: nothing was collected.", style="")
            print_error(error, as_json=False)
            return
        self._failed_in_a_row = 0
        self.kept += [
            {"tenant_id": kept.tenant_id, "kind": kept.kind.value, "name": kept.name, "needed_by": list(kept.needed_by)}
            for kept in plan.kept
        ]
        if self.dry_run:
            planned = {"status": "planned", "freed_bytes": 0, "reason": None}
            self.items += [_sized({**item.describe(), **planned}) for item in plan.items]
            return
        report = collector.collect(plan)
        self.items += [_sized(outcome.describe()) for outcome in report.outcomes]
        self.failed += 0 if report.is_complete else 1

    def add_prediction_log(self, database: DatabaseConnection) -> None:
        """Prune the prediction log of all tenants, by the day."""
        from ml_core.registry.predictions.retention import prune

        self.log = {"prediction_log": None}
        try:
            pruned = prune(database, dry_run=self.dry_run)
        except MLFrameworkError as error:
            self.failed += 1
            note("The prediction log was not pruned.", style="")
            print_error(error, as_json=False)
            return
        self.log["prediction_log"] = {
            "before": pruned.before.isoformat(),
            "days": [partition.day.isoformat() for partition in pruned.partitions],
            "rows": sum(partition.rows for partition in pruned.partitions),
            "size_bytes": sum(partition.size_bytes for partition in pruned.partitions),
            "busy": [day.isoformat() for day in pruned.busy],
            "labels": pruned.labels,
            "losses": pruned.losses,
        }

    def show(self) -> None:
        """Print it."""
        size_bytes = sum(item["size_bytes" if self.dry_run else "freed_bytes"] or 0 for item in self.items)
        found = {"items": self.items, "kept": self.kept, "failed": self.failed}
        if printed_as_json({"dry_run": self.dry_run, "freed_bytes": size_bytes, **found, **self.log}):
            return
        outcome = [] if self.dry_run else ["status", "reason"]
        columns = ["tenant_id", "kind", "name", "why", "size_bytes", *outcome]
        print_rows(self.items, columns, empty="There is nothing to collect.")
        for kept in self.kept:
            needed_by = ", ".join(kept["needed_by"])
            if any(need.startswith("rollback:") for need in kept["needed_by"]):
                needed_by += " (restore it before you roll back to it)"
            say(f"Kept: {kept['name']} of {kept['tenant_id']}, needed by {needed_by}.", style="dim")
        self._show_prediction_log()
        if self.items:
            counted = Counter(item["kind"] for item in self.items if item["status"] in ("planned", "collected"))
            what = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(counted.items()))
            say(f"{'Would free' if self.dry_run else 'Freed'} {size_bytes:,} bytes: {what or 'nothing'}.")

    def _show_prediction_log(self) -> None:
        log = self.log.get("prediction_log")
        if log is None or not (log["days"] or log["busy"] or log["labels"] or log["losses"]):
            return
        done = "would go" if self.dry_run else "went"
        busy = f" In use, so left for the next run: {', '.join(log['busy'])}." if log["busy"] else ""
        say(
            f"Prediction log before {log['before']}: {len(log['days'])} days with about "
            f"{log['rows']:,} rows and {log['size_bytes']:,} bytes of the database {done}, "
            f"{log['labels']:,} labels, {log['losses']:,} counts of losses.{busy}"
        )


def _sized(item: dict[str, Any]) -> dict[str, Any]:
    """An item without a size where it is rows of the database: their bytes in the store are an item of their own."""
    return item if item["kind"] in _WITH_BYTES else {**item, "size_bytes": None, "freed_bytes": None}
