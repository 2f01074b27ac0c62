"""What the repositories of one tenant, or of the platform, share, and rows as the values that they return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import lru_cache
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

Value = TypeVar("Value")


class OfTenant:
    """What belongs to one tenant.

    Args:
        db: The registry; its principal is who acts.
        tenant_id: The tenant.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: str) -> None:
        self._db = db
        self._tenant_id = TenantId(tenant_id)


class OfPlatform:
    """What belongs to no tenant.

    Args:
        db: The registry; its principal is who acts. One of a tenant is refused with ``PermissionDeniedError``.
    """

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db


def value_of(kind: Callable[..., Value], row: AnyRow, /, **given: Any) -> Value:
    """A dataclass from a row: each field from the column of its name, parsed if it is a name or an enumeration.

    Args:
        kind: The dataclass.
        row: Has a column for each field that is not given and has no default.
        **given: Fields that are made otherwise.
    """
    for name, position, parse in _plan(kind, row._fields):
        if name not in given:
            value = row[position]
            given[name] = value if parse is None or value is None else parse(value)
    return kind(**given)


@lru_cache(maxsize=256)  # there are fewer pairs of a dataclass and a statement
def _plan(kind: Any, columns: tuple[str, ...]) -> Sequence[tuple[str, int, Callable[[Any], Any] | None]]:
    """Each field that has a column, the column's position, and what parses its text; None: its value is the field's."""
    hints, found = get_type_hints(kind), []
    for name in (field.name for field in fields(kind) if field.name in columns):
        options = get_args(hints[name]) if isinstance(hints[name], UnionType) else (hints[name],)
        found.append((name, columns.index(name), next((each for each in options if _is_text(each)), None)))
    return found


def _is_text(hint: Any) -> bool:
    """Whether it is a kind of string with values of its own."""
    return isinstance(hint, type) and issubclass(hint, str) and hint is not str
