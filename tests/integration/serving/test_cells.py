"""Cells: a tenant moves to a cell of its own and back while requests run; whoever is killed, the move ends."""

from __future__ import annotations

from contextlib import closing, suppress
from functools import partial
from urllib.parse import urlsplit

import grpc
import httpx
import psutil
import pytest
import sqlalchemy as sa

from ml_core.cells.loop import CellLoop
from ml_core.cells.plan import plan
from ml_core.domain.placement import IDLE_AFTER, Placement, dedicated_cell
from ml_core.exceptions import PlatformError
from ml_core.inference.edge.grpc_headers import SERVICE
from ml_core.inference.edge.grpc_messages import MESSAGES
from ml_core.platform.applications import OPTIONS, OTHERS, serve_api
from ml_core.platform.ray_cluster import read_token
from ml_core.registry.placements import PlacementRepository
from support.load import load, prediction
from support.misbehaving import BAD, ROW, serving_broken
from support.tables import measures, split_target
from support.waiting import wait_until

MOVE_S = 120.0
"""On a loaded machine; it takes a fifth of this otherwise."""


@pytest.fixture(scope="module")
def tenant(platform):
    """A tenant that is served."""
    tenant = platform.tenant("mover")
    version = tenant.train("m", split_target(measures(), "outcome"), n_estimators=5)
    tenant.promote("m", version, wait_for=ROW)
    return tenant


def place(tenant, *, is_dedicated):
    PlacementRepository(tenant.platform.db).set(tenant.tenant_id, Placement(is_dedicated))


def application(tenant):
    """The dedicated cell as Serve has it; None without one."""
    with closing(serve(tenant.platform)) as api:
        found = wait_until(lambda: answer_of(api.status)).get(dedicated_cell(tenant.tenant_id))
    return None if found is None or found.status == "DELETING" else found


def answer_of(ask):
    """What comes of asking Ray, which on a busy machine may not answer within its deadline; None then."""
    with suppress(PlatformError):
        return ask()


def serve(platform):
    """A client of Serve's REST interface."""
    state = platform.local.state
    token = read_token(platform.settings.platform.home)
    return serve_api(f"http://127.0.0.1:{state.dashboard_port}", token, state.http_port)


def has_moved(tenant):
    return PlacementRepository(tenant.platform.db).get(tenant.tenant_id).has_moved


def seen(platform):
    """Its state and its dedicated cells, whose replicas report at their own times."""
    status = platform.local.status()
    return status.state, list(status.dedicated)


def kill_the_loop(platform):
    """kill -9 of the process of the control loop."""
    loops = [each for each, (name, *_) in platform.processes() if name.startswith("ray::ServeReplica:control-loop")]
    for process in loops:
        process.kill()
    psutil.wait_procs(loops, timeout=10)
    return len(loops)


def version_by_grpc(tenant):
    """The version that answers a gRPC call, which names the tenant as metadata and no other address."""
    metadata = [("authorization", f"Bearer {tenant.key}"), ("mlcore-tenant", tenant.tenant_id)]
    row = {"name": "x", "datatype": "FP64", "shape": [1, len(ROW)], "contents": {"fp64_contents": ROW.values()}}
    request = MESSAGES["ModelInferRequest"](model_name="m", inputs=[row])
    with grpc.insecure_channel(urlsplit(tenant.platform.url).netloc) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer", None, MESSAGES["ModelInferResponse"].FromString)
        return infer(request.SerializeToString(), metadata=metadata, timeout=30).model_version


def test_a_cell_that_can_not_load_its_tenant_takes_no_route(platform, tenant):
    """The shared cell answers on with what it has, and the placement can be taken back."""
    artifacts = platform.settings.platform.artifact_root / tenant.tenant_id
    away = artifacts.rename(artifacts.with_name("mover-away"))
    try:
        place(tenant, is_dedicated=True)
        wait_until(lambda: application(tenant) is not None and application(tenant).status == "RUNNING", MOVE_S)
        own = dedicated_cell(tenant.tenant_id)
        wait_until(lambda: [each.failed > 0 for each in platform.local.status().replicas if each.cell == own] == [True])
        assert application(tenant).route_prefix == f"/warming/{tenant.tenant_id}"
        assert tenant.predict("m", [ROW]).status_code == 200
        path = f"{platform.url}/warming/{tenant.tenant_id}/t/{tenant.tenant_id}/models/m/predict"
        headers = {"authorization": f"Bearer {tenant.key}"}
        assert httpx.post(path, json={"rows": [ROW]}, headers=headers, trust_env=False).status_code == 404
        place(tenant, is_dedicated=False)
        wait_until(lambda: application(tenant) is None, MOVE_S)
    finally:
        away.rename(artifacts)
    assert not has_moved(tenant)


def test_no_request_fails_while_a_tenant_moves(platform, tenant):
    """There and back; a version that is promoted meanwhile is served by whichever cell answers.

    A second loop does nothing beside the platform's own. It goes on where that one was killed, and the platform's next
    one goes on after it.
    """
    second = tenant.train("m", split_target(measures(), "outcome"), n_estimators=6)
    with closing(serve(platform)) as api, tenant.traffic("m", ROW) as report:
        other = CellLoop(platform.db, api, partial(plan, options=OPTIONS, others=OTHERS))
        assert [other.turn() for _ in range(3)] == [None] * 3
        report.wait_for("1", 50, 30)
        place(tenant, is_dedicated=True)
        wait_until(lambda: application(tenant) is not None, MOVE_S)
        assert kill_the_loop(platform) == 1
        wait_until(lambda: answer_of(other.turn), 30)
        wait_until(lambda: answer_of(other.turn) and has_moved(tenant), MOVE_S)
        assert application(tenant).route_prefix == f"/t/{tenant.tenant_id}"
        wait_until(lambda: seen(platform) == ("running", [dedicated_cell(tenant.tenant_id)]))
        tenant.promote("m", second)
        report.wait_for(second, 50, 30)
        assert version_by_grpc(tenant) == second
        other._leadership.release()
        place(tenant, is_dedicated=False)
        wait_until(lambda: not has_moved(tenant), MOVE_S)
        kill_the_loop(platform)
        wait_until(lambda: application(tenant) is None, MOVE_S)
        assert version_by_grpc(tenant) == second
        report.wait_for(second, report.answers[second] + 100, 30)
    assert report.failures == []
    assert set(report.answers) == {"1", second}
    wait_until(lambda: platform.local.status().state == "running", 60)


@pytest.fixture
def moved(tenant):
    """The tenant in its dedicated cell, by the platform's own loop."""
    place(tenant, is_dedicated=True)
    wait_until(lambda: has_moved(tenant), MOVE_S)
    return tenant


def test_a_burst_gets_another_replica(platform, moved, tmp_path):
    """Within seconds, and no request fails; bounds may be changed at any time."""
    with serving_broken(platform, tmp_path) as serve_broken:
        serve_broken(moved.tenant_id, slow="sleep 0.2 s")
    bounds = Placement(is_dedicated=True, max_replicas=2, target_ongoing=1)
    with load(urlsplit(platform.url).port, prediction(moved.tenant_id, "slow", moved.key, BAD)) as report:
        PlacementRepository(platform.db).set(moved.tenant_id, bounds)
        wait_until(lambda: application(moved).running_replicas == 2, 60)
        report.goes_on(50, 60)
    assert report.failures == []


def test_a_cell_ends_while_nothing_is_asked(platform, moved):
    """The shared cell answers the next requests, and the cell starts again, as for any move."""
    (version,) = {moved.predict("m", [ROW]).json()["version"]}
    PlacementRepository(platform.db).set(moved.tenant_id, Placement(is_dedicated=True, min_replicas=0))

    def has_ended():
        """As if the last request were long ago, also one that is noted only now."""
        with platform.db.platform() as connection:
            earlier = sa.text("UPDATE mlcore.placements SET requested_at = now() - :ago WHERE tenant_id = :tenant")
            connection.execute(earlier, {"ago": 2 * IDLE_AFTER, "tenant": moved.tenant_id})
        return not has_moved(moved) and application(moved) is None

    wait_until(has_ended, MOVE_S)
    with moved.traffic("m", ROW) as report:
        wait_until(lambda: application(moved) is not None, MOVE_S)
        report.wait_for(version, report.answers[version] + 50, 30)
    assert report.failures == []
    place(moved, is_dedicated=False)
    wait_until(lambda: application(moved) is None, MOVE_S)
