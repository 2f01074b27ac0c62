"""``mlcore fsck``: prove that the registry's rows and the artifact store's bytes agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_core.cli.actions import command_of
from ml_core.cli.console import advancing, answer, say, wants_json
from ml_core.cli.context import registry_connection
from ml_core.ids import TenantId

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection
    from ml_core.registry.collection.fsck import Checked, Checker, Finding

_EXIT_FINDINGS = 1


def fsck(
    tenant: Annotated[str | None, typer.Option("--tenant", "-t", help="Only this tenant; otherwise all.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired; no row is changed.")] = False,
    source: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            help="Where copies of damaged files are: a backup, or a folder such as a storage_path; repeat for several.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Compare sizes only, instead of reading every byte.")] = False,
) -> None:
    """Check the registry against the artifact store: each row has its bytes, unchanged, and each file has a row.

    Rows are also checked against each other. Exit code 0: no finding is left. 1: findings are listed with a remedy.
    """
    from ml_core.models.store import platform_store
    from ml_core.registry.backup import artifacts_in
    from ml_core.registry.collection.fsck import Checker, Repairer

    sources = [artifacts_in(folder) for folder in source or ()]  # before a database is started for it
    with registry_connection() as database:
        store = platform_store(database.settings)
        grace = timedelta(seconds=database.settings.collection.grace_s)
        checker = Checker(database, store, grace, is_quick=quick)
        repairer = Repairer(database, store, sources)
        findings = []
        with advancing("Checking", lambda: f"{checker.checked.needed:,} artifacts") as advance:
            for finding in _findings(database, checker, tenant, advance):
                findings.append(repairer.repair(finding) if repair else finding)
                if not wants_json.get():
                    _show(findings[-1])
    left = sum(not finding.is_repaired for finding in findings)
    document = {"checked": checker.checked, "findings": [finding.describe() for finding in findings]}
    answer(document, _summary(checker.checked, len(findings), left))
    if left:
        raise typer.Exit(_EXIT_FINDINGS)


def _findings(
    database: DatabaseConnection, checker: Checker, tenant: str | None, advance: Callable[[float, float | None], object]
) -> Iterator[Finding]:
    from ml_core.registry.tenants import TenantRepository, tenant_ids

    if tenant is not None:
        tenants = [TenantId(tenant)]
        TenantRepository(database).get(tenants[0])
    else:
        tenants = list(tenant_ids(database))
    for number, tenant_id in enumerate(tenants):

        def checked(share: float, before: int = number) -> None:
            advance(before + share, len(tenants))

        yield from checker.check(tenant_id, checked)
    if tenant is None:
        yield from checker.check_folders()


def _show(finding: Finding) -> None:
    say(f"{finding.tenant_id}  {finding.kind.value}  {finding.subject}", style="bold")
    needed_by = f" Needed by {', '.join(finding.needed_by)}." if finding.needed_by else ""
    say(f"  {finding.what}{needed_by}")
    say("  Repaired." if finding.is_repaired else f"  {finding.remedy}")
    if finding.action is not None and not finding.is_repaired:
        say(f"    {command_of(finding.action)}", style="bold")


def _summary(checked: Checked, found: int, left: int) -> str:
    tenants = "1 tenant" if checked.tenants == 1 else f"{checked.tenants:,} tenants"
    artifacts = "1 artifact" if checked.needed == 1 else f"{checked.needed:,} artifacts"
    what = f"{tenants}, {artifacts} that rows need ({checked.needed_bytes:,} bytes), {checked.stored:,} in the store"
    if not found:
        return f"All is sound: {what}."
    return f"Checked {what}. Found {found:,}, repaired {found - left:,}, left {left:,}."
