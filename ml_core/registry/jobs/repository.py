"""``JobRepository``: the jobs of one tenant, for whoever submits them and for the processes that execute them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.tables import dataset_versions, jobs, runs, versions
from ml_core.domain.api_key import Grant, Scope
from ml_core.domain.job import MAX_PRIORITY, Attempt, Job, JobKind, JobQuota, JobState, JobTrigger
from ml_core.domain.run import RunStatus
from ml_core.domain.schedule import keys_of
from ml_core.exceptions import Action, IdempotencyConflictError, InvalidRequestError, JobStateError
from ml_core.ids import JobId
from ml_core.registry import journal
from ml_core.registry.jobs import log as logs
from ml_core.registry.jobs.lifecycle import attempt_from, in_seconds, is_job, job_not_found, move
from ml_core.registry.jobs.log import JobLog
from ml_core.registry.jobs.quotas import JobUsage, check_share, shares
from ml_core.registry.limits import check_choice, check_document
from ml_core.registry.pages import Page, read_page
from ml_core.registry.records import OfTenant, value_of

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

_MAX_ATTEMPTS = 10
_PAUSE_S = 10.0
"""Before a lost job is claimed again; doubled with each attempt."""


class JobRepository(OfTenant):
    """The jobs of one tenant."""

    def submit(
        self,
        kind: JobKind | str,
        spec: Mapping[str, Any],
        *,
        cpus: float = 1.0,
        priority: int = 0,
        max_attempts: int = 3,
        idempotency_key: str | None = None,
        reserved_s: float = 0.0,
    ) -> Job:
        """Submit a job. The caller has checked the spec.

        Args:
            kind: What it executes.
            spec: How; JSON-compatible, at most 64 KiB.
            cpus: The cores that it gets.
            priority: -100 to 100; among the tenant's jobs a higher one goes first.
            max_attempts: How often it is started at most, if its process is lost; 1 to 10.
            idempotency_key: A text of the caller, 1 to 200 characters: the same again returns the same job.
            reserved_s: Seconds in which no dispatcher claims it: whoever submits it does so (``JobQueue.claim_one``).

        Raises:
            PermissionDeniedError: The principal lacks the scope ``train``.
            InvalidRequestError: A number is out of range.
            RequestTooLargeError: The spec is too large.
            QuotaExceededError: A quota of the tenant does not permit it.
            IdempotencyConflictError: The key belongs to a job with another spec.
        """
        principal = self._db.principal
        principal.require(Scope.TRAIN)
        kind = check_choice(JobKind, kind, "kind")
        document = check_document(spec, "spec")
        check_options(cpus, priority, max_attempts)
        check_key(idempotency_key)
        row = {
            "tenant_id": self._tenant_id,
            "job_id": JobId.new(),
            "kind": kind.value,
            "spec": document,
            "cpus": cpus,
            "priority": priority,
            "max_attempts": max_attempts,
            "idempotency_key": idempotency_key,
            "not_before": in_seconds(reserved_s),
            "scopes": Grant(principal.scopes, principal.promotes).names,
        }
        with journal.writing(self._db, self._tenant_id) as connection:
            if (existing := self._repeated(connection, idempotency_key, kind, document)) is not None:
                return existing
            check_share(self._tenant_id, self._share(connection), cpus)
            adding = insert(jobs).values(**row).on_conflict_do_nothing(index_elements=["tenant_id", "idempotency_key"])
            added = connection.execute(adding.returning(jobs)).one_or_none()
            if added is None:  # another request with the key was faster
                existing = self._repeated(connection, idempotency_key, kind, document)
                assert existing is not None  # noqa: S101 - its row is what the insertion conflicted with
                return existing
            details = {"kind": kind.value, "priority": priority}
            journal.record(connection, self._tenant_id, "job.submitted", {"job_id": added.job_id}, details)
        return value_of(Job, added)

    def get(self, job_id: str) -> Job:
        """A job."""
        return value_of(Job, self._row(job_id))

    def attempt(self, job_id: str, run_id: str) -> Attempt:
        """A claimed attempt, for the process that was started for it.

        Raises:
            JobStateError: Another attempt goes on.
        """
        row = self._row(job_id)
        if row.run_id != run_id:
            raise JobStateError(
                f"The job {job_id} goes on without the run {run_id}.",
                remedy="Stop its process.",
                tenant_id=self._tenant_id,
                job_id=job_id,
                state=row.state,
            )
        return attempt_from(row)

    def find(self, idempotency_key: str) -> Job | None:
        """The job that was submitted with an idempotency key; None: none was."""
        of = (jobs.c.tenant_id == self._tenant_id, jobs.c.idempotency_key == idempotency_key)
        with self._db.tenant(self._tenant_id) as connection:
            row = connection.execute(sa.select(jobs).where(*of)).one_or_none()
        return None if row is None else value_of(Job, row)

    def list(
        self,
        *,
        state: JobState | str | None = None,
        schedule: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Job]:
        """A page of jobs, newest first.

        Args:
            state: Only in this state.
            schedule: Only those of this schedule, also if it was deleted.
            limit: 1 to 1,000.
            cursor: ``next_cursor`` of the page before.

        Raises:
            InvalidNameError: No schedule can have this name.
            InvalidRequestError: The state, the limit or the cursor can't be used.
        """
        statement = sa.select(jobs).where(jobs.c.tenant_id == self._tenant_id)
        if state is not None:
            statement = statement.where(jobs.c.state == check_choice(JobState, state, "state").value)
        if schedule is not None:
            statement = statement.where(jobs.c.idempotency_key.startswith(keys_of(schedule), autoescape=True))
        order = (jobs.c.submitted_at, jobs.c.job_id)
        with self._db.tenant(self._tenant_id) as connection:
            page = read_page(connection, statement, order, limit=limit, cursor=cursor, descending=True)
        return page.map(partial(value_of, Job))

    def cancel(self, job_id: str, reason: str = "") -> Job:
        """Cancel a job: at once if it waits, else its process is stopped within seconds.

        Raises:
            JobStateError: It has ended, or is being cancelled.
        """
        with journal.writing(self._db, self._tenant_id) as connection:
            job = move(connection, self._tenant_id, job_id, JobTrigger.CANCEL)
            if job.state is JobState.CANCELLED:
                job = self._set(connection, job_id, finished_at=sa.func.now())
            self._record(connection, job, "job.cancelled", {"reason": reason[:200]})
        return job

    def retry(self, job_id: str) -> Job:
        """Queue a job again that failed or was cancelled, with the rights of whoever submitted it.

        Raises:
            JobStateError: It has not ended, or it succeeded.
            QuotaExceededError: As ``submit``.
        """
        with journal.writing(self._db, self._tenant_id) as connection:
            now = sa.func.now()
            cleared: dict[str, Any] = {"attempt": 0, "error": sa.null(), "finished_at": None, "not_before": now}
            job = move(connection, self._tenant_id, job_id, JobTrigger.RETRY, **cleared)
            check_share(self._tenant_id, self._share(connection), job.cpus, is_counted=True)
            self._record(connection, job, "job.retried")
        return job

    def share(self) -> tuple[JobQuota, JobUsage]:
        """The tenant's quota, and what it uses of it."""
        with self._db.tenant(self._tenant_id) as connection:
            return self._share(connection)

    def log(self, job_id: str, after: int = 0) -> JobLog:
        """What the attempts of a job said, from a position of the log."""
        self.get(job_id)
        with self._db.tenant(self._tenant_id) as connection:
            return logs.read(connection, self._tenant_id, JobId(job_id), after)

    def say(self, job_id: str, lines: Iterable[str]) -> None:
        """Add lines to the log of a job."""
        self._db.principal.require(Scope.TRAIN)
        try:
            with journal.writing(self._db, self._tenant_id) as connection:
                logs.say(connection, self._tenant_id, job_id, lines)
        except sa.exc.IntegrityError as error:  # a log belongs to a job
            raise job_not_found(self._tenant_id, job_id) from error

    def begin(self, job_id: str, run_id: str, lease_s: float) -> Job:
        """Say that the process of an attempt has begun; the job as it is then.

        Args:
            job_id: The job.
            run_id: The run of the attempt.
            lease_s: Seconds until the job counts as lost, unless ``beat`` renews them.

        Raises:
            JobStateError: It is no longer wanted, or another attempt goes on.
        """
        self._db.principal.require(Scope.TRAIN)
        with journal.writing(self._db, self._tenant_id) as connection:
            lease = {"lease_until": in_seconds(lease_s)}
            job = move(connection, self._tenant_id, job_id, JobTrigger.BEGIN, run_id=run_id, **lease)
            line = f"Attempt {job.attempt} of {job.max_attempts} begins; its run is {run_id}."
            logs.say(connection, self._tenant_id, job_id, [line])
        return job

    def beat(
        self,
        job_id: str,
        run_id: str,
        lease_s: float,
        progress: Mapping[str, Any] | None = None,
        lines: Iterable[str] = (),
    ) -> JobState:
        """Renew the lease of an attempt, and say how far it is.

        Args:
            job_id: The job.
            run_id: The run of the attempt.
            lease_s: Seconds until the job counts as lost.
            progress: JSON-compatible; None: as before.
            lines: For the log.

        Returns:
            The job's state: ``cancelling`` asks the process to stop.

        Raises:
            JobNotFoundError, JobStateError: As ``begin``.
        """
        self._db.principal.require(Scope.TRAIN)
        said = {} if progress is None else {"progress": check_document(progress, "progress")}
        with journal.writing(self._db, self._tenant_id) as connection:
            lease = {"lease_until": in_seconds(lease_s)}
            job = move(connection, self._tenant_id, job_id, JobTrigger.BEAT, run_id=run_id, **lease, **said)
            logs.say(connection, self._tenant_id, job_id, lines)
        return job.state

    def succeed(self, job_id: str, run_id: str, result: Mapping[str, Any], lines: Iterable[str] = ()) -> Job:
        """End a job that did what was asked for; ``lines`` are for the log. Errors as ``begin``."""
        with journal.writing(self._db, self._tenant_id) as connection:
            job = self._succeed(connection, job_id, run_id, result)
            logs.say(connection, self._tenant_id, job_id, lines)
        return job

    def fail(self, job_id: str, run_id: str, error: Mapping[str, Any]) -> Job:
        """End a job that can't be done; ``error`` is ``MLFrameworkError.to_json``. Errors as ``begin``."""
        with journal.writing(self._db, self._tenant_id) as connection:
            return self._fail(connection, job_id, run_id, error)

    def lose(self, job_id: str, run_id: str, why: str, error: Mapping[str, Any] | None = None) -> Job:
        """Settle an attempt whose process is gone: another one follows, unless that was the last.

        A version or dataset that the attempt had registered is kept as its result. Its run ends with it, and the parts
        of that run.

        Args:
            job_id: The job.
            run_id: The run of the attempt.
            why: What is known of its end, for people.
            error: What kept it from its end, as ``MLFrameworkError.to_json``: the job's error if no attempt follows.

        Raises:
            JobStateError: It has ended, or another attempt goes on.
        """
        self._db.principal.require(Scope.TRAIN)
        with journal.writing(self._db, self._tenant_id) as connection:
            job = move(connection, self._tenant_id, job_id, JobTrigger.BEAT, run_id=run_id)
            logs.say(connection, self._tenant_id, job_id, [f"Attempt {job.attempt} is lost: {why}"])
            is_cancelled = job.state is JobState.CANCELLING
            made = self._made_by(connection, job)
            if made is not None and job.spec.get("promote_to") is None:
                return self._succeed(connection, job_id, run_id, made)
            ended = RunStatus.CANCELLED if is_cancelled else RunStatus.FAILED
            is_part = runs.c.parent_run_id == job.run_id  # such as a trial, which another attempt repeats
            is_its = (runs.c.tenant_id == self._tenant_id, sa.or_(runs.c.run_id == job.run_id, is_part))
            status = sa.case((is_part, RunStatus.CANCELLED.value), else_=ended.value)
            connection.execute(
                runs.update()
                .where(*is_its, runs.c.status == RunStatus.RUNNING.value)
                .values(status=status, error=why[-4_000:], finished_at=sa.func.now())
            )
            if is_cancelled:
                now = sa.func.now()
                return move(connection, self._tenant_id, job_id, JobTrigger.STOP, run_id=run_id, finished_at=now)
            if job.attempt < job.max_attempts:
                pause = in_seconds(_PAUSE_S * 2 ** (job.attempt - 1))
                kept = {"not_before": pause, "result": made or dict(job.result)}
                return move(connection, self._tenant_id, job_id, JobTrigger.REQUEUE, run_id=run_id, **kept)
            message = f"The process was lost {job.attempt} times; the last time: {why}"
            return self._fail(connection, job_id, run_id, error or {"code": "job_lost", "message": message})

    def _succeed(self, connection: Connection, job_id: str, run_id: str, result: Mapping[str, Any]) -> Job:
        values = {"result": check_document(result, "result"), "finished_at": sa.func.now()}
        job = move(connection, self._tenant_id, job_id, JobTrigger.SUCCEED, run_id=run_id, **values)
        self._record(connection, job, "job.succeeded", {"result": dict(result)})
        return job

    def _fail(self, connection: Connection, job_id: str, run_id: str, error: Mapping[str, Any]) -> Job:
        values = {"error": check_document(error, "error"), "finished_at": sa.func.now()}
        job = move(connection, self._tenant_id, job_id, JobTrigger.FAIL, run_id=run_id, **values)
        logs.say(connection, self._tenant_id, job_id, [f"Failed: {error.get('message', '')}"])
        if (made := self._made_by(connection, job)) is not None:  # the next attempt goes on from there
            job = self._set(connection, job_id, result=made)
        self._record(connection, job, "job.failed", {"error": str(error.get("message", ""))[:1_000]})
        return job

    def _made_by(self, connection: Connection, job: Job) -> dict[str, Any] | None:
        """What the last attempt's run registered before its process was lost: a version, or a dataset."""
        if job.kind is JobKind.PREDICT:
            output, of = job.spec.get("output"), dataset_versions.c
            is_own = (
                of.tenant_id == self._tenant_id,
                of.dataset_id == output,
                of.source["run_id"].astext == job.run_id,
            )
            number = connection.scalar(sa.select(of.number).where(*is_own).limit(1))
            return None if number is None else {"dataset": f"{output}@{number}", "run_id": job.run_id}
        made = sa.select(versions.c.model_id, versions.c.version).where(
            versions.c.tenant_id == self._tenant_id, versions.c.run_id == job.run_id
        )
        row = connection.execute(made.limit(1)).one_or_none()
        return None if row is None else {"model_id": row.model_id, "version": row.version, "run_id": job.run_id}

    def _repeated(self, connection: Connection, key: str | None, kind: JobKind, spec: Mapping[str, Any]) -> Job | None:
        """The job that was submitted with this key before."""
        if key is None:
            return None
        of = (jobs.c.tenant_id == self._tenant_id, jobs.c.idempotency_key == key)
        row = connection.execute(sa.select(jobs).where(*of)).one_or_none()
        if row is None:
            return None
        if (row.kind, row.spec) != (kind, spec):
            raise IdempotencyConflictError(
                f"The idempotency key belongs to the job {row.job_id}, which has another specification.",
                remedy="Use a new key for another job.",
                action=Action.of("jobs.get", tenant=str(self._tenant_id), job=row.job_id),
                tenant_id=self._tenant_id,
                key=key,
            )
        return value_of(Job, row)

    def _row(self, job_id: str) -> AnyRow:
        with self._db.tenant(self._tenant_id) as connection:
            row = connection.execute(sa.select(jobs).where(is_job(self._tenant_id, job_id))).one_or_none()
        if row is None:
            raise job_not_found(self._tenant_id, job_id)
        return row

    def _share(self, connection: Connection) -> tuple[JobQuota, JobUsage]:
        return shares(connection, [self._tenant_id])[self._tenant_id]

    def _set(self, connection: Connection, job_id: str, **values: Any) -> Job:
        changed = jobs.update().where(is_job(self._tenant_id, job_id)).values(**values).returning(jobs)
        return value_of(Job, connection.execute(changed).one())

    def _record(self, connection: Connection, job: Job, action: str, details: Mapping[str, Any] | None = None) -> None:
        journal.record(connection, self._tenant_id, action, {"job_id": job.job_id}, details)


def check_options(cpus: float, priority: int, max_attempts: int) -> None:
    """Refuse options of a job that are out of range.

    Raises:
        InvalidRequestError: One is.
    """
    _check_range("cpus", cpus, 0.01, 10_000)
    _check_range("priority", priority, -MAX_PRIORITY, MAX_PRIORITY)
    _check_range("max_attempts", max_attempts, 1, _MAX_ATTEMPTS)


def check_key(idempotency_key: str | None) -> None:
    """Refuse an idempotency key that has no character or too many.

    Raises:
        InvalidRequestError: It has.
    """
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= 200:
        raise InvalidRequestError(
            "An idempotency key has 1 to 200 characters.", remedy="Give a shorter one.", field="idempotency_key"
        )


def _check_range(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        raise InvalidRequestError(
            f"{name} is {value!r}.", remedy=f"Give a number from {lowest:g} to {highest:g}.", field=name
        )
