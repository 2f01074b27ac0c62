"""Checkpoints: a model of an unfinished training, stored for the process that trains it.

A checkpoint may hold any object, so it is a joblib file, which is pickle: it is only written to and read from the
tenant's own folder, and no server reads that folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import joblib

from ml_core.exceptions import ModelLoadError, ModelSaveError
from ml_core.ids import ModelId, TenantId

_MAX_EPOCH = 999_999_999


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
