"""``mlcore db``: the registry's schema, its check, and backup and restore."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_core.cli.actions import command_of
from ml_core.cli.console import advancing, answer, note, print_rows, printed_as_json, say
from ml_core.cli.context import tell_new_home
from ml_core.exceptions import ConfigurationError
from ml_core.settings import Settings

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection

app = typer.Typer(help="Migrate, check, back up and restore the registry's database.", no_args_is_help=True)

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", help="Postgres URL of a superuser, or for a backup of one with BYPASSRLS; default: the embedded one's."
    ),
]


@app.command("current")
def current() -> None:
    """Show the revision of the schema and the one that this release needs. Exit code 1 if they differ."""
    from ml_core.database.tables import SCHEMA_REVISION

    with _unmigrated() as database:
        revision = database.current_revision()
    is_current = revision == SCHEMA_REVISION
    what = f"The schema is at {revision or 'no revision'}; this release needs {SCHEMA_REVISION}."
    remedy = "" if is_current else "\nBring it up to date: mlcore db upgrade"
    answer({"current": revision, "wanted": SCHEMA_REVISION}, what + remedy)
    if not is_current:
        raise typer.Exit(1)


@app.command("upgrade")
def upgrade() -> None:
    """Migrate the schema to the revision of this release. After a failure, run it again: it continues."""
    with _unmigrated() as database:
        before = database.current_revision()
        with advancing("Migrating"):
            database.migrate()
        after = database.current_revision()
    changed = f"Brought the schema from {before or 'nothing'} to {after}."
    answer({"before": before, "after": after}, f"The schema is at {after} already." if before == after else changed)


@app.command("check")
def check() -> None:
    """Check that the database isolates tenants: revision, roles, policies and grants. Exit code 1 if it does not."""
    from ml_core.database.check import check as look

    with _unmigrated() as database:
        findings = look(database)
    rows = [
        {"what": finding.what, "remedy": command_of(finding.action) if finding.action else finding.remedy}
        for finding in findings
    ]
    if not printed_as_json({"ok": not findings, "findings": rows}):
        print_rows(rows, ["what", "remedy"], empty="Revision, roles, policies and grants are as they must be.")
    if findings:
        raise typer.Exit(1)


@app.command("roles")
def roles(
    url: Annotated[str, typer.Option("--url", help="Postgres URL of a superuser; its password may be in PGPASSWORD.")],
) -> None:
    """Make the platform's roles, its database, and the logins of its URLs with their passwords. Safe to repeat.

    The URLs are those of the settings: MLCORE_DATABASE_URL, MLCORE_DATABASE_INGEST_URL and MLCORE_DATABASE_OWNER_URL.
    """
    from ml_core.database.errors import translated
    from ml_core.database.logins import make_logins
    from ml_core.database.urls import parse, safe

    if Settings.from_environment().database.url is None:
        raise ConfigurationError(
            "The embedded database makes its roles itself.",
            remedy="Set MLCORE_DATABASE_URL to the database that you mean.",
            setting="MLCORE_DATABASE_URL",
        )
    with _unmigrated() as database, translated(safe(parse(url))):
        names = make_logins(url, database.urls)
    answer({"logins": names}, f"The database and the logins {', '.join(names)} are there.")


@app.command("tenant-key")
def tenant_key(
    replace: Annotated[
        bool, typer.Option("--set", help="First make MLCORE_DATABASE_TENANT_KEY the registry's key.")
    ] = False,
) -> None:
    """Print the key that binds transactions to their tenant: a secret, for processes that lack the owner's login."""
    with _unmigrated() as database:
        if replace:
            database.set_tenant_key()
        key = database.tenant_key
    answer({"tenant_key": key}, "The registry has the key of MLCORE_DATABASE_TENANT_KEY." if replace else key)


@app.command("platform-key")
def platform_key(
    file: Annotated[typer.FileText, typer.Argument(errors="replace", help="It has the key and nothing else.")],
) -> None:
    """Make a key that was generated elsewhere a key of the platform, with the scope admin. Safe to repeat.

    It is for a set-up that chooses the first key, such as the Helm chart's. A revoked key stays revoked.
    """
    from ml_core.registry.platform_keys import PlatformKeyRepository

    with _unmigrated() as database:
        key = PlatformKeyRepository(database).register(file.read().strip(), "set-up")
    state = f"was revoked at {key.revoked_at:%Y-%m-%d %H:%M} and stays so" if key.revoked_at else "is valid"
    answer(key, f"The key {key.key_id} of the platform {state}.")


@app.command("backup")
def backup(folder: Annotated[Path, typer.Argument(help="A new folder for it.")], url: UrlOption = None) -> None:
    """Write the database and all artifacts into a folder. The platform may keep running.

    Exit code 1: a damaged artifact was left out; the rest is there.
    """
    from ml_core.models.store import platform_store
    from ml_core.registry.backup import back_up

    with _unmigrated() as database:
        store, admin_url = platform_store(database.settings), url or database.admin_url
        with advancing("Backing up") as advance:
            made = back_up(database, admin_url, store, folder, advance)
    if not printed_as_json({"folder": folder.absolute(), **dataclasses.asdict(made)}):
        tenants = "1 tenant" if made.tenants == 1 else f"{made.tenants:,} tenants"
        size = f"{made.artifacts:,} artifacts ({made.artifact_bytes:,} bytes)"
        say(f"Backed up {size} of {tenants} and the database into {folder}.")
        _tell_damaged(made.damaged)
    if made.damaged:
        raise typer.Exit(1)


@app.command("restore")
def restore(folder: Annotated[Path, typer.Argument(help="The backup.")], url: UrlOption = None) -> None:
    """Restore a backup into an empty database and the artifact store of the settings."""
    from ml_core.database.embedded import EmbeddedServer
    from ml_core.models.store import platform_store
    from ml_core.registry.backup import bring_back, read_manifest

    settings = Settings.from_environment()
    read_manifest(folder)  # before a server is started for it
    admin_url = url or settings.database.owner_url or settings.database.url
    if admin_url is None:
        server = EmbeddedServer(settings.platform.home)
        server.start()
        admin_url = server.admin_url
    with advancing("Restoring") as advance:
        made = bring_back(admin_url, platform_store(settings), folder, advance)
    if not printed_as_json({"folder": folder.absolute(), **dataclasses.asdict(made)}):
        say(f"Restored the database and {made.artifacts:,} artifacts of {made.created_at}.")
        _tell_damaged(made.damaged)
        say("If this release is newer than the backup: mlcore db upgrade. Then prove it: mlcore fsck.")
    if made.damaged:
        raise typer.Exit(1)


def _tell_damaged(names: Sequence[str]) -> None:
    for name in names:
        note(f"Left out, because it is damaged: {name}. `mlcore fsck` says what to do.", style="")


def _unmigrated() -> DatabaseConnection:
    """A connection to the registry of the settings, as it is."""
    from ml_core.database.connection import DatabaseConnection

    settings = Settings.from_environment()
    tell_new_home(settings)
    return DatabaseConnection(settings=settings, migrate_embedded=False)
