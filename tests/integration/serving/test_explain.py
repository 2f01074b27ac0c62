"""Explanations over HTTP, from the ingress to the replicas: the numbers of the Python library."""

from __future__ import annotations

import pytest

from ml_core.client import MLClient
from ml_core.system import MLSystem
from support.tables import split_target, tickets


@pytest.mark.parametrize("algorithm", ["logistic_regression", "lightgbm", "naive_bayes"])
def test_a_replica_explains_as_the_library_does(platform, acme, algorithm):
    """Of exact and sampled methods; the sum is the score, and the columns are those of the raw row."""
    X, y = split_target(tickets(), "category")
    model = f"explained_{algorithm}"
    acme.promote(model, acme.train(model, (X, y), algorithm=algorithm), wait_for={"subject": "No login"})
    rows = X.head(5)
    with MLClient(platform.url, api_key=acme.key, tenant_id="acme", timeout_s=30) as client:
        found = client.explain(model, rows)
    with MLSystem(platform.db, tenant_id="acme") as system:
        expected = system.explain(model, rows)
    assert (found.method, found.unit, found.version) == (expected.method, expected.unit, "1")
    for row, wanted in zip(found.explanations, expected.to_json(), strict=True):
        assert row.prediction == wanted["prediction"]
        for output, theirs in zip(row.outputs, wanted["outputs"], strict=True):
            assert output.label == theirs["label"]
            assert output.contributions == pytest.approx(theirs["contributions"], abs=1e-9)
            assert output.base + sum(output.contributions.values()) == pytest.approx(output.score, abs=1e-9)
