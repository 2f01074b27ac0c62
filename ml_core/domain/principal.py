"""Who acts: a name for histories, and what it may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ml_core.domain.api_key import Scope
from ml_core.exceptions import PermissionDeniedError
from ml_core.ids import EnvironmentName


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody or something that changes the registry.

    Attributes:
        name: As histories show it, such as ``key:0123456789abcdef`` or the name of an operating system's user.
        scopes: What it may do; ``admin`` has every scope.
        promotes: Environments that it may move although they are protected.
    """

    name: str
    scopes: frozenset[Scope]
    promotes: frozenset[EnvironmentName] = frozenset()

    @classmethod
    def operator(cls, name: str) -> Self:
        """Whoever holds the database's URL: it may do everything, whatever this code says."""
        return cls(name, frozenset(Scope))

    def allows(self, scope: Scope) -> bool:
        """Whether it has the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def require(self, scope: Scope) -> None:
        """Refuse what it may not do.

        Raises:
            PermissionDeniedError: It lacks the scope.
        """
        if not self.allows(scope):
            raise PermissionDeniedError(
                f"{self.name} lacks the scope {scope.value!r}.",
                remedy=f"Use a key that has it: mlcore keys create --scope {scope.value}.",
                scope=scope.value,
            )

    def may_move(self, environment: EnvironmentName, *, is_protected: bool) -> bool:
        """Whether it may move a pointer of the environment.

        A protected environment takes ``admin`` or the scope ``promote:<environment>``. Any other takes ``promote``, or
        this environment's own scope.
        """
        if Scope.ADMIN in self.scopes or environment in self.promotes:
            return True
        return not is_protected and Scope.PROMOTE in self.scopes
