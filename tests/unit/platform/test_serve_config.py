"""The configuration of Serve is a value."""

from ml_core.api.app import PREFIX
from ml_core.platform.serve_api import serve_config


def test_the_shared_cell_is_declared_at_the_root():
    """One application for every tenant; nothing in it names one."""
    config = serve_config(host="127.0.0.1", port=8000, replicas=3)
    application, *_ = config["applications"]
    assert config["http_options"] == {"host": "127.0.0.1", "port": 8000}
    assert (application["name"], application["route_prefix"]) == ("shared", "/")
    assert application["import_path"] == "deployments.cell:app"
    assert application["deployments"][0]["num_replicas"] == 3


def test_the_control_api_is_a_process_of_its_own():
    """Under a longer prefix of the same ingress, once."""
    _, application, loop = serve_config(host="127.0.0.1", port=8000, replicas=3)["applications"]
    assert (loop["route_prefix"], loop["import_path"]) == (None, "deployments.control_loop:app")
    assert (application["name"], application["route_prefix"]) == ("control", PREFIX)
    assert application["import_path"] == "deployments.control_api:app"
    assert application["deployments"][0]["num_replicas"] == 1


def test_a_new_replica_starts_before_an_old_one_stops():
    """Serve's own default stops first."""
    applications = serve_config(host="127.0.0.1", port=1, replicas=1)["applications"]
    assert {each["deployments"][0]["max_surge_percent"] for each in applications} == {100}
