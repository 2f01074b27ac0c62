"""Deletion: holds, delivered events, and the removal of a tenant with everything."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ml_core.database import security

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

GRANTS = {"holds": ("SELECT", "INSERT", "DELETE")}

HOLDS = """
CREATE TABLE mlcore.holds (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  version text NOT NULL,
  name text NOT NULL,
  reason text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  CONSTRAINT pk_holds PRIMARY KEY (tenant_id, model_id, version, name),
  CONSTRAINT fk_holds_versions FOREIGN KEY (tenant_id, model_id, version)
    REFERENCES mlcore.versions (tenant_id, model_id, version),
  CONSTRAINT ck_holds_name CHECK (name ~ '^[a-z][a-z0-9_-]{0,39}$')
);
"""

# The runtime locks a tenant's row while it writes, which takes the right to change one column of it.
COLUMNS = """
ALTER TABLE mlcore.tenants ADD COLUMN deleted_by text;
GRANT UPDATE (feed_generation) ON mlcore.tenants TO mlcore_app;
CREATE INDEX ix_outbox_delivered ON mlcore.outbox (tenant_id, delivered_at) WHERE delivered_at IS NOT NULL;
"""

# Every table with a tenant, whatever release made it.
TENANT_TABLES = """
SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'mlcore'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.attname = 'tenant_id' AND NOT a.attisdropped ORDER BY c.relname
"""

# The row lock conflicts with the one that every journaled write takes: those before it are waited for, those after it
# find the tenant deleted. Nothing sets ``deleted_at`` back.
CLOSE_TENANT = """
CREATE FUNCTION mlcore.close_tenant() RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_tenant text := mlcore.current_tenant();
  v_deleted_at timestamptz;
BEGIN
  PERFORM 1 FROM mlcore.tenants WHERE tenant_id = v_tenant FOR UPDATE;
  IF EXISTS (SELECT 1 FROM mlcore.holds WHERE tenant_id = v_tenant) THEN
    RAISE EXCEPTION 'The tenant % has holds.', v_tenant USING ERRCODE = 'restrict_violation';
  END IF;
  UPDATE mlcore.tenants
    SET deleted_at = COALESCE(deleted_at, now()),
        deleted_by = COALESCE(deleted_by,
          substr(current_setting('app.by'), strpos(current_setting('app.by'), E'\\n') + 1))
    WHERE tenant_id = v_tenant RETURNING deleted_at INTO v_deleted_at;
  RETURN v_deleted_at;
END
$$
"""

# Which tables there are is asked of the catalogue, so that one of a later release can't be forgotten; those that
# others refer to come last. A partition is emptied by itself: its rows are found by their place there. Every key leads
# with the tenant, so an index finds the next rows; a planner that thinks a few rows near the start of the table will do
# would read those that earlier batches removed again and again. Of a table that refers to itself, as parts of a run do
# to the whole, a batch takes only rows to which no other refers: round by round, so that a long chain makes headway.
REMOVE_TENANT_ROWS = """
CREATE FUNCTION mlcore.remove_tenant_rows(p_limit bigint) RETURNS TABLE (removed_from text, row_count bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_tenant text := mlcore.current_tenant();
  v_left bigint := p_limit;
  v_done bigint;
  v_rest bigint;
  v_before bigint;
  v_leaves text;
  v_table record;
  v_part record;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM mlcore.tenants WHERE tenant_id = v_tenant AND deleted_at IS NOT NULL) THEN
    RAISE EXCEPTION 'The tenant % was not deleted.', v_tenant USING ERRCODE = 'restrict_violation';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('removal of ' || v_tenant, 0));
  FOR v_table IN
    WITH RECURSIVE owned AS (
      SELECT c.oid, c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
      WHERE c.relnamespace = 'mlcore'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND a.attname = 'tenant_id' AND NOT a.attisdropped AND c.relname <> 'tenants'
    ), ranked AS (
      SELECT oid, 0 AS rank FROM owned
      UNION
      SELECT k.confrelid, r.rank + 1 FROM ranked r JOIN pg_constraint k ON k.conrelid = r.oid
      JOIN owned o ON o.oid = k.confrelid
      WHERE k.contype = 'f' AND k.confrelid <> k.conrelid AND r.rank < 100
    )
    SELECT o.oid, o.relname FROM owned o JOIN ranked r ON r.oid = o.oid GROUP BY o.oid, o.relname
    ORDER BY max(r.rank), o.relname
  LOOP
    v_rest := v_left;
    SELECT COALESCE(string_agg(format(' AND NOT EXISTS (SELECT 1 FROM mlcore.%I part WHERE part.tenant_id = $1 AND %s)',
      v_table.relname, (
        SELECT string_agg(format('part.%I = whole.%I', a.attname, b.attname), ' AND ')
        FROM unnest(k.conkey, k.confkey) AS pair (own, other)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = pair.own
        JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = pair.other)), ''), '')
      INTO v_leaves
      FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = v_table.oid AND k.confrelid = k.conrelid;
    FOR v_round IN 1..100 LOOP
      v_before := v_left;
      FOR v_part IN
        SELECT p.oid, n.nspname, p.relname FROM pg_class p JOIN pg_namespace n ON n.oid = p.relnamespace
        WHERE p.relkind = 'r' AND (p.oid = v_table.oid OR p.oid IN (SELECT relid FROM pg_partition_tree(v_table.oid)))
      LOOP
        EXIT WHEN v_left = 0;
        EXECUTE format(
          'DELETE FROM %1$I.%2$I WHERE tenant_id = $1 AND ctid = ANY(ARRAY('
          'SELECT ctid FROM %1$I.%2$I whole WHERE tenant_id = $1%3$s LIMIT $2))',
          v_part.nspname, v_part.relname, v_leaves)
          USING v_tenant, v_left;
        GET DIAGNOSTICS v_done = ROW_COUNT;
        v_left := v_left - v_done;
      END LOOP;
      EXIT WHEN v_leaves = '' OR v_left IN (0, v_before);
    END LOOP;
    IF v_rest > v_left THEN
      removed_from := v_table.relname;
      row_count := v_rest - v_left;
      RETURN NEXT;
    END IF;
    EXIT WHEN v_left = 0;
    EXECUTE format('SELECT 1 FROM mlcore.%I WHERE tenant_id = $1 LIMIT 1', v_table.relname) INTO v_rest USING v_tenant;
    IF v_rest IS NOT NULL AND v_left = p_limit THEN
      RAISE EXCEPTION 'Rows of % in % can not be removed.', v_tenant, v_table.relname
        USING ERRCODE = 'restrict_violation';
    END IF;
    EXIT WHEN v_rest IS NOT NULL;  -- some came while these went: the next call takes them
  END LOOP;
END
$$
"""

PRUNE_OUTBOX = """
CREATE FUNCTION mlcore.prune_outbox(p_age interval, p_limit bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_tenant text := mlcore.current_tenant();
  v_count bigint;
BEGIN
  DELETE FROM mlcore.outbox WHERE tenant_id = v_tenant AND delivered_at IS NOT NULL AND ctid = ANY(ARRAY(
    SELECT ctid FROM mlcore.outbox WHERE tenant_id = v_tenant AND delivered_at < now() - p_age LIMIT p_limit));
  GET DIAGNOSTICS v_count = ROW_COUNT;
  RETURN v_count;
END
$$
"""

FUNCTIONS = ("close_tenant()", "remove_tenant_rows(bigint)", "prune_outbox(interval, bigint)")


def upgrade() -> None:
    op.execute(HOLDS)
    op.execute(COLUMNS)
    for table, privileges in GRANTS.items():
        op.execute(security.grant("mlcore_app", table, privileges))
        for statement in security.force_row_security(table):
            op.execute(statement)
    # Row-level security is forced on the owner too, so what the functions may touch are the rows of the tenant that the
    # caller's transaction names, and of no other.
    for table in op.get_bind().scalars(sa.text(TENANT_TABLES)).all():
        op.execute(security.let_owner_remove(table))
    for statement in (CLOSE_TENANT, REMOVE_TENANT_ROWS, PRUNE_OUTBOX):
        op.execute(statement)
    for function in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION mlcore.{function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION mlcore.{function} TO mlcore_app")


def downgrade() -> None:
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION mlcore.{function}")
    for table in op.get_bind().scalars(sa.text(TENANT_TABLES)).all():
        op.execute(f"DROP POLICY tenant_removal ON mlcore.{table}")
    op.execute("REVOKE UPDATE (feed_generation) ON mlcore.tenants FROM mlcore_app")
    op.execute("DROP INDEX mlcore.ix_outbox_delivered")
    op.execute("ALTER TABLE mlcore.tenants DROP COLUMN deleted_by")
    op.execute("DROP TABLE mlcore.holds")
