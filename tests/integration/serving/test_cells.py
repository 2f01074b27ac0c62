"""Cells: a tenant moves to a cell of its own and back while requests run; whoever is killed, the move ends."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from urllib.parse import urlsplit

import grpc
import httpx
import psutil
import pytest
import sqlalchemy as sa

from ml_core.cells.loop import CellLoop
from ml_core.cells.plan import plan
from ml_core.cli.demo.traffic import traffic
from ml_core.client import MLClient
from ml_core.domain.placement import IDLE_AFTER, Placement, dedicated_cell
from ml_core.inference.edge.grpc_headers import SERVICE
from ml_core.inference.edge.grpc_messages import MESSAGES
from ml_core.platform.applications import OPTIONS, OTHERS, serve_api
from ml_core.platform.ray_cluster import read_token
from ml_core.registry.placements import PlacementRepository
from support.load import load, prediction
from support.tables import measures, split_target
from support.waiting import wait_until

ROW = measures().drop(columns=["outcome"]).iloc[0].to_dict()
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
        found = api.status().get(dedicated_cell(tenant.tenant_id))
    return None if found is None or found.status == "DELETING" else found


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


def connect(tenant):
    """Makes clients, as ``traffic`` wants."""
    return lambda: MLClient(tenant.platform.url, api_key=tenant.key, tenant_id=tenant.tenant_id)


def test_no_request_fails_while_a_tenant_moves(platform, tenant):
    """There and back; a version that is promoted meanwhile is served by whichever cell answers."""
    second = tenant.train("m", split_target(measures(), "outcome"), n_estimators=6)
    with traffic(connect(tenant), "m", ROW) as report:
        report.wait_for("1", 50, 30)
        place(tenant, is_dedicated=True)
        wait_until(lambda: has_moved(tenant), MOVE_S)
        assert application(tenant).route_prefix == f"/t/{tenant.tenant_id}"
        wait_until(lambda: seen(platform) == ("running", [dedicated_cell(tenant.tenant_id)]))
        tenant.promote("m", second)
        report.wait_for(second, 50, 30)
        assert version_by_grpc(tenant) == second
        place(tenant, is_dedicated=False)
        wait_until(lambda: not has_moved(tenant) and application(tenant) is None, MOVE_S)
        assert version_by_grpc(tenant) == second
        report.wait_for(second, report.answers[second] + 100, 30)
    assert report.failures == []
    assert set(report.answers) == {"1", second}


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


def test_a_burst_gets_another_replica(platform, tenant):
    """Within seconds, and no request fails; bounds may be changed at any time."""
    slow = tenant.train("slow", split_target(measures(), "outcome"), n_estimators=300)
    tenant.promote("slow", slow, wait_for=ROW)
    place(tenant, is_dedicated=True)
    wait_until(lambda: has_moved(tenant), MOVE_S)
    bounds = Placement(is_dedicated=True, max_replicas=2, target_ongoing=1)
    # Of many rows, so that several are being answered at any time.
    with load(urlsplit(platform.url).port, prediction(tenant.tenant_id, "slow", tenant.key, *[ROW] * 200)) as report:
        PlacementRepository(platform.db).set(tenant.tenant_id, bounds)
        wait_until(lambda: application(tenant).running_replicas == 2, 60)
        report.goes_on(200, 60)
    assert report.failures == []
    place(tenant, is_dedicated=False)
    wait_until(lambda: application(tenant) is None, MOVE_S)


def test_a_cell_ends_while_nothing_is_asked(platform, tenant):
    """The shared cell answers the next requests, and the cell starts again."""
    placements = PlacementRepository(platform.db)
    placements.set(tenant.tenant_id, Placement(is_dedicated=True, min_replicas=0))
    wait_until(lambda: has_moved(tenant), MOVE_S)
    with platform.db.platform() as connection:
        earlier = sa.text("UPDATE mlcore.placements SET requested_at = now() - :ago WHERE tenant_id = :tenant")
        connection.execute(earlier, {"ago": 2 * IDLE_AFTER, "tenant": tenant.tenant_id})
    wait_until(lambda: not has_moved(tenant) and application(tenant) is None, MOVE_S)
    with traffic(connect(tenant), "m", ROW) as report:
        wait_until(lambda: has_moved(tenant), MOVE_S)
        report.wait_for("2", report.answers["2"] + 50, 30)
    assert report.failures == []
    place(tenant, is_dedicated=False)
    wait_until(lambda: application(tenant) is None, MOVE_S)


def test_of_two_loops_one_acts_and_the_next_ends_the_move(platform, tenant):
    """A second loop does nothing beside the platform's own. It goes on where that one was killed, and the platform's
    next one goes on after it."""
    with closing(serve(platform)) as api:
        other = CellLoop(platform.db, api, partial(plan, options=OPTIONS, others=OTHERS))
        assert [other.turn() for _ in range(3)] == [None] * 3
        place(tenant, is_dedicated=True)
        wait_until(lambda: application(tenant) is not None, MOVE_S)
        with traffic(connect(tenant), "m", ROW) as report:
            assert kill_the_loop(platform) == 1
            wait_until(other.turn, 30)
            wait_until(lambda: other.turn() and has_moved(tenant), MOVE_S)
            other._leadership.release()
            place(tenant, is_dedicated=False)
            wait_until(lambda: not has_moved(tenant), MOVE_S)
            kill_the_loop(platform)
            wait_until(lambda: application(tenant) is None, MOVE_S)
            report.wait_for("2", report.answers["2"] + 50, 30)
        assert report.failures == []
    wait_until(lambda: platform.local.status().state == "running", 60)
