"""``Jobs``: the jobs of one tenant, with the checks that need more than the registry."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Job, refuse_failure
from ml_core.domain.job_batch import JobBatch
from ml_core.domain.job_spec import JobSpec, OnError, PredictJobSpec, TrainJobSpec, TuneJobSpec
from ml_core.domain.keywords import texts
from ml_core.domain.train_spec import TrainSpec
from ml_core.domain.tune_spec import TuneSpec
from ml_core.exceptions import DeadlineExceededError
from ml_core.ids import DatasetId, EnvironmentName, ModelId, VersionId
from ml_core.jobs.kinds import kind_of
from ml_core.registry.jobs import JobBatchRepository, JobRepository
from ml_core.registry.jobs.repository import check_options
from ml_core.registry.limits import check_choice
from ml_core.registry.promotion.rules import check_environment
from ml_core.training.candidates import check_hyperparameters

if TYPE_CHECKING:
    from ml_core.training.strategies import Choice

_LOOK_EVERY_S = 0.25


class Jobs(JobRepository):
    """Submits jobs that a dispatcher of the platform executes."""

    def train(
        self, model_id: str, training: TrainSpec | Mapping[str, Any], *, promote_to: str | None = None, **options: Any
    ) -> Job:
        """Submit a training on a registered dataset.

        What can be known beforehand is checked now: names, rights, columns, hyperparameters and quotas. A dataset
        without a number means its newest version at this moment.

        Args:
            model_id: The model; it is created with its first version.
            training: How it is trained, see ``TrainSpec``.
            promote_to: The environment whose pointer moves to the new version.
            **options: ``cpus``, ``priority``, ``max_attempts`` and ``idempotency_key``, see ``JobRepository.submit``.

        Raises:
            MLFrameworkError: As ``Trainer.check_spec`` and ``JobRepository.submit``.
        """
        spec = training if isinstance(training, TrainSpec) else TrainSpec.from_json(training)
        environment = None if promote_to is None else EnvironmentName(promote_to)
        return self.submit_spec(TrainJobSpec(ModelId(model_id), spec, environment), **options)

    def plan(self, model_id: str, training: TrainSpec | Mapping[str, Any], *, cpus: float = 1.0) -> Choice:
        """The strategy that a job would train with, with estimates and reasons; nothing is queued.

        Args:
            model_id: The model.
            training: How it is trained, see ``TrainSpec``.
            cpus: The cores that the job would get.

        Raises:
            MLFrameworkError: As ``train``.
        """
        # Imported late: only this operation needs the estimators.
        from ml_core.training.trainer import Trainer

        spec = training if isinstance(training, TrainSpec) else TrainSpec.from_json(training)
        check_options(cpus, priority=0, max_attempts=1)
        return Trainer(self._db, self._tenant_id).choose(model_id, spec, cpus, self._db.settings.jobs.cpus)

    def tune(
        self,
        model_id: str,
        training: TrainSpec | Mapping[str, Any],
        search: TuneSpec | Mapping[str, Any] | None = None,
        *,
        promote_to: str | None = None,
        **options: Any,
    ) -> Job:
        """Submit a search for the hyperparameters of a training on a registered dataset.

        Args:
            model_id: The model; it is created with its first version.
            training: What is trained, see ``TrainSpec``; its hyperparameters are the same in all trials.
            search: How to search for the others, see ``TuneSpec``; ``cpus`` trials run at the same time.
            promote_to: The environment whose pointer moves to the new version.
            **options: As ``train``.

        Raises:
            MLFrameworkError: As ``train`` and ``ml_core.training.spaces.check_search``.
        """
        spec = training if isinstance(training, TrainSpec) else TrainSpec.from_json(training)
        found = search if isinstance(search, TuneSpec) else TuneSpec.from_json(search or {})
        environment = None if promote_to is None else EnvironmentName(promote_to)
        return self.submit_spec(TuneJobSpec(ModelId(model_id), spec, found, environment), **options)

    def predict(
        self,
        model_id: str,
        dataset: str,
        output: str,
        *,
        version: str | None = None,
        environment: str | None = None,
        proba: bool = False,
        keep: Sequence[str] = (),
        on_error: OnError | str = OnError.FAIL,
        **options: Any,
    ) -> Job:
        """Submit the prediction of every row of a registered dataset into the next version of another one.

        The version that predicts and the number of the dataset are those of this moment. That the dataset has the
        columns that the version reads, in types that it can read, is checked now.

        Args:
            model_id: The model.
            dataset: The rows, such as ``inbox@7``.
            output: The dataset that gets the predictions; made with its first version.
            version: The version that predicts.
            environment: The environment whose version predicts; None: ``production``, or the newest version if that
                serves nothing.
            proba: Whether the probability of each class is a column.
            keep: Columns of the rows to repeat, such as a key.
            on_error: ``fail``: a row that does not fit fails the job; ``null``: it has no prediction, and a column says
                why.
            **options: As ``train``.

        Raises:
            ModelNotFoundError: There is no such model, version or promoted environment.
            DatasetNotFoundError: There is no such dataset.
            SignatureMismatchError: A column is missing, or of a type that the version does not read.
            PredictionError: The version has no probabilities.
            MLFrameworkError: As ``JobRepository.submit``.
        """
        at = None if environment is None else EnvironmentName(environment)
        by, into = None if version is None else VersionId(version), DatasetId(output)
        misfits = check_choice(OnError, on_error, "on_error")
        spec = PredictJobSpec(ModelId(model_id), dataset, into, by, at, proba, tuple(texts("keep", keep)), misfits)
        return self.submit_spec(spec, **options)

    def submit_spec(self, spec: JobSpec, **options: Any) -> Job:
        """Submit what a spec describes, checked as ``train`` does.

        Args:
            spec: What to execute.
            **options: As ``train``.

        Raises:
            MLFrameworkError: The spec can't be done, or as ``JobRepository.submit``.
        """
        checked = kind_of(spec.kind).check(self._db, self._tenant_id, spec)
        return self.submit(spec.kind, checked.to_json(), **options)

    def wait(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[Job], object] | None = None,
        progress: bool = True,
    ) -> Job:
        """Wait until a job has succeeded.

        Args:
            job_id: The job.
            timeout_s: Seconds to wait at most; None: as long as it takes.
            on_progress: Called with the job a few times a second.
            progress: Show a progress line on standard error if that is a terminal, or in a notebook.

        Raises:
            JobNotFoundError: There is no such job.
            DeadlineExceededError: It goes on.
            TrainingError: It was cancelled.
            MLFrameworkError: Why it failed.
        """
        # Imported late: most programs wait for no job.
        from rich.console import Console

        from ml_core.jobs.progress import watching

        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with watching(Console(stderr=True), shown=progress) as show:
            while not (job := self.get(job_id)).is_final:
                show(job)
                if on_progress is not None:
                    on_progress(job)
                if deadline is not None and time.monotonic() >= deadline:
                    raise DeadlineExceededError(
                        f"The job {job_id} is {job.state} after {timeout_s:g} s.",
                        remedy="It goes on; wait for it again, or cancel it.",
                    )
                time.sleep(_LOOK_EVERY_S)
        if on_progress is not None:
            on_progress(job)
        refuse_failure(job_id, job.state, job.error)
        return job


def submit_batch(db: DatabaseConnection, spec: TrainJobSpec, **options: Any) -> JobBatch:
    """Submit a training for each tenant that has its dataset.

    What depends on no tenant is checked now: names, hyperparameters, the environment. What does, such as a column that
    a tenant's dataset lacks, fails the tenant's job.

    Args:
        db: The registry; its principal belongs to no tenant.
        spec: The training.
        **options: See ``JobBatchRepository.submit``.

    Raises:
        MLFrameworkError: The spec can't be done, or as ``JobBatchRepository.submit``.
    """
    if spec.promote_to is not None:
        check_environment(db, None, spec.promote_to)
    if spec.training.model_type is not None:
        check_hyperparameters(spec.training.model_type, spec.training.hyperparameters)
    return JobBatchRepository(db).submit(spec, **options)
