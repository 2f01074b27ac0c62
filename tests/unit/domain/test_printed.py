"""What versions, runs and datasets look like when they are printed: one line that says which and how good."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from ml_core.domain.dataset import DatasetEntry, DatasetVersion, TableProfile
from ml_core.domain.run import MetricSummary, Run, RunStatus
from ml_core.domain.version import Lineage, ModelVersion, ServableVersion, headline_metric
from ml_core.ids import DatasetId, Digest, ModelId, TenantId, VersionId, VersionRef
from support.registry import SELF_TEST, SIGNATURE

ACME, TICKETS, AT = TenantId("acme"), ModelId("tickets"), datetime(2026, 1, 2, tzinfo=UTC)


def version(**changes: Any) -> ModelVersion:
    servable = ServableVersion(
        VersionRef(ACME, TICKETS, VersionId("3")), "classification", Digest("a" * 64), 1, "skops", SIGNATURE, SELF_TEST
    )
    metrics = {"train": {"accuracy": 1.0}, "validation": {"log_loss": 0.4, "accuracy": 0.85761}}
    return dataclasses.replace(ModelVersion(servable, metrics, {}, {}, Lineage(), AT, "me"), **changes)


def run(**changes: Any) -> Run:
    made = Run("run_0123456789abcdef", TICKETS, "train", RunStatus.FINISHED, {"x": "y" * 500}, AT, AT, AT, None)
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "printed"),
    [
        ({}, "ModelVersion(acme/tickets@3, classification, accuracy 0.8576)"),
        ({"metrics": {}}, "ModelVersion(acme/tickets@3, classification)"),
        ({"metrics": {}, "archived_at": AT}, "ModelVersion(acme/tickets@3, classification, archived)"),
    ],
)
def test_a_version(changes: dict[str, Any], printed: str) -> None:
    """Its full name, its type, the held-out metric that people ask for first, and whether it is hidden."""
    assert repr(version(**changes)) == printed
    assert version(**changes) == version(**changes) != version(created_by="you")


@pytest.mark.parametrize(
    ("metrics", "first"),
    [
        ({"mae": 2.0, "r2": 0.5}, ("r2", 0.5)),
        ({"silhouette": 0.3}, ("silhouette", 0.3)),
        ({}, None),
    ],
)
def test_the_metric_that_people_ask_for_first(metrics: dict[str, float], first: tuple[str, float] | None) -> None:
    """Accuracy or r2 where there is one, else the first that was noted."""
    assert headline_metric(metrics) == first


@pytest.mark.parametrize(
    ("changes", "printed"),
    [
        ({}, "Run(run_0123456789abcdef, train of tickets, finished)"),
        (
            {"metrics": {"loss": MetricSummary(1, 0, 0, 1.0, 1.0, 1.0)}},
            "Run(run_0123456789abcdef, train of tickets, finished, 1 metric)",
        ),
        (
            {"status": RunStatus.FAILED, "error": "ValueError: no\nTraceback …"},
            "Run(run_0123456789abcdef, train of tickets, failed, ValueError: no)",
        ),
    ],
)
def test_a_run(changes: dict[str, Any], printed: str) -> None:
    """Which it is, how it ended, and the first line of why it failed."""
    assert repr(run(**changes)) == printed


def test_an_endless_error_is_cut() -> None:
    """A run stays one line that fits a screen."""
    assert len(repr(run(error="x" * 4000))) < 150


def test_a_dataset() -> None:
    """Its full name and its size, with the profile and without."""
    facts: dict[str, Any] = {
        "tenant_id": ACME,
        "dataset_id": DatasetId("wine"),
        "number": 1,
        "digest": Digest("a" * 64),
        "size_bytes": 9,
        "row_count": 1599,
        "column_count": 1,
        "source": {"kind": "frame"},
        "created_at": AT,
        "created_by": "me",
    }
    assert repr(DatasetEntry(**facts)) == "DatasetEntry(acme/wine@1, 1,599 rows, 1 column)"
    whole = DatasetVersion(**facts, archived_at=AT, columns=(("x", "int64"),), profile=TableProfile(1599, 1599, ()))
    assert repr(whole) == "DatasetVersion(acme/wine@1, 1,599 rows, 1 column, archived)"
