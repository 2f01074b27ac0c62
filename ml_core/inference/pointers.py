"""Pointers of a cell: what each should answer with and what it answers with. Not thread-safe: the model table locks."""

from __future__ import annotations

from collections.abc import Collection, Iterator

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


class Pointer:
    """``wanted`` is what the registry says; ``serving`` is the last version that was loaded and proved for it."""

    __slots__ = ("key", "serving", "serving_key", "wanted", "wanted_key")

    def __init__(self, key: PointerKey, wanted: Rollout) -> None:
        self.key = key
        self.wanted = wanted
        self.wanted_key = version_key(wanted.stable)
        self.serving: ServableVersion | None = None
        self.serving_key: VersionKey | None = None


class Pointers:
    """Pointers by name, and by the versions that they want or serve."""

    def __init__(self) -> None:
        self._by_key: dict[PointerKey, Pointer] = {}
        self._by_model: dict[tuple[str, str], set[str]] = {}  # its environments
        self._by_version: dict[VersionKey, set[PointerKey]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: PointerKey) -> Pointer | None:
        """The pointer of that name."""
        return self._by_key.get(key)

    def names(self, version: VersionKey) -> bool:
        """Whether a pointer wants or serves the version."""
        return version in self._by_version

    def wanting(self, version: VersionKey) -> Iterator[Pointer]:
        """The pointers that want the version."""
        pointers = [self._by_key[key] for key in self._by_version.get(version, ())]
        return (pointer for pointer in pointers if pointer.wanted_key == version)

    def version(self, ref: VersionRef) -> ServableVersion | None:
        """The version of that name, if a pointer wants it."""
        for environment in self.environments(ref.tenant_id, ref.model_id):
            version = self._by_key[ref.tenant_id, ref.model_id, environment].wanted.stable
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
        before, pointer.wanted, pointer.wanted_key = pointer.wanted_key, rollout, version_key(rollout.stable)
        self._by_version.setdefault(pointer.wanted_key, set()).add(key)
        self._unname(before, pointer)
        return pointer

    def flip(self, pointer: Pointer) -> None:
        """The pointer serves what it wants from now on."""
        before, pointer.serving, pointer.serving_key = pointer.serving_key, pointer.wanted.stable, pointer.wanted_key
        if before is not None:
            self._unname(before, pointer)

    def withdraw(self, key: PointerKey) -> None:
        """Remove a pointer; nothing happens if there is none."""
        pointer = self._by_key.pop(key, None)
        if pointer is not None:
            self._by_model[key[:2]].discard(key[2])
            if not self._by_model[key[:2]]:
                del self._by_model[key[:2]]
            for version in (pointer.wanted_key, pointer.serving_key):
                if version is not None:
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
        if is_current and version in (pointer.serving_key, pointer.wanted_key):
            return
        keys = self._by_version.get(version, set())
        keys.discard(pointer.key)
        if not keys:
            self._by_version.pop(version, None)
