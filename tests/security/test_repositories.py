"""Every public method of every repository, and raw SQL after it: tenant B reads and writes nothing of tenant A.

The methods are found by introspection and called with arguments by name, so one that is added later is called as well,
or fails here until its parameters have a value below.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

import ml_core.registry
from ml_core.data.table_file import write_frame
from ml_core.database import security
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.job import Attempt, JobKind
from ml_core.domain.permissions import MOVES, NEEDED
from ml_core.domain.principal import Principal
from ml_core.domain.quality import Verdict
from ml_core.domain.retraining import Retraining
from ml_core.domain.schedule import Cron
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.exceptions import MLFrameworkError, PermissionDeniedError
from ml_core.ids import HoldName, ModelId, TenantId, VersionId
from ml_core.models.store import platform_store
from ml_core.registry.audit import AuditRepository
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.predictions.live import Window
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.runs.documents import RunDocuments
from ml_core.registry.runs.experiments import ExperimentRepository
from ml_core.registry.schedules import Due, ScheduleRepository
from ml_core.registry.versions.intake import Submission
from ml_core.registry.versions.repository import VersionRepository
from ml_core.settings import DatabaseSettings, Settings
from support.filled import fill
from support.job_queue import empty_queue
from support.registry import TICKETS, artifact_of, draft, new_tenant, register, superuser


def repositories() -> dict[str, type[Any]]:
    """The classes of the registry that belong to one tenant and are for others to use."""
    found = {}
    for module in pkgutil.walk_packages(ml_core.registry.__path__, "ml_core.registry."):
        for name, kind in vars(importlib.import_module(module.name)).items():
            is_own = inspect.isclass(kind) and kind.__module__ == module.name
            if (
                is_own
                and not name.startswith("_")
                and {"db", "tenant_id"} <= set(inspect.signature(kind.__init__).parameters)
            ):
                found[name] = kind
    return found


REPOSITORIES = repositories()
# Parts of a repository, called through it; what they need is made by it.
PARTS: set[str] = set()


@dataclass
class World:
    """Tenant A's things by name: what B will ask for."""

    tenant: TenantId
    key: str
    run_id: str
    digest: str
    folder: Path
    attempt: Attempt
    due: Due

    def argument(self, kind: str, method: str, name: str) -> Any:
        """The value of a parameter."""
        special = {
            ("DatasetRepository", "compare", "other"): 1,
            ("DatasetRepository", "find_by_digest", "digest"): self.digest,
            ("DatasetRepository", "from_csv", "path"): self.folder / "table.csv",
            ("DatasetRepository", "from_file", "path"): self.folder / "table.csv",
            ("DatasetRepository", "from_parquet", "path"): self.folder / "table.parquet",
            ("DatasetRepository", "from_sql", "query"): "SELECT 1 AS x",
            ("DatasetRepository", "write", "write"): partial(write_frame, pd.DataFrame({"x": [3]})),
            ("JobRepository", "fail", "error"): {"message": "b"},
            ("JobRepository", "submit", "kind"): "train",
            ("RunDocuments", method, "kind"): "dataset",
            ("RunDocuments", method, "name"): "d",
            ("RunRepository", "log_series", "metrics"): "loss",
            ("RunArtifacts", "log", "name"): "plot.png",
            ("RunArtifacts", "open", "name"): "plot.png",
            ("RunArtifacts", "delete", "name"): "plot.png",
            ("ScheduleRepository", "add", "kind"): JobKind.TRAIN,
            ("ScheduleRepository", "add", "name"): "mine",
            ("ScheduleRepository", "advance", "following"): datetime.now(UTC),
            ("ScheduleRepository", "advance", "job_id"): None,
            ("ScheduleRepository", "advance", "note"): "b",
            ("ScheduleRepository", "follow", "note"): "b",
            ("ScheduleRepository", "follow", "retraining"): Retraining(self.attempt.job_id),
            ("LiveRows", "sample", "limit"): 10,
            ("LiveRows", "sample", "rows"): 1,
            ("HoldRepository", "place", "name"): HoldName("mine"),
            ("HoldRepository", "release", "name"): HoldName("legal"),
        }
        if kind == "ScheduleRepository" and name == "name" and method != "add":
            return self.due.schedule.name
        if (kind, name) == ("JobRepository", "run_id"):
            return self.attempt.run_id
        return special.get((kind, method, name), self._usual().get(name, self))

    def _usual(self) -> dict[str, Any]:
        return {
            "actor": "b",
            "artifact": artifact_of("b"),
            "changed": dict,
            "comparisons": [],
            "body": b"b",
            "cron": Cron("0 3 * * *"),
            "data": b"b",
            "dataset_digest": self.digest,
            "dataset_id": "d",
            "drift": Verdict.OK,
            "quality": Verdict.ALERT,
            "documents": {"b": {"b": "b"}},
            "digest": artifact_of(self.tenant).digest,
            "draft": draft(version="b"),
            "due": self.due,
            "environment": PRODUCTION,
            "error": "b",
            "format": "skops/2",
            "frame": pd.DataFrame({"x": [2]}),
            "idempotency_key": "secret",
            "job_id": self.attempt.job_id,
            "key": "key",
            "key_id": self.key.split("_")[1],
            "kind": "approval",
            "label": "b",
            "lines": ["b"],
            "lease_s": 60.0,
            "limit": 10,
            "metadata": {"b": "b"},
            "metric": "loss",
            "metrics": {"loss": 2.0},
            "model_id": TICKETS,
            "model_ids": [TICKETS],
            "model_path": self.folder / "model.skops",
            "model_type": "classification",
            "name": "approved",
            "number": 1,
            "options": {},
            "parameters": {"b": "b"},
            "percent": 10,
            "policy": PredictionPolicy.NOTHING,
            "reason": "b",
            "request_digest": "b",
            "result": {},
            "spec": {},
            "why": "b",
            "request_id": "r",
            "row": 0,
            "run_id": self.run_id,
            "run_ids": [self.run_id, self.run_id],
            "scopes": [Scope.READ],
            "since": date(2000, 1, 1),
            "source": {},
            "status": 200,
            "steps": [1],
            "submission": Submission(TICKETS),
            "tags": {"b": "b"},
            "text": self.key,
            "until": datetime.now(UTC).date(),
            "url": f"sqlite:///{self.folder / 'x.db'}",
            "values": [1.0],
            "version": VersionId("2"),
            "version1": VersionId("2"),
            "version2": VersionId("2"),
            "window": Window(TICKETS, PRODUCTION, datetime.now(UTC) - timedelta(days=1), datetime.now(UTC)),
        }


@pytest.fixture
def one_session(db: DatabaseConnection) -> Iterator[DatabaseConnection]:
    """The registry through a pool of one session, so that B is on the server process that A just used."""
    settings = Settings(database=DatabaseSettings(pool_size=1), platform=db.settings.platform)
    with DatabaseConnection(settings=settings) as connection:
        yield connection


@pytest.fixture
def world(db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path) -> World:
    """Tenant A with rows in every table; its own name is written into whatever holds a text."""
    fill(db, tenant_id)
    register(db, tenant_id, content=tenant_id, tags={"secret": tenant_id}, metadata={"secret": tenant_id})
    runs = RunRepository(db, tenant_id)
    run_id = runs.start(TICKETS, parameters={"secret": tenant_id}, tags={"secret": tenant_id})
    runs.log_metrics(run_id, {"loss": 0.5})
    runs.artifacts.log(run_id, "plot.png", tenant_id.encode())
    RunDocuments(db, tenant_id).add(run_id, "dataset", {"d": {"secret": tenant_id}})
    ExperimentRepository(db, tenant_id).tag(TICKETS, {"secret": tenant_id})
    dataset = DatasetRepository(db, tenant_id).create("d", pd.DataFrame({"secret": [str(tenant_id)]}))
    pd.DataFrame({"x": [1]}).to_csv(tmp_path / "table.csv", index=False)
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "table.parquet")
    (tmp_path / "model.skops").write_bytes(b"no archive")
    key = KeyRepository(db, tenant_id).create("secret", [Scope.READ])
    empty_queue(db)
    JobRepository(db, tenant_id).submit("train", {"secret": tenant_id}, idempotency_key="secret")
    attempt = JobQueue(db).claim("world", 1, 60)
    assert attempt is not None
    schedule = ScheduleRepository(db, tenant_id).add("secret", Cron("0 3 * * *"), JobKind.TRAIN, {"s": tenant_id}, {})
    due = Due(schedule, datetime.now(UTC), attempt.principal)
    return World(tenant_id, str(key), run_id, str(dataset.digest), tmp_path, attempt, due)


def methods(kind: type[Any]) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))]


def call(repository: Any, method: str, world: World) -> str:
    """Call a method with the required arguments; what it returned or refused, as text."""
    bound: Callable[..., Any] = getattr(repository, method)
    arguments = {}
    for name, parameter in inspect.signature(bound).parameters.items():
        if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            arguments[name] = world.argument(type(repository).__name__, method, name)
            assert arguments[name] is not world, f"{type(repository).__name__}.{method} has a new parameter: {name}"
    try:
        result = bound(**arguments)
        if isinstance(result, AbstractContextManager) and not isinstance(result, Path):
            with result as inner:
                return told(inner)
        return told(result)
    except MLFrameworkError as error:
        return repr(error.attributes()) + str(error)


def told(result: Any) -> str:
    """All that a result holds, as text; what a class prints of itself may be one line of it."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return " ".join(told(getattr(result, field.name)) for field in dataclasses.fields(result))
    if isinstance(result, Mapping):
        return " ".join(f"{key!r} {told(value)}" for key, value in result.items())
    if isinstance(result, list | tuple | set | frozenset):
        return " ".join(map(told, result))
    return repr(result)


def fingerprint(db: DatabaseConnection, tenant: TenantId) -> dict[str, tuple[int, str]]:
    """Each table's rows of a tenant, counted and hashed, seen by a superuser."""
    statement = " UNION ALL ".join(
        f"SELECT '{table}', count(*), md5(COALESCE(string_agg(t::text, '|' ORDER BY t::text), ''))"
        f" FROM mlcore.{table} t WHERE tenant_id = %(tenant)s"
        for table in security.tenant_tables()
    )
    with superuser(db) as session:
        return {table: (count, md5) for table, count, md5 in session.execute(statement, {"tenant": tenant})}


def raw_sql_finds_nothing(db: DatabaseConnection, mine: TenantId, other: TenantId) -> int:
    """As B under the runtime role: no row of A is read. Returns the server process."""
    statement = " UNION ALL ".join(
        f"SELECT '{table}' FROM mlcore.{table} WHERE tenant_id = :other" for table in security.tenant_tables()
    )
    with db.tenant(mine) as connection:
        assert connection.scalars(sa.text(statement), {"other": other}).all() == []
        return int(connection.scalar(sa.text("SELECT pg_backend_pid()")))


def raw_sql_changes_nothing(db: DatabaseConnection, mine: TenantId, other: TenantId) -> None:
    """As B under the runtime role: no row of A is changed, removed or forged."""
    with db.tenant(mine) as connection:
        for table in security.tenant_tables():
            where = f"mlcore.{table} WHERE tenant_id = :other"
            grants = security.APP_GRANTS[table]
            column = next((g.split("(")[1].split(",")[0].rstrip(")") for g in grants if g.startswith("UPDATE (")), None)
            changes = {
                f"UPDATE mlcore.{table} SET {column or 'tenant_id'} = DEFAULT WHERE tenant_id = :other": column
                is not None,
                f"DELETE FROM {where}": "DELETE" in grants,
            }
            for statement, is_granted in changes.items():
                assert _attempt(connection, statement, other) == (0 if is_granted else "permission denied"), statement
            forged = _attempt(connection, f"INSERT INTO mlcore.{table} (tenant_id) VALUES (:other)", other)
            assert forged == ("row-level security" if "INSERT" in str(grants) else "permission denied"), table


def _attempt(connection: sa.Connection, statement: str, other: TenantId) -> int | str:
    try:
        with connection.begin_nested():
            return connection.execute(sa.text(statement), {"other": other}).rowcount
    except ProgrammingError as error:
        return next(word for word in ("permission denied", "row-level security") if word in str(error))


def test_the_repositories_are_found() -> None:
    """The list is not empty by accident, and each part is still one."""
    assert {"AuditRepository", "EnvironmentRepository", "ModelRegistry", "RunRepository"} <= set(REPOSITORIES)
    assert set(REPOSITORIES) >= PARTS
    assert sum(len(methods(kind)) for kind in REPOSITORIES.values()) > 100


@pytest.mark.parametrize("name", sorted(set(REPOSITORIES) - PARTS))
def test_after_each_method_of_a_the_same_session_shows_b_nothing(
    one_session: DatabaseConnection, world: World, name: str
) -> None:
    """A calls the method; on the same server process B's raw SQL and B's own call neither see nor touch A's rows."""
    kind, other = REPOSITORIES[name], new_tenant(one_session)
    pids: list[int] = []
    engine = one_session._engine(one_session.urls.app)
    sa.event.listen(engine, "checkout", lambda session, *_: pids.append(session.info.backend_pid))
    for method in methods(kind):
        pids.clear()
        call(kind(one_session, world.tenant), method, world)
        before, used = fingerprint(one_session, world.tenant), set(pids)
        pid = raw_sql_finds_nothing(one_session, other, world.tenant)
        assert not used or pid in used, method
        answer = call(kind(one_session, other), method, world)
        assert world.tenant not in answer, method
        assert fingerprint(one_session, world.tenant) == before, method
    before = fingerprint(one_session, world.tenant)
    raw_sql_changes_nothing(one_session, other, world.tenant)
    assert fingerprint(one_session, world.tenant) == before


@pytest.mark.parametrize("name", sorted(set(REPOSITORIES) - PARTS))
def test_who_may_only_read_changes_nothing(db: DatabaseConnection, world: World, name: str) -> None:
    """A principal with the scope ``read`` calls every method: no row changes, and no file appears or goes."""
    reader = db.acting_as(Principal("reader", frozenset({Scope.READ})))
    store = platform_store(db.settings)
    before, files = fingerprint(db, world.tenant), sorted(blob.digest for blob in store.list(world.tenant))
    for method in methods(REPOSITORIES[name]):
        call(REPOSITORIES[name](reader, world.tenant), method, world)
        assert fingerprint(db, world.tenant) == before, method
    assert sorted(blob.digest for blob in store.list(world.tenant)) == files


def test_a_key_acts_in_its_own_tenant_only(db: DatabaseConnection, world: World, other_tenant_id: TenantId) -> None:
    """With every scope there is, a key of B finds in A what is there for somebody who has no such tenant."""
    keys = KeyRepository(db, other_tenant_id)
    stranger = db.acting_as(keys.authenticate(str(keys.create("all", [*Scope, "promote:production"]))))
    before = fingerprint(db, world.tenant)
    for name in sorted(set(REPOSITORIES) - PARTS):
        for method in methods(REPOSITORIES[name]):
            answer = call(REPOSITORIES[name](stranger, world.tenant), method, world)
            assert world.tenant not in answer.replace(f"There is no tenant {world.tenant}.", ""), (name, method)
    assert fingerprint(db, world.tenant) == before
    with pytest.raises(PermissionDeniedError), stranger.serving():
        pass


def test_every_change_names_its_scope() -> None:
    """Each action that the registry records is in the table of permissions, and each in the table is recorded."""
    source = "".join(path.read_text() for path in Path(ml_core.registry.__path__[0]).rglob("*.py"))
    nouns = (
        "dataset|environment|experiment|gate|hold|job|key|model|placement|predictions|rollout|run|schedule|shadow"
        "|tenant|version"
    )
    recorded = set(re.findall(rf'"((?:{nouns})\.[a-z_]+)"', source))
    assert recorded == set(NEEDED) | MOVES


def test_only_an_operator_signs_for_others(db: DatabaseConnection, world: World) -> None:
    """Whoever names another as the author is recorded under its own name: the gate of approvals rests on it."""
    trainer = db.acting_as(Principal("key:1", frozenset({Scope.TRAIN, Scope.PROMOTE})))
    made = VersionRepository(trainer, world.tenant).register(
        draft(version="mine"), artifact_of("mine"), "somebody else"
    )
    assert made.created_by == "key:1"
    pointer = EnvironmentRepository(trainer, world.tenant).promote(
        TICKETS, VersionId("2"), PRODUCTION, actor="somebody else"
    )
    assert pointer.updated_by == "key:1"
    entry = AuditRepository(db, world.tenant).list(limit=1, descending=True).items[0]
    assert (entry.principal, entry.details["actor"]) == ("key:1", "key:1")


def test_what_a_may_see_is_seen_by_a(db: DatabaseConnection, world: World) -> None:
    """The test above is able to fail: asked as A, the same calls do show what B must not see."""
    for name, method in (("RunRepository", "get"), ("VersionRepository", "search"), ("AuditRepository", "list")):
        assert world.tenant in call(REPOSITORIES[name](db, world.tenant), method, world)
    assert VersionRepository(db, world.tenant).get(ModelId("tickets"), VersionId("2"))
