"""Whether somebody for whom the platform acts later may still act."""

from __future__ import annotations

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.principal import Principal
from ml_core.exceptions import AuthenticationError
from ml_core.ids import TenantId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.pages import every
from ml_core.registry.platform_keys import PlatformKeyRepository


def refuse_revoked(db: DatabaseConnection, tenant_id: TenantId, principal: Principal) -> None:
    """Refuse to act with the rights of a key that was revoked meanwhile.

    Args:
        db: The registry. A principal of a tenant, as in a job's process, sees no key of the platform: that one was
            looked up by the dispatcher.
        tenant_id: Where it acts.
        principal: Who submitted a job or created a schedule.

    Raises:
        AuthenticationError: Its key was revoked.
    """
    kind, _, key_id = principal.name.partition(":")
    if kind == "key":
        found = [KeyRepository(db, tenant_id).get(key_id)]
    elif kind == "platform-key" and db.principal.tenant_id is None:
        listed = every(lambda limit, cursor: PlatformKeyRepository(db).list(limit=limit, cursor=cursor))
        found = [key for key in listed if key.key_id == key_id]
    else:
        return  # a token, which can't be revoked, or the user of the operating system
    if any(key.revoked_at is not None for key in found):
        raise AuthenticationError(
            f"The key {key_id}, with whose rights this was to be done, was revoked.",
            remedy="Submit it again with another key.",
        )
