"""API keys."""

from __future__ import annotations

from ml_core.api.access import PlatformAccess, TenantAccess
from ml_core.api.operation import CursorQuery, LimitQuery, operations
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.keys import CreatedKey, Key, NewKey, NewPlatformKey
from ml_core.domain.api_key import ApiKey, Grant, Scope
from ml_core.registry.keys import KeyRepository
from ml_core.registry.platform_keys import PlatformKeyRepository

router = operations("keys", "/tenants/{tenant}/keys")
_of_platform = operations("platform keys", "/platform/keys")


@operation(router, "POST", "", "keys.create", Scope.ADMIN, creates=True, answers_secret=True)
def create_key(access: TenantAccess, body: NewKey) -> CreatedKey:
    """Create a key. The answer is the only place where the whole key is shown; it is not repeated."""
    return _created(access.of(KeyRepository).create(body.name, body.scopes), body)


@operation(router, "GET", "", "keys.list", Scope.ADMIN)
def list_keys(access: TenantAccess, limit: LimitQuery = 100, cursor: CursorQuery = None) -> Page[Key]:
    """List the tenant's keys, oldest first, revoked ones too."""
    return Page[Key].model_validate(access.of(KeyRepository).list(limit=limit, cursor=cursor))


@operation(router, "POST", "/{key}/revoke", "keys.revoke", Scope.ADMIN)
def revoke_key(access: TenantAccess, key: str) -> Key:
    """End a key: it stops working about a second later. Revoking it again changes nothing."""
    return Key.model_validate(access.of(KeyRepository).revoke(key))


@operation(_of_platform, "POST", "", "platform_keys.create", Scope.ADMIN, creates=True, answers_secret=True)
def create_platform_key(db: PlatformAccess, body: NewPlatformKey) -> CreatedKey:
    """Create a key that acts in all tenants. The answer is the only place where the whole key is shown."""
    return _created(PlatformKeyRepository(db).create(body.name, body.scopes), body)


@operation(_of_platform, "GET", "", "platform_keys.list", Scope.ADMIN)
def list_platform_keys(db: PlatformAccess, limit: LimitQuery = 100, cursor: CursorQuery = None) -> Page[Key]:
    """List the platform's keys, oldest first, revoked ones too."""
    return Page[Key].model_validate(PlatformKeyRepository(db).list(limit=limit, cursor=cursor))


@operation(_of_platform, "POST", "/{key}/revoke", "platform_keys.revoke", Scope.ADMIN)
def revoke_platform_key(db: PlatformAccess, key: str) -> Key:
    """Revoke a key: its next request is refused. Revoking it again changes nothing."""
    return Key.model_validate(PlatformKeyRepository(db).revoke(key))


def _created(key: ApiKey, body: NewKey | NewPlatformKey) -> CreatedKey:
    return CreatedKey(key_id=key.key_id, key=str(key), name=body.name, scopes=Grant.parse(body.scopes).names)


router.routes.extend(_of_platform.routes)
