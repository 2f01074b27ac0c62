"""The prediction log."""

from __future__ import annotations

from datetime import date, datetime

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.platform import TrafficPoint
from ml_core.api.schemas.predictions import Label, LogPolicy, Loss, NewLabel, NewLogPolicy, Prediction
from ml_core.client.calls import Call, Mode, Noun, list_of, listing, operation, quoted
from ml_core.ids import EnvironmentName, ModelId, VersionId


class Predictions(Noun[Mode]):
    """What served replicas answered, and the labels that came later."""

    @listing
    def list(
        self,
        model_id: str | None = None,
        *,
        version: str | None = None,
        environment: str | None = None,
        request_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Call[Page[Prediction]]:
        """Predicted rows, newest first, each with its label if there is one; what is left out does not restrict."""
        params = {
            "model": model_id and ModelId(model_id),
            "version": version and VersionId(version),
            "environment": environment and EnvironmentName(environment),
            "request_id": request_id,
            "since": since and since.isoformat(),
            "until": until and until.isoformat(),
        }
        return Call("GET", f"{self._root}/predictions", Page[Prediction], params)

    @operation
    def get(self, request_id: str, *, model_id: str | None = None) -> Call[list_of[Prediction]]:
        """The rows of a request in their order; none if nothing of it is kept.

        Args:
            request_id: The request.
            model_id: Only what this model answered: clients may use one id for several requests.
        """
        params = {"model": model_id and ModelId(model_id)}
        return Call("GET", f"{self._root}/predictions/{quoted(request_id)}", list_of[Prediction], params)

    @operation
    def label(
        self, model_id: str, request_id: str, label: Label, *, row: int = 0, at: datetime | None = None
    ) -> Call[None]:
        """Record the truth of a prediction.

        Args:
            model_id: The model that predicted.
            request_id: The request.
            label: The truth: a class or a number.
            row: Which row of the request, from 0.
            at: When it was observed; None: now.
        """
        body = NewLabel(model_id=model_id, row=row, label=label, at=at)
        return Call("POST", f"{self._root}/predictions/{quoted(request_id)}/labels", type(None), body=body)

    @operation
    def losses(self, since: date, until: date) -> Call[list_of[Loss]]:
        """Rows that are missing in the log, by day and reason."""
        params = {"since": since.isoformat(), "until": until.isoformat()}
        return Call("GET", f"{self._root}/prediction-losses", list_of[Loss], params)

    @operation
    def traffic(self) -> Call[list_of[TrafficPoint]]:
        """Answered requests and their latency in the last 15 minutes, counted from the log."""
        return Call("GET", f"{self._root}/prediction-traffic", list_of[TrafficPoint])

    @operation
    def policy(self) -> Call[LogPolicy]:
        """What the log keeps of the tenant."""
        return Call("GET", f"{self._root}/prediction-policy", LogPolicy)

    @operation
    def set_policy(self, policy: str) -> Call[LogPolicy]:
        """Change what the log keeps from now on."""
        return Call("PUT", f"{self._root}/prediction-policy", LogPolicy, body=NewLogPolicy(policy=policy))
