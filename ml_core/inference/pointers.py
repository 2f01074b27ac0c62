"""The pointers of a cell: wanted and served versions. Not thread-safe: the model table holds the lock."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Set
from typing import TypeVar

from ml_core.domain.assignment import MAX_TENANT_BYTES, CanaryRollout, PointerRef, Rollout
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import Action, ModelNotFoundError
from ml_core.ids import VersionRef

K = TypeVar("K")
V = TypeVar("V")

PointerKey = tuple[str, str, str]
# Tenant, model, version and digest. With the digest, because a deleted version may be registered again under its name.
# A plain tuple: its hash is computed in C, that of a data class in Python.
VersionKey = tuple[str, str, str, str]


def pointer_key(ref: PointerRef) -> PointerKey:
    """The key of a pointer: tenant, model and environment."""
    return (ref.tenant_id, ref.model_id, ref.environment)


def version_key(version: ServableVersion) -> VersionKey:
    """The key of a version: tenant, model, version and digest."""
    ref = version.ref
    return (ref.tenant_id, ref.model_id, ref.version, version.digest)


class Pointer:
    """A pointer: its wanted rollout and the versions that it serves.

    Attributes:
        key: The key of the pointer.
        wanted: The rollout in the assignment.
        wanted_key: The key of its stable version.
        canary_key: The key of its canary, if there is one.
        shadow_key: The key of its shadow, if there is one.
        serving: The last stable version that passed its self-test.
        serving_key: The key of that version.
        canary: The canary once it has passed its self-test, with its signature at hand. The event loop reads it
            without the lock of the table.
    """

    __slots__ = ("canary", "canary_key", "key", "serving", "serving_key", "shadow_key", "wanted", "wanted_key")

    wanted: Rollout
    wanted_key: VersionKey
    shadow_key: VersionKey | None

    def __init__(self, key: PointerKey, wanted: Rollout) -> None:
        self.key = key
        self.serving: ServableVersion | None = None
        self.serving_key: VersionKey | None = None
        self.canary: CanaryRollout | None = None
        self.canary_key: VersionKey | None = None
        self.want(wanted)

    def want(self, rollout: Rollout) -> None:
        """Set the wanted rollout. A new percent of the present canary takes effect at once."""
        canary, shadow, canary_before = rollout.canary, rollout.shadow, self.canary_key
        self.wanted, self.wanted_key = rollout, version_key(rollout.stable)
        self.canary_key = None if canary is None else version_key(canary.version)
        self.shadow_key = None if shadow is None else version_key(shadow)
        if self.serving_key == self.wanted_key:
            self.serving = rollout.stable  # the same version, read again: one copy of its documents is enough
        if canary is None or self.canary is None or self.canary_key != canary_before:
            self.canary = None
        else:
            self.canary = dataclasses.replace(canary, version=self.canary.version)

    def admit(self, version: VersionKey, loaded: ServableVersion) -> None:
        """Answer with a version that passed its self-test, where it is wanted."""
        if version == self.canary_key and self.wanted.canary is not None:
            self.canary = dataclasses.replace(self.wanted.canary, version=loaded)
        if version == self.wanted_key:
            self.serving, self.serving_key = self.wanted.stable, self.wanted_key

    def wants(self, version: VersionKey) -> bool:
        """Whether the version is in the wanted rollout."""
        return version in (self.wanted_key, self.canary_key, self.shadow_key)

    def unproved(self) -> list[ServableVersion]:
        """The wanted stable version and canary, as far as they have not passed their self-tests here."""
        stable = [] if self.serving_key == self.wanted_key else [self.wanted.stable]
        canary = self.wanted.canary
        return stable if canary is None or self.canary is not None else [*stable, canary.version]

    def is_unproved(self, version: VersionKey) -> bool:
        """Whether a version is one of ``unproved``."""
        if version == self.wanted_key:
            return self.serving_key != version
        return version == self.canary_key and self.canary is None

    def names(self) -> set[VersionKey]:
        """The keys of all wanted and served versions."""
        keys = (self.wanted_key, self.serving_key, self.canary_key, self.shadow_key)
        return {key for key in keys if key is not None}


class Pointers:
    """The pointers by key, and by the versions that they want or serve.

    Args:
        on_unnamed: Called with a version that no pointer wants or serves any more.

    Attributes:
        by_key: The pointers. Only this class changes it.
        unproved: The number of wanted stable versions and canaries that have not passed their self-tests here.
        refused: Pointer → the first new version of its last move, for which there was no room.
        unread: Tenants with pointers that could not be read, perhaps because they had too many long documents.
        freed: Tenants that have fewer long documents since somebody emptied this.
    """

    def __init__(self, on_unnamed: Callable[[VersionKey], None] = lambda _: None) -> None:
        self.by_key: dict[PointerKey, Pointer] = {}
        self.unproved = 0
        self.refused: dict[PointerKey, str] = {}
        self.unread: set[str] = set()
        self.freed: set[str] = set()
        self._on_unnamed = on_unnamed
        # Tuples, since nearly all have one item: a set of one takes 200 bytes more, and there are 100,000 pointers.
        self._by_model: dict[tuple[str, str], tuple[str, ...]] = {}  # (tenant, model) → environments
        self._by_version: dict[VersionKey, tuple[PointerKey, ...]] = {}
        self._partly_read: set[PointerKey] = set()
        self._unsettled: dict[PointerKey, int] = {}  # pointer → unproved versions, in the order of their moves
        self._long_bytes: Counter[str] = Counter()  # by tenant, of the wanted rollouts

    @property
    def partly_read(self) -> int:
        """The number of pointers that are served without a canary or shadow whose row can't be read."""
        return len(self._partly_read)

    def known(self) -> Set[PointerKey]:
        """The keys of all pointers, also of those for which there was no room."""
        return self.by_key.keys() | self.refused.keys()

    def existing(self, key: PointerKey) -> Pointer:
        """The pointer with a key.

        Raises:
            ModelNotFoundError: The pointer does not exist.
        """
        pointer = self.by_key.get(key)
        if pointer is not None:
            return pointer
        tenant, model, environment = key
        others = self._environments(tenant, model)
        absent = "has" if others else "does not exist or has"  # a cell knows promoted models only
        other = f"Use {' or '.join(others)}, or promote" if others else "Check its name, or promote"
        raise ModelNotFoundError(
            f"Model {model!r} {absent} no version in {environment}.",
            remedy=f"{other} a version to {environment}.",
            action=Action.of("environments.promote", tenant=tenant, model=model, environment=environment),
            tenant_id=tenant,
            model_id=model,
        )

    def names(self, version: VersionKey) -> bool:
        """Whether a pointer wants or serves the version."""
        return version in self._by_version

    def naming(self, version: VersionKey) -> list[Pointer]:
        """The pointers that want or serve the version."""
        return [self.by_key[key] for key in self._by_version.get(version, ())]

    def wanted(self, key: VersionKey) -> ServableVersion | None:
        """The version with that key, if it is in the wanted rollout of a pointer."""
        versions = (version for pointer in self.naming(key) for version in pointer.wanted.versions())
        return next((version for version in versions if version_key(version) == key), None)

    def unsettled(self) -> Iterator[Pointer]:
        """The pointers with an unproved version, the last moved one first."""
        return (self.by_key[key] for key in reversed(self._unsettled))

    def canaries_beside(self, version: VersionKey) -> list[ServableVersion]:
        """The unproved canaries of the pointers that serve this stable version."""
        pointers = [p for p in self.naming(version) if p.serving_key == version and p.canary is None]
        return [pointer.wanted.canary.version for pointer in pointers if pointer.wanted.canary is not None]

    def version(self, ref: VersionRef) -> ServableVersion | None:
        """The version of that name, if it is in a wanted rollout."""
        for environment in self._environments(ref.tenant_id, ref.model_id):
            for version in self.by_key[ref.tenant_id, ref.model_id, environment].wanted.versions():
                if version.ref == ref:
                    return version
        return None

    def _environments(self, tenant_id: str, model_id: str) -> list[str]:
        return sorted(self._by_model.get((tenant_id, model_id), ()))

    def has_room(self, key: PointerKey, rollout: Rollout) -> bool:
        """Whether the documents of a rollout fit into what a tenant may have in a replica, in place of the present."""
        added = rollout.long_bytes
        if not added:
            return True
        present = self.by_key.get(key)
        replaced = present.wanted.long_bytes if present is not None else 0
        return added <= replaced or self._long_bytes[key[0]] + added - replaced <= MAX_TENANT_BYTES

    def refuse(self, key: PointerKey, rollout: Rollout) -> None:
        """Remember that there was no room for the rollout of a pointer, until it is wanted again or withdrawn."""
        present = self.by_key.get(key)
        new = (each for each in rollout.versions() if present is None or not present.wants(version_key(each)))
        self.refused[key] = next(new, rollout.stable).ref.version

    def want(self, key: PointerKey, rollout: Rollout) -> Pointer:
        """Set the wanted rollout of a pointer; creates the pointer if it does not exist."""
        pointer = self.by_key.get(key)
        self.refused.pop(key, None)
        self._count(key[0], rollout.long_bytes - (pointer.wanted.long_bytes if pointer is not None else 0))
        if pointer is None:
            pointer = self.by_key[key] = Pointer(key, rollout)
            self._by_model[key[:2]] = (*self._by_model.get(key[:2], ()), key[2])
        (self._partly_read.add if rollout.unreadable else self._partly_read.discard)(key)
        before = pointer.names()
        pointer.want(rollout)
        for version in pointer.names():
            named = self._by_version.get(version, ())
            if key not in named:
                self._by_version[version] = (*named, key)
        self._unname(before - pointer.names(), key)
        self._settle(key, 0)  # or it would keep its place in the order of moves
        self._settle(key, len(pointer.unproved()))
        return pointer

    def _count(self, tenant: str, added_bytes: int) -> None:
        if added_bytes < 0:
            self.freed.add(tenant)
        if added_bytes:
            self._long_bytes[tenant] += added_bytes
            if not self._long_bytes[tenant]:
                del self._long_bytes[tenant]

    def _settle(self, key: PointerKey, unproved: int) -> None:
        self.unproved += unproved - self._unsettled.get(key, 0)
        if unproved:
            self._unsettled[key] = unproved
        else:
            self._unsettled.pop(key, None)

    def admit(self, version: VersionKey, loaded: ServableVersion) -> None:
        """Admit a version that passed its self-test to all pointers that want it."""
        for pointer in self.naming(version):
            before = pointer.names()
            pointer.admit(version, loaded)
            self._unname(before - pointer.names(), pointer.key)
            self._settle(pointer.key, len(pointer.unproved()))

    def withdraw(self, key: PointerKey) -> None:
        """Remove a pointer; nothing happens if it does not exist."""
        pointer = self.by_key.pop(key, None)
        self.refused.pop(key, None)
        self._partly_read.discard(key)
        self._settle(key, 0)
        if pointer is not None:
            self._count(key[0], -pointer.wanted.long_bytes)
            _remove(self._by_model, key[:2], key[2])
            self._unname(pointer.names(), key)

    def _unname(self, versions: Collection[VersionKey], key: PointerKey) -> None:
        """Remove a pointer from the index of the versions that it no longer names."""
        for version in versions:
            _remove(self._by_version, version, key)
            if version not in self._by_version:
                self._on_unnamed(version)


def _remove(index: dict[K, tuple[V, ...]], key: K, value: V) -> None:
    """Remove a value from an index, and the key with its last one."""
    if left := tuple(each for each in index[key] if each != value):
        index[key] = left
    else:
        del index[key]
