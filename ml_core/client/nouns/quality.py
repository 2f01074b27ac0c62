"""Live quality and drift."""

from __future__ import annotations

from typing import Any

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.quality import DriftReport, LiveVerdict, QualityReport
from ml_core.client.calls import Call, Mode, Noun, listing, operation
from ml_core.ids import EnvironmentName, ModelId


class Quality(Noun[Mode]):
    """How good live versions are by the labels that arrived, and how their rows differ from those of training."""

    @operation
    def report(self, model_id: str, environment: str = "production", *, days: int = 7) -> Call[QualityReport]:
        """Metrics per version and day, beside those of the held-out rows of training.

        Args:
            model_id: The model.
            environment: Whose requests.
            days: Whole days (UTC), the present one included; 1 to 92.
        """
        return Call("GET", self._path(model_id, "quality"), QualityReport, _params(environment, days))

    @operation
    def drift(self, model_id: str, environment: str = "production", *, days: int = 7) -> Call[DriftReport]:
        """The inputs and predictions of the stable version, compared with the profile of its training.

        Arguments as for ``report``.
        """
        return Call("GET", self._path(model_id, "drift"), DriftReport, _params(environment, days))

    @listing
    def verdicts(self, *, only_alerts: bool = False) -> Call[Page[LiveVerdict]]:
        """What the platform last found of each version that is served; it measures each about once an hour.

        Args:
            only_alerts: Without those that have no alert.
        """
        return Call("GET", f"{self._root}/verdicts", Page[LiveVerdict], {"only_alerts": only_alerts or None})

    def _path(self, model_id: str, what: str) -> str:
        return f"{self._root}/models/{ModelId(model_id)}/{what}"


def _params(environment: str, days: int) -> dict[str, Any]:
    return {"environment": EnvironmentName(environment), "days": days}
