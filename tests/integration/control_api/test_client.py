"""Both clients against the control API: each noun's operations, lists, errors; over HTTP, awaited, and in process."""

from __future__ import annotations

import asyncio
import inspect
import math
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest

from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.datasets import DatasetDetail
from ml_core.api.schemas.environments import Pointer
from ml_core.api.schemas.runs import Run, RunFile
from ml_core.api.schemas.tenants import PredictionQuota
from ml_core.api.schemas.versions import VersionDetail
from ml_core.client import AsyncMLClient, MLClient
from ml_core.client.calls import AsyncItems, Noun
from ml_core.client.inprocess import InProcessTransport
from ml_core.domain.api_key import ApiKey, Scope
from ml_core.exceptions import (
    AuthenticationError,
    DatasetNotFoundError,
    InvalidNameError,
    InvalidRequestError,
    KeyNotFoundError,
    ModelNotFoundError,
    ModelVersionConflictError,
    PermissionDeniedError,
    PromotionConflictError,
    RunNotFoundError,
    RunStateError,
    TenantNotFoundError,
)
from ml_core.registry.keys import KeyRepository
from support.gated import logistic, publish


class Awaited:
    """An asynchronous client whose answers are waited for, so that one test asks both clients."""

    def __init__(self, target, loop):
        self._target, self._loop = target, loop

    def __getattr__(self, name):
        value = getattr(self._target, name)
        if isinstance(value, Noun):
            return Awaited(value, self._loop)
        return self._call(value) if callable(value) else value

    def __iter__(self):
        async def all_items():
            return [item async for item in self._target]

        return iter(self._loop.run_until_complete(all_items()))

    def _call(self, method):
        def call(*args, **kwargs):
            found = method(*args, **kwargs)
            if isinstance(found, AsyncItems | AsyncMLClient):
                return Awaited(found, self._loop)
            return self._loop.run_until_complete(found) if inspect.isawaitable(found) else found

        return call


@pytest.fixture(params=["over_http", "awaited", "in_process"])
def asks(request, db, address, admin_key, tenant_id):
    """A client of the tenant, each way."""
    options = {"api_key": admin_key, "tenant_id": tenant_id, "timeout_s": 30}
    if request.param == "awaited":
        loop = asyncio.new_event_loop()
        client = AsyncMLClient(address, **options)
        yield Awaited(client, loop)
        loop.run_until_complete(client.aclose())
        loop.close()
        return
    transport = InProcessTransport(create_app(Services(db)), "/api") if request.param == "in_process" else None
    with MLClient(address, transport=transport, **options) as client:
        yield client


def test_datasets(asks, tmp_path):
    """Upload, list, read, download, archive, restore, delete."""
    path, sent = tmp_path / "people.csv", []
    path.write_text("name,age\nAda,36\nGrace,45\n")
    made = asks.datasets.create("people", path, on_progress=lambda done, total: sent.append((done, total)))
    assert isinstance(made, DatasetDetail)
    assert (made.dataset_id, made.number, sent[-1]) == ("people", 1, (path.stat().st_size,) * 2)
    assert asks.datasets.get("people") == asks.datasets.get("people", 1)
    assert [each.number for each in asks.datasets.versions("people")] == [1]
    got = []
    asks.datasets.download("people", tmp_path / "got.parquet", on_progress=lambda *done: got.append(done))
    assert (tmp_path / "got.parquet").read_bytes()[:4] == b"PAR1"
    assert got[-1] == ((tmp_path / "got.parquet").stat().st_size,) * 2
    assert asks.datasets.create("people", path).number == 1, "the very table"
    with pytest.raises(InvalidRequestError, match="exists already"):
        asks.datasets.download("people", tmp_path / "got.parquet")
    path.write_text("name,age,town\nAda,36,London\nGrace,45,New York\n")
    assert asks.datasets.create("people", path).number == 2
    compared = asks.datasets.compare("people", 1)
    assert (compared.number1, compared.number2, compared.added, compared.same) == (1, 2, ["town"], False)
    assert asks.datasets.compare("people", 2, 1).removed == ["town"]
    assert asks.datasets.delete("people", 2) is None
    asks.datasets.archive("people", 1)
    assert [each.number for each in asks.datasets.versions("people")] == []
    asks.datasets.restore("people", 1)
    assert [each.dataset_id for each in asks.datasets.list()] == ["people"]
    assert asks.datasets.delete("people", 1) is None
    with pytest.raises(DatasetNotFoundError):
        asks.datasets.get("people")


def test_models_and_versions(asks, db, tenant_id, tmp_path):
    """What is registered can be read, changed, compared, held, downloaded and uploaded again."""
    for version, noise in (("1", 0.3), ("2", 0.0)):
        publish(db, tenant_id, version, logistic(int(version), noise))
    assert [each.model_id for each in asks.models.list()] == ["people"]
    assert [each.version for each in asks.versions.list("people")] == ["2", "1"]
    assert [each.version for each in asks.versions.list(tags={"no": "tag"})] == []
    assert [each.version for each in asks.versions.list("people", name="1")] == ["1"]
    better = {each.metric: each.higher_is_better for each in asks.versions.metrics()}
    assert (better["accuracy"], better["log_loss"]) == (True, False)
    version = asks.versions.update("people", "1", tags={"a": "b"}, metadata={"note": [1, None]})
    assert isinstance(version, VersionDetail)
    assert (version.tags, version.metadata["note"]) == ({"a": "b"}, [1, None])
    assert asks.versions.get("people").version == "2"
    assert asks.versions.compare("people", "1", "2").version2 == "2"
    assert asks.versions.lineage("people", "1").version == "1"
    asks.holds.place("people", "1", "audit", "It refers to it.")
    assert [hold.reason for hold in asks.holds.list("people")] == ["It refers to it."]
    asks.holds.release("people", "1", "audit")
    sent = []
    asks.versions.download("people", "2", tmp_path / "model.skops")
    copy = asks.versions.register(
        "copies", tmp_path / "model.skops", "x", on_progress=lambda *done: sent.append(done), metadata={"from": "2"}
    )
    assert (copy.version, copy.digest, copy.metadata["from"]) == ("x", version_digest(asks), "2")
    assert sent[-1][0] == sent[-1][1] > (tmp_path / "model.skops").stat().st_size
    with pytest.raises(ModelVersionConflictError):
        asks.versions.register("people", tmp_path / "model.skops", "1")
    for act in (asks.versions.archive, asks.versions.restore, asks.versions.delete):
        assert act("copies", "x") is None
    asks.models.archive("people")
    assert [each.model_id for each in asks.models.list()] == ["copies"]
    asks.models.restore("people")


def version_digest(asks):
    return asks.versions.get("people", "2").digest


def test_environments_rollouts_and_gates(asks, db, tenant_id):
    """Moves, with what may be refused."""
    for version in ("1", "2"):
        publish(db, tenant_id, version, logistic(int(version), 0.1))
    asks.gates.set("people", "production", "verified", "digest_verified")
    moved = asks.environments.promote("people", "1", reason="first")
    assert isinstance(moved, Pointer)
    assert (moved.version, moved.generation) == ("1", asks.environments.get("people").generation)
    with pytest.raises(PromotionConflictError) as conflict:
        asks.environments.promote("people", "2", expected_generation=moved.generation + 7)
    assert conflict.value.details["request_id"]
    assert asks.rollouts.start("people", "2", 10).canary.percent == 10
    assert asks.rollouts.step("people", 50).canary.percent == 50
    assert [each.environment for each in asks.rollouts.list()] == ["production"]
    assert asks.rollouts.abort("people").canary is None
    assert asks.rollouts.shadow("people", "2").shadow == "2"
    assert asks.rollouts.unshadow("people").shadow is None
    asks.rollouts.start("people", "2", 10)
    assert asks.rollouts.finish("people").version == "2"
    assert asks.environments.rollback("people").version == "1"
    assert asks.environments.withdraw("people").version is None
    assert [move.action for move in asks.environments.history("people")][-1] == "promote"
    assert asks.environments.replicas("people") == []
    assert [gate.name for gate in asks.gates.list("people")] == ["verified"]
    asks.gates.remove("people", "production", "verified")
    assert asks.environments.protect("production").is_protected
    assert [each.environment for each in asks.environments.policies() if each.is_protected] == ["production"]
    asks.environments.unprotect("production")


def test_runs(asks, tmp_path):
    """Parameters, metrics with their NaN, tags, files, states."""
    run = asks.runs.start("m", parameters={"C": 0.5}, tags={"a": "b"})
    assert isinstance(run, Run)
    asks.runs.beat(run.run_id)
    asks.runs.log_metrics(run.run_id, {"loss": 0.5, "broken": math.nan})
    asks.runs.log_series(run.run_id, "loss", [1, 2], [0.25, math.inf])
    assert asks.runs.series(run.run_id, "loss").values[:2] == [0.5, 0.25]
    assert asks.runs.tag(run.run_id, {"a": None, "c": "d"}).tags == {"c": "d"}
    (tmp_path / "notes.txt").write_text("hello")
    assert isinstance(asks.runs.log_file(run.run_id, "notes.txt", tmp_path / "notes.txt"), RunFile)
    asks.runs.download_file(run.run_id, "notes.txt", tmp_path / "got.txt")
    assert (tmp_path / "got.txt").read_text() == "hello"
    assert [file.name for file in asks.runs.files(run.run_id)] == ["notes.txt"]
    asks.runs.delete_file(run.run_id, "notes.txt")
    other = asks.runs.start("m", parameters={"C": 1})
    assert {each.run_id for each in asks.runs.compare([run.run_id, other.run_id]).runs} == {run.run_id, other.run_id}
    assert asks.runs.finish(run.run_id).status == "finished"
    assert asks.runs.fail(other.run_id, "It diverged.").error == "It diverged."
    with pytest.raises(RunStateError) as ended:
        asks.runs.finish(run.run_id)
    assert (ended.value.run_id, ended.value.status) == (run.run_id, "finished")
    asks.runs.delete(other.run_id)
    assert [each.run_id for each in asks.runs.list()] == [run.run_id]


def test_keys_predictions_and_audit(asks, db, tenant_id):
    """And the feed has all of it."""
    publish(db, tenant_id, "1", logistic(1, 0.1))
    key = asks.keys.create(["read"], name="reader")
    assert key.key.startswith("mlk_")
    assert asks.keys.revoke(key.key_id).revoked_at is not None
    assert {each.name for each in asks.keys.list()} == {"admin", "reader"}
    assert asks.predictions.set_policy("inputs") == asks.predictions.policy()
    assert list(asks.predictions.list("people", since=datetime.now(UTC) - timedelta(days=1))) == []
    assert asks.predictions.losses(date(2026, 1, 1), date(2026, 1, 2)) == []
    assert "key.revoked" in [change.action for change in asks.audit.list()]


def test_a_revoked_key_that_is_still_remembered_creates_no_key(app, client, admin_key, db, tenant_id, monkeypatch):
    """For a second it may read; a key that it created would outlive it."""
    authentication = app.state.services.authentication
    monkeypatch.setattr(authentication, "_clock", lambda: authentication._valid_until - 0.5)
    client.runs.start("m")
    KeyRepository(db, tenant_id).revoke(ApiKey.parse(admin_key).key_id)
    client.runs.start("m")
    with pytest.raises(AuthenticationError):
        client.keys.create(["admin"])


def test_lists_are_pages(asks):
    """Iterated over, each item comes once; a page has the cursor of the next."""
    ids = [asks.runs.start("m").run_id for _ in range(5)]
    runs = asks.runs.list()
    page = runs.page(limit=2)
    assert isinstance(page, Page)
    seen = [run.run_id for run in page.items]
    while page.next_cursor is not None:
        page = runs.page(limit=2, cursor=page.next_cursor)
        seen += [run.run_id for run in page.items]
    assert sorted(seen) == sorted(ids) == sorted(run.run_id for run in runs)
    with pytest.raises(InvalidRequestError) as refused:
        runs.page(limit=0)
    assert refused.value.field == "limit"
    with pytest.raises(InvalidRequestError):
        runs.page(cursor="nonsense")


def test_what_is_not_there_has_a_class_of_its_own(asks, other_tenant_id):
    """With the attributes that a program looks at, and what to do."""
    for kind, ask, attributes in (
        (ModelNotFoundError, lambda: asks.versions.get("none", "1"), {"model_id": "none"}),
        (DatasetNotFoundError, lambda: asks.datasets.get("none"), {"dataset_id": "none"}),
        (RunNotFoundError, lambda: asks.runs.get("0" * 32), {"run_id": "0" * 32}),
        (KeyNotFoundError, lambda: asks.keys.revoke("0" * 16), {}),
        (TenantNotFoundError, lambda: list(asks.for_tenant(other_tenant_id).models.list()), {}),
        (TenantNotFoundError, lambda: list(asks.for_tenant("nobody").models.list()), {}),
    ):
        with pytest.raises(kind) as missing:
            ask()
        assert type(missing.value) is kind
        assert attributes.items() <= missing.value.attributes().items()
        assert missing.value.details["request_id"]
        assert "." in str(missing.value)
    with pytest.raises(ModelNotFoundError) as missing:
        asks.versions.get("none", "1")
    assert missing.value.action.operation == "models.list"
    with pytest.raises(InvalidNameError):
        asks.versions.get("../x", "1")


def test_whoever_may_not_is_refused(db, address, tenant_id):
    """Without a key, with a wrong one, and with one that lacks the scope."""
    reader = str(KeyRepository(db, tenant_id).create("reader", [Scope.READ]))
    for key in (None, "mlk_0123456789abcdef_" + "a" * 32):
        with MLClient(address, api_key=key, tenant_id=tenant_id) as client, pytest.raises(AuthenticationError):
            list(client.models.list())
    with MLClient(address, api_key=reader, tenant_id=tenant_id) as client:
        assert list(client.models.list()) == []
        with pytest.raises(PermissionDeniedError) as denied:
            client.runs.start("m")
    assert denied.value.scope == "train"
    assert denied.value.action.operation == "keys.create"


def test_another_tenant_has_the_same_connection(db, tenant_id, other_tenant_id):
    """An operator's client goes from one to the other."""
    transport = InProcessTransport(create_app(Services(db, db.principal)), "/api")
    with MLClient("http://in-process", tenant_id=tenant_id, transport=transport) as client:
        other = client.for_tenant(other_tenant_id)
        assert (client.tenant_id, other.tenant_id) == (tenant_id, other_tenant_id)
        run = other.runs.start("m")
        assert [each.run_id for each in other.runs.list()] == [run.run_id]
        assert list(client.runs.list()) == []
        assert other_tenant_id in [tenant.tenant_id for tenant in client.tenants.list()]
        assert client.tenants.get(other_tenant_id).tenant_id == other_tenant_id


def test_the_platform_sets_what_a_tenant_may_ask(client: MLClient, control: httpx.Client, tenant_id) -> None:
    """The tenant's client reads it and is refused to change it; unknown fields and values out of range are 400."""
    path = f"/api/v1/tenants/{tenant_id}/quota"
    assert client.tenants.quota(tenant_id) == PredictionQuota()
    with pytest.raises(PermissionDeniedError):
        client.tenants.set_quota(tenant_id, PredictionQuota(requests_per_s=1e6))
    answer = control.put(path, json={"requests_per_s": 100})
    assert (answer.status_code, answer.json()["requests_per_s"]) == (200, 100)
    assert client.tenants.quota(tenant_id) == PredictionQuota(requests_per_s=100)
    for wrong in ({"requests_per_s": 0}, {"per_day": 5}):
        assert control.put(path, json=wrong).status_code == 400
