"""Models."""

from __future__ import annotations

from typing import Any

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.models import Model
from ml_core.api.schemas.runs import Run
from ml_core.api.schemas.trainings import NewTraining
from ml_core.client.calls import Call, Mode, Noun, listing, operation
from ml_core.ids import ModelId


class Models(Noun[Mode]):
    """The models of a tenant."""

    @listing
    def list(self, *, model_type: str | None = None, include_archived: bool = False) -> Call[Page[Model]]:
        """The models by name.

        Args:
            model_type: Only of this type.
            include_archived: Archived ones too.
        """
        params = {"model_type": model_type, "include_archived": include_archived or None}
        return Call("GET", f"{self._root}/models", Page[Model], params)

    @operation
    def archive(self, model_id: str) -> Call[None]:
        """Hide a model with all its versions, until it is restored or collected."""
        return Call("POST", f"{self._root}/models/{ModelId(model_id)}/archive", type(None))

    @operation
    def restore(self, model_id: str) -> Call[None]:
        """Show an archived model again."""
        return Call("POST", f"{self._root}/models/{ModelId(model_id)}/restore", type(None))

    @operation
    def delete(self, model_id: str) -> Call[None]:
        """Delete a model with all its versions, permanently."""
        return Call("DELETE", f"{self._root}/models/{ModelId(model_id)}", type(None))

    @operation
    def train(self, /, model_id: str, dataset: str, *, wait_s: float = 0.0, **spec: Any) -> Call[Run]:
        """Train a model on a registered dataset, as a run that makes a version.

        Args:
            model_id: The model; made with its first version.
            dataset: Such as ``tickets_2026@3``; without a number its newest version.
            wait_s: Seconds, up to 60, to wait for its end; the run may still be running then: ask ``runs.get``.
            **spec: Further fields of ``NewTraining``, such as ``target`` and ``hyperparameters``.
        """
        body = NewTraining(dataset=dataset, **spec)
        path = f"{self._root}/models/{ModelId(model_id)}/train"
        return Call("POST", path, Run, {"wait_s": wait_s}, body=body, timeout_s=wait_s + 60)
