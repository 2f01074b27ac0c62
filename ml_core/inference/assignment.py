"""The tenants, keys, prediction policies and quotas of a cell's assignment. The model table has its rollouts."""

from __future__ import annotations

from ml_core.domain.api_key import ApiKey, KeyRecord, bearer_token
from ml_core.domain.assignment import AssignmentDelta
from ml_core.domain.principal import Principal
from ml_core.domain.tenant_policies import PredictionPolicy, PredictionQuota
from ml_core.exceptions import Action, AuthenticationError, ModelNotReadyError
from ml_core.ids import TenantId

# Cached principals. Requests of further keys are verified again each time.
_REMEMBERED_HEADERS = 10_000

NO_QUOTA = PredictionQuota()
"""That of a tenant without one of its own: the platform's defaults."""


class Assignment:
    """The tenants, keys, prediction policies and quotas of a cell, in memory.

    One thread applies deltas; any number of threads read.

    Attributes:
        generation: The generation of the assignment; None: none was applied.
        epoch: See ``AssignmentDelta``.
        replicas: The live replicas of the cell.
    """

    # No lock: each change replaces or sets one dictionary entry, which is atomic.

    def __init__(self) -> None:
        self.generation: int | None = None
        self.epoch: object = None
        self.replicas = 1
        self._tenants: set[TenantId] = set()
        # By key id. Ids are unique within a tenant only, so an id may have several records.
        self._keys: dict[str, tuple[KeyRecord, ...]] = {}
        self._policies: dict[str, PredictionPolicy] = {}
        self._quotas: dict[str, PredictionQuota] = {}
        self._principals: dict[bytes, Principal] = {}

    @property
    def is_known(self) -> bool:
        """Whether a snapshot was applied."""
        return self.generation is not None

    def apply(self, delta: AssignmentDelta) -> None:
        """Apply a delta."""
        # A snapshot is completed before it replaces the present state.
        present = (self._tenants, self._keys, self._policies, self._quotas)
        tenants, keys, policies, quotas = (set(), {}, {}, {}) if delta.is_snapshot else present
        policies.update({str(tenant): policy for tenant, policy in delta.prediction_policies.items()})
        for tenant, exists in delta.tenants.items():
            if exists and tenant in delta.quotas:
                quotas[tenant] = delta.quotas[tenant]
            else:
                quotas.pop(tenant, None)
            if exists:
                tenants.add(tenant)
            else:
                tenants.discard(tenant)
                policies.pop(tenant, None)
        for ref, record in delta.keys.items():
            others = tuple(each for each in keys.get(ref.key_id, ()) if each.tenant_id != ref.tenant_id)
            if records := others if record is None else (*others, record):
                keys[ref.key_id] = records
            else:
                keys.pop(ref.key_id, None)
        self._tenants, self._keys, self._policies, self._quotas = tenants, keys, policies, quotas
        self.replicas = delta.replicas
        # After the keys: a reader that verified a key before the change stores it in the old dictionary.
        if delta.is_snapshot or delta.keys or delta.tenants:
            self._principals = {}
        self.epoch = delta.epoch
        self.generation = delta.generation

    def has_tenant(self, tenant: str) -> bool:
        """Whether the tenant exists.

        Raises:
            ModelNotReadyError: The replica has not read the assignment yet.
        """
        self._require_known()
        return tenant in self._tenants

    def principal(self, authorization: bytes | None) -> Principal:
        """Authenticate the API key of an ``Authorization`` header.

        Raises:
            AuthenticationError: The header is missing or malformed, or the key is unknown, revoked or of a deleted
                tenant.
            ModelNotReadyError: The replica has not read the assignment yet.
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
        # One message for all causes: the caller must not learn which keys exist.
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
        """The prediction policy of a tenant; ``DIGEST`` if it is unknown, which keeps no inputs."""
        return self._policies.get(tenant, PredictionPolicy.DIGEST)

    def quota(self, tenant: str) -> PredictionQuota:
        """The quota of a tenant; ``NO_QUOTA`` if it has none of its own."""
        return self._quotas.get(tenant, NO_QUOTA)

    @property
    def tenant_count(self) -> int:
        """The number of tenants."""
        return len(self._tenants)

    def describe(self) -> dict[str, int | None]:
        """Counts for health and logs."""
        return {"generation": self.generation, "tenants": len(self._tenants), "keys": len(self._keys)}
