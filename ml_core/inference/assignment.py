"""What a replica knows of its cell's assignment: who may ask. What they are answered with is in the model table."""

from __future__ import annotations

from ml_core.domain.api_key import ApiKey, KeyRecord, bearer_token
from ml_core.domain.assignment import AssignmentDelta
from ml_core.domain.principal import Principal
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.exceptions import Action, AuthenticationError, ModelNotReadyError
from ml_core.ids import TenantId

# Principals remembered by their header; a flood of valid keys beyond it only costs the hash again.
_REMEMBERED_HEADERS = 10_000


class Assignment:
    """Tenants and keys of a cell, in memory.

    One thread applies deltas; any number of others read, without a lock: each change replaces or sets one dictionary
    entry, which is atomic.
    """

    def __init__(self) -> None:
        self.generation: int | None = None
        self.epoch: object = None
        self._tenants: set[TenantId] = set()
        self._keys: dict[str, tuple[KeyRecord, ...]] = {}  # of one id as many as tenants have it: nearly always one
        self._policies: dict[str, PredictionPolicy] = {}
        self._principals: dict[bytes, Principal] = {}

    @property
    def is_known(self) -> bool:
        """Whether a first snapshot was applied."""
        return self.generation is not None

    def apply(self, delta: AssignmentDelta) -> None:
        """Follow a change."""
        if delta.is_snapshot:
            self._tenants = {tenant for tenant, exists in delta.tenants.items() if exists}
            self._keys = _with_changes({}, delta)
            self._policies = {str(tenant): policy for tenant, policy in delta.prediction_policies.items()}
        else:
            self._change(delta)
        # Forget who was who only after the keys changed: a reader that still sees the old dictionary fills that one,
        # and nobody reads it again.
        if delta.is_snapshot or delta.keys or delta.tenants:
            self._principals = {}
        self.epoch = delta.epoch
        self.generation = delta.generation

    def _change(self, delta: AssignmentDelta) -> None:
        for tenant, policy in delta.prediction_policies.items():
            self._policies[tenant] = policy
        for tenant, exists in delta.tenants.items():
            if exists:
                self._tenants.add(tenant)
            else:
                self._tenants.discard(tenant)
                self._policies.pop(tenant, None)
        _with_changes(self._keys, delta)

    def has_tenant(self, tenant: str) -> bool:
        """Whether the tenant exists.

        Raises:
            ModelNotReadyError: No tenant is known yet: the replica has not read the assignment.
        """
        self._require_known()
        return tenant in self._tenants

    def principal(self, authorization: bytes | None) -> Principal:
        """Whose API key an ``Authorization`` header has.

        Raises:
            AuthenticationError: There is no header, it is malformed, or the key is unknown, revoked or of a tenant that
                was deleted.
            ModelNotReadyError: No key is known yet: the replica has not read the assignment.
        """
        principals = self._principals
        if authorization is not None:
            principal = principals.get(authorization)
            if principal is not None:
                return principal
        self._require_known()
        principal = self._authenticate(authorization)
        if len(principals) < _REMEMBERED_HEADERS:
            principals[authorization or b""] = principal
        return principal

    def _authenticate(self, authorization: bytes | None) -> Principal:
        key = ApiKey.parse(bearer_token(authorization))
        for record in self._keys.get(key.key_id, ()):
            if record.matches(key.secret) and record.tenant_id in self._tenants:
                return Principal(f"key:{record.key_id}", record.scopes, tenant_id=record.tenant_id)
        # Unknown, wrong, revoked and orphaned look the same from outside.
        raise AuthenticationError(
            "The API key is not valid.",
            remedy="It may have been revoked; create a new one.",
            action=Action.of("keys.create"),
        )

    def _require_known(self) -> None:
        if self.generation is None:
            raise ModelNotReadyError(
                "This replica has not read the registry yet.", remedy="Try again.", retry_after_s=1
            )

    def prediction_policy(self, tenant: str) -> PredictionPolicy:
        """What may be kept of a tenant's predictions; nobody's inputs unless the registry said so."""
        return self._policies.get(tenant, PredictionPolicy.DIGEST)

    def describe(self) -> dict[str, int | None]:
        """Counts for health and logs."""
        return {"generation": self.generation, "tenants": len(self._tenants), "keys": len(self._keys)}


def _with_changes(keys: dict[str, tuple[KeyRecord, ...]], delta: AssignmentDelta) -> dict[str, tuple[KeyRecord, ...]]:
    for ref, record in delta.keys.items():
        others = tuple(each for each in keys.get(ref.key_id, ()) if each.tenant_id != ref.tenant_id)
        if records := others if record is None else (*others, record):
            keys[ref.key_id] = records
        else:
            keys.pop(ref.key_id, None)
    return keys
