"""Who acts: a name for histories, and what it may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, Self

from ml_core.domain.api_key import Scope
from ml_core.exceptions import Action, PermissionDeniedError, TenantNotFoundError
from ml_core.ids import EnvironmentName, TenantId


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody or something that changes the registry.

    Attributes:
        name: As the audit shows it: ``key:<key id>``, ``oidc:<subject>`` or the name of an operating system's user.
        scopes: What it may do; ``admin`` has every scope.
        promotes: Environments that it may move although they are protected.
        tenant_id: The only tenant that it may act in; None: it is the platform's own.
        is_operator: Whether it holds the database's URL, so that no check of ours binds it.
    """

    name: str
    scopes: frozenset[Scope]
    promotes: frozenset[EnvironmentName] = frozenset()
    tenant_id: TenantId | None = None
    is_operator: bool = False

    @classmethod
    def operator(cls, name: str) -> Self:
        """Whoever holds the database's URL: it may do everything, whatever this code says."""
        return cls(name, frozenset(Scope), is_operator=True)

    def signs_as(self, actor: str | None) -> str:
        """The name that a change of its own carries: an operator may name whom it acts for, nobody else may."""
        return actor if actor is not None and self.is_operator else self.name

    def allows(self, scope: Scope) -> bool:
        """Whether it has the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def changes_nothing(self) -> bool:
        """Whether none of its scopes lets it change anything."""
        return not self.promotes and self.scopes <= {Scope.READ, Scope.PREDICT}

    def require(self, scope: Scope) -> None:
        """Refuse what it may not do.

        Raises:
            PermissionDeniedError: It lacks the scope.
        """
        if not self.allows(scope):
            raise PermissionDeniedError(
                f"{self.name} lacks the scope {scope.value!r}.",
                remedy="Use a key or token that has the scope.",
                action=Action.of("keys.create", tenant=self.tenant_id, scope=scope.value),
                scope=scope.value,
            )

    def enter(self, tenant_id: str | None) -> None:
        """Refuse a tenant that is not its own, in the words for one that does not exist.

        Args:
            tenant_id: The tenant; None: what is over all tenants.

        Raises:
            TenantNotFoundError: It belongs to another tenant.
            PermissionDeniedError: It belongs to a tenant, and asked for what is over all of them.
        """
        if self.tenant_id is not None and self.tenant_id != tenant_id:
            refuse_tenant(self.name, tenant_id)

    def may_move(self, environment: EnvironmentName, *, is_protected: bool) -> bool:
        """Whether it may move a pointer of the environment.

        A protected environment takes ``admin`` or the scope ``promote:<environment>``. Any other takes ``promote``, or
        this environment's own scope.
        """
        if Scope.ADMIN in self.scopes or environment in self.promotes:
            return True
        return not is_protected and Scope.PROMOTE in self.scopes


def refuse_tenant(name: str, tenant_id: str | None) -> NoReturn:
    """Refuse a principal a tenant that is not its own, as ``Principal.enter`` says.

    Args:
        name: The principal's.
        tenant_id: The tenant; None: what is over all tenants.
    """
    if tenant_id is None:
        raise PermissionDeniedError(
            f"{name} may act in its own tenants only.", remedy="Use a platform key, or a token for the whole platform."
        )
    raise TenantNotFoundError(
        f"There is no tenant {tenant_id[:40]}.",  # an id has 40 characters at most; a URL may have any number
        remedy="Check its name, or use a key or token of it.",
        tenant_id=tenant_id,
    )
