"""Tags of versions: key → value, one row each, so that a search finds them through an index."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.tables import version_tags
from ml_core.exceptions import InvalidRequestError, shown
from ml_core.ids import VersionRef
from ml_core.registry.erasure import erase

_MAX_LENGTH = 200  # characters: a tag is a word or two; longer text belongs into the metadata


def check_tags(tags: Mapping[str, str | None]) -> tuple[dict[str, str], list[str]]:
    """Tags to set, and keys to remove: those whose value is None.

    Raises:
        InvalidRequestError: A key or value is no text of 1 to 200 characters.
    """
    for key, value in tags.items():
        for part in (key, value):
            if part is not None and (not isinstance(part, str) or not 1 <= len(part) <= _MAX_LENGTH):
                raise InvalidRequestError(
                    f"The tag {shown(key)} can't be set to {shown(value)}.",
                    remedy=f"Keys and values are texts of 1 to {_MAX_LENGTH} characters. "
                    "To remove a tag: KEY= on the command line, None in Python.",
                    field="tags",
                )
    kept = {key: value for key, value in tags.items() if value is not None}
    return kept, [key for key, value in tags.items() if value is None]


def write_tags(connection: Connection, ref: VersionRef, kept: Mapping[str, str], removed: Collection[str] = ()) -> None:
    """Set and remove tags of a version in the tenant's transaction."""
    of = {"tenant_id": ref.tenant_id, "model_id": ref.model_id, "version": ref.version}
    if removed:
        erase(connection, version_tags, model_id=ref.model_id, version=ref.version, key=list(removed))
    if kept:
        statement = insert(version_tags).values([{**of, "key": key, "value": value} for key, value in kept.items()])
        connection.execute(
            statement.on_conflict_do_update(constraint="pk_version_tags", set_={"value": statement.excluded.value})
        )
