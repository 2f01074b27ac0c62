"""The policies of a tenant for its rows, and its quota of predictions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ml_core.exceptions import InvalidRequestError


class PredictionPolicy(StrEnum):
    """The policy of a tenant's prediction log."""

    NOTHING = "nothing"
    """Predictions are not logged."""
    DIGEST = "digest"
    """The prediction and a digest of the inputs, which identifies equal inputs."""
    INPUTS = "inputs"
    """The prediction, the digest and the inputs."""


class SelfTestRows(StrEnum):
    """The rows of the self-tests of a tenant's versions."""

    TRAINING = "training"
    """Held-out rows of the training data."""
    SYNTHETIC = "synthetic"
    """Synthetic rows, so that neither the version's row nor the output of the training has cells of training data."""


@dataclass(frozen=True, slots=True)
class PredictionQuota:
    """What a tenant may ask of the cell that serves it.

    The rates are those of all replicas together, each of which admits an equal part. A burst is of each replica.

    Attributes:
        weight: Its share of processor time compared with other tenants of the cell, while both wait for it.
        requests_per_s: Requests per second; None: the platform's default.
        rows_per_s: Rows per second that are predicted or explained; None: the platform's default.
        burst_s: Seconds of both rates that it may save up and then use at once. One request has at most the rows of a
            burst.

    Raises:
        InvalidRequestError: A value is out of range.
    """

    weight: float = 1.0
    requests_per_s: float | None = None
    rows_per_s: float | None = None
    burst_s: float = 1.0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("weight", 0.01, 100),
            ("requests_per_s", 0.001, 1e6),
            ("rows_per_s", 0.001, 1e6),
            ("burst_s", 0.001, 3600),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise InvalidRequestError(
                    f"{name} is {value!r}.", remedy=f"Give a number from {least} to {most:,.0f}.", field=name
                )
