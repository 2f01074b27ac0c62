"""The principal of a request: its name in the audit, and its permissions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, Self

from ml_core.domain.api_key import Scope
from ml_core.domain.document import Document
from ml_core.exceptions import Action, PermissionDeniedError, TenantNotFoundError
from ml_core.ids import EnvironmentName, TenantId


@dataclass(frozen=True, slots=True)
class Principal(Document):
    """A person or program that acts on the platform.

    Attributes:
        name: The name in the audit: ``key:<key id>``, ``oidc:<subject>`` or a user of the operating system.
        scopes: The scopes; ``admin`` includes all others.
        promotes: The protected environments that it may move.
        tenant_id: The only tenant that it may act in; None: every tenant and the platform.
        is_operator: Whether it has the database's URL, and therefore unrestricted access.
    """

    name: str
    scopes: frozenset[Scope]
    promotes: frozenset[EnvironmentName] = frozenset()
    tenant_id: TenantId | None = None
    is_operator: bool = False

    @classmethod
    def operator(cls, name: str) -> Self:
        """A principal with the database's URL. All scopes: checks can't restrict who can run SQL."""
        return cls(name, frozenset(Scope), is_operator=True)

    def signs_as(self, actor: str | None) -> str:
        """The name under which a change is recorded. Only an operator may act in the name of another ``actor``."""
        return actor if actor is not None and self.is_operator else self.name

    def allows(self, scope: Scope) -> bool:
        """Whether the principal has the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def changes_nothing(self) -> bool:
        """Whether none of its scopes lets it change anything."""
        return not self.promotes and self.scopes <= {Scope.READ, Scope.PREDICT}

    def require(self, scope: Scope) -> None:
        """Check a scope.

        Raises:
            PermissionDeniedError: The principal lacks the scope.
        """
        if not self.allows(scope):
            raise PermissionDeniedError(
                f"{self.name} lacks the scope {scope.value!r}.",
                remedy="Use a key or token that has the scope.",
                action=Action.of("keys.create", tenant=self.tenant_id, scope=scope.value),
                scope=scope.value,
            )

    def enter(self, tenant_id: str | None) -> None:
        """Check that the principal may act in a tenant.

        Args:
            tenant_id: The tenant; None: the platform, above all tenants.

        Raises:
            TenantNotFoundError: The principal belongs to another tenant.
            PermissionDeniedError: The principal belongs to a tenant and requested an operation on the platform.
        """
        if self.tenant_id is not None and self.tenant_id != tenant_id:
            refuse_tenant(self.name, tenant_id)

    def may_move(self, environment: str, *, is_protected: bool) -> bool:
        """Whether the principal may move a pointer of the environment.

        A protected environment requires ``admin`` or ``promote:<environment>``; any other also accepts ``promote``.
        """
        if Scope.ADMIN in self.scopes or environment in self.promotes:
            return True
        return not is_protected and Scope.PROMOTE in self.scopes


def refuse_tenant(name: str, tenant_id: str | None) -> NoReturn:
    """Raise the error of ``Principal.enter`` for the principal of this name."""
    if tenant_id is None:
        raise PermissionDeniedError(
            f"{name} may act in its own tenants only.", remedy="Use a platform key, or a token for the whole platform."
        )
    # The message is that of a tenant that does not exist: it must not reveal which tenants exist.
    raise TenantNotFoundError(
        f"There is no tenant {tenant_id[:40]}.",  # an id has 40 characters at most; a URL may have any number
        remedy="Check its name, or use a key or token of it.",
        tenant_id=tenant_id,
    )
