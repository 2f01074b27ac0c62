"""The spine: tenants, models, versions, environments, keys, runs and the feed, each under forced row-level security."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from ml_core.database import security

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "mlcore"
APP, INGEST = "mlcore_app", "mlcore_ingest"

# Literal, not taken from ``security``: what this revision grants stays what it was when later releases grant more.
APP_GRANTS = {
    "tenants": ("SELECT", "INSERT"),
    "models": ("SELECT", "INSERT", "UPDATE (model_type, next_number, archived_at, deleted_at)"),
    "versions": ("SELECT", "INSERT", "DELETE", "UPDATE (metadata, archived_at)"),
    "deleted_versions": ("SELECT", "INSERT"),
    "environments": ("SELECT", "INSERT", "UPDATE (version, generation, feed_generation, cell, updated_at, updated_by)"),
    "environment_history": ("SELECT", "INSERT"),
    "outbox": ("SELECT", "INSERT"),
    "api_keys": ("SELECT", "INSERT", "UPDATE (revoked_at, feed_generation)"),
    "runs": ("SELECT", "INSERT", "UPDATE (status, heartbeat_at, finished_at, error)"),
    "run_metrics": ("SELECT", "INSERT", "UPDATE (value, at)"),
    "feed_clock": ("SELECT",),
}
SERVED = ("tenants", "models", "versions", "environments", "api_keys")

# Only the owner reads the key. Its 244 random bits are those of two UUIDs.
TENANT_KEY = """
CREATE TABLE mlcore.tenant_key (tenant_key bytea NOT NULL, CONSTRAINT pk_tenant_key PRIMARY KEY (tenant_key));
INSERT INTO mlcore.tenant_key VALUES (sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));
"""

# A transaction says whose it is, and by whom: the request, a line break and the principal. The application seals that
# with the key; the database seals it again together with the transaction's time and process, which no text can imitate,
# as their bytes hold zeros. The inner hash has a fixed length, so no seal can be extended.
SEAL = "encode(sha256(v_key || sha256({})), 'hex')"
SEALED_OUTSIDE = SEAL.format("convert_to(p_tenant || E'\\n' || p_by, 'UTF8')")
SEALED_HERE = SEAL.format(
    "convert_to(current_setting('app.tenant_id', true) || E'\\n' || current_setting('app.by', true), 'UTF8')"
    " || timestamptz_send(transaction_timestamp()) || int4send(pg_backend_pid())"
)

ENTER = f"""
CREATE FUNCTION mlcore.enter(p_tenant text, p_by text, p_seal text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_key bytea;
BEGIN
  SELECT tenant_key INTO v_key FROM mlcore.tenant_key;
  IF p_seal IS DISTINCT FROM {SEALED_OUTSIDE} THEN
    RAISE EXCEPTION 'The seal of the tenant does not fit.' USING ERRCODE = 'invalid_authorization_specification';
  END IF;
  -- One expression: three statements would take three times as long.
  p_seal := set_config('app.tenant_id', p_tenant, true) || set_config('app.by', p_by, true)
    || set_config('app.seal', {SEALED_HERE}, true);
END
$$
"""  # noqa: S608 - constants

# The tenant that the transaction entered, or null. It is asked for each table of a statement, so it calls no other
# function of the schema: setting the search path and the role once more would double its time.
CURRENT_TENANT = f"""
CREATE FUNCTION mlcore.current_tenant() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_key bytea;
BEGIN
  SELECT tenant_key INTO v_key FROM mlcore.tenant_key;
  RETURN CASE WHEN current_setting('app.seal', true) = {SEALED_HERE} THEN current_setting('app.tenant_id', true) END;
END
$$
"""  # noqa: S608 - constants

BINDING = {"enter(text, text, text)": ENTER, "current_tenant()": CURRENT_TENANT}

# The owner's rights, so that the runtime can move a clock forward by one and in no other way. The row lock that the
# update takes is held until the caller commits: a later generation is a later commit. Returns null for an unknown cell.
ADVANCE_FEED = """
CREATE FUNCTION mlcore.advance_feed(p_cell text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_generation bigint;
BEGIN
  UPDATE mlcore.feed_clock SET generation = generation + 1 WHERE cell = p_cell RETURNING generation INTO v_generation;
  PERFORM pg_notify('mlcore_feed', p_cell);
  RETURN v_generation;
END
$$
"""


def upgrade() -> None:
    # What moves no data may not block the platform: give up rather than queue behind a long transaction.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '5s'")
    _bind_transactions()
    _create_tenants()
    _create_versions()
    _create_environments()
    _create_outbox_and_keys()
    _create_runs()
    _secure()
    op.execute(ADVANCE_FEED)
    op.execute("REVOKE ALL ON FUNCTION mlcore.advance_feed(text) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION mlcore.advance_feed(text) TO {APP}")
    op.execute("INSERT INTO mlcore.feed_clock (cell) VALUES ('shared')")


def downgrade() -> None:
    op.execute("DROP FUNCTION mlcore.advance_feed(text)")
    for table in (
        "run_metrics",
        "runs",
        "api_keys",
        "outbox",
        "environment_history",
        "environments",
        "deleted_versions",
        "versions",
        "models",
        "tenants",
        "feed_clock",
    ):
        op.drop_table(table, schema=SCHEMA)
    for function in BINDING:
        op.execute(f"DROP FUNCTION mlcore.{function}")
    op.drop_table("tenant_key", schema=SCHEMA)


def _bind_transactions() -> None:
    op.execute(TENANT_KEY)
    for function, statement in BINDING.items():
        op.execute(statement)
        op.execute(f"REVOKE ALL ON FUNCTION mlcore.{function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION mlcore.{function} TO {APP}, {INGEST}")


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    default = None if nullable else sa.func.now()
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable, server_default=default)


def _document(name: str) -> sa.Column[object]:
    return sa.Column(name, JSONB, nullable=False, server_default=sa.text("'{}'::jsonb"))


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _references(name: str, columns: list[str], table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(columns, [f"{SCHEMA}.{table}.{column}" for column in columns], name=name)


def _check(table: str, column: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(rule, name=op.f(f"ck_{table}_{column}"))


def _create_tenants() -> None:
    op.create_table(
        "feed_clock",
        _text("cell"),
        sa.Column("generation", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.PrimaryKeyConstraint("cell", name="pk_feed_clock"),
        schema=SCHEMA,
    )
    op.create_table(
        "tenants",
        _text("tenant_id"),
        sa.Column("cell", sa.Text, nullable=False, server_default=sa.text("'shared'")),
        _moment("created_at"),
        _moment("deleted_at", nullable=True),
        _number("feed_generation"),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_tenants"),
        _references("fk_tenants_feed_clock", ["cell"], "feed_clock"),
        _check("tenants", "tenant_id", "tenant_id ~ '^[a-z][a-z0-9_-]{0,39}$'"),
        schema=SCHEMA,
    )
    op.create_index("ix_tenants_cell_feed_generation", "tenants", ["cell", "feed_generation"], schema=SCHEMA)


def _create_versions() -> None:
    op.create_table(
        "models",
        _text("tenant_id"),
        _text("model_id"),
        _text("model_type"),
        sa.Column("next_number", sa.BigInteger, nullable=False, server_default=sa.text("1")),
        _moment("created_at"),
        _moment("archived_at", nullable=True),
        _moment("deleted_at", nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "model_id", name="pk_models"),
        _references("fk_models_tenants", ["tenant_id"], "tenants"),
        _check("models", "model_id", "model_id ~ '^[a-z][a-z0-9_-]{0,79}$'"),
        schema=SCHEMA,
    )
    op.create_table(
        "versions",
        _text("tenant_id"),
        _text("model_id"),
        _text("version"),
        _number("number"),
        _text("digest"),
        _number("size_bytes"),
        _text("format"),
        *map(_document, ("signature", "self_test", "metrics", "hyperparameters", "metadata")),
        *(_text(name, nullable=True) for name in ("run_id", "dataset_digest", "parent_version", "code_commit")),
        _document("libraries"),
        _moment("created_at"),
        _text("created_by"),
        _moment("archived_at", nullable=True),
        sa.Column("outside_types", sa.ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'::text[]")),
        sa.PrimaryKeyConstraint("tenant_id", "model_id", "version", name="pk_versions"),
        _references("fk_versions_models", ["tenant_id", "model_id"], "models"),
        _check("versions", "version", "version ~ '^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$'"),
        _check("versions", "digest", "digest ~ '^[0-9a-f]{64}$'"),
        sa.UniqueConstraint("tenant_id", "model_id", "number", name="uq_versions_tenant_id_model_id_number"),
        schema=SCHEMA,
    )
    op.create_index("ix_versions_tenant_id_digest", "versions", ["tenant_id", "digest"], schema=SCHEMA)
    op.create_index(
        "ix_versions_tenant_id_model_id_parent_version",
        "versions",
        ["tenant_id", "model_id", "parent_version"],
        schema=SCHEMA,
    )
    op.create_table(
        "deleted_versions",
        _text("tenant_id"),
        _text("model_id"),
        _text("version"),
        _text("digest"),
        _moment("deleted_at"),
        sa.PrimaryKeyConstraint("tenant_id", "model_id", "version", name="pk_deleted_versions"),
        _references("fk_deleted_versions_models", ["tenant_id", "model_id"], "models"),
        schema=SCHEMA,
    )


def _create_environments() -> None:
    op.create_table(
        "environments",
        _text("tenant_id"),
        _text("model_id"),
        _text("environment"),
        _text("version", nullable=True),
        _number("generation"),
        _number("feed_generation"),
        _text("cell"),
        _moment("updated_at"),
        _text("updated_by"),
        sa.PrimaryKeyConstraint("tenant_id", "model_id", "environment", name="pk_environments"),
        _references("fk_environments_feed_clock", ["cell"], "feed_clock"),
        _references("fk_environments_models", ["tenant_id", "model_id"], "models"),
        _references("fk_environments_versions", ["tenant_id", "model_id", "version"], "versions"),
        _check("environments", "environment", "environment ~ '^[a-z][a-z0-9_-]{0,39}$'"),
        schema=SCHEMA,
    )
    op.create_index("ix_environments_cell_feed_generation", "environments", ["cell", "feed_generation"], schema=SCHEMA)
    op.create_index(
        "ix_environments_tenant_id_model_id_version",
        "environments",
        ["tenant_id", "model_id", "version"],
        schema=SCHEMA,
    )
    op.create_table(
        "environment_history",
        _text("tenant_id"),
        _text("model_id"),
        _text("environment"),
        _number("generation"),
        _text("action"),
        _text("version", nullable=True),
        _text("digest", nullable=True),
        _number("restored_generation"),
        _text("actor"),
        _text("reason"),
        _moment("at"),
        sa.PrimaryKeyConstraint("tenant_id", "model_id", "environment", "generation", name="pk_environment_history"),
        _references("fk_environment_history_models", ["tenant_id", "model_id"], "models"),
        schema=SCHEMA,
    )


def _create_outbox_and_keys() -> None:
    op.create_table(
        "outbox",
        _text("tenant_id"),
        sa.Column("outbox_id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        _text("topic"),
        _document("payload"),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("tenant_id", "outbox_id", name="pk_outbox"),
        _references("fk_outbox_tenants", ["tenant_id"], "tenants"),
        schema=SCHEMA,
    )
    op.create_table(
        "api_keys",
        _text("tenant_id"),
        _text("key_id"),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text), nullable=False),
        _text("name"),
        _moment("created_at"),
        _moment("revoked_at", nullable=True),
        _number("feed_generation"),
        sa.PrimaryKeyConstraint("tenant_id", "key_id", name="pk_api_keys"),
        _references("fk_api_keys_tenants", ["tenant_id"], "tenants"),
        _check("api_keys", "key_id", "key_id ~ '^[0-9a-f]{16}$'"),
        _check("api_keys", "hash", "octet_length(hash) = 32"),
        _check("api_keys", "scopes", "cardinality(scopes) > 0 AND array_position(scopes, NULL) IS NULL"),
        _check("api_keys", "name", "char_length(name) BETWEEN 1 AND 100"),
        sa.UniqueConstraint("key_id", name="uq_api_keys_key_id"),
        schema=SCHEMA,
    )
    op.create_index("ix_api_keys_feed_generation", "api_keys", ["feed_generation"], schema=SCHEMA)


def _create_runs() -> None:
    op.create_table(
        "runs",
        _text("tenant_id"),
        _text("run_id"),
        _text("model_id"),
        _text("kind"),
        _text("status"),
        _document("parameters"),
        _moment("started_at"),
        _moment("heartbeat_at"),
        _moment("finished_at", nullable=True),
        _text("error", nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", name="pk_runs"),
        _references("fk_runs_tenants", ["tenant_id"], "tenants"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_runs_tenant_id_model_id_started_at", "runs", ["tenant_id", "model_id", "started_at"], schema=SCHEMA
    )
    op.create_table(
        "run_metrics",
        _text("tenant_id"),
        _text("run_id"),
        _text("metric"),
        _number("step"),
        sa.Column("value", sa.Double, nullable=False),
        _moment("at"),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", "metric", "step", name="pk_run_metrics"),
        _references("fk_run_metrics_runs", ["tenant_id", "run_id"], "runs"),
        schema=SCHEMA,
    )


def _secure() -> None:
    for table, privileges in APP_GRANTS.items():
        op.execute(security.grant(APP, table, privileges))
        if table != "feed_clock":
            for statement in security.force_row_security(table):
                op.execute(statement)
    for table in SERVED:
        op.execute(security.grant(INGEST, table, ("SELECT",)))
        op.execute(security.let_serving_read(table))
    op.execute(security.grant(INGEST, "feed_clock", ("SELECT",)))
    op.execute(f"GRANT SELECT ON {SCHEMA}.alembic_version TO {APP}, {INGEST}")
