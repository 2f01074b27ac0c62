"""What the verbs share: one reading of the settings, one connection to the registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ml_core.ids import TenantId
from ml_core.settings import Settings

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection

ACTOR = "cli"
"""Who a change was made by, in histories, when it was made on the command line."""


@contextmanager
def registry_connection(settings: Settings | None = None) -> Iterator[DatabaseConnection]:
    """A connection to the registry of the settings; the embedded one is started, and migrated, where needed."""
    # Imported late so that `mlcore --help` answers at once.
    from ml_core.database.connection import DatabaseConnection

    database = DatabaseConnection(settings=settings or Settings.from_environment())
    try:
        yield database
    finally:
        database.close()


@contextmanager
def existing_tenant(name: str) -> Iterator[tuple[DatabaseConnection, TenantId]]:
    """A connection, and a tenant that was checked to exist.

    Raises:
        InvalidNameError: The name can't be a tenant's.
        TenantNotFoundError: There is none of this name.
    """
    tenant = TenantId(name)
    from ml_core.registry.tenants import TenantRepository

    with registry_connection() as database:
        TenantRepository(database).require(tenant)
        yield database, tenant
