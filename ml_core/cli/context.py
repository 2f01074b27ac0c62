"""What the verbs share: one reading of the settings, one connection to the registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ml_core.cli.console import note
from ml_core.settings import Settings

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection


@contextmanager
def registry_connection(settings: Settings | None = None) -> Iterator[DatabaseConnection]:
    """A connection to the registry of the settings; the embedded one is started, and migrated, where needed."""
    # Imported late so that `mlcore --help` answers at once.
    from ml_core.database.connection import DatabaseConnection

    settings = settings or Settings.from_environment()
    tell_new_home(settings)
    database = DatabaseConnection(settings=settings)
    try:
        yield database
    finally:
        database.close()


def tell_new_home(settings: Settings) -> None:
    """Say where a new platform is made, if one is about to be: a typo in MLCORE_HOME makes an empty one."""
    if settings.database.url is None and not settings.platform.home.exists():
        note(f"Making a new platform in {settings.platform.home} (MLCORE_HOME).")
