"""Models."""

from __future__ import annotations

from typing import Any

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.models import Model
from ml_core.api.schemas.trainings import NewTraining, Training, TrainingCheck, TrainingFields
from ml_core.client.calls import Call, Mode, Noun, listing, operation, quoted
from ml_core.domain.keywords import check_keywords

_BEGIN_S = 3600.0
"""A training begins when others have made room for it and its data is read."""
_ANSWER_S = 30.0


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
        return Call("POST", f"{self._model(model_id)}/archive", type(None))

    @operation
    def restore(self, model_id: str) -> Call[None]:
        """Show an archived model again."""
        return Call("POST", f"{self._model(model_id)}/restore", type(None))

    @operation
    def delete(self, model_id: str) -> Call[None]:
        """Delete a model with all its versions, permanently."""
        return Call("DELETE", self._model(model_id), type(None))

    @operation
    def train(
        self, /, model_id: str, dataset: str, *, wait_s: float = 0.0, run_id: str | None = None, **spec: Any
    ) -> Call[Training]:
        """Train a model on a registered dataset, as a run that makes a version.

        Args:
            model_id: The model; made with its first version.
            dataset: Such as ``tickets_2026@3``; without a number its newest version.
            wait_s: Seconds, up to 60, to wait for its end; it may still be running then, see ``training``.
            run_id: The id that its run gets; with it, ``runs.cancel`` can stop a training whose answer was not read.
            **spec: Further fields of ``NewTraining``, such as ``target`` and ``hyperparameters``.

        Raises:
            MLFrameworkError: What is wrong with it, or why it failed while this waited.
        """
        check_keywords("train", spec, TrainingFields.model_fields)
        body = NewTraining(dataset=dataset, run_id=run_id, **spec)
        path, timeout_s = f"{self._model(model_id)}/train", wait_s + _BEGIN_S
        return Call("POST", path, Training, {"wait_s": wait_s}, body=body, timeout_s=timeout_s)

    @operation
    def check_training(self, /, model_id: str, **spec: Any) -> Call[TrainingCheck]:
        """Raise what is wrong with a training whose data is not uploaded yet: names, rights, hyperparameters.

        The result has notes on what becomes of the data.

        Args:
            model_id: The model.
            **spec: Fields of ``NewTraining`` without the dataset.
        """
        check_keywords("check_training", spec, TrainingFields.model_fields)
        path = f"{self._model(model_id)}/train/check"
        return Call("POST", path, TrainingCheck, body=TrainingFields(**spec))

    @operation
    def training(self, model_id: str, run_id: str, *, wait_s: float = 0.0) -> Call[Training]:
        """A training that was started, once it has ended or after ``wait_s`` (up to 60) seconds.

        Raises:
            MLFrameworkError: Why it failed, if it did so lately; the run's ``error`` has the text for good.
        """
        path = f"{self._model(model_id)}/trainings/{quoted(run_id)}"
        return Call("GET", path, Training, {"wait_s": wait_s}, timeout_s=wait_s + _ANSWER_S)
