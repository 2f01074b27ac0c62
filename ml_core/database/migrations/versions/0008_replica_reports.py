"""Reports of replicas: what each serves, and what it could not load."""

from __future__ import annotations

from alembic import op

from ml_core.database import security

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

REPORTS = """
CREATE TABLE mlcore.replica_reports (
  cell text NOT NULL,
  replica_id text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  reported_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  epoch uuid NOT NULL,
  generation bigint NOT NULL,
  is_current boolean NOT NULL,
  pointers bigint NOT NULL,
  resident bigint NOT NULL,
  deferred bigint NOT NULL,
  loading bigint NOT NULL,
  failed bigint NOT NULL,
  unlisted bigint NOT NULL,
  CONSTRAINT pk_replica_reports PRIMARY KEY (cell, replica_id),
  CONSTRAINT fk_replica_reports_feed_clock FOREIGN KEY (cell) REFERENCES mlcore.feed_clock (cell),
  CONSTRAINT ck_replica_reports_replica_id CHECK (replica_id ~ '^[A-Za-z0-9_-]{1,64}$'),
  CONSTRAINT ck_replica_reports_expires_at CHECK (expires_at <= reported_at + interval '10 minutes'),
  CONSTRAINT ck_replica_reports_counts
    CHECK (LEAST(pointers, resident, deferred, loading, failed, unlisted) >= 0)
);
CREATE TABLE mlcore.replica_pending (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  environment text NOT NULL,
  version text NOT NULL,
  cell text NOT NULL,
  replica_id text NOT NULL,
  position smallint NOT NULL,
  state text NOT NULL,
  serves text,
  code text,
  reason text,
  CONSTRAINT pk_replica_pending PRIMARY KEY (tenant_id, model_id, environment, version, cell, replica_id),
  CONSTRAINT uq_replica_pending_cell_replica_id_position UNIQUE (cell, replica_id, position),
  CONSTRAINT fk_replica_pending_environments FOREIGN KEY (tenant_id, model_id, environment)
    REFERENCES mlcore.environments (tenant_id, model_id, environment) ON DELETE CASCADE,
  CONSTRAINT fk_replica_pending_replica_reports FOREIGN KEY (cell, replica_id)
    REFERENCES mlcore.replica_reports (cell, replica_id) ON DELETE CASCADE,
  CONSTRAINT ck_replica_pending_environment CHECK (environment ~ '^[a-z][a-z0-9_-]{0,39}$'),
  CONSTRAINT ck_replica_pending_version CHECK (version ~ '^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$'),
  CONSTRAINT ck_replica_pending_serves CHECK (serves ~ '^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$'),
  CONSTRAINT ck_replica_pending_sizes CHECK (
    octet_length(state::text) <= 65536 AND octet_length(serves::text) <= 65536
    AND octet_length(code::text) <= 65536 AND octet_length(reason::text) <= 65536
  ),
  CONSTRAINT ck_replica_pending_position CHECK (position BETWEEN 0 AND 199),
  CONSTRAINT ck_replica_pending_state CHECK (state IN ('deferred', 'loading', 'failed')),
  CONSTRAINT ck_replica_pending_reason CHECK (char_length(code) <= 64 AND char_length(reason) <= 500)
);
"""

# A role that may delete may also lock the whole table, so a function of the owner's deletes: the report of one replica,
# and those of replicas that died a while ago. Passing over what another removes: two must not wait for each other.
DROP_REPORTS = """
CREATE FUNCTION mlcore.drop_reports(p_cell text, p_replica_id text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  DELETE FROM mlcore.replica_reports WHERE cell = p_cell AND replica_id = p_replica_id;
  DELETE FROM mlcore.replica_reports WHERE cell = p_cell AND replica_id IN (
    SELECT replica_id FROM mlcore.replica_reports
    WHERE cell = p_cell AND expires_at < now() - interval '1 minute' FOR UPDATE SKIP LOCKED);
END
"""

REPORTS_SEEN_BY_APP = "SELECT (cell, replica_id, started_at, reported_at, expires_at, epoch, generation, unlisted)"


def upgrade() -> None:
    op.execute(REPORTS)
    for statement in security.force_row_security("replica_pending"):
        op.execute(statement)
    op.execute(security.let_owner_remove("replica_pending"))
    # A report is replaced whole: its rows here go with it by the foreign key, which no policy stops.
    op.execute(security.let_serving_read("replica_pending"))
    op.execute(security.let_serving_insert("replica_pending"))
    op.execute(security.grant("mlcore_ingest", "replica_pending", ("SELECT", "INSERT")))
    op.execute(security.grant("mlcore_app", "replica_pending", ("SELECT",)))
    written = ("SELECT", "INSERT", "UPDATE (reported_at, expires_at)")
    op.execute(security.grant("mlcore_ingest", "replica_reports", written))
    op.execute(DROP_REPORTS)
    op.execute("REVOKE ALL ON FUNCTION mlcore.drop_reports FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION mlcore.drop_reports TO mlcore_ingest")
    op.execute(security.grant("mlcore_app", "replica_reports", (REPORTS_SEEN_BY_APP,)))


def downgrade() -> None:
    op.execute("DROP FUNCTION mlcore.drop_reports")
    op.execute("DROP TABLE mlcore.replica_pending")
    op.execute("DROP TABLE mlcore.replica_reports")
