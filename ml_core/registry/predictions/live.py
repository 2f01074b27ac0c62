"""``LiveRows``: what live quality and drift are computed from: rows and labels counted by the database, and samples.

One statement reads one day of one environment at most: a partition. It returns counts, or a sample of bounded size, so
that a day of millions of rows is never in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection

from ml_core.database.errors import is_timeout
from ml_core.database.tables import feedback, predictions
from ml_core.exceptions import RegistryUnavailableError, RequestTooLargeError
from ml_core.ids import EnvironmentName, ModelId, VersionId
from ml_core.registry.predictions.repository import LABELLED
from ml_core.registry.records import OfTenant

MAX_LABEL_PAIRS = 10_000
"""Different pairs of a prediction and a label that are counted apart, of an environment and a day: a hundred classes
have so many. The rows of rarer pairs are left out, and a note says so."""
_SHARES = 1 << 16
# A sample is a little larger than wanted on average, so that it seldom has too few rows; the limit cuts it off.
_SPARE = 1.1
_MEAN_ROW_BYTES = 1_000
"""Of the inputs of a row of a sample, on average, as Postgres stores them (compressed): of larger ones it has fewer."""

_OF = predictions.c
# The same rows each time, and rows of one request independently.
_HASH = sa.func.hashtextextended(_OF.request_id, sa.cast(_OF.row_number, sa.BigInteger)).op("&")(_SHARES - 1)
_JOINED = predictions.join(feedback, LABELLED)


@dataclass(frozen=True, slots=True)
class Window:
    """Rows of a model that an environment answered, from a moment (UTC) to another."""

    model_id: ModelId
    environment: EnvironmentName
    since: datetime
    until: datetime

    def days(self) -> Iterator[Window]:
        """Its parts of one day (UTC), oldest first."""
        begin = self.since
        while begin < self.until:
            midnight = datetime(begin.year, begin.month, begin.day, tzinfo=UTC) + timedelta(days=1)
            yield Window(self.model_id, self.environment, begin, min(midnight, self.until))
            begin = midnight


@dataclass(frozen=True, slots=True)
class PairCount:
    """Rows of a version with this prediction and this label, as JSON values."""

    version: VersionId
    prediction: Any
    label: Any
    rows: int


class LiveRows(OfTenant):
    """The answered rows of one tenant and their labels."""

    def answered(self, window: Window) -> dict[VersionId, int]:
        """Version → rows of a window of one day."""
        counted = sa.select(_OF.version, sa.func.count().label("rows")).where(*self._of(window)).group_by(_OF.version)
        with self._reading(window) as connection:
            return {VersionId(row.version): row.rows for row in connection.execute(counted)}

    def labelled(self, window: Window) -> dict[VersionId, int]:
        """Version → rows of a window of one day that have a label."""
        counted = sa.select(_OF.version, sa.func.count().label("rows")).select_from(_JOINED)
        with self._reading(window) as connection:
            found = connection.execute(counted.where(*self._of(window)).group_by(_OF.version))
            return {VersionId(row.version): row.rows for row in found}

    def pairs(self, window: Window, version: VersionId | None = None) -> Sequence[PairCount]:
        """Rows of a window of one day by version, prediction and label, the most frequent first.

        At most ``MAX_LABEL_PAIRS``. ``version``: of this one only.
        """
        key = (_OF.version, _OF.prediction, feedback.c.label)
        count = sa.func.count().label("rows")
        conditions = [*self._of(window), *([] if version is None else [_OF.version == version])]
        statement = sa.select(*key, count).select_from(_JOINED).where(*conditions).group_by(*key)
        with self._reading(window) as connection:
            rows = connection.execute(statement.order_by(count.desc(), *key).limit(MAX_LABEL_PAIRS)).all()
        return [PairCount(VersionId(row.version), row.prediction, row.label, row.rows) for row in rows]

    def sample(
        self, window: Window, version: VersionId, rows: int, limit: int, *, with_labels: bool = False
    ) -> Sequence[tuple[Any, Any, Any]]:
        """A random sample of the rows of a version in a window of one day; the same each time.

        Args:
            window: The window.
            version: The version.
            rows: How many there are: of those with a label if ``with_labels``.
            limit: How many to return at most; fewer if their inputs have more than 1,000 bytes on average, as stored.
            with_labels: Only rows with a label.

        Returns:
            Input, prediction and label of each; the input is None where the policy did not keep it, the label without
            ``with_labels``.
        """
        label = (feedback.c.label if with_labels else sa.null().cast(JSONB)).label("label")
        chosen = sa.select(_OF.inputs, _OF.prediction, label).select_from(_JOINED if with_labels else predictions)
        # By the hash: the first rows that are found would be the oldest.
        order = (_HASH, _OF.request_id, _OF.row_number)
        size = sa.func.coalesce(sa.func.pg_column_size(_OF.inputs), 0)
        before = (sa.func.sum(size).over(order_by=order) - size).label("before")
        chosen = chosen.add_columns(before).where(*self._of(window), _OF.version == version)
        chosen = chosen.order_by(*order).limit(limit)
        if (share := int(_SPARE * _SHARES * limit / max(rows, 1)) + 1) < _SHARES:
            chosen = chosen.where(share > _HASH)
        drawn = chosen.subquery()
        kept = sa.select(*list(drawn.c)[:3]).where(drawn.c.before <= limit * _MEAN_ROW_BYTES)
        with self._reading(window) as connection:
            return [tuple(row) for row in connection.execute(kept)]

    @contextmanager
    def _reading(self, window: Window) -> Iterator[Connection]:
        """A transaction; a statement that takes too long is the fault of the rows, and no outage."""
        try:
            with self._db.tenant(self._tenant_id) as connection:
                yield connection
        except RegistryUnavailableError as error:
            if not is_timeout(error):
                raise
            raise RequestTooLargeError(
                f"The answers of {window.model_id} on {window.since:%Y-%m-%d} could not be read in time.",
                remedy="Ask for fewer days, or when the database is less busy.",
                tenant_id=self._tenant_id,
            ) from error

    def _of(self, window: Window) -> list[sa.ColumnElement[bool]]:
        return [
            _OF.tenant_id == self._tenant_id,
            _OF.model_id == window.model_id,
            _OF.at >= window.since,
            _OF.at < window.until,
            _OF.environment == window.environment,
        ]
