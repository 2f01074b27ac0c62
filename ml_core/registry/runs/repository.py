"""``RunRepository``: experiment tracking of one tenant."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import run_artifacts, run_documents, run_metric_summaries, run_metrics, run_tags, runs
from ml_core.domain.api_key import Scope
from ml_core.domain.comparison import Comparison, Order
from ml_core.domain.run import TRACKED, Point, Run, RunStatus, RunTrigger, Series, compare_runs
from ml_core.exceptions import (
    InvalidRequestError,
    MLFrameworkError,
    RequestTooLargeError,
    RunStateError,
    is_public,
    public_text,
)
from ml_core.ids import Digest, ModelId, RunId
from ml_core.registry import journal
from ml_core.registry.blobs import remove_unneeded
from ml_core.registry.heartbeat import beating
from ml_core.registry.jobs.lifecycle import cancel_job_of
from ml_core.registry.journal import erase
from ml_core.registry.limits import check_document, check_filters, check_word
from ml_core.registry.missing import require_model_in
from ml_core.registry.pages import Page
from ml_core.registry.records import OfTenant
from ml_core.registry.runs import search, series
from ml_core.registry.runs.comparing import condition
from ml_core.registry.runs.lifecycle import (
    accept_results,
    add_parameters,
    lock_unused,
    move,
    require_run,
    run_not_found,
)
from ml_core.registry.runs.search import RunCriteria
from ml_core.registry.runs.series import CHUNK_POINTS, Batch
from ml_core.registry.search import write_tags
from ml_core.registry.versions.rows import refusal

if TYPE_CHECKING:
    from ml_core.models.store import ArtifactStore
    from ml_core.registry.runs.artifacts import RunArtifacts

logger = logging.getLogger(__name__)

_START = runs.insert()
_MAX_ERROR_LENGTH = 4_000  # characters: enough for a message and the end of a traceback
_MAX_COMPARED = 100
_BEATS_PER_BOUND = 4  # within the time after which a run counts as dead: three may get lost


class RunRepository(OfTenant):
    """The runs of one tenant.

    A run of the kind ``mlflow`` takes parameters, metrics and files after its end, too.

    Attributes:
        beat_every_s: Seconds between two heartbeats.

    Args:
        db: The registry.
        tenant_id: The tenant.
        store: Where files of runs go; None means the platform's store.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: str, store: ArtifactStore | None = None) -> None:
        super().__init__(db, tenant_id)
        self._store = store
        self._dead_after_s = db.settings.registry.run_dead_after_s
        self.beat_every_s = self._dead_after_s / _BEATS_PER_BOUND

    @cached_property
    def artifacts(self) -> RunArtifacts:
        """The files of the runs."""
        from ml_core.registry.runs.artifacts import RunArtifacts  # pyarrow: only where files are used

        return RunArtifacts(self._db, self._tenant_id, self._store)

    def start(
        self,
        model_id: str,
        *,
        kind: str = "train",
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        parent_run_id: str | None = None,
        run_id: str | None = None,
    ) -> str:
        """Start a run. It counts as dead when it sends no heartbeat for a while: use ``heartbeat`` with it.

        Args:
            model_id: The model that it is for; it need not exist yet.
            kind: ``train``, ``tune`` or a word of your own.
            parameters: JSON-compatible, at most 64 KiB.
            tags: Key → value, for ``search``.
            parent_run_id: The run that it is a part of.
            run_id: Its id, for a caller that must know it before the run exists; None: a new one.

        Returns:
            Its id: ``run_`` and 16 hexadecimal digits.

        Raises:
            RunNotFoundError: There is no such parent.
            RunStateError: There is a run with this id.
            InvalidRequestError: A parameter or tag can't be stored.
            RequestTooLargeError: The parameters are too large.
        """
        run_id = RunId.new() if run_id is None else RunId(run_id)
        row = {
            "tenant_id": self._tenant_id,
            "run_id": run_id,
            "model_id": ModelId(model_id),
            "kind": check_word(kind, "kind"),
            "status": RunStatus.RUNNING.value,
            "parameters": check_document(parameters or {}, "parameters"),
            "parent_run_id": parent_run_id,
            "created_by": self._db.principal.name,
        }
        with journal.writing(self._db, self._tenant_id) as connection:
            try:
                connection.execute(_START, row)
            except sa.exc.IntegrityError as error:
                if refusal(error) == "fk_runs_runs":
                    raise run_not_found(self._tenant_id, str(parent_run_id)) from error
                if refusal(error) == "pk_runs":
                    raise RunStateError(
                        f"There is a run {run_id} already.",
                        remedy="Give another id, or none.",
                        tenant_id=self._tenant_id,
                        run_id=run_id,
                    ) from error
                raise
            write_tags(connection, run_tags, self._tenant_id, {"run_id": run_id}, tags or {})
            what = {"model_id": model_id, "kind": kind}
            journal.record(connection, self._tenant_id, "run.started", {"run_id": run_id}, what)
        return run_id

    def log_parameters(self, run_id: str, parameters: Mapping[str, Any]) -> None:
        """Add parameters to a run. One that it has with the same value stays.

        Raises:
            RunStateError: It has ended, and MLflow's client did not start it; or it has one with another value.
            InvalidRequestError: A parameter can't be stored.
            RequestTooLargeError: The parameters would be too large.
        """
        self._db.principal.require(Scope.TRAIN)
        with journal.writing(self._db, self._tenant_id) as connection:
            accept_results(connection, self._tenant_id, run_id)
            add_parameters(connection, self._tenant_id, run_id, check_document(parameters, "parameters"))

    @contextmanager
    def record(self, model_id: str, **options: Any) -> Iterator[str]:
        """A run around a block: started, kept alive with heartbeats, and ended as the block ends.

        Finished when the block ends, cancelled by Ctrl-C, failed with the error when it raises. What only the operator
        may see of an error is in the log instead. ``options`` are further keywords of ``start``, and the errors are
        those of ``start``.
        """
        run_id = self.start(model_id, **options)
        try:
            with self.heartbeat(run_id):
                yield run_id
        except BaseException as error:
            is_interrupt = isinstance(error, KeyboardInterrupt)
            end = self.cancel if is_interrupt else self.fail
            if not is_interrupt and not is_public(error):
                logger.error("The run %s of tenant %s failed.", run_id, self._tenant_id, exc_info=error)
            try:
                end(run_id, "KeyboardInterrupt" if is_interrupt else public_text(error))
            except MLFrameworkError as second:
                error.add_note(f"The run {run_id} could not be marked as ended: {second}")
            raise
        self.finish(run_id)

    def beat(self, run_id: str) -> None:
        """Send a heartbeat; brings back a run that counted as dead because it was slow.

        Raises:
            RunStateError: It has ended.
        """
        self._db.principal.require(Scope.TRAIN)
        with journal.writing(self._db, self._tenant_id) as connection:
            move(connection, self._tenant_id, run_id, RunTrigger.BEAT, heartbeat_at=sa.func.now())

    def heartbeat(self, run_id: str) -> AbstractContextManager[None]:
        """Send heartbeats from a thread while a block runs: four in each ``MLCORE_RUN_DEAD_AFTER_S``."""
        return beating(lambda: self.beat(run_id), self.beat_every_s)

    def finish(self, run_id: str) -> None:
        """End a run that succeeded.

        Raises:
            RunStateError: It has ended.
        """
        self._end(run_id, RunTrigger.FINISH, "run.finished", None)

    def fail(self, run_id: str, error: str) -> None:
        """End a run that failed; of a long error the end is kept. Errors as for ``finish``."""
        self._end(run_id, RunTrigger.FAIL, "run.failed", error)

    def cancel(self, run_id: str, reason: str = "") -> None:
        """End a run that was stopped; the job that it records is cancelled with it. Errors as for ``finish``."""
        self._end(run_id, RunTrigger.CANCEL, "run.cancelled", reason)

    def resume(self, run_id: str) -> None:
        """Open a run again that has ended, and that MLflow's client started.

        Raises:
            RunStateError: It is running, or something else started it.
        """
        reopened = {"finished_at": None, "error": None, "heartbeat_at": sa.func.now()}
        with journal.writing(self._db, self._tenant_id) as connection:
            is_tracked = runs.c.kind == TRACKED
            move(connection, self._tenant_id, run_id, RunTrigger.RESUME, is_tracked, **reopened)
            journal.record(connection, self._tenant_id, "run.resumed", {"run_id": run_id})

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log the values of a step; an existing value of the step is replaced. Counts as a heartbeat.

        NaN and the infinities are stored: they show that a loss diverged.

        Args:
            run_id: The run.
            metrics: Metric → value; at most 1,000 metrics a run.
            step: Such as the epoch.

        Raises:
            RunStateError: It has ended.
            InvalidRequestError: A name or step can't be stored.
            RequestTooLargeError: The run would have too many metrics.
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
        """Log many points, ten thousand in one transaction; after an error the whole can be logged again.

        Args:
            run_id: The run.
            metrics: The metric of all points, or one name a point.
            steps: One a point.
            values: One a point.
            times: When each was measured (with a time zone); None means now.

        Raises:
            MLFrameworkError: As for ``log_metrics``.
        """
        names = [metrics] * len(steps) if isinstance(metrics, str) else metrics
        for batch in Batch.of_columns(names, steps, values, times).chunks(CHUNK_POINTS):
            self._write(run_id, batch)

    def tag(self, run_id: str, tags: Mapping[str, str | None]) -> Mapping[str, str]:
        """Set tags of a run, ended or not; None removes one.

        Returns:
            All of its tags.

        Raises:
            InvalidRequestError: A key is not a text of 1 to 250 characters, or a value is not one of at most 8,000.
        """
        with journal.writing(self._db, self._tenant_id) as connection:
            require_run(connection, self._tenant_id, run_id)
            write_tags(connection, run_tags, self._tenant_id, {"run_id": run_id}, tags)
            journal.record(connection, self._tenant_id, "run.tagged", {"run_id": run_id}, {"tags": dict(tags)})
            return search.read_tags(connection, self._tenant_id, [run_id])[run_id]

    def get(self, run_id: str) -> Run:
        """A run with its tags and each metric in one line; the points are in ``series``."""
        return self._get_all([run_id])[0]

    def search(
        self,
        model_id: str | None = None,
        *,
        sort: str = search.STARTED,
        descending: bool | None = None,
        limit: int = 50,
        cursor: str | None = None,
        **criteria: Unpack[RunCriteria],
    ) -> Page[Run]:
        """A page of runs, each as ``get`` returns it.

        A filter that is left out does not restrict::

            runs.search("tickets", status="finished", metrics=["validation/accuracy>=0.8"])

        Args:
            model_id: Of this model.
            sort: ``started``, or a metric as it was logged: then only runs that have it, by their last values.
            descending: True for the newest or highest first, False for the oldest or lowest; None: the newest first, or
                the best of the metric. Values that are not a number come last.
            limit: 1 to 1,000.
            cursor: ``next_cursor`` of the page before, asked with the same filters and order.
            **criteria: ``kind``; ``status`` (``running``, ``finished``, ``failed``, ``cancelled`` or ``dead``: silent
                runs and those marked so); ``tags`` (key → value); ``parameters`` (name → value; points lead into
                objects: ``hyperparameters.C``); ``metrics`` (bounds of last values, each metric as it was logged);
                ``parent_run_id``; ``started_from`` (then or later) and ``started_before``, with a time zone.

        Raises:
            InvalidRequestError: The limit, the cursor, the order or a filter can't be used.
            ModelNotFoundError: The model has neither a run nor a version: an empty page would hide the typo.
            RequestTooLargeError: There are more than 30 filters; each tag, parameter and bound of a metric counts.
            TypeError: There is no such filter.
        """
        has_metric, orders = search.sorting(self._tenant_id, sort, descending)
        conditions = [*search.conditions_of(self._tenant_id, model_id, criteria, self._dead_after_s), *has_metric]
        with self._db.tenant(self._tenant_id) as connection:
            page = search.ordered(connection, self._tenant_id, conditions, orders, self._dead_after_s, limit, cursor)
            if not page.items:
                search.require_sortable(connection, self._tenant_id, sort)
            if not page.items and model_id is not None:
                of = sa.select(runs.c.run_id).filter_by(tenant_id=self._tenant_id, model_id=model_id)
                if connection.scalar(of.limit(1)) is None:
                    require_model_in(connection, self._tenant_id, ModelId(model_id))
        return page

    def query(
        self,
        model_ids: Sequence[str],
        comparisons: Sequence[Comparison] = (),
        orders: Sequence[Order] = (),
        *,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> Page[Run]:
        """A page of the runs of some models that meet all comparisons, in any order, else newest first.

        ``search`` has the filters that most callers need.

        Raises:
            InvalidRequestError: The limit, the cursor or an attribute can't be used.
            RequestTooLargeError: There are more than 30 comparisons and orders.
        """
        orders = orders or [search.NEWEST_FIRST]
        check_filters([*comparisons, *orders])
        conditions: list[sa.ColumnElement[bool]] = [runs.c.model_id.in_(model_ids)]
        conditions += [condition(self._tenant_id, each) for each in comparisons]
        with self._db.tenant(self._tenant_id) as connection:
            return search.ordered(connection, self._tenant_id, conditions, orders, self._dead_after_s, limit, cursor)

    def series(
        self,
        run_id: str,
        metric: str,
        *,
        max_points: int = 1000,
        after_step: int | None = None,
        until_step: int | None = None,
    ) -> Series:
        """A metric's points for a chart.

        Of more than ``max_points`` the database selects: the first, the last, and of each of equally large parts the
        lowest, the highest and one that is not finite.

        Args:
            run_id: The run.
            metric: The metric.
            max_points: At most so many, 5 to 10,000.
            after_step: Only points after this step.
            until_step: Only points up to this step.

        Raises:
            RunNotFoundError: The run has no such metric.
            InvalidRequestError: ``max_points`` can't be used.
        """
        with self._db.tenant(self._tenant_id) as connection:
            of = (connection, self._tenant_id, run_id, metric, max_points)
            found = series.read_series(*of, after_step=after_step, until_step=until_step)
        if not found.points:
            self._require_metric(run_id, metric)
        return found

    def points(self, run_id: str, metric: str, *, limit: int = 1000, cursor: str | None = None) -> Page[Point]:
        """All points of a metric in the order of steps, a page at a time.

        Raises:
            RunNotFoundError: The run has no such metric.
        """
        with self._db.tenant(self._tenant_id) as connection:
            page = series.read_points(connection, self._tenant_id, run_id, metric, limit, cursor)
        if not page.items:
            self._require_metric(run_id, metric)
        return page

    def compare(self, run_ids: Sequence[str]) -> dict[str, Any]:
        """Runs side by side, see ``ml_core.domain.run.compare_runs``.

        Raises:
            InvalidRequestError: They are fewer than 2 different ones.
            RequestTooLargeError: They are more than 100.
        """
        wanted = list(dict.fromkeys(run_ids))
        remedy = f"Name 2 to {_MAX_COMPARED} different runs."
        if len(wanted) > _MAX_COMPARED:
            raise RequestTooLargeError(
                f"{len(wanted)} runs are too many to compare.",
                remedy=remedy,
                tenant_id=self._tenant_id,
                limit=_MAX_COMPARED,
                actual=len(wanted),
            )
        if len(wanted) < 2:
            raise InvalidRequestError(
                f"{len(wanted)} run{' is' if wanted else 's are'} not enough to compare.",
                remedy=remedy,
                tenant_id=self._tenant_id,
                field="run_ids",
            )
        return compare_runs(self._get_all(wanted))

    def delete(self, run_id: str) -> None:
        """Delete a run that is not running, with its points, tags and files.

        Raises:
            RunStateError: It is running.
            RunInUseError: A version came from it, or another run is a part of it.
            ModelSaveError: The run is deleted, but the store refuses to remove bytes of its files.
        """
        with journal.writing(self._db, self._tenant_id) as connection:
            model_id = lock_unused(connection, self._tenant_id, run_id, self._dead_after_s)
            files = sa.select(run_artifacts.c.digest).filter_by(tenant_id=self._tenant_id, run_id=run_id)
            digests = connection.scalars(files.distinct()).all()
            # The run's row last: the others refer to it.
            for table in (run_artifacts, run_documents, run_metric_summaries, run_metrics, run_tags, runs):
                erase(connection, table, run_id=run_id)
            details = {"model_id": model_id, "files": len(digests)}
            journal.record(connection, self._tenant_id, "run.deleted", {"run_id": run_id}, details)
        # Bytes after rows: a crash between the two leaves bytes that a collection removes.
        for digest in digests:
            remove_unneeded(self._db, self._tenant_id, self.artifacts.store, Digest(digest))

    def _write(self, run_id: str, batch: Batch) -> None:
        self._db.principal.require(Scope.TRAIN)
        with journal.writing(self._db, self._tenant_id) as connection:
            accept_results(connection, self._tenant_id, run_id)
            series.write(connection, self._tenant_id, run_id, batch)

    def _end(self, run_id: str, trigger: RunTrigger, action: str, error: str | None) -> None:
        kept = None if error is None else error.replace("\0", "")[-_MAX_ERROR_LENGTH:] or None
        with journal.writing(self._db, self._tenant_id) as connection:
            if trigger is RunTrigger.CANCEL:  # the job's row is locked first, as ``JobRepository.lose`` does
                cancel_job_of(connection, self._tenant_id, run_id)
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
            raise run_not_found(self._tenant_id, run_id, f"metric {metric[:60]!r}")
