"""What the process of a job can do with all that it was given: its own tenant's rows, until its job ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ml_core.database import security
from ml_core.database.binding import JobSeal
from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import PLATFORM
from ml_core.domain.job import HOLDS_CORES, Attempt, JobState
from ml_core.domain.principal import Principal
from ml_core.exceptions import ConfigurationError, JobStateError, PermissionDeniedError, TenantNotFoundError
from ml_core.ids import JobId, RunId, TenantId
from ml_core.jobs.dispatcher import Dispatcher
from ml_core.jobs.processes import ProcessRunner
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.keys import KeyRepository
from ml_core.settings import Settings
from support.filled import fill
from support.job_queue import empty_queue
from support.registry import new_tenant, superuser
from support.tables import measures
from support.waiting import wait_until

WITHIN_S = 60.0
SLOW = {"algorithm": "random_forest", "n_estimators": 20_000}


@pytest.fixture(scope="module")
def victim(db: DatabaseConnection) -> TenantId:
    """A tenant with rows in every table."""
    tenant = new_tenant(db)
    fill(db, tenant)
    return tenant


@pytest.fixture
def attempt(db: DatabaseConnection, tenant_id: TenantId) -> Attempt:
    """A claimed job that a key has submitted."""
    empty_queue(db)
    keys = KeyRepository(db, tenant_id)
    submitter = keys.authenticate(str(keys.create("k", ["admin"])))
    JobRepository(db.acting_as(submitter, "req-7"), tenant_id).submit("train", {})
    claimed = JobQueue(db).claim("d1", 1, WITHIN_S)
    assert claimed is not None
    return claimed


def seal_of(db: DatabaseConnection, attempt: Attempt) -> JobSeal:
    return JobSeal.parse(variables(db, attempt)["MLCORE_DATABASE_JOB_SEAL"])


def variables(db: DatabaseConnection, attempt: Attempt) -> dict[str, str]:
    """The environment of a job's process, as far as it concerns the registry."""
    sealed = db.job_environment(attempt.tenant_id, attempt.job_id, attempt.run_id)
    return {"MLCORE_HOME": str(db.settings.platform.home), **db.environment, **sealed}


@pytest.fixture
def sealed(db: DatabaseConnection, attempt: Attempt) -> Iterator[DatabaseConnection]:
    """The registry as the job's process reaches it."""
    with DatabaseConnection(settings=Settings.from_environment(variables(db, attempt))) as connection:
        yield connection


def test_a_job_is_given_no_secret_of_its_node(db: DatabaseConnection, attempt: Attempt, tmp_path: Path) -> None:
    """Although its process gets the variables of the node: those that name files, too."""
    (tmp_path / "secret").write_text("hunter2")
    node = {
        f"{name}{suffix}": str(tmp_path / "secret") if suffix else "hunter2"
        for name in ("MLCORE_DATABASE_TENANT_KEY", "MLCORE_DATABASE_OWNER_URL", "MLCORE_OIDC_CLIENT_SECRET")
        for suffix in ("", "_FILE")
    }
    client = {"ISSUER": "https://login.example", "AUDIENCE": "mlcore", "CLIENT_ID": "console"}
    node |= {f"MLCORE_OIDC_{name}": value for name, value in client.items()}
    settings = Settings.from_environment({**node, **variables(db, attempt)})
    assert (settings.database.tenant_key, settings.database.owner_url, settings.oidc.client_secret) == (None,) * 3


def entered(session: psycopg.Connection, tenant: str, by: str, digits: str) -> bool:
    """Whether raw SQL of the runtime's login enters; the session is in the tenant then."""
    session.rollback()
    session.execute("SET ROLE mlcore_app")
    try:
        session.execute("SELECT mlcore.enter(%s, %s, %s)", (tenant, by, digits))
    except psycopg.errors.InvalidAuthorizationSpecification:
        session.rollback()
        return False
    return True


def count(session: psycopg.Connection, table: str, tenant: str) -> int:
    """The rows of a tenant that a session shows."""
    row = session.execute(f"SELECT count(*) FROM mlcore.{table} WHERE tenant_id = %s", (tenant,)).fetchone()
    assert row is not None
    return int(row[0])


def set_state(db: DatabaseConnection, attempt: Attempt, state: str) -> None:
    with db.platform() as connection:
        changed = sa.text("UPDATE mlcore.jobs SET state = :state WHERE job_id = :job")
        connection.execute(changed, {"state": state, "job": attempt.job_id})


def test_the_environment_has_one_secret(db: DatabaseConnection, attempt: Attempt) -> None:
    """Neither the key nor another login than the runtime's is in it, and the seal is not shown."""
    given_to_it = variables(db, attempt)
    assert db.tenant_key not in given_to_it.values()
    assert not {db.urls.ingest, db.urls.owner, db.admin_url} & set(given_to_it.values())
    found = Settings.from_environment(given_to_it).database
    assert (found.tenant_key, found.owner_url, found.ingest_url) == (None, None, None)
    digits = seal_of(db, attempt).digits
    with DatabaseConnection(settings=Settings(found)) as connection:
        assert digits not in f"{found!r} {connection!r} {vars(connection)} {seal_of(db, attempt)!r}"
        with pytest.raises(ConfigurationError, match="may not read the key"):
            _ = connection.tenant_key


def test_raw_sql_sees_its_own_tenant_only(
    db: DatabaseConnection, attempt: Attempt, sealed: DatabaseConnection, victim: TenantId
) -> None:
    """With the seal, its own rows; no spelling of another tenant or of the platform is accepted."""
    seal = seal_of(db, attempt)
    with psycopg.connect(sealed.urls.app) as session:
        assert entered(session, seal.tenant_id, seal.by, seal.digits)
        assert count(session, "jobs", seal.tenant_id) == 1
        assert not any(count(session, table, victim) for table in security.tenant_tables())
        session.execute("SELECT set_config('app.tenant_id', %s, true)", (victim,))
        assert count(session, "versions", victim) == 0
        for tenant in (victim, "*", "", f"{seal.tenant_id}\n{seal.job_id}", f"{seal.tenant_id}\n{seal.by}"):
            for by in (seal.by, "", seal.run_id, f"\n{attempt.principal.name}", "\nroot"):
                assert not entered(session, tenant, by, seal.digits), (tenant, by)
        for table in ("platform_keys", "job_batches"):
            assert entered(session, seal.tenant_id, seal.by, seal.digits)
            assert session.execute(f"SELECT count(*) FROM mlcore.{table}").fetchone() == (0,)
        for role in (security.OWNER_ROLE, security.INGEST_ROLE):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"SET ROLE {role}")
            session.rollback()


@given(other=st.sampled_from(["tenant_id", "job_id", "run_id", "digits"]), data=st.data())
def test_a_seal_is_for_one_attempt(db: DatabaseConnection, other: str, data: st.DataObject) -> None:
    """Of a seal, no part can be another, whether the job of that name exists or not."""
    made = db.job_environment(TenantId("a"), JobId.new(), RunId.new())
    seal = JobSeal.parse(made["MLCORE_DATABASE_JOB_SEAL"])
    parts = {"tenant_id": seal.tenant_id, "job_id": seal.job_id, "run_id": seal.run_id, "digits": seal.digits}
    hexadecimal = data.draw(st.text("0123456789abcdef", min_size=64, max_size=64))
    parts[other] = {
        "tenant_id": f"a{hexadecimal[:8]}",
        "job_id": f"job_{hexadecimal[:16]}",
        "run_id": f"run_{hexadecimal[:16]}",
        "digits": hexadecimal,
    }[other]
    with psycopg.connect(db.urls.app) as session:
        by = f"{parts['job_id']}\n{parts['run_id']}"
        with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification, match="seal of the tenant"):
            session.execute("SELECT mlcore.enter(%s, %s, %s)", (parts["tenant_id"], by, parts["digits"]))


@pytest.mark.parametrize("state", list(JobState))
def test_the_seal_is_worth_something_while_the_job_holds_cores(
    db: DatabaseConnection, attempt: Attempt, sealed: DatabaseConnection, state: JobState
) -> None:
    """In each other state, and once another attempt goes on, it is refused; what was entered is left again."""
    set_state(db, attempt, state)
    seal = seal_of(db, attempt)
    with psycopg.connect(sealed.urls.app) as session:
        assert entered(session, seal.tenant_id, seal.by, seal.digits) == (state in HOLDS_CORES)
        session.rollback()
        session.execute("SAVEPOINT s")
        if state not in HOLDS_CORES:
            with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification):
                session.execute("SELECT mlcore.enter(%s, %s, %s)", (seal.tenant_id, seal.by, seal.digits))
            session.execute("ROLLBACK TO s")
            assert count(session, "jobs", seal.tenant_id) == 0


def test_an_attempt_that_follows_has_another_seal(
    db: DatabaseConnection, attempt: Attempt, sealed: DatabaseConnection
) -> None:
    """The process of the lost one is refused with an error that ends it."""
    jobs = JobRepository(db, attempt.tenant_id)
    assert JobRepository(sealed, attempt.tenant_id).attempt(attempt.job_id, attempt.run_id) == attempt
    jobs.lose(attempt.job_id, attempt.run_id, "lost")
    with superuser(db) as session:
        session.execute("UPDATE mlcore.jobs SET not_before = now() WHERE job_id = %s", (attempt.job_id,))
    again = JobQueue(db).claim("d1", 1, WITHIN_S)
    assert again is not None
    assert seal_of(db, again) != seal_of(db, attempt)
    with pytest.raises(JobStateError, match=f"The job {attempt.job_id} goes on without the run {attempt.run_id}"):
        JobRepository(sealed, attempt.tenant_id).get(attempt.job_id)
    with DatabaseConnection(settings=Settings.from_environment(variables(db, again))) as following:
        assert JobRepository(following, again.tenant_id).get(again.job_id).run_id == again.run_id


def test_what_it_writes_is_in_the_name_of_the_submitter(
    db: DatabaseConnection, attempt: Attempt, sealed: DatabaseConnection
) -> None:
    """Whomever the process claims to be, the job's row says who it is and for which request."""
    insertion = "INSERT INTO mlcore.audit (tenant_id, action, principal) VALUES (:t, 'x', 'root') RETURNING *"
    as_root = sealed.acting_as(Principal.operator("root"), "other")
    with as_root.tenant(attempt.tenant_id) as connection:
        row = connection.execute(sa.text(insertion), {"t": attempt.tenant_id}).mappings().one()
    assert (row["principal"], row["request_id"]) == (attempt.principal.name, "req-7")


def test_python_refuses_the_rest_by_name(
    attempt: Attempt, sealed: DatabaseConnection, victim: TenantId, db: DatabaseConnection
) -> None:
    """The platform, another tenant and the serving plane, before the database is asked; and then by it."""
    with (
        pytest.raises(PermissionDeniedError, match=f"{attempt.job_id} may act in its own tenants only"),
        sealed.platform(),
    ):
        pass
    with pytest.raises(PermissionDeniedError), sealed.serving():
        pass
    with pytest.raises(TenantNotFoundError), sealed.tenant(victim):
        pass
    for enter in (lambda root: root.tenant(victim), DatabaseConnection.platform):
        with pytest.raises(ConfigurationError), enter(sealed.acting_as(Principal.operator("root"))):
            pass


@pytest.mark.parametrize("text", ["x", "a/b/c/d", "a/job_0123456789abcdef/run_0123456789abcdef"])
def test_what_is_no_seal_is_refused_and_not_repeated(db: DatabaseConnection, text: str) -> None:
    """A process does not go on with the key in its place."""
    environment = {**db.environment, "MLCORE_DATABASE_JOB_SEAL": text}
    with pytest.raises(ConfigurationError, match="MLCORE_DATABASE_JOB_SEAL is not the seal of a job") as refused:
        DatabaseConnection(settings=Settings.from_environment(environment))
    assert f" {text}" not in str(refused.value)


def environment_of(run_id: str) -> dict[str, str]:
    """What the process of a run was started with, as it can read it itself."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if run_id.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                words = (folder / "environ").read_bytes().decode().split("\0")
                return dict(word.split("=", 1) for word in words if "=" in word)
    return {}


def test_a_running_process_has_nothing_that_opens_another_tenant(
    db: DatabaseConnection, tenant_id: TenantId, victim: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the dispatcher has: raw SQL with the environment of the process ends with its tenant and its job."""
    empty_queue(db)
    monkeypatch.setenv("MLCORE_DATABASE_TENANT_KEY", db.tenant_key)
    monkeypatch.setenv("MLCORE_DATABASE_OWNER_URL", db.urls.owner)
    DatasetRepository(db, tenant_id).create("m", measures(400))
    training = {"dataset": "m@1", "target": "outcome", "hyperparameters": SLOW}
    jobs, runner = JobRepository(db, tenant_id), ProcessRunner(db)
    job_id = jobs.submit("train", {"model_id": "m", "training": training}).job_id
    dispatcher = Dispatcher(db, runner, cpus=1, name="d1")
    try:
        wait_until(lambda: dispatcher.turn() or jobs.get(job_id).progress.get("stage") == "fit", WITHIN_S)
        found = environment_of(str(jobs.get(job_id).run_id))
        jobs.cancel(job_id)
        with psycopg.connect(found["MLCORE_DATABASE_URL"]) as session:
            seal = JobSeal.parse(found["MLCORE_DATABASE_JOB_SEAL"])
            assert entered(session, tenant_id, seal.by, seal.digits)
            assert (count(session, "jobs", tenant_id), count(session, "jobs", victim)) == (1, 0)
            assert not entered(session, victim, seal.by, seal.digits)
            assert not entered(session, PLATFORM, seal.by, seal.digits)
            wait_until(lambda: dispatcher.turn() or jobs.get(job_id).state is JobState.CANCELLED, WITHIN_S)
            assert not entered(session, tenant_id, seal.by, seal.digits)
    finally:
        runner.close()
    secrets = {db.tenant_key, db.urls.owner, db.urls.ingest, db.admin_url}
    assert not secrets & set(found.values())
