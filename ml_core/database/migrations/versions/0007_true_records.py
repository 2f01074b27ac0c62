"""What a row says of who wrote it, when and for which request is what the transaction really is."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# A session that entered no tenant is an administrator's: no policy lets a row of anybody else in.
STAMP = """
CREATE FUNCTION mlcore.stamp() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_by text := current_setting('app.by', true);
  v_break integer := strpos(v_by, E'\\n');
BEGIN
  IF mlcore.current_tenant() IS NOT NULL THEN
    NEW := jsonb_populate_record(NEW, jsonb_build_object(
      TG_ARGV[0], now(), TG_ARGV[1], substr(v_by, v_break + 1), TG_ARGV[2], left(v_by, v_break - 1)));
  END IF;
  RETURN NEW;
END
$$
"""

# The columns of a table that say when, who, and for which request; '' where it has none.
WHEN_INSERTED = {
    "tenants": ("created_at", "", ""),
    "models": ("created_at", "", ""),
    "versions": ("created_at", "created_by", ""),
    "deleted_versions": ("deleted_at", "", ""),
    "holds": ("created_at", "created_by", ""),
    "environment_history": ("at", "actor", ""),
    "approvals": ("at", "approver", ""),
    "outbox": ("created_at", "", ""),
    "audit": ("at", "principal", "request_id"),
    "api_keys": ("created_at", "", ""),
    "datasets": ("created_at", "created_by", ""),
    "dataset_versions": ("created_at", "created_by", ""),
    "runs": ("started_at", "created_by", ""),
    "run_artifacts": ("created_at", "", ""),
}
WHEN_WRITTEN = {
    "environments": ("updated_at", "updated_by", ""),
    "environment_policies": ("updated_at", "updated_by", ""),
    "gates": ("created_at", "created_by", ""),
}


def upgrade() -> None:
    op.execute(STAMP)
    op.execute("REVOKE ALL ON FUNCTION mlcore.stamp() FROM PUBLIC")
    for event, stamped in (("INSERT", WHEN_INSERTED), ("INSERT OR UPDATE", WHEN_WRITTEN)):
        for table, columns in stamped.items():
            op.execute(
                f"CREATE TRIGGER stamp BEFORE {event} ON mlcore.{table} FOR EACH ROW"
                f" EXECUTE FUNCTION mlcore.stamp({', '.join(repr(column) for column in columns)})"
            )


def downgrade() -> None:
    for table in (*WHEN_INSERTED, *WHEN_WRITTEN):
        op.execute(f"DROP TRIGGER stamp ON mlcore.{table}")
    op.execute("DROP FUNCTION mlcore.stamp()")
