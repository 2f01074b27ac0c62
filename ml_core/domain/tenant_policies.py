"""What a tenant lets be kept of its rows."""

from __future__ import annotations

from enum import StrEnum


class PredictionPolicy(StrEnum):
    """What a tenant lets the platform keep of its predictions."""

    NOTHING = "nothing"
    """No row at all."""
    DIGEST = "digest"
    """The prediction, and a digest by which equal inputs are recognised, but not the inputs."""
    INPUTS = "inputs"
    """The inputs too."""


class SelfTestRows(StrEnum):
    """Which rows the self-tests of a tenant's versions consist of."""

    TRAINING = "training"
    """Some of those that were held out in training."""
    SYNTHETIC = "synthetic"
    """Made up, so that no cell of training is in the version's row or in what a training prints."""
