"""MLflow's JSON forms of experiments, runs, metrics and logged models, and what ours mean in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field

from ml_core.domain.experiment import Experiment
from ml_core.domain.run import Point, Run, RunStatus, flat
from ml_core.registry.runs.documents import RunDocument
from ml_core.registry.runs.experiments import DEFAULT

STATUSES: Final[Mapping[str, str]] = {
    RunStatus.RUNNING: "RUNNING",
    RunStatus.FINISHED: "FINISHED",
    RunStatus.FAILED: "FAILED",
    RunStatus.CANCELLED: "KILLED",
    RunStatus.DEAD: "FAILED",
}
"""Stored status of a run → MLflow's."""
RUN_NAME_TAG: Final = "mlflow.runName"
PARENT_TAG: Final = "mlflow.parentRunId"
DELETED_TAG: Final = "mlflow.deleted"
"""Marks a run that a client deleted, so that it can be restored. MLflow's clients do not see it."""
ARTIFACTS: Final = "mlflow-artifacts:/"
"""Clients send and read files through the tracking server."""
DATASET, MODEL, MODEL_INPUT, MODEL_OUTPUT = "dataset", "model", "model_input", "model_output"
"""Kinds of documents of runs."""

_DEFAULT_ID: Final = "0"
"""MLflow's clients use this experiment where none is set."""
_MAX_TIME_MS: Final = 253_402_300_799_999  # of the year 9999

Milliseconds = Annotated[int, Field(ge=0, le=_MAX_TIME_MS)]
Key = Annotated[str, Field(min_length=1, max_length=250)]


class Form(BaseModel):
    """What a client sends. Fields that are not known are ignored, as MLflow's own server does."""

    model_config = ConfigDict(frozen=True)


class KeyValue(Form):
    """A tag, or a parameter."""

    key: Key
    value: Annotated[str, Field(max_length=8_000)] = ""


class Parameter(Form):
    """A parameter of a run."""

    key: Key
    value: Annotated[str, Field(max_length=6_000)] = ""


class Metric(Form):
    """A value of a metric; NaN and the infinities are texts."""

    key: Key
    value: float
    timestamp: Milliseconds = 0
    step: int = 0


def model_of(experiment_id: str) -> str:
    """The model whose runs an experiment is."""
    return str(DEFAULT) if experiment_id == _DEFAULT_ID else experiment_id


def experiment_id_of(model_id: str) -> str:
    """The id of the experiment of a model's runs."""
    return _DEFAULT_ID if model_id == DEFAULT else model_id


def experiment_form(experiment: Experiment) -> dict[str, Any]:
    """An experiment."""
    experiment_id = experiment_id_of(experiment.model_id)
    return {
        "experiment_id": experiment_id,
        "name": experiment.name,
        "artifact_location": f"{ARTIFACTS}{experiment_id}",
        "lifecycle_stage": _stage(is_deleted=experiment.archived_at is not None),
        "creation_time": milliseconds(experiment.created_at),
        "last_update_time": milliseconds(experiment.updated_at),
        "tags": pairs(experiment.tags),
    }


def run_form(run: Run, documents: Mapping[str, Sequence[RunDocument]] | None = None) -> dict[str, Any]:
    """A run; with the datasets and models that it names where they were read."""
    form: dict[str, Any] = {"info": info_form(run), "data": _data(run)}
    if documents is not None:
        form["inputs"] = {
            "dataset_inputs": [each.document for each in documents.get(DATASET, ())],
            "model_inputs": [each.document for each in documents.get(MODEL_INPUT, ())],
        }
        form["outputs"] = {"model_outputs": [each.document for each in documents.get(MODEL_OUTPUT, ())]}
    return form


def info_form(run: Run) -> dict[str, Any]:
    """What a run is, without what it logged."""
    form = {
        "run_id": run.run_id,
        "run_uuid": run.run_id,
        "run_name": run.tags.get(RUN_NAME_TAG, run.run_id),
        "experiment_id": experiment_id_of(run.model_id),
        "user_id": run.created_by or "",
        # Clients give no sign of life, so one that is silent is not dead.
        "status": STATUSES[RunStatus.RUNNING if run.finished_at is None else run.status],
        "start_time": milliseconds(run.started_at),
        "artifact_uri": f"{ARTIFACTS}{run.run_id}",
        "lifecycle_stage": _stage(is_deleted=DELETED_TAG in run.tags),
    }
    return form if run.finished_at is None else {**form, "end_time": milliseconds(run.finished_at)}


def _data(run: Run) -> dict[str, Any]:
    tags = {key: value for key, value in run.tags.items() if key != DELETED_TAG}
    if run.parent_run_id is not None:
        tags[PARENT_TAG] = run.parent_run_id
    at = milliseconds(run.heartbeat_at)
    return {
        "metrics": [
            {"key": name, "value": number(line.last_value), "timestamp": at, "step": line.last_step}
            for name, line in run.metrics.items()
        ],
        "params": pairs({name: _text(value) for name, value in flat(run.parameters)}),
        "tags": pairs(tags),
    }


def point_form(metric: str, point: Point) -> dict[str, Any]:
    """A value of a metric."""
    return {"key": metric, "value": number(point.value), "timestamp": milliseconds(point.at), "step": point.step}


def pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags or parameters."""
    return [{"key": key, "value": value} for key, value in values.items()]


def number(value: float) -> float | str:
    """A number as protocol buffers write it in JSON."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def milliseconds(moment: datetime) -> int:
    """A moment as milliseconds since 1970 in UTC."""
    return int(moment.timestamp() * 1000)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _stage(*, is_deleted: bool) -> str:
    return "deleted" if is_deleted else "active"
