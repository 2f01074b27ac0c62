"""What the verbs share: one reading of the settings, one connection to the registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

from ml_core.cli.console import note
from ml_core.settings import Settings

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection


_opened: ContextVar[DatabaseConnection | None] = ContextVar("opened", default=None)


@contextmanager
def registry_connection(settings: Settings | None = None) -> Iterator[DatabaseConnection]:
    """A connection to the registry of the settings; the embedded one is started, and migrated, where needed."""
    # Imported late so that `mlcore --help` answers at once.
    from ml_core.database.connection import DatabaseConnection

    settings = settings or Settings.from_environment()
    tell_new_home(settings)
    database = DatabaseConnection(settings=settings)
    opened = _opened.set(database)
    try:
        yield database
    finally:
        _opened.reset(opened)
        database.close()


def executor() -> Callable[[str, str], AbstractContextManager[None]] | None:
    """``executing`` for a job of a tenant, in a command that has the registry open and no platform to execute it."""
    if (database := _opened.get()) is None:
        return None
    # Imported late: a command that asks a platform needs none of it.
    from ml_core.jobs.here import executing
    from ml_core.platform.processes import find_marked
    from ml_core.platform.state import PlatformState

    home = database.settings.platform.home
    state = PlatformState.load(home)
    is_running = state is not None and find_marked(home, state.session_id)
    return None if is_running else partial(executing, database)


def tell_new_home(settings: Settings) -> None:
    """Say where a new platform is made, if one is about to be: a typo in MLCORE_HOME makes an empty one."""
    if settings.database.url is None and not settings.platform.home.exists():
        note(f"Making a new platform in {settings.platform.home} (MLCORE_HOME).")
