"""The assignment: the rollouts that a cell must serve, and the deltas by which replicas follow it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_core.domain.api_key import KeyRecord, KeyRef
from ml_core.domain.tenant_policies import PredictionPolicy, PredictionQuota
from ml_core.domain.version import ServableVersion
from ml_core.ids import EnvironmentName, ModelId, ModelRef, TenantId

MAX_TENANT_BYTES = 64 * 2**20
"""Of the long documents of a tenant's versions in a replica (``ServableVersion.long_bytes``)."""


@dataclass(frozen=True, slots=True, order=True)
class PointerRef:
    """The identity of a pointer: an environment of a tenant's model."""

    tenant_id: TenantId
    model_id: ModelId
    environment: EnvironmentName

    @property
    def model(self) -> ModelRef:
        """The model that the pointer belongs to."""
        return ModelRef(self.tenant_id, self.model_id)

    def __str__(self) -> str:
        return f"{self.tenant_id}/{self.model_id}:{self.environment}"


@dataclass(frozen=True, slots=True)
class CanaryRollout:
    """A version that answers a share of a pointer's requests; see ``ml_core.domain.rollout.Canary``."""

    version: ServableVersion
    percent: int
    sticky: str | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """What an environment serves.

    Attributes:
        generation: Counts the pointer's moves from 1.
        canary: The version that answers a share of the requests, if there is one.
        shadow: The version that predicts the same requests without answering them, if there is one.
        unreadable: ``canary`` or ``shadow`` where the row of that version can't be read; the rollout is served
            without it.
    """

    stable: ServableVersion
    generation: int
    canary: CanaryRollout | None = None
    shadow: ServableVersion | None = None
    unreadable: tuple[str, ...] = ()

    def versions(self) -> Iterator[ServableVersion]:
        """The versions that the rollout needs, the stable version first."""
        yield self.stable
        if self.canary is not None:
            yield self.canary.version
        if self.shadow is not None:
            yield self.shadow

    @property
    def long_bytes(self) -> int:
        """Those of its versions."""
        return sum(version.long_bytes for version in self.versions())


@dataclass(frozen=True, slots=True)
class AssignmentDelta:
    """What changed in a cell's assignment after a generation.

    Attributes:
        generation: The generation of the assignment after this delta.
        is_snapshot: Whether the delta is the complete assignment; what it does not name no longer exists.
        tenants: Tenant → True if it exists, False if it was deleted.
        rollouts: Pointer → its rollout; None if it was withdrawn.
        keys: Key → record; None if it was revoked.
        unreadable: Pointers whose rows can't be read; replicas continue to serve their last rollout.
        prediction_policies: Tenant → the policy of its prediction log.
        quotas: Tenant → its quota of predictions; one that is in ``tenants`` and not here has none of its own.
        replicas: The live replicas of the cell, at least 1.
        epoch: Changes when the registry is restored from a backup; generations of two epochs are not comparable.
    """

    generation: int
    is_snapshot: bool
    tenants: Mapping[TenantId, bool]
    rollouts: Mapping[PointerRef, Rollout | None]
    keys: Mapping[KeyRef, KeyRecord | None]
    unreadable: frozenset[PointerRef] = frozenset()
    prediction_policies: Mapping[TenantId, PredictionPolicy] = field(default_factory=dict)
    quotas: Mapping[TenantId, PredictionQuota] = field(default_factory=dict)
    replicas: int = 1
    epoch: object = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed."""
        return not (self.is_snapshot or self.tenants or self.rollouts or self.keys or self.unreadable)

    def describe(self) -> dict[str, Any]:
        """Counts for a log line."""
        return {
            "generation": self.generation,
            "snapshot": self.is_snapshot,
            "tenants": len(self.tenants),
            "rollouts": len(self.rollouts),
            "keys": len(self.keys),
            "unreadable": len(self.unreadable),
        }
