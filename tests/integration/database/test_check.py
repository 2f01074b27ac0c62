"""The check of a database: what is declared and nothing else may stand between tenants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from ml_core.database.check import check
from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from ml_core.settings import Settings
from support.registry import new_tenant, register, superuser

RULE = "(tenant_id = (SELECT mlcore.current_tenant()))"
# What somebody may do by hand, how to take it back, and what the check says of it.
DAMAGES = {
    "another policy": (
        "CREATE POLICY oops ON mlcore.versions USING (true) WITH CHECK (true)",
        "DROP POLICY oops ON mlcore.versions",
        "mlcore.versions has a policy oops for public",
    ),
    "a policy that lets all in": (
        "ALTER POLICY tenant_isolation ON mlcore.versions USING (true)",
        f"ALTER POLICY tenant_isolation ON mlcore.versions USING {RULE}",
        "policy tenant_isolation of mlcore.versions was changed; its rule is now true",
    ),
    "a policy that lets all be written": (
        "ALTER POLICY tenant_isolation ON mlcore.runs WITH CHECK (true)",
        f"ALTER POLICY tenant_isolation ON mlcore.runs WITH CHECK {RULE}",
        "policy tenant_isolation of mlcore.runs was changed",
    ),
    "a policy for everybody": (
        "ALTER POLICY serving_reads ON mlcore.versions TO mlcore_ingest, mlcore_app",
        "ALTER POLICY serving_reads ON mlcore.versions TO mlcore_ingest",
        "policy serving_reads of mlcore.versions was changed",
    ),
    "a policy on a table without tenants": (
        "CREATE POLICY oops ON mlcore.feed_clock USING (true)",
        "DROP POLICY oops ON mlcore.feed_clock",
        "mlcore.feed_clock has a policy oops",
    ),
    "a policy that is missing": (
        "ALTER POLICY tenant_removal ON mlcore.audit RENAME TO other",
        "ALTER POLICY other ON mlcore.audit RENAME TO tenant_removal",
        "mlcore.audit lacks its policy tenant_removal",
    ),
    "policies that do not hold for the owner": (
        "ALTER TABLE mlcore.gates NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE mlcore.gates FORCE ROW LEVEL SECURITY",
        "mlcore.gates lacks forced row-level security",
    ),
    "a function for everybody": (
        "GRANT EXECUTE ON FUNCTION mlcore.remove_tenant_rows(bigint) TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION mlcore.remove_tenant_rows(bigint) FROM PUBLIC",
        "public may call mlcore.remove_tenant_rows(bigint)",
    ),
    "a function for another role": (
        "GRANT EXECUTE ON FUNCTION mlcore.close_tenant() TO mlcore_ingest",
        "REVOKE EXECUTE ON FUNCTION mlcore.close_tenant() FROM mlcore_ingest",
        "mlcore_ingest may call mlcore.close_tenant()",
    ),
    "a function whose search path is its caller's": (
        "ALTER FUNCTION mlcore.advance_feed() RESET search_path",
        "ALTER FUNCTION mlcore.advance_feed() SET search_path = pg_catalog, pg_temp",
        "mlcore.advance_feed() has no pinned search path",
    ),
    "a function of a superuser": (
        "ALTER FUNCTION mlcore.advance_feed() OWNER TO postgres",
        "ALTER FUNCTION mlcore.advance_feed() OWNER TO mlcore_owner",
        "mlcore.advance_feed() belongs to postgres",
    ),
    "a function that acts as the owner": (
        "ALTER FUNCTION mlcore.create_prediction_partition(date) SECURITY DEFINER",
        "ALTER FUNCTION mlcore.create_prediction_partition(date) SECURITY INVOKER",
        "mlcore.create_prediction_partition(date) is SECURITY DEFINER",
    ),
    "another function": (
        "CREATE FUNCTION mlcore.oops() RETURNS bigint SECURITY DEFINER LANGUAGE sql AS"
        " 'SELECT count(*) FROM mlcore.versions'",
        "DROP FUNCTION mlcore.oops()",
        "did not make the function mlcore.oops()",
    ),
    "a view, which reads as its owner": (
        "CREATE VIEW mlcore.oops AS SELECT * FROM mlcore.versions; GRANT SELECT ON mlcore.oops TO mlcore_app",
        "DROP VIEW mlcore.oops",
        "view mlcore.oops belongs to postgres",
    ),
    "a grant on a partition": (
        "GRANT SELECT ON mlcore_predictions.predictions_20200101 TO mlcore_app",
        "REVOKE SELECT ON mlcore_predictions.predictions_20200101 FROM mlcore_app",
        "mlcore_app may SELECT mlcore_predictions.predictions_20200101",
    ),
    "a policy on a partition": (
        "CREATE POLICY oops ON mlcore_predictions.predictions_20200101 USING (true)",
        "DROP POLICY oops ON mlcore_predictions.predictions_20200101",
        "mlcore_predictions.predictions_20200101 has a policy oops",
    ),
    "a partition without policies": (
        "ALTER TABLE mlcore_predictions.predictions_20200101 DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE mlcore_predictions.predictions_20200101 ENABLE ROW LEVEL SECURITY",
        "mlcore_predictions.predictions_20200101 lacks forced row-level security",
    ),
    "a schema that is open": (
        "GRANT USAGE ON SCHEMA mlcore_predictions TO mlcore_app",
        "REVOKE USAGE ON SCHEMA mlcore_predictions FROM mlcore_app",
        "mlcore_app may USAGE SCHEMA mlcore_predictions",
    ),
    "a grant of one column": (
        "GRANT UPDATE (digest) ON mlcore.versions TO mlcore_app",
        "REVOKE UPDATE (digest) ON mlcore.versions FROM mlcore_app",
        "mlcore_app may UPDATE (digest) mlcore.versions",
    ),
    "a grant that is missing": (
        "REVOKE SELECT ON mlcore.versions FROM mlcore_ingest",
        "GRANT SELECT ON mlcore.versions TO mlcore_ingest",
        "mlcore_ingest may not SELECT mlcore.versions",
    ),
    "a trigger that is gone": (
        "ALTER TRIGGER stamp ON mlcore.audit RENAME TO other",
        "ALTER TRIGGER other ON mlcore.audit RENAME TO stamp",
        "mlcore.audit lacks its trigger stamp",
    ),
    "a trigger that is switched off": (
        "ALTER TABLE mlcore.versions DISABLE TRIGGER take_number",
        "ALTER TABLE mlcore.versions ENABLE TRIGGER take_number",
        "trigger take_number of mlcore.versions is switched off",
    ),
    "a trigger that stamps another column": (
        "CREATE OR REPLACE TRIGGER stamp BEFORE INSERT ON mlcore.holds FOR EACH ROW"
        " EXECUTE FUNCTION mlcore.stamp('created_at', '', '')",
        "CREATE OR REPLACE TRIGGER stamp BEFORE INSERT ON mlcore.holds FOR EACH ROW"
        " EXECUTE FUNCTION mlcore.stamp('created_at', 'created_by', '')",
        "trigger stamp of mlcore.holds was changed",
    ),
    "another trigger": (
        "CREATE TRIGGER oops BEFORE DELETE ON mlcore.versions FOR EACH ROW EXECUTE FUNCTION mlcore.keep_deleted_name()",
        "DROP TRIGGER oops ON mlcore.versions",
        "mlcore.versions has a trigger oops",
    ),
    "a role without time limits": (
        "ALTER ROLE mlcore_app RESET lock_timeout",
        "ALTER ROLE mlcore_app SET lock_timeout = '10s'",
        "mlcore_app lacks its time limits",
    ),
    "a role that may end the sessions of others": (
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_cancel_backend(integer) TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_cancel_backend(integer) FROM PUBLIC",
        "mlcore_app may call pg_cancel_backend(integer)",
    ),
    "the key for everybody": (
        "GRANT SELECT ON mlcore.tenant_key TO mlcore_app",
        "REVOKE SELECT ON mlcore.tenant_key FROM mlcore_app",
        "mlcore_app may SELECT mlcore.tenant_key",
    ),
    "a role that may act as another": (
        "GRANT mlcore_ingest TO mlcore_app",
        "REVOKE mlcore_ingest FROM mlcore_app",
        "mlcore_app may act as mlcore_ingest",
    ),
    "a role that no policy holds back": (
        "ALTER ROLE mlcore_app BYPASSRLS",
        "ALTER ROLE mlcore_app NOBYPASSRLS",
        "mlcore_app is not held back",
    ),
}


@pytest.fixture(scope="module")
def partitioned(db: DatabaseConnection) -> Iterator[DatabaseConnection]:
    """The registry, with a partition of the prediction log."""
    with db.maintaining() as connection:
        connection.execute(sa.text("SELECT mlcore.create_prediction_partition('2020-01-01')"))
    yield db
    with superuser(db) as session:
        session.execute("DROP TABLE mlcore_predictions.predictions_20200101")


def test_a_database_that_is_as_declared_passes(partitioned: DatabaseConnection) -> None:
    """Neither the sum of the migrations nor a partition differs from what ``security`` declares."""
    assert check(partitioned) == []


@pytest.mark.parametrize("name", DAMAGES)
def test_what_was_changed_by_hand_is_found(partitioned: DatabaseConnection, name: str) -> None:
    """Each way to break isolation or to stop the platform is one finding with a remedy, and gone when undone."""
    damage, undo, said = DAMAGES[name]
    with superuser(partitioned) as session:
        session.execute(damage)
        try:
            findings = check(partitioned)
        finally:
            session.execute(undo)
    assert any(said in finding.what for finding in findings), findings
    assert all(finding.remedy for finding in findings)
    assert check(partitioned) == []


def test_a_remedy_that_is_sql_is_one(partitioned: DatabaseConnection) -> None:
    """What the check tells an administrator to run makes it pass again."""
    with superuser(partitioned) as session:
        session.execute("GRANT SELECT ON mlcore_predictions.predictions_20200101 TO PUBLIC")
        session.execute("GRANT CREATE ON SCHEMA mlcore TO mlcore_app")
        session.execute("CREATE POLICY oops ON mlcore.versions USING (true)")
        session.execute("ALTER FUNCTION mlcore.close_tenant() RESET search_path")
        session.execute("GRANT EXECUTE ON FUNCTION mlcore.close_tenant() TO PUBLIC")
        session.execute("REVOKE UPDATE (metadata) ON mlcore.versions FROM mlcore_app")
        findings = check(partitioned)
        for finding in findings:
            session.execute(finding.remedy)
    assert len(findings) == 6
    assert check(partitioned) == []


def test_the_damage_of_a_policy_is_real(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Why the check looks at rules: one permissive policy more, and a tenant sees the rows of another."""
    other = new_tenant(db)
    register(db, other)
    seen = sa.text("SELECT count(*) FROM mlcore.versions WHERE tenant_id = :other")
    with superuser(db) as session:
        session.execute("CREATE POLICY oops ON mlcore.versions USING (true)")
        try:
            with db.tenant(tenant_id) as connection:
                assert connection.scalar(seen, {"other": other}) == 1
        finally:
            session.execute("DROP POLICY oops ON mlcore.versions")


def test_a_login_that_may_become_the_owner_is_found(db: DatabaseConnection) -> None:
    """One login for all roles works, and the check says what it costs: SQL may reset its role."""
    with superuser(db) as session:
        session.execute("DROP ROLE IF EXISTS all_in_one")
        session.execute("CREATE ROLE all_in_one LOGIN")
        session.execute("GRANT mlcore_owner, mlcore_app, mlcore_ingest TO all_in_one")
    url = db.urls.app.replace("mlcore_app@", "all_in_one@")
    with DatabaseConnection(url, settings=Settings()) as one:
        found = [finding.what for finding in check(one)]
    assert found == [
        f"The login all_in_one may act as {role}: SQL that resets its role is not held back."
        for role in ("mlcore_ingest", "mlcore_owner")
    ]
