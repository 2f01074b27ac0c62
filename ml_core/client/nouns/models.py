"""Models."""

from __future__ import annotations

from typing import Any

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.models import Model
from ml_core.api.schemas.trainings import TrainingCheck, TrainingFields
from ml_core.client.calls import Call, Mode, Noun, listing, operation
from ml_core.domain.keywords import check_keywords


class Models(Noun[Mode]):
    """The models of a tenant."""

    @listing
    def list(
        self, *, model_type: str | None = None, name: str | None = None, include_archived: bool = False
    ) -> Call[Page[Model]]:
        """The models by name.

        Args:
            model_type: Only of this type.
            name: Only those with this text in the name.
            include_archived: Archived ones too.
        """
        params = {"model_type": model_type, "name": name, "include_archived": include_archived or None}
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
    def check_training(self, /, model_id: str, **spec: Any) -> Call[TrainingCheck]:
        """Raise what is wrong with a training whose data is not uploaded yet: names, rights, hyperparameters.

        The result has notes on what becomes of the data.

        Args:
            model_id: The model.
            **spec: Fields of ``TrainingFields``.
        """
        check_keywords("check_training", spec, TrainingFields.model_fields)
        path = f"{self._model(model_id)}/train/check"
        return Call("POST", path, TrainingCheck, body=TrainingFields(**spec))
