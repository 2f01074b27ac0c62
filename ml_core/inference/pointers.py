"""Pointers of a cell: what each should answer with and what it answers with. Not thread-safe: the model table locks."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ml_core.domain.assignment import PointerRef, Rollout
from ml_core.domain.version import ServableVersion
from ml_core.ids import VersionRef
from ml_core.inference.residents import VersionKey

PointerKey = tuple[str, str, str]


def pointer_key(ref: PointerRef) -> PointerKey:
    """Tenant, model and environment."""
    return (ref.tenant_id, ref.model_id, ref.environment)


def version_key(version: ServableVersion) -> VersionKey:
    """Tenant, model, version and digest."""
    ref = version.ref
    return (ref.tenant_id, ref.model_id, ref.version, version.digest)


class ReadyCanary(NamedTuple):
    """A canary that was loaded and proved here, so that it may answer its share. Replaced whole, never changed."""

    version: ServableVersion
    key: VersionKey
    percent: int
    sticky: str | None


class Pointer:
    """What a pointer should serve, and what it serves.

    Attributes:
        key: Its name.
        wanted: What the registry says.
        wanted_key: Of the stable version.
        canary_key: Of the canary, if there is one.
        shadow_key: Likewise.
        serving: The last stable version that was loaded and proved for it.
        serving_key: Likewise.
        canary: The canary once it was loaded and proved; until then the stable version answers everything.
    """

    __slots__ = ("canary", "canary_key", "key", "serving", "serving_key", "shadow_key", "wanted", "wanted_key")

    wanted: Rollout
    wanted_key: VersionKey
    canary_key: VersionKey | None
    shadow_key: VersionKey | None

    def __init__(self, key: PointerKey, wanted: Rollout) -> None:
        self.key = key
        self.serving: ServableVersion | None = None
        self.serving_key: VersionKey | None = None
        self.canary: ReadyCanary | None = None
        self.want(wanted)

    def want(self, rollout: Rollout) -> None:
        """Follow the registry. A canary that was proved goes on at once with another percent."""
        canary, shadow = rollout.canary, rollout.shadow
        self.wanted, self.wanted_key = rollout, version_key(rollout.stable)
        self.canary_key = None if canary is None else version_key(canary.version)
        self.shadow_key = None if shadow is None else version_key(shadow)
        self.canary = self._ready_canary() if self.canary and self.canary.key == self.canary_key else None

    def admit(self, version: VersionKey) -> bool:
        """Note that a version was loaded and proved; whether the pointer now has another stable version."""
        if version == self.canary_key:
            self.canary = self._ready_canary()
        return version == self.wanted_key

    def wants(self, version: VersionKey) -> bool:
        """Whether the registry wants it to serve the version, as canary or shadow too."""
        return version in (self.wanted_key, self.canary_key, self.shadow_key)

    def unproved(self) -> list[ServableVersion]:
        """The versions that would answer requests and were not loaded for it yet. A shadow answers none."""
        stable = [] if self.serving_key == self.wanted_key else [self.wanted.stable]
        canary = self.wanted.canary
        return stable if canary is None or self.canary is not None else [*stable, canary.version]

    def names(self) -> set[VersionKey]:
        """Every version that it wants or serves."""
        keys = (self.wanted_key, self.serving_key, self.canary_key, self.shadow_key)
        return {key for key in keys if key is not None}

    def _ready_canary(self) -> ReadyCanary | None:
        canary = self.wanted.canary
        if canary is None or self.canary_key is None:
            return None
        return ReadyCanary(canary.version, self.canary_key, canary.percent, canary.sticky)


class Pointers:
    """Pointers by name, and by the versions that they want or serve."""

    def __init__(self) -> None:
        self._by_key: dict[PointerKey, Pointer] = {}
        self._by_model: dict[tuple[str, str], set[str]] = {}  # its environments
        self._by_version: dict[VersionKey, set[PointerKey]] = {}
        self._partly_read: set[PointerKey] = set()
        self._unsettled: dict[PointerKey, None] = {}  # those with an unproved version, the last moved one last

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def partly_read(self) -> int:
        """How many are served without their canary or shadow, because its row can't be read."""
        return len(self._partly_read)

    def get(self, key: PointerKey) -> Pointer | None:
        """The pointer of that name."""
        return self._by_key.get(key)

    def names(self, version: VersionKey) -> bool:
        """Whether a pointer wants or serves the version."""
        return version in self._by_version

    def naming(self, version: VersionKey) -> list[Pointer]:
        """The pointers that want or serve the version."""
        return [self._by_key[key] for key in self._by_version.get(version, ())]

    def is_wanted(self, version: VersionKey) -> bool:
        """Whether the registry wants a pointer to serve the version, as canary or shadow too."""
        return any(pointer.wants(version) for pointer in self.naming(version))

    def unsettled(self) -> list[Pointer]:
        """The pointers with a version that is not proved, the last moved one first."""
        return [self._by_key[key] for key in reversed(self._unsettled)]

    def canaries_beside(self, version: VersionKey) -> list[ServableVersion]:
        """The canaries, not proved yet, of the pointers whose stable version this is."""
        pointers = [p for p in self.naming(version) if p.serving_key == version and p.canary is None]
        return [pointer.wanted.canary.version for pointer in pointers if pointer.wanted.canary is not None]

    def version(self, ref: VersionRef) -> ServableVersion | None:
        """The version of that name, if a pointer wants it."""
        for environment in self.environments(ref.tenant_id, ref.model_id):
            for version in self._by_key[ref.tenant_id, ref.model_id, environment].wanted.versions():
                if version.ref == ref:
                    return version
        return None

    def environments(self, tenant_id: str, model_id: str) -> list[str]:
        """The environments in which a model has a pointer, sorted."""
        return sorted(self._by_model.get((tenant_id, model_id), ()))

    def want(self, key: PointerKey, rollout: Rollout) -> Pointer:
        """Set what a pointer should serve; creates it on first mention."""
        pointer = self._by_key.get(key)
        if pointer is None:
            pointer = self._by_key[key] = Pointer(key, rollout)
            self._by_model.setdefault(key[:2], set()).add(key[2])
        (self._partly_read.add if rollout.unreadable else self._partly_read.discard)(key)
        before = pointer.names()
        pointer.want(rollout)
        for version in pointer.names():
            self._by_version.setdefault(version, set()).add(key)
        for version in before:
            self._unname(version, pointer)
        self._unsettled.pop(key, None)
        if pointer.unproved():
            self._unsettled[key] = None
        return pointer

    def admit(self, version: VersionKey) -> None:
        """A version was loaded and proved: the pointers that want it answer with it from now on."""
        for pointer in self.naming(version):
            if pointer.admit(version):
                self.flip(pointer)
            if not pointer.unproved():
                self._unsettled.pop(pointer.key, None)

    def flip(self, pointer: Pointer) -> None:
        """The pointer's stable version is the one that it wants from now on."""
        before, pointer.serving, pointer.serving_key = pointer.serving_key, pointer.wanted.stable, pointer.wanted_key
        if before is not None:
            self._unname(before, pointer)

    def withdraw(self, key: PointerKey) -> None:
        """Remove a pointer; nothing happens if it does not exist."""
        pointer = self._by_key.pop(key, None)
        self._partly_read.discard(key)
        self._unsettled.pop(key, None)
        if pointer is not None:
            self._by_model[key[:2]].discard(key[2])
            if not self._by_model[key[:2]]:
                del self._by_model[key[:2]]
            for version in pointer.names():
                self._unname(version, pointer)

    def others(self, keep: Collection[PointerKey]) -> set[PointerKey]:
        """The pointers that are not among those to keep."""
        return self._by_key.keys() - set(keep)

    def withdraw_tenant(self, tenant_id: str) -> None:
        """Remove every pointer of a tenant."""
        for key in [key for key in self._by_key if key[0] == tenant_id]:
            self.withdraw(key)

    def _unname(self, version: VersionKey, pointer: Pointer) -> None:
        """Forget that a pointer names a version, unless it still does."""
        is_current = self._by_key.get(pointer.key) is pointer
        if is_current and version in pointer.names():
            return
        keys = self._by_version.get(version, set())
        keys.discard(pointer.key)
        if not keys:
            self._by_version.pop(version, None)
