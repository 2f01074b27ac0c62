"""The plan of a training: its data and everything that can be refused before a core is spent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ml_core.data.cells import Cells, has_decimal_comma
from ml_core.data.table_file import holds_cells, read_frame
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.dataset import DatasetVersion, parse_reference
from ml_core.domain.train_spec import TrainSpec, needs_target
from ml_core.domain.tune_spec import AUTO
from ml_core.exceptions import DatasetNotFoundError, InvalidRequestError, TrainingError, did_you_mean, listed
from ml_core.ids import ModelId, TenantId
from ml_core.models.algorithms import algorithm_of
from ml_core.models.model_factory import ModelFactory
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.limits import check_document
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.training.request import TableFile, TrainingRequest, effective_hyperparameters, recorded
from ml_core.training.strategies import Choice, Facts, Strategy, choose
from ml_core.training.targets import invalid

_RECORD_BYTES = 18 * 2**10
"""Room in a version's metadata for the training's record: effective values and columns of 4 KiB each, the selection of
2 KiB, baseline and notes."""


@dataclass(frozen=True, slots=True)
class GivenData:
    """Training data that the caller has in memory, instead of a dataset's; see ``TrainingRequest``."""

    training: Any = None
    validation: Any = None
    processor: Any = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What the check of a training has found.

    Attributes:
        source: The version of the dataset, or None.
        held_out: That of the validation dataset, or None.
        metadata: The caller's notes as they will be stored.
        registered_type: The type of the model; None: there is no such model yet.
    """

    source: DatasetVersion | None
    held_out: DatasetVersion | None
    metadata: dict[str, Any]
    registered_type: str | None


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A checked training with its data; ``strategy`` is how it is executed."""

    spec: TrainSpec
    request: TrainingRequest
    checked: Checked
    strategy: Strategy = Strategy.IN_PROCESS

    def run_parameters(self) -> dict[str, Any]:
        """The parameters of the run that records the training."""
        parameters: dict[str, Any] = {
            "model_type": self.request.model_type,
            "hyperparameters": self.request.recorded_hyperparameters(),
        }
        if self.checked.source is not None:
            parameters["dataset"] = self.checked.source.reference
        if self.strategy is not Strategy.IN_PROCESS:
            parameters["strategy"] = self.strategy.value
        parameters |= self.spec.options()
        try:
            if self.request.selects:
                return {**parameters, "algorithm": AUTO}
            estimator = ModelFactory.create_model(self.request.model_type_in_use, dict(self.request.hyperparameters))
        except Exception:  # noqa: BLE001 - a registered builder can raise anything; the fit reports it
            return parameters
        effective = effective_hyperparameters(estimator)
        return {**parameters, "algorithm": algorithm_of(estimator)[0], "effective_hyperparameters": effective}


def choose_for(source: DatasetVersion, spec: TrainSpec, cores: float, available_cores: float | None = None) -> Choice:
    """The strategy of a training on a dataset, see ``choose``; for LightGBM the Ray cluster is asked for its nodes.

    Raises:
        ClusterUnavailableError: The cluster does not answer.
    """
    facts = Facts.of(source, spec, cores)
    if facts.algorithm == "lightgbm" and facts.tasks > 1:
        # Imported late: other trainings are planned without Ray.
        from ml_core.training.distributed.cluster import node_cores

        facts = replace(facts, nodes=node_cores())
    return choose(facts, available_cores)


class Planner:
    """Plans the trainings of one tenant; on the embedded server its first training creates it."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._versions = VersionRepository(db, tenant_id)

    def check(self, model_id: ModelId, spec: TrainSpec, given: GivenData | None) -> Checked:
        """Refuse a training that can't be registered or whose fields don't fit each other; no data is read.

        ``given`` is None for a spec of which a dataset that it does not name may be registered afterwards.

        Raises:
            InvalidRequestError, RequestTooLargeError: The dataset does not exist, the metadata or hyperparameters
                can't be stored, or the arguments contradict each other.
            TrainingError: A dataset lacks a column, or no target is named.
            MLFrameworkError: The version could not be registered, see ``VersionRepository.refuse_in_vain``.
        """
        registered_type = self._versions.refuse_in_vain(model_id, spec.model_type, spec.version)
        if spec.parent_version is not None:
            self._versions.get(model_id, spec.parent_version)
        metadata = check_document(spec.metadata, "metadata", reserved_bytes=_RECORD_BYTES)
        check_document(recorded(spec.hyperparameters), "hyperparameters")
        if given is not None:
            self._check_sources(spec, given)
        self._check_roles(spec)
        source = None if spec.dataset is None else self._dataset(spec.dataset, "dataset")
        # With data in memory, the dataset is for the lineage only.
        if source is not None and (given is None or given.training is None):
            if spec.target is None and needs_target(spec.model_type):
                raise self._refused(
                    f"The column of the dataset {source.reference} to predict is not named.",
                    f"Give the target, one of: {listed(name for name, _ in source.columns)}. Without a target, name a "
                    "model_type such as 'clustering'.",
                )
            by = [name for name in (spec.group, spec.time, spec.weight) if name is not None]
            self._check_columns(source, spec, [*spec.kinds, *spec.ignore, *by])
        held_out = None
        if spec.validation_dataset is not None:
            held_out = self._dataset(spec.validation_dataset, "validation_dataset")
            self._check_columns(held_out, spec)
        return Checked(source, held_out, metadata, registered_type)

    def plan(
        self,
        model_id: ModelId,
        spec: TrainSpec,
        given: GivenData,
        cores: float = 1.0,
        enter: Callable[[str], object] = lambda _stage: None,
    ) -> TrainingPlan:
        """Check a training, choose its strategy for so many cores of a Ray cluster, and read its data.

        ``enter`` is called with ``read`` before that.

        Raises:
            MLFrameworkError: As ``check``; or the data is not a pair.
        """
        with self._db.together(self._tenant_id) as db:
            checked = Planner(db, self._tenant_id).check(model_id, spec, given)
            tenant = TenantRepository(db).ensure(self._tenant_id)
        enter("read")
        data, validation = given.training, given.validation
        strategy = Strategy.IN_PROCESS
        if data is None and checked.source is not None:
            strategy = choose_for(checked.source, spec, cores).strategy
            data = (self._read_target if strategy.reads_shards else self._read)(checked.source, spec)
        if checked.held_out is not None:
            validation = self._read(checked.held_out, spec)
        request = TrainingRequest(
            model_id=model_id,
            model_type=spec.model_type,
            training_data=data,
            validation_data=validation,
            hyperparameters=dict(spec.hyperparameters),
            kinds=spec.kinds,
            group=spec.group,
            time=spec.time,
            weight=spec.weight,
            processor=given.processor,
            rare_classes=spec.rare_classes,
            calibration=spec.calibration,
            cross_validation=spec.cross_validation,
            split_seed=spec.split_seed,
            selection_seconds=spec.selection_seconds,
            self_test_rows=tenant.self_test_rows,
        )
        return TrainingPlan(spec, request, checked, strategy)

    def _check_sources(self, spec: TrainSpec, given: GivenData) -> None:
        """Refuse fields about columns of a dataset where no dataset is read."""
        reads_dataset = given.training is None and spec.dataset is not None
        for name in ("target", "ignore"):
            if getattr(spec, name) and not reads_dataset:
                raise InvalidRequestError(
                    f"The field {name!r} names columns of a dataset that is trained on.",
                    remedy="Give the dataset and no training_data, or leave the field out.",
                    tenant_id=self._tenant_id,
                    field=name,
                )
        if spec.validation_dataset is not None and (given.validation is not None or not reads_dataset):
            raise InvalidRequestError(
                "A validation_dataset is for a training on a dataset.",
                remedy="Give a dataset to train on, or validation_data.",
                tenant_id=self._tenant_id,
                field="validation_dataset",
            )

    def _dataset(self, reference: str, field: str) -> DatasetVersion:
        dataset_id, number = parse_reference(reference)
        try:
            return DatasetRepository(self._db, self._tenant_id).get(dataset_id, number)
        except DatasetNotFoundError as error:
            raise InvalidRequestError(
                error.message, remedy=error.remedy, action=error.action, tenant_id=self._tenant_id, field=field
            ) from error

    def _check_columns(self, version: DatasetVersion, spec: TrainSpec, others: Sequence[str] = ()) -> None:
        """Refuse a dataset's version that lacks the target or one of the ``others``."""
        names = [name for name, _ in version.columns]
        wanted = [*([] if spec.target is None else [spec.target]), *others]
        for name in wanted:
            if name not in names:
                raise self._refused(
                    f"The dataset {version.reference} has no column {name!r}.",
                    f"{did_you_mean(name, names)}Its columns are: {listed(names)}.",
                    name,
                )

    def _check_roles(self, spec: TrainSpec) -> None:
        """Refuse a column that is used in two ways."""
        roles = {"the target": spec.target, "the group": spec.group, "the time": spec.time, "the weight": spec.weight}
        for role, column in roles.items():
            if column is not None and column in spec.ignore:
                what = f"The column {column!r} is both {role} and ignored."
                raise self._refused(what, "Leave out one of the two.", column)
        for role in ("the group", "the weight"):
            if roles[role] is not None and roles[role] in spec.kinds:
                what = f"The column {roles[role]!r} is {role}, and no input."
                raise self._refused(what, "Give it no kind.", roles[role])
        of_columns: dict[str, str] = {}
        for role, column in roles.items():
            if column is not None and (other := of_columns.setdefault(column, role)) != role:
                raise self._refused(f"The column {column!r} is both {other} and {role}.", "Name another one.", column)

    def _read(self, version: DatasetVersion, spec: TrainSpec) -> tuple[Any, Any]:
        """The pair ``(X, y)`` of a dataset's version; ``y`` is None without a target.

        Raises:
            ArtifactIntegrityError: Its file is missing or was changed.
        """
        path = DatasetRepository(self._db, self._tenant_id).open(version)
        frame = read_frame(path)
        left_out = {spec.target, *spec.ignore}
        used = frame[[name for name in frame.columns if name not in left_out]]  # keeps the order of the dataset
        if spec.target is None:
            return used, None
        target = frame[spec.target]
        # What a cell means depends on the kind of its column, and the target's is not known yet.
        return used, Cells.of(frame, target) if holds_cells(path) else target

    def _read_target(self, version: DatasetVersion, spec: TrainSpec) -> tuple[TableFile, Any]:
        """The pair of ``_read`` with only the target read."""
        path = DatasetRepository(self._db, self._tenant_id).open(version)
        target = read_frame(path, [str(spec.target)])[spec.target]
        used = {name: kind for name, kind in version.columns if name not in {spec.target, *spec.ignore}}
        texts = tuple(name for name, kind in used.items() if kind == "string")
        file = TableFile(self._tenant_id, version.digest, version.size_bytes, version.row_count, tuple(used), texts)
        if not holds_cells(path):
            return file, target
        has_commas = any(has_decimal_comma(read_frame(path, [name])) for name, _ in version.columns)
        return file, Cells(target, has_commas)

    def _refused(self, message: str, remedy: str, column: str | None = None) -> TrainingError:
        error = invalid(message, remedy, column)
        error.tenant_id = self._tenant_id
        return error
