"""``Trainer``: plan, fit and evaluate, register; its stages are timed for the hooks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import orjson
from threadpoolctl import threadpool_limits

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import DatasetVersion
from ml_core.domain.diagnostics import DIAGNOSTICS_FILE
from ml_core.domain.keywords import check_keywords
from ml_core.domain.quality import PROFILE_FILE
from ml_core.domain.train_spec import Calibration, TrainSpec
from ml_core.domain.training_report import TrainingReport
from ml_core.domain.tune_spec import TuneSpec
from ml_core.exceptions import Action, InvalidRequestError, MLFrameworkError, TrainingError
from ml_core.ids import ModelId, TenantId
from ml_core.models.model_factory import ModelFactory
from ml_core.models.store import open_store
from ml_core.observability import NO_HOOKS, EndedTraining, Hooks
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.settings import check_number
from ml_core.training.attempt import NO_JOB, TrainingAttempt
from ml_core.training.candidates import check_hyperparameters, model_types_of, selects
from ml_core.training.checkpoints import JOB, CheckpointFolder, JobCheckpoints
from ml_core.training.fit import IN_PROCESS, Execution, FittedModel, fit_model
from ml_core.training.pipelines import check_options
from ml_core.training.plan import GivenData, Planner, TrainingPlan, choose_for
from ml_core.training.registration import Registrar, reported_columns
from ml_core.training.rounds import fit_in_rounds
from ml_core.training.spaces import check_search, metric_of, spaces_of
from ml_core.training.strategies import Choice, Strategy
from ml_core.training.targets import OUTPUTS
from ml_core.training.trial_log import CROSS_VALIDATED, TrialLog
from ml_core.training.tuning import tune

Spec = TypeVar("Spec", TrainSpec, TuneSpec)


class Stages:
    """Seconds by stage; a stage lasts until the next is entered.

    Attributes:
        rows: Rows that were read.
        algorithm: Of the fitted model, once there is one.
        version: That was registered, once it is.
        seconds: Stage → seconds, in the order in which they ran.
    """

    def __init__(self, on_enter: Callable[[str], object]) -> None:
        self.rows = 0
        self.algorithm: str | None = None
        self.version: str | None = None
        self._on_enter = on_enter
        self.seconds: dict[str, float] = {}
        self._stage: str | None = None
        self._since = 0.0

    def enter(self, stage: str | None) -> None:
        """End the stage that runs, and begin another unless that is None or the same."""
        if stage == self._stage:
            return
        now = time.perf_counter()
        if self._stage is not None:
            self.seconds[self._stage] += now - self._since
        if stage is not None:
            self.seconds.setdefault(stage, 0.0)
            self._on_enter(stage)
        self._stage, self._since = stage, now


@contextmanager
def reported(hooks: Hooks, tenant_id: TenantId, model_id: str, on_stage: Callable[[str], object]) -> Iterator[Stages]:
    """Call ``training_ended`` when the block is left, however it is. The first stage is ``validate``."""
    stages, error = Stages(on_stage), None
    stages.enter("validate")
    try:
        yield stages
    except BaseException as raised:
        error = raised.code if isinstance(raised, MLFrameworkError) else type(raised).__name__
        raise
    finally:
        stages.enter(None)
        facts = (stages.seconds, stages.rows, stages.algorithm, stages.version, error)
        hooks.training_ended(EndedTraining(str(tenant_id), model_id, *facts))


class TrainingOptions(TypedDict, total=False):
    """The keywords of ``Trainer.train`` and ``MLSystem.train_model`` beside the data, see ``TrainSpec``."""

    dataset: str | None
    target: str | None
    validation_dataset: str | None
    group: str | None
    time: str | None
    weight: str | None
    ignore: Sequence[str]
    kinds: Mapping[str, ColumnKind | str] | None
    processor: Any
    rare_classes: str | None
    calibration: Calibration | str | None
    cross_validation: int | None
    split_seed: int
    selection_seconds: float
    version: str | None
    parent_version: str | None
    metadata: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class _Trained:
    """A finished training: what is recorded of it, and what only this process has."""

    report: TrainingReport
    fitted: FittedModel
    location: str

    def as_dict(self) -> dict[str, Any]:
        """The result of ``Trainer.train``."""
        report = self.report.to_json()
        return {
            **{name: report[name] for name in _OF_REPORT},
            "model_path": self.location,
            "model": self.fitted.pipeline,
            "fitted": self.fitted,
            "report": self.report,
        }


class Trainer:
    """Trains the models of one tenant in this process; a job on Ray may give the costly parts to tasks.

    The tenant must exist; on the embedded server its first training creates it.

    Args:
        db: The registry.
        tenant_id: The tenant.
        storage_path: A folder that gets a copy of each artifact besides the artifact store; None: no copy.
        actor: Who is recorded as the one that registers the versions; None: the connection's principal.
        hooks: Are called when a training ends.
    """

    def __init__(
        self,
        db: DatabaseConnection,
        tenant_id: str = "default",
        *,
        storage_path: str | Path | None = None,
        actor: str | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self.tenant_id = TenantId(tenant_id)
        self._db = db
        self._hooks = hooks
        self._registrar = Registrar(db, self.tenant_id, open_store(storage_path, db.settings), actor)
        self._planner = Planner(db, self.tenant_id)
        self._checkpoints = CheckpointFolder(db.settings.platform.home / "checkpoints", self.tenant_id)

    def __repr__(self) -> str:
        return f"Trainer({self._db!r}, tenant_id={str(self.tenant_id)!r})"

    def train(
        self,
        model_id: str,
        model_type: str | None,
        training_data: tuple[Any, Any] | None = None,
        validation_data: tuple[Any, Any] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        **options: Unpack[TrainingOptions],
    ) -> dict[str, Any]:
        """Fit a model, measure it on held-out rows and register it as a version.

        Args:
            model_id: The model; it is created with its first version.
            model_type: ``classification``, ``regression``, ``clustering``, ``anomaly_detection`` or a type that was
                registered with ``ModelFactory``; None: classification or regression, by the target.
            training_data: ``(X, y)``: a raw data frame and one target value a row; None: the dataset.
            validation_data: The same, to measure on; None: a fifth of the training data is held out and the model is
                fitted on the rest.
            hyperparameters: ``algorithm`` and the estimator's own; none: the algorithm is selected, see ``TrainSpec``.
            **options: ``processor``, a ``DataProcessor`` of your own, and the fields of ``TrainSpec``: ``dataset``,
                ``target``, ``validation_dataset``, ``group``, ``time``, ``weight``, ``ignore``, ``kinds``,
                ``rare_classes``, ``calibration``, ``cross_validation``, ``split_seed``, ``selection_seconds``,
                ``version``, ``parent_version`` and ``metadata``. With ``training_data``, ``dataset`` is for the lineage
                only.

        Returns:
            ``model_id``, ``version``, ``metrics`` (``train`` and ``validation`` → metric → value), ``baseline``,
            ``notes``, ``algorithm``, ``selection``, ``cross_validation``, ``hyperparameters``,
            ``effective_hyperparameters``, ``run_id`` and ``duration_s`` as in ``TrainingReport``; ``model_path`` (the
            artifact's path, or its URL in an object store), ``model`` (the fitted pipeline, which takes a data frame),
            ``report`` (the ``TrainingReport``) and
            ``fitted`` (a ``FittedModel``).

        Raises:
            TypeError: An option does not exist.
            TrainingError: The data or a hyperparameter can't train (``stage="validate"``), or the fit failed.
            DataProcessingError: A kind does not exist; nothing was done.
            InvalidRequestError: The dataset does not exist, or the metadata can't be stored; nothing was done.
            ModelNotFoundError: The parent version does not exist; nothing was done.
            ModelVersionConflictError: The version exists or existed; nothing was done.
            PermissionDeniedError: The principal lacks the scope ``train``; nothing was done.
            ModelSaveError: The model is archived or of another type, found before the fit; or the version can't be
                stored, and nothing was left behind.
            TenantNotFoundError: The tenant does not exist; nothing was done.
        """
        check_keywords("train", options, TrainingOptions.__annotations__)
        given = GivenData(training_data, validation_data, options.pop("processor", None))
        fields: dict[str, Any] = {"model_type": model_type, "hyperparameters": hyperparameters, **options}
        return self._train(model_id, _spec(TrainSpec, fields), given).as_dict()

    def tune(
        self,
        model_id: str,
        model_type: str | None,
        training_data: tuple[Any, Any] | None = None,
        validation_data: tuple[Any, Any] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        cpus: int | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Search for hyperparameters with Ray Tune, then train with the best ones.

        Trials are cross-validated on the training rows, so no trial sees the held-out rows; each is a run, a part of
        the search's run. They are done on the Ray that this process is connected to or ``RAY_ADDRESS`` names, else on
        one that is started here for the time of the search; the log says which. A terminal shows how many have ended.

        Args:
            model_id: As ``train``.
            model_type: As ``train``; a standard one.
            training_data: As ``train``.
            validation_data: As ``train``.
            hyperparameters: Those that are the same in all trials; without ``algorithm``, a field of the search.
            cpus: Trials at the same time, one core each; None: all cores of this machine.
            **options: The fields of ``TuneSpec``, such as ``algorithm``, ``space``, ``trials``, ``seconds`` and
                ``metric``, and the options of ``train``.

        Returns:
            As ``train``, and ``search``: ``metric``, its cross-validated ``score``, ``std``, ``folds`` and ``rows``,
            ``trials``, ``failed``, ``hyperparameters`` and ``best_run_id``.

        Raises:
            MLFrameworkError: As ``train`` and ``ml_core.training.tuning.tune``.
        """
        of_search = TuneSpec.__dataclass_fields__
        check_keywords("tune", options, [*of_search, *TrainingOptions.__annotations__])
        search = _spec(TuneSpec, {name: options.pop(name) for name in list(options) if name in of_search})
        given = GivenData(training_data, validation_data, options.pop("processor", None))
        fields: dict[str, Any] = {"model_type": model_type, "hyperparameters": hyperparameters, **options}
        # Imported late: a replica and a job show no line.
        from rich.console import Console

        from ml_core.observability.terminal import advancing

        with advancing(Console(stderr=True), f"Tuning {model_id}") as advance:
            cpu_count = cpus if cpus is not None else os.cpu_count() or 1
            of = (model_id, _spec(TrainSpec, fields), search, cpu_count, given)
            return self.tune_spec(*of, on_trial=lambda log: advance(len(log.ended), log.total))

    def train_spec(
        self,
        model_id: str,
        spec: TrainSpec,
        attempt: TrainingAttempt = NO_JOB,
    ) -> TrainingReport:
        """Train on registered datasets and register a version, as ``train`` does.

        Args:
            model_id: The model; it is created with its first version.
            spec: What to train. It names a dataset.
            attempt: At a job, if it is one.

        Raises:
            InvalidRequestError: The spec names no dataset.
            PlatformError: The Ray cluster does not answer or has fewer cores.
            MLFrameworkError: As ``train``.
        """
        if spec.dataset is None:
            raise self._no_dataset()
        return self._train(model_id, spec, GivenData(), attempt).report

    def tune_spec(
        self,
        model_id: str,
        spec: TrainSpec,
        search: TuneSpec,
        cpus: int,
        given: GivenData = GivenData(),  # noqa: B008 - frozen
        *,
        attempt: TrainingAttempt = NO_JOB,
        on_trial: Callable[[TrialLog], object] = lambda _log: None,
    ) -> dict[str, Any]:
        """Search and train as ``tune`` does.

        Args:
            model_id: The model; it is created with its first version.
            spec: What to train.
            search: How to search.
            cpus: Trials at the same time, one core each.
            given: Data in memory, instead of the spec's datasets.
            attempt: As ``train_spec``; the first stage is ``search``.
            on_trial: Called when a trial has ended.

        Returns:
            As ``tune``.

        Raises:
            MLFrameworkError: As ``tune``.
        """
        with reported(self._hooks, self.tenant_id, model_id, attempt.on_stage) as stages:
            check_search(search, spec)
            check_number("cpus", cpus)
            plan = self._planner.plan(ModelId(model_id), spec, given, enter=stages.enter)
            model_type = plan.request.model_type_in_use
            spaces = spaces_of(search, model_type, spec.hyperparameters)
            for algorithm in spaces:
                estimator = ModelFactory.create_model(model_type, {**spec.hyperparameters, "algorithm": algorithm})
                check_options(spec, OUTPUTS[model_type], estimator)
            metric = metric_of(search, model_type, spaces)
            of_search = {"search": search.to_json(), "metric": f"{CROSS_VALIDATED}{metric}"}
            parameters = {**plan.run_parameters(), **of_search, **_of_job(attempt)}
            for name in ("algorithm", "effective_hyperparameters"):  # the trials have them
                parameters.pop(name, None)
            runs = RunRepository(self._db, self.tenant_id)
            recorded = runs.record(plan.request.model_id, kind="tune", parameters=parameters, run_id=attempt.run_id)
            with recorded as run_id:
                stages.enter("search")
                of = (self._db, self.tenant_id, plan.request.model_id, attempt.job_id or run_id, run_id)
                log = TrialLog(*of, metric, on_trial)
                found = tune(plan.request, search, log, self._db.settings.platform.home, cpus)
                self._refuse_in_vain(plan)  # again: a search takes long
                chosen = {**plan.request.hyperparameters, **found.hyperparameters}
                plan = replace(plan, request=replace(plan.request, hyperparameters=chosen))
                trained = self._complete(plan, stages, run_id, attempt, (found.note,))
        return {**trained.as_dict(), "search": found.summary}

    def choose(self, model_id: str, spec: TrainSpec, cores: float, available_cores: float | None = None) -> Choice:
        """Check a spec, and choose its strategy.

        Raises:
            InvalidRequestError: The spec names no dataset.
            MLFrameworkError: As ``check_spec``.
        """
        check_number("cores", cores)
        if available_cores is not None:
            check_number("available_cores", available_cores)
        source = self.check_spec(model_id, spec)
        if source is None:
            raise self._no_dataset()
        return choose_for(source, spec, cores, available_cores)

    def check_spec(self, model_id: str, spec: TrainSpec) -> DatasetVersion | None:
        """Refuse a spec that ``train_spec`` would refuse; no data is read, and nothing is written.

        For a door that queues trainings, or receives their data afterwards: names, rights, columns and hyperparameters
        are checked before. The columns of a spec without a dataset are not. The model type of a spec without one is
        found in the data: it is refused if neither a classification nor a regression takes its hyperparameters.

        Returns:
            The version of the dataset, or None without one.

        Raises:
            MLFrameworkError: As ``train_spec``.
        """
        source = self._planner.check(ModelId(model_id), spec, None).source
        if spec.model_type is not None:
            _check_estimator(spec, spec.model_type)
            return source
        refused = []
        for model_type in model_types_of(spec.hyperparameters):
            try:
                _check_estimator(spec, model_type)
            except TrainingError as error:
                refused.append(error)
            else:
                return source
        raise refused[0]

    def _no_dataset(self) -> InvalidRequestError:
        return InvalidRequestError(
            "The training names no dataset.",
            remedy="Give the field dataset, such as tickets_2026@3.",
            action=Action.of("datasets.list", tenant=str(self.tenant_id)),
            tenant_id=self.tenant_id,
            field="dataset",
        )

    def _train(
        self,
        model_id: str,
        spec: TrainSpec,
        given: GivenData,
        attempt: TrainingAttempt = NO_JOB,
    ) -> _Trained:
        with reported(self._hooks, self.tenant_id, model_id, attempt.on_stage) as stages:
            plan = self._planner.plan(ModelId(model_id), spec, given, attempt.cores, stages.enter)
            runs = RunRepository(self._db, self.tenant_id)
            parameters = plan.run_parameters() | _of_job(attempt)
            recorded = runs.record(plan.request.model_id, kind="train", parameters=parameters, run_id=attempt.run_id)
            with recorded as run_id:
                return self._complete(plan, stages, run_id, attempt)

    def _complete(
        self,
        plan: TrainingPlan,
        stages: Stages,
        run_id: str,
        attempt: TrainingAttempt,
        notes: tuple[str, ...] = (),
    ) -> _Trained:
        """Fit, evaluate and register what a run records."""
        runs, checkpoints = RunRepository(self._db, self.tenant_id), None
        if attempt.job_id is not None:
            of = (plan.request.model_id, attempt.job_id, run_id)
            checkpoints = JobCheckpoints(runs, *of, attempt.on_round)
        fitted = self._fit(plan, stages, attempt.cores, checkpoints)
        fitted = replace(fitted, notes=(*notes, *fitted.notes))
        stages.rows, stages.algorithm = sum(fitted.n_rows.values()), fitted.algorithm
        stages.enter("register")
        # Before the version, whose registration may fail.
        _record(runs, run_id, fitted)
        made = self._registrar.register(fitted, plan, run_id)
        stages.version = str(made.version)
        if checkpoints is not None:
            checkpoints.clear()
        location = self._registrar.store.location(self.tenant_id, made.servable.digest)
        return _Trained(TrainingReport.of_version(made, reported_columns(fitted)), fitted, location)

    def _fit(self, plan: TrainingPlan, stages: Stages, cores: float, checkpoints: JobCheckpoints | None) -> FittedModel:
        """Read the data, fit and evaluate: all that writes nothing."""
        request = plan.request
        try:
            if plan.checked.registered_type not in (None, request.model_type_in_use):
                self._refuse_in_vain(plan)  # only the data shows the type of a spec without one
            # Boosting and k-means add numbers up in another order with other threads, and one spec makes one digest.
            with threadpool_limits(limits=1), _executing(plan.strategy, cores, checkpoints) as execution:
                return fit_model(request, stages.enter, execution)
        except MLFrameworkError as error:
            error.tenant_id = self.tenant_id
            error.__dict__["model_id"] = str(request.model_id)
            raise

    def _refuse_in_vain(self, plan: TrainingPlan) -> None:
        request, versions = plan.request, VersionRepository(self._db, self.tenant_id)
        versions.refuse_in_vain(request.model_id, request.model_type_in_use, plan.spec.version)

    def save_checkpoint(self, model: Any, model_id: str, epoch: int) -> str:
        """Store a model of an unfinished training.

        Args:
            model: Any object that pickle can write.
            model_id: The model that is trained.
            epoch: From 0; a checkpoint of the same epoch is replaced.

        Returns:
            The path of the checkpoint.

        Raises:
            ModelSaveError: It can't be written; nothing was left behind.
        """
        return str(self._checkpoints.save(model, ModelId(model_id), epoch))

    def load_checkpoint(self, path: str | Path) -> Any:
        """The model of a checkpoint of this tenant.

        Raises:
            ModelLoadError: The path is not one that ``save_checkpoint`` returned for this tenant, or can't be read.
        """
        return self._checkpoints.load(Path(path))


def _check_estimator(spec: TrainSpec, model_type: str) -> None:
    """Refuse hyperparameters with which no estimator of a model type can be made, and options that it does not take."""
    check_hyperparameters(model_type, spec.hyperparameters)
    named = None if selects(model_type, spec.hyperparameters) else dict(spec.hyperparameters)
    estimator = None if named is None else ModelFactory.create_model(model_type, named)
    check_options(spec, OUTPUTS.get(model_type), estimator)


def _of_job(attempt: TrainingAttempt) -> dict[str, Any]:
    return {} if attempt.job_id is None else {JOB: attempt.job_id}


def _executing(
    strategy: Strategy, cores: float, checkpoints: JobCheckpoints | None
) -> AbstractContextManager[Execution]:
    if strategy is Strategy.IN_PROCESS:
        if checkpoints is None:
            return nullcontext(IN_PROCESS)
        return nullcontext(Execution(fit=partial(fit_in_rounds, checkpoints=checkpoints)))
    # Imported late: only a job on Ray needs Ray.
    from ml_core.training.distributed.execution import executing

    return executing(strategy, cores, checkpoints)


_OF_REPORT = (
    "model_id",
    "version",
    "metrics",
    "algorithm",
    "selection",
    "cross_validation",
    "hyperparameters",
    "effective_hyperparameters",
    "baseline",
    "notes",
    "run_id",
    "duration_s",
)
"""The fields of a report that the result of ``train`` repeats, as the public API promises."""


def _spec(cls: Callable[..., Spec], fields: Mapping[str, Any]) -> Spec:
    return cls(**{name: value for name, value in fields.items() if value is not None})


def _record(runs: RunRepository, run_id: str, fitted: FittedModel) -> None:
    """Log what was measured: metrics, curves, diagnostics, profile; and the algorithm, if it was selected."""
    metrics = _flat(fitted.metrics)
    if fitted.diagnostics is None:
        runs.log_metrics(run_id, metrics)
    else:
        runs.artifacts.log_results(run_id, metrics, DIAGNOSTICS_FILE, orjson.dumps(fitted.diagnostics))
    if fitted.profile is not None:
        runs.artifacts.log_results(run_id, {}, PROFILE_FILE, orjson.dumps(fitted.profile))
    if fitted.selection:  # the parameters were recorded before
        runs.tag(run_id, {"algorithm": fitted.algorithm})
    for metric, values in fitted.curves.items():
        runs.log_series(run_id, metric, range(len(values)), values)


def _flat(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{part}/{name}": value for part, values in metrics.items() for name, value in values.items()}
