"""The audit: the ordered feed of what changed."""

from __future__ import annotations

from datetime import datetime

from ml_core.api.schemas.audit import Change
from ml_core.api.schemas.base import Page
from ml_core.client.calls import Call, Mode, Noun, listing


class Audit(Noun[Mode]):
    """Who changed what, when and for which request."""

    @listing
    def list(
        self,
        *,
        after: str | None = None,
        descending: bool = False,
        action: str | None = None,
        principal: str | None = None,
        request_id: str | None = None,
        model_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Call[Page[Change]]:
        """Changes, oldest first and in an order in which nothing is missed; what is left out does not restrict.

        A program that follows the changes keeps the ``cursor`` of the last one that it handled::

            for change in client.audit.list(after=seen):
                ...

        Args:
            after: The ``cursor`` of a change: only those that follow it.
            descending: Newest first, for people.
            action: Such as ``version.registered``, or ``version.`` for all changes of versions.
            principal: Who did it.
            request_id: For which request.
            model_id: Of this model.
            since: At this moment or later.
            until: Before this moment.
        """
        params = {
            "after": after,
            "descending": descending or None,
            "action": action,
            "principal": principal,
            "request_id": request_id,
            "model": model_id,
            "since": since and since.isoformat(),
            "until": until and until.isoformat(),
        }
        return Call("GET", f"{self._root}/audit", Page[Change], params, cursor="after")
