"""The applications of one machine are values."""

from ml_core.api.app import PREFIX
from ml_core.cells.plan import Plan, plan
from ml_core.domain.placement import Placement, Placements
from ml_core.platform.applications import OPTIONS, OTHERS


def planned() -> Plan:
    """Without a dedicated cell."""
    return plan(Placements(Placement(min_replicas=3, max_replicas=3)), {}, now=0, options=OPTIONS, others=OTHERS)


def test_the_shared_cell_is_declared_at_the_root():
    """One application for every tenant; nothing in it names one."""
    application, *_ = planned().applications
    assert (application["name"], application["route_prefix"]) == ("shared", "/")
    assert application["import_path"] == "deployments.cell:app"
    assert application["deployments"][0]["num_replicas"] == 3


def test_the_control_api_is_a_process_of_its_own():
    """Under a longer prefix of the same ingress, once."""
    _, application, loop = planned().applications
    assert (loop["route_prefix"], loop["import_path"]) == (None, "deployments.control_loop:app")
    assert (application["name"], application["route_prefix"]) == ("control", PREFIX)
    assert application["import_path"] == "deployments.control_api:app"
    assert application["deployments"][0]["num_replicas"] == 1


def test_a_new_replica_starts_before_an_old_one_stops():
    """Serve's own default stops first."""
    assert {each["deployments"][0]["max_surge_percent"] for each in planned().applications} == {100}
