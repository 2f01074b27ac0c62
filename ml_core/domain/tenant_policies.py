"""The policies of a tenant for its rows."""

from __future__ import annotations

from enum import StrEnum


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
