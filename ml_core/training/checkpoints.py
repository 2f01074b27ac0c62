"""Checkpoints: a model of an unfinished training, stored for the process that trains it.

One of a caller may hold any object, so it is a joblib file, which is pickle: it is only written to and read from the
tenant's own folder, and no server reads that folder. Those of a job are files of its runs, which the tenant may write
too, so they have the form of artifacts, and are audited like these.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from sklearn.pipeline import Pipeline

from ml_core.exceptions import MLFrameworkError, ModelLoadError, ModelSaveError
from ml_core.ids import ModelId, TenantId
from ml_core.models.formats import skops_format
from ml_core.registry.runs import RunRepository

_log = logging.getLogger(__name__)

JOB = "job"
"""The parameter of a run that all attempts at a job have in common."""
_MAX_EPOCH = 999_999_999
_MAX_ATTEMPTS = 100
_PREFIX = "checkpoint-"


class CheckpointFolder:
    """The checkpoints of one tenant: ``<root>/<tenant>/<model>/epoch-<nine digits>.joblib``."""

    def __init__(self, root: Path, tenant_id: TenantId) -> None:
        self._folder = root / tenant_id

    def save(self, model: Any, model_id: ModelId, epoch: int) -> Path:
        """Write a checkpoint whole or not at all; one of the same epoch is replaced.

        Raises:
            ModelSaveError: The epoch is not a whole number from 0, or the object can't be written.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, int) or not 0 <= epoch <= _MAX_EPOCH:
            raise ModelSaveError(f"{epoch!r} is not an epoch.", remedy="Count epochs from 0.", model_id=str(model_id))
        path = self._folder / model_id / f"epoch-{epoch:09d}.joblib"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")  # two processes may train the model
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            joblib.dump(model, temporary, compress=1)  # the fastest level: a checkpoint is read once or never
            temporary.replace(path)
        except Exception as error:
            raise ModelSaveError.wrap(
                error,
                "The checkpoint can't be written",
                remedy="Free disk space, or keep only objects that pickle can write.",
                model_id=str(model_id),
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def load(self, path: Path) -> Any:
        """The model of a checkpoint that ``save`` wrote for this tenant.

        Raises:
            ModelLoadError: The path is outside of the tenant's folder, is missing or can't be read.
        """
        # Resolved first: neither ".." nor a link may lead out.
        resolved = path.expanduser().resolve()
        if not resolved.is_relative_to(self._folder.resolve()) or resolved.suffix != ".joblib":
            raise ModelLoadError(
                f"{path} is not one of this tenant's checkpoints.",
                remedy="Give a path that save_checkpoint returned; register other files through ModelManager.",
            )
        if not resolved.is_file():
            raise ModelLoadError(
                f"The checkpoint {path} does not exist.", remedy="Give a path that save_checkpoint returned."
            )
        try:
            return joblib.load(resolved)
        except Exception as error:
            raise ModelLoadError.wrap(
                error, f"The checkpoint {path} can't be read", remedy="Continue from an earlier epoch."
            ) from error


@dataclass(frozen=True, slots=True)
class JobCheckpoints:
    """The checkpoints of one job: files of the runs of its attempts, see ``rounds.Checkpoints``.

    Attributes:
        run_id: Of this attempt.
        advance: See ``rounds.Checkpoints``.
    """

    runs: RunRepository
    model_id: ModelId
    job_id: str
    run_id: str
    advance: Callable[[int, int], object]

    def load(self, key: str) -> Any:
        """See ``rounds.Checkpoints``."""
        try:
            written = [run_id for run_id, name in self._written() if name == _file(key)]
        except MLFrameworkError:
            _log.warning("The checkpoints of the job %s can't be looked for.", self.job_id, exc_info=True)
            return None
        for run_id in written:
            try:
                return skops_format.load(self.runs.artifacts.open(run_id, _file(key)).read_bytes())[-1]
            except MLFrameworkError:
                _log.warning("A checkpoint of the job %s can't be read.", self.job_id, exc_info=True)
        return None

    def save(self, key: str, estimator: Any) -> None:
        """See ``rounds.Checkpoints``."""
        try:
            data = skops_format.dump(Pipeline([("estimate", estimator)]))
            self.runs.artifacts.log(self.run_id, _file(key), data)
        except MLFrameworkError:
            _log.warning("A checkpoint of the job %s can't be written.", self.job_id, exc_info=True)

    def clear(self) -> None:
        """Delete those of all attempts: the training is done."""
        try:
            for run_id, name in list(self._written()):
                self.runs.artifacts.delete(run_id, name)
        except MLFrameworkError:  # the version is registered; the files are those of its runs
            _log.warning("The checkpoints of the job %s can't be deleted.", self.job_id, exc_info=True)

    def _written(self) -> Iterator[tuple[str, str]]:
        """The run and the name of each, the newest run first."""
        attempts = self.runs.search(self.model_id, parameters={JOB: self.job_id}, limit=_MAX_ATTEMPTS)
        for run in attempts.items:
            for kept in self.runs.artifacts.list(run.run_id):
                if kept.name.startswith(_PREFIX):
                    yield run.run_id, kept.name


def _file(key: str) -> str:
    return f"{_PREFIX}{key}.skops"
