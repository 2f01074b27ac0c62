"""What every table is made of: the schema's name, the naming of constraints, and the usual columns."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ml_core.ids import Name

SCHEMA = "mlcore"
SCHEMA_REVISION = "0001"
PLATFORM = "*"
"""What a transaction enters instead of a tenant for rows that belong to none; no tenant can have this name."""
FEED_CHANNEL = "mlcore_feed"

metadata = sa.MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    },
)


def moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    """A moment, UTC; now unless given, or nullable."""
    default = None if nullable else sa.func.now()
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable, server_default=default)


def document(name: str) -> sa.Column[object]:
    """A JSON object, empty unless given."""
    return sa.Column(name, JSONB, nullable=False, server_default=sa.text("'{}'::jsonb"))


def grammar(column: str, name: type[Name]) -> sa.CheckConstraint:
    """Nothing but a parsed name gets into the column: replicas of every tenant read it."""
    return sa.CheckConstraint(f"{column} ~ '^{name.pattern.pattern}$'", name=column)


def keys(*names: str) -> Iterator[sa.Column[str]]:
    """Text columns of the primary key."""
    yield from (sa.Column(name, sa.Text, primary_key=True) for name in names)


def text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    """A text column."""
    return sa.Column(name, sa.Text, nullable=nullable)


def number(name: str, *, nullable: bool = False, key: bool = False) -> sa.Column[int]:
    """A whole number of 64 bits, part of the primary key if said so."""
    return sa.Column(name, sa.BigInteger, nullable=nullable, primary_key=key, autoincrement=False)


def refers(
    to: sa.Table, *columns: str, ondelete: str | None = None, name: str | None = None
) -> sa.ForeignKeyConstraint:
    """The reference of columns to the primary key of a table; without columns, of those of its names."""
    key = list(to.primary_key.columns)
    return sa.ForeignKeyConstraint(columns or [column.name for column in key], key, ondelete=ondelete, name=name)
