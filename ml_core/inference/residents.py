"""The models in memory, within a bound, with LRU eviction. Not thread-safe: the model table holds the lock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ml_core.models.loading import LoadedModel
from ml_core.observability import NO_HOOKS, Hooks

# Tenant, model, version and digest. With the digest, because a deleted version may be registered again under its name.
# A plain tuple: its hash is computed in C, that of a data class in Python.
VersionKey = tuple[str, str, str, str]

# Models that one eviction examines. If pointers name all models, a full search would hold the lock for too long.
_EVICTION_SCAN = 256


class Resident:
    """A model in memory. ``in_use`` is the number of its present uses."""

    __slots__ = ("__weakref__", "in_use", "key", "model")  # weak references: batchers live as long as their model

    def __init__(self, key: VersionKey, model: LoadedModel) -> None:
        self.key = key
        self.model = model
        self.in_use = 0


class Residents:
    """The models in memory.

    Args:
        max_bytes: Bound on the sum of ``LoadedModel.memory_bytes``; exceeded only while all other models are in use.
        is_named: Whether a pointer names a version; others are evicted first.
        hooks: Called when models are added or evicted.
    """

    def __init__(self, max_bytes: int, is_named: Callable[[VersionKey], bool], hooks: Hooks = NO_HOOKS) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._is_named = is_named
        self._hooks = hooks
        self._by_key: OrderedDict[VersionKey, Resident] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def get(self, key: VersionKey) -> Resident | None:
        """The model, without using it."""
        return self._by_key.get(key)

    def take(self, key: VersionKey) -> Resident | None:
        """Begin a use of a model, which becomes the most recently used."""
        resident = self._by_key.get(key)
        if resident is not None:
            resident.in_use += 1
            self._by_key.move_to_end(key)
        return resident

    def give_back(self, resident: Resident) -> None:
        """End a use, and evict models if memory is above the bound."""
        resident.in_use -= 1
        if self.bytes > self.max_bytes:
            self._evict(keep=None)

    def add(self, key: VersionKey, model: LoadedModel) -> Resident:
        """Add a model and evict others for it."""
        resident = self._by_key[key] = Resident(key, model)
        self.bytes += model.memory_bytes
        self._evict(keep=key)
        self._hooks.models_resident(len(self._by_key), self.bytes)
        return resident

    def drop_tenant(self, tenant_id: str) -> None:
        """Free the models of a tenant that are not in use; the others are evicted later."""
        for key in [key for key, resident in self._by_key.items() if key[0] == tenant_id and not resident.in_use]:
            self._remove(key)

    def _evict(self, *, keep: VersionKey | None) -> None:
        while self.bytes > self.max_bytes:
            victim = self._victim(keep)
            if victim is None:
                return  # all are in use; the next give_back() tries again
            self._remove(victim)
            self._hooks.model_evicted()

    def _victim(self, keep: VersionKey | None) -> VersionKey | None:
        named: VersionKey | None = None
        for looked_at, (key, resident) in enumerate(self._by_key.items()):
            if named is not None and looked_at >= _EVICTION_SCAN:
                break
            if resident.in_use or key == keep:
                continue
            if not self._is_named(key):
                return key
            named = named or key
        return named

    def _remove(self, key: VersionKey) -> None:
        self.bytes -= self._by_key.pop(key).model.memory_bytes
        self._hooks.models_resident(len(self._by_key), self.bytes)
