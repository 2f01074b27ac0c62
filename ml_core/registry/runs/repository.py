"""``RunRepository``: experiment tracking of one tenant."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import runs
from ml_core.domain.api_key import Scope
from ml_core.domain.run import Point, Run, RunArtifact, RunQuery, RunStatus, RunTrigger, Series
from ml_core.exceptions import InvalidRequestError, MLFrameworkError
from ml_core.ids import ModelId, TenantId
from ml_core.registry import journal
from ml_core.registry.pages import Page
from ml_core.registry.runs import reading, search, tagging
from ml_core.registry.runs.comparison import compare
from ml_core.registry.runs.deletion import delete_rows
from ml_core.registry.runs.heartbeat import beating
from ml_core.registry.runs.lifecycle import is_silent, move, require, run_not_found
from ml_core.registry.runs.limits import check_parameters, check_word
from ml_core.registry.runs.points import CHUNK_POINTS, Batch, write
from ml_core.registry.tenants import tenant_not_found
from ml_core.registry.versions.rows import refusal

if TYPE_CHECKING:
    from ml_core.models.store import ArtifactStore
    from ml_core.registry.runs.artifacts import RunArtifacts

_MAX_ERROR_LENGTH = 4_000  # characters: enough for a message and the end of a traceback
_MAX_COMPARED = 100


class RunRepository:
    """The runs of one tenant.

    Args:
        db: The registry.
        tenant_id: The tenant.
        store: Where files of runs go; None means the platform's store.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId, store: ArtifactStore | None = None) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._store = store
        self._dead_after_s = db.settings.registry.run_dead_after_s

    def start(
        self,
        model_id: str,
        *,
        kind: str = "train",
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        parent_run_id: str | None = None,
    ) -> str:
        """Begin a run. It counts as dead once it gives no sign of life for a while: use ``heartbeat`` with it.

        Args:
            model_id: The model that it is for; it need not exist yet.
            kind: ``train``, ``tune`` or a word of your own.
            parameters: As given, JSON-compatible, at most 64 KiB.
            tags: Key → value, to find it by.
            parent_run_id: The run that it is a part of.

        Returns:
            Its id: ``run_`` and 16 hexadecimal digits.

        Raises:
            TenantNotFoundError: There is no such tenant.
            RunNotFoundError: There is no such parent.
            InvalidRequestError: A parameter or tag can't be stored.
            RequestTooLargeError: The parameters are too large.
        """
        run_id = f"run_{secrets.token_hex(8)}"
        row = {
            "tenant_id": self._tenant_id,
            "run_id": run_id,
            "model_id": ModelId(model_id),
            "kind": check_word(kind, "kind"),
            "status": RunStatus.RUNNING.value,
            "parameters": check_parameters(parameters or {}),
            "parent_run_id": parent_run_id,
            "created_by": self._db.principal.name,
        }
        with journal.writing(self._db, self._tenant_id) as connection:
            try:
                connection.execute(runs.insert().values(**row))
            except sa.exc.IntegrityError as error:
                if refusal(error) == "fk_runs_tenants":
                    raise tenant_not_found(self._tenant_id) from error
                if refusal(error) == "fk_runs_runs":
                    raise run_not_found(self._tenant_id, str(parent_run_id)) from error
                raise
            tagging.write(connection, self._tenant_id, run_id, tags or {})
            journal.record(
                connection, self._tenant_id, "run.started", {"run_id": run_id}, {"model_id": model_id, "kind": kind}
            )
        return run_id

    @contextmanager
    def record(self, model_id: str, **options: Any) -> Iterator[str]:
        """A run around a block: started, kept alive, and ended as the block ends.

        Finished when the block ends, cancelled by Ctrl-C, failed with the error when it raises.

        Args:
            model_id: The model that it is for.
            **options: Further keywords of ``start``.

        Raises:
            TenantNotFoundError: As ``start``, and whatever else that raises.
        """
        run_id = self.start(model_id, **options)
        try:
            with self.heartbeat(run_id):
                yield run_id
        except BaseException as error:
            end = self.cancel if isinstance(error, KeyboardInterrupt) else self.fail
            try:
                end(run_id, f"{type(error).__name__}: {error}")
            except MLFrameworkError as second:
                error.add_note(f"The run {run_id} could not be marked as ended: {second}")
            raise
        self.finish(run_id)

    def beat(self, run_id: str) -> None:
        """Give a sign of life; brings back a run that counted as dead because it was slow.

        Raises:
            RunNotFoundError: There is no such run.
            RunStateError: It has ended.
        """
        self._db.principal.require(Scope.TRAIN)
        with journal.writing(self._db, self._tenant_id) as connection:
            move(connection, self._tenant_id, run_id, RunTrigger.BEAT, heartbeat_at=sa.func.now())

    def heartbeat(self, run_id: str) -> AbstractContextManager[None]:
        """Give signs of life from a thread while a block runs: four in each ``MLCORE_RUN_DEAD_AFTER_S``."""
        return beating(lambda: self.beat(run_id), self._dead_after_s)

    def finish(self, run_id: str) -> None:
        """End a run that did what it should.

        Raises:
            RunNotFoundError: There is no such run.
            RunStateError: It has ended.
        """
        self._end(run_id, RunTrigger.FINISH, "run.finished", None)

    def fail(self, run_id: str, error: str) -> None:
        """End a run that did not; of a long error the end is kept. Errors as for ``finish``."""
        self._end(run_id, RunTrigger.FAIL, "run.failed", error)

    def cancel(self, run_id: str, reason: str = "") -> None:
        """End a run that somebody stopped. Errors as for ``finish``."""
        self._end(run_id, RunTrigger.CANCEL, "run.cancelled", reason)

    def mark_dead(self, run_id: str) -> None:
        """Make it final that a silent run is dead: it ended with its last sign of life, and can't come back.

        Raises:
            RunNotFoundError: There is no such run.
            RunStateError: It has ended, or it lives.
        """
        ended = {"finished_at": runs.c.heartbeat_at}
        with journal.writing(self._db, self._tenant_id) as connection:
            silent = is_silent(self._dead_after_s)
            move(connection, self._tenant_id, run_id, RunTrigger.DIE, silent, **ended)
            journal.record(connection, self._tenant_id, "run.marked_dead", {"run_id": run_id})

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Note the values of a step; a step's value that is there is replaced. A sign of life too.

        NaN and the infinities are kept as they are: a loss that diverged is worth seeing.

        Args:
            run_id: The run.
            metrics: Metric → value; at most 1,000 metrics a run.
            step: Such as the epoch.

        Raises:
            RunNotFoundError: There is no such run.
            RunStateError: It has ended.
            InvalidRequestError: A name or step can't be stored, or there are too many metrics.
        """
        self._write(run_id, Batch.of_step(metrics, step))

    def log_series(
        self,
        run_id: str,
        metrics: str | Sequence[str],
        steps: Sequence[int],
        values: Sequence[float],
        times: Sequence[datetime] | None = None,
    ) -> None:
        """Note many points, ten thousand a transaction; what ends half-way can be logged again as a whole.

        Args:
            run_id: The run.
            metrics: The metric of all points, or one name a point.
            steps: One a point.
            values: One a point.
            times: When each was measured (with a time zone); None means now.

        Raises:
            RunNotFoundError: As ``log_metrics``, and so do ``RunStateError`` and ``InvalidRequestError``.
        """
        names = [metrics] * len(steps) if isinstance(metrics, str) else metrics
        for batch in Batch.of_columns(names, steps, values, times).chunks(CHUNK_POINTS):
            self._write(run_id, batch)

    def tag(self, run_id: str, tags: Mapping[str, str | None]) -> Mapping[str, str]:
        """Set tags of a run, ended or not; None removes one.

        Returns:
            All of its tags.

        Raises:
            RunNotFoundError: There is no such run.
            InvalidRequestError: A key or value is not a text of 1 to 200 characters.
        """
        with journal.writing(self._db, self._tenant_id) as connection:
            require(connection, self._tenant_id, run_id)
            tagging.write(connection, self._tenant_id, run_id, tags)
            journal.record(connection, self._tenant_id, "run.tagged", {"run_id": run_id}, {"tags": dict(tags)})
            return reading.read_tags(connection, self._tenant_id, [run_id])[run_id]

    def get(self, run_id: str) -> Run:
        """A run with its tags and each metric in one line; the points are in ``series``.

        Raises:
            RunNotFoundError: There is no such run.
        """
        return self._get_all([run_id])[0]

    def list(self, model_id: str, *, limit: int = 100) -> Sequence[Run]:
        """A model's newest runs, newest first; ``search`` for more."""
        return self.search(RunQuery(model_id=ModelId(model_id)), limit=limit).items

    def search(self, query: RunQuery | None = None, *, limit: int = 50, cursor: str | None = None) -> Page[Run]:
        """A page of the runs that a query finds, newest first, each as ``get`` returns it.

        Args:
            query: Which; None means all of the tenant.
            limit: At most so many, 1 to 1000.
            cursor: ``next_cursor`` of the page before, for the same query.

        Raises:
            InvalidRequestError: The limit, the cursor or a value can't be used.
        """
        with self._db.tenant(self._tenant_id) as connection:
            return search.find_all(connection, self._tenant_id, query or RunQuery(), self._dead_after_s, limit, cursor)

    def series(self, run_id: str, metric: str, *, max_points: int = 1000, after_step: int | None = None) -> Series:
        """A metric's points for a picture.

        Of more than ``max_points`` the database selects: the first, the last, and of each of equally large parts the
        lowest, the highest and one that is not finite.

        Args:
            run_id: The run.
            metric: The metric.
            max_points: At most so many, 5 to 10,000.
            after_step: Only points after this step.

        Raises:
            RunNotFoundError: There is no such run, or it has no such metric.
            InvalidRequestError: ``max_points`` can't be used.
        """
        with self._db.tenant(self._tenant_id) as connection:
            found = reading.read_series(connection, self._tenant_id, run_id, metric, max_points, after_step)
        if not found.points:
            self._require_metric(run_id, metric)
        return found

    def points(self, run_id: str, metric: str, *, limit: int = 1000, cursor: str | None = None) -> Page[Point]:
        """All points of a metric in the order of steps, a page at a time.

        Raises:
            RunNotFoundError: There is no such run, or it has no such metric.
            InvalidRequestError: The limit or the cursor can't be used.
        """
        with self._db.tenant(self._tenant_id) as connection:
            page = reading.read_points(connection, self._tenant_id, run_id, metric, limit, cursor)
        if not page.items:
            self._require_metric(run_id, metric)
        return page

    def compare(self, run_ids: Sequence[str]) -> dict[str, Any]:
        """Runs side by side, see ``ml_core.registry.runs.comparison.compare``.

        Raises:
            RunNotFoundError: One of them does not exist.
            InvalidRequestError: They are not 2 to 100 different ones.
        """
        wanted = list(dict.fromkeys(run_ids))
        if not 2 <= len(wanted) <= _MAX_COMPARED:
            given = "1 run is" if len(wanted) == 1 else f"{len(wanted)} runs are"
            raise InvalidRequestError(
                f"{given} not enough to compare." if len(wanted) <= 1 else f"{given} too many to compare.",
                remedy=f"Name 2 to {_MAX_COMPARED} different ones.",
                tenant_id=self._tenant_id,
                field="run_ids",
            )
        return compare(self._get_all(wanted))

    def log_artifact(self, run_id: str, name: str, data: bytes | str | Path, format: str | None = None) -> RunArtifact:  # noqa: A002
        """Keep a file of a running run, see ``RunArtifacts.log``."""
        return self._artifacts.log(run_id, name, data, format)

    def list_artifacts(self, run_id: str) -> Sequence[RunArtifact]:
        """A run's files by name, see ``RunArtifacts.list``."""
        return self._artifacts.list(run_id)

    def open_artifact(self, run_id: str, name: str) -> Path:
        """A local, proved copy of a run's file, see ``RunArtifacts.open``."""
        return self._artifacts.open(run_id, name)

    def delete_artifact(self, run_id: str, name: str) -> None:
        """Remove a run's file, see ``RunArtifacts.delete``."""
        self._artifacts.delete(run_id, name)

    def delete(self, run_id: str) -> None:
        """Delete a run that does not live, with its points, tags and files.

        Raises:
            RunNotFoundError: There is no such run.
            RunStateError: It is running.
            RunInUseError: A version came from it, or another run is a part of it.
            ModelSaveError: The run is deleted, but the store refuses to remove bytes of its files.
        """
        with journal.writing(self._db, self._tenant_id) as connection:
            digests = delete_rows(connection, self._tenant_id, run_id, self._dead_after_s)
        if digests:
            self._artifacts.discard(digests)

    @property
    def _artifacts(self) -> RunArtifacts:
        from ml_core.models.store import platform_store
        from ml_core.registry.runs.artifacts import RunArtifacts

        return RunArtifacts(self._db, self._tenant_id, self._store or platform_store(self._db.settings))

    def _write(self, run_id: str, batch: Batch) -> None:
        self._db.principal.require(Scope.TRAIN)
        with journal.writing(self._db, self._tenant_id) as connection:
            move(connection, self._tenant_id, run_id, RunTrigger.LOG, heartbeat_at=sa.func.now())
            write(connection, self._tenant_id, run_id, batch)

    def _end(self, run_id: str, trigger: RunTrigger, action: str, error: str | None) -> None:
        kept = None if error is None else error.replace("\0", "")[-_MAX_ERROR_LENGTH:] or None
        with journal.writing(self._db, self._tenant_id) as connection:
            model_id = move(connection, self._tenant_id, run_id, trigger, finished_at=sa.func.now(), error=kept)
            details = {"model_id": model_id, **({} if kept is None else {"error": kept})}
            journal.record(connection, self._tenant_id, action, {"run_id": run_id}, details)

    def _get_all(self, run_ids: Sequence[str]) -> Sequence[Run]:
        with self._db.tenant(self._tenant_id) as connection:
            found = search.find(connection, self._tenant_id, run_ids, self._dead_after_s)
        for run_id in run_ids:
            if run_id not in found:
                raise run_not_found(self._tenant_id, run_id)
        return [found[run_id] for run_id in run_ids]

    def _require_metric(self, run_id: str, metric: str) -> None:
        if metric not in self.get(run_id).metrics:
            raise run_not_found(self._tenant_id, run_id, f"no metric {metric[:60]!r}", "Take one that get shows.")
