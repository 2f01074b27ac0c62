"""The cell's wiring for Ray Serve: what Serve is told, and that it can carry it to a replica. No Ray is started."""

from __future__ import annotations

import asyncio
import warnings

import pytest

from ml_core.exceptions import ConfigurationError
from ml_core.inference.edge.app import MAX_IN_FLIGHT, MAX_READING
from ml_core.inference.replica import Replica
from ml_core.settings import Settings


@pytest.fixture(scope="module")
def cell():
    """The module as Serve imports it; Ray 2.60 uses pydantic in a way that pydantic deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from deployments import cell
    return cell


@pytest.fixture
def deployment(cell):
    return cell.app._bound_deployment


def test_the_edge_refuses_before_serve_does(deployment):
    """So that a client gets the platform's error shape; behind that Serve's queue is bounded, too."""
    assert deployment.name == "Cell"
    assert deployment.max_ongoing_requests > MAX_IN_FLIGHT + MAX_READING
    assert deployment.max_queued_requests > 0
    assert deployment._deployment_config.backpressure_config.status_code == 429


def test_serve_writes_no_access_log(deployment):
    """It is flushed on the event loop: the tail of every small answer."""
    assert deployment._deployment_config.logging_config["enable_access_log"] is False


def test_serve_can_carry_it(deployment):
    """The class goes to a replica by pickle and builds its application there."""
    from ray import cloudpickle

    carried = cloudpickle.loads(cloudpickle.dumps(deployment.func_or_class))
    assert asyncio.iscoroutinefunction(carried.__init__)
    assert hasattr(carried, "__serve_build_asgi_app__")


def test_a_replica_without_a_registry_url_says_so(monkeypatch, tmp_path):
    """Instead of starting a database of its own."""
    monkeypatch.delenv("MLCORE_DATABASE_URL", raising=False)
    monkeypatch.setenv("MLCORE_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="MLCORE_DATABASE_URL"):
        Replica(Settings.from_environment(), "a-replica")
