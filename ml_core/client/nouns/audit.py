"""The audit: the ordered feed of what changed."""

from __future__ import annotations

from datetime import datetime

from ml_core.api.schemas.audit import Change
from ml_core.api.schemas.base import Page
from ml_core.client.calls import Call, Mode, Noun, listing, operation


class Audit(Noun[Mode]):
    """Who changed what, when and for which request."""

    @listing
    def list(
        self,
        *,
        action: str | None = None,
        principal: str | None = None,
        request_id: str | None = None,
        model_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Call[Page[Change]]:
        """Changes, newest first; what is left out does not restrict.

        Args:
            action: Such as ``version.registered``, or ``version.`` for all changes of versions.
            principal: Who did it.
            request_id: For which request.
            model_id: Of this model.
            since: At this moment or later.
            until: Before this moment.
        """
        params = {
            "action": action,
            "principal": principal,
            "request_id": request_id,
            "model": model_id,
            "since": since and since.isoformat(),
            "until": until and until.isoformat(),
        }
        return Call("GET", f"{self._root}/audit", Page[Change], params)

    @operation
    def after(self, cursor: str | None = None, *, limit: int = 100) -> Call[Page[Change]]:
        """The changes that follow a cursor, oldest first; its ``next_cursor`` is never null: ask again with it later.

        Args:
            cursor: ``next_cursor`` of the page before; None: from the beginning.
            limit: At most so many.
        """
        return Call("GET", f"{self._root}/changes", Page[Change], {"after": cursor, "limit": limit})
