"""Documents of runs: what a tracking client records beside parameters, metrics, tags and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.tables import run_documents, runs
from ml_core.domain.comparison import Comparison, Field, FieldKind
from ml_core.exceptions import RequestTooLargeError
from ml_core.registry import journal
from ml_core.registry.limits import check_document, check_filters
from ml_core.registry.records import OfTenant, value_of
from ml_core.registry.runs.comparing import compared
from ml_core.registry.runs.lifecycle import accept_results, require_run, run_not_found

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow, AnySelect

MAX_DOCUMENT_BYTES = 512 * 2**10
"""The schema of a wide table is 64 KiB, and its profile is as much again."""
MAX_DOCUMENTS = 200
"""Of one kind, of one run: they are read together."""
MAX_RUN_BYTES = 4 * 2**20
"""Of all documents of a run, as Postgres stores them, compressed."""
_OF = run_documents.c


@dataclass(frozen=True, slots=True)
class RunDocument:
    """A document of a run."""

    run_id: str
    model_id: str
    name: str
    document: Mapping[str, Any]
    created_at: datetime


class RunDocuments(OfTenant):
    """The documents of one tenant's runs: ``dataset``, a table that a run read; ``model``, one that it logged."""

    def add(self, run_id: str, kind: str, documents: Mapping[str, Mapping[str, Any]]) -> None:
        """Add documents to a run, by name. One that the run has stays as it is.

        Raises:
            RunStateError: The run has ended, and MLflow's client did not start it.
            RequestTooLargeError: A document is too large, or the run would have too many.
        """
        key = {"tenant_id": self._tenant_id, "run_id": run_id, "kind": kind}
        rows = [
            {**key, "name": name, "document": check_document(each, f"{kind}s", max_bytes=MAX_DOCUMENT_BYTES)}
            for name, each in documents.items()
        ]
        with journal.writing(self._db, self._tenant_id) as connection:
            accept_results(connection, self._tenant_id, run_id)
            if rows:
                connection.execute(insert(run_documents).values(rows).on_conflict_do_nothing())
            count = connection.scalar(sa.select(sa.func.count()).select_from(run_documents).filter_by(**key))
            if count is not None and count > MAX_DOCUMENTS:
                raise RequestTooLargeError(
                    f"The run {run_id} would have {count:,} {kind}s; {MAX_DOCUMENTS} are allowed.",
                    remedy="Start further runs for the others.",
                    tenant_id=self._tenant_id,
                    limit=MAX_DOCUMENTS,
                    actual=count,
                )
            self._check_size(connection, run_id)
            subject = {"run_id": run_id, "kind": kind}
            journal.record(connection, self._tenant_id, "run.document_logged", subject, {"names": list(documents)})

    def change(
        self, run_id: str, kind: str, name: str, changed: Callable[[dict[str, Any]], Mapping[str, Any]]
    ) -> RunDocument:
        """Replace a document by what ``changed`` makes of it; nothing else changes it meanwhile.

        Raises:
            RunNotFoundError: The run has no such document.
            RunStateError, RequestTooLargeError: As ``add``.
        """
        key = {"tenant_id": self._tenant_id, "run_id": run_id, "kind": kind, "name": name}
        with journal.writing(self._db, self._tenant_id) as connection:
            accept_results(connection, self._tenant_id, run_id)  # locks the run's row, and with it its documents
            row = self._row(connection, run_id, kind, name)
            made = check_document(changed(dict(row.document)), f"{kind}s", max_bytes=MAX_DOCUMENT_BYTES)
            connection.execute(run_documents.update().filter_by(**key).values(document=made))
            self._check_size(connection, run_id)
            subject = {"run_id": run_id, "kind": kind}
            journal.record(connection, self._tenant_id, "run.document_logged", subject, {"names": [name]})
        return value_of(RunDocument, row, document=made)

    def get(self, run_id: str, kind: str, name: str) -> RunDocument:
        """A document.

        Raises:
            RunNotFoundError: The run has no such document.
        """
        with self._db.tenant(self._tenant_id) as connection:
            return value_of(RunDocument, self._row(connection, run_id, kind, name))

    def list(self, run_id: str) -> Mapping[str, Sequence[RunDocument]]:
        """Kind → a run's documents, oldest first."""
        statement = self._select().where(_OF.run_id == run_id)
        found: dict[str, Any] = {}
        with self._db.tenant(self._tenant_id) as connection:
            require_run(connection, self._tenant_id, run_id)
            for row in connection.execute(statement.order_by(_OF.created_at, _OF.name)):
                found.setdefault(row.kind, []).append(value_of(RunDocument, row))
        return found

    def search(
        self, kind: str, model_ids: Sequence[str], comparisons: Sequence[Comparison], *, limit: int, offset: int = 0
    ) -> Sequence[RunDocument]:
        """Documents of one kind of the runs of some models, newest first.

        Args:
            kind: The kind.
            model_ids: The models.
            comparisons: On the attributes ``run_id``, ``document`` (its name) and ``created_at``, and on the texts in a
                document: at its top, in its ``tags`` and in its ``params``.
            limit: At most so many.
            offset: So many are left out.

        Raises:
            RequestTooLargeError: There are more than 30 comparisons.
        """
        check_filters(comparisons)
        statement = self._select().where(_OF.kind == kind, runs.c.model_id.in_(model_ids))
        statement = statement.where(*(compared(_column(each.field), each) for each in comparisons))
        statement = statement.order_by(_OF.created_at.desc(), _OF.name.desc()).limit(limit).offset(offset)
        with self._db.tenant(self._tenant_id) as connection:
            return [value_of(RunDocument, row) for row in connection.execute(statement)]

    def _check_size(self, connection: Connection, run_id: str) -> None:
        stored = sa.select(sa.func.sum(sa.func.pg_column_size(_OF.document)))
        total = connection.scalar(stored.where(_OF.tenant_id == self._tenant_id, _OF.run_id == run_id))
        if total is not None and total > MAX_RUN_BYTES:
            raise RequestTooLargeError(
                f"The documents of the run {run_id} would have {total:,} bytes; {MAX_RUN_BYTES:,} are allowed.",
                remedy="Start further runs for the others.",
                tenant_id=self._tenant_id,
                limit=MAX_RUN_BYTES,
                actual=int(total),
            )

    def _row(self, connection: Connection, run_id: str, kind: str, name: str) -> AnyRow:
        wanted = self._select().where(_OF.run_id == run_id, _OF.kind == kind, _OF.name == name)
        row = connection.execute(wanted).one_or_none()
        if row is None:
            raise run_not_found(self._tenant_id, run_id, f"{kind} {name[:60]!r}")
        return row

    def _select(self) -> AnySelect:
        is_own = sa.and_(runs.c.tenant_id == _OF.tenant_id, runs.c.run_id == _OF.run_id)
        statement = sa.select(run_documents, runs.c.model_id).join(runs, is_own)
        return statement.where(_OF.tenant_id == self._tenant_id)


def _column(field: Field) -> sa.ColumnElement[Any]:
    own: dict[str, sa.ColumnElement[Any]] = {"run_id": _OF.run_id, "document": _OF.name, "created_at": _OF.created_at}
    if field.kind is FieldKind.ATTRIBUTE and field.name in own:
        return own[field.name]
    inside = {FieldKind.TAG: ("tags",), FieldKind.PARAMETER: ("params",)}.get(field.kind, ())
    found: sa.ColumnElement[str] = _OF.document[(*inside, field.name)].as_string()
    return found
