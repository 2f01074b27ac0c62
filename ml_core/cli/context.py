"""What the verbs share: one reading of the settings, one connection to the registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.text import Text

from ml_core.cli.console import err
from ml_core.ids import TenantId
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
        err.print(
            Text(f"Making a new platform in {settings.platform.home} (MLCORE_HOME)."), style="dim", soft_wrap=True
        )


@contextmanager
def existing_tenant(name: str, as_key: str | None = None) -> Iterator[tuple[DatabaseConnection, TenantId]]:
    """A connection, and a tenant that was checked to exist.

    Args:
        name: The tenant's name.
        as_key: A whole key of the tenant, as whose holder the connection then acts: it may do what the key may, and
            histories name the key. None: the operating system's user, who may do everything.

    Raises:
        InvalidNameError: The name can't be a tenant's.
        TenantNotFoundError: There is no tenant of this name.
        AuthenticationError: The key is malformed, unknown to the tenant, wrong or revoked.
    """
    from ml_core.registry.keys import KeyRepository

    with existing_tenants([name]) as (database, (tenant,)):
        if as_key is not None:
            database = database.acting_as(KeyRepository(database, tenant).authenticate(as_key))
        yield database, tenant


@contextmanager
def existing_tenants(names: Sequence[str]) -> Iterator[tuple[DatabaseConnection, list[TenantId]]]:
    """A connection, and tenants each of which was checked to exist.

    Raises:
        InvalidNameError: A name can't be a tenant's.
        TenantNotFoundError: There is no tenant of such a name.
    """
    wanted = list(dict.fromkeys(map(TenantId, names)))
    from ml_core.registry.tenants import TenantRepository

    with registry_connection() as database:
        for tenant in wanted:
            TenantRepository(database).get(tenant)
        yield database, wanted
