"""The wall: what the runtime's SQL can't do, whatever it sends.

Rows say truly who wrote them and when. A name or a number of a version is used once. A pointer moves by one generation,
with its history. A row has a bounded size. Nobody but the owner deletes rows or locks a table.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ml_core.exceptions import SchemaOutOfDateError

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Whether a row is one of the tenant that the transaction entered. A superuser, whom no policy holds back, may write
# others as they come, as a restore does. Nobody else may, also not in the middle of a statement that left its tenant
# after the policies were asked.
IS_BOUND = """
CREATE FUNCTION mlcore.is_bound(p_tenant text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF mlcore.current_tenant() = p_tenant THEN
    RETURN true;
  ELSIF (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) THEN
    RETURN false;
  END IF;
  RAISE EXCEPTION 'The row violates row-level security: it is not one of the transaction''s tenant.'
    USING ERRCODE = 'insufficient_privilege';
END
$$
"""

STAMP = """
CREATE FUNCTION mlcore.stamp() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_by text := current_setting('app.by', true);
  v_break integer := strpos(v_by, E'\\n');
BEGIN
  IF mlcore.is_bound(NEW.tenant_id) THEN
    NEW := jsonb_populate_record(NEW, jsonb_build_object(
      TG_ARGV[0], now(), TG_ARGV[1], substr(v_by, v_break + 1), TG_ARGV[2], left(v_by, v_break - 1)));
  END IF;
  RETURN NEW;
END
$$
"""

# The columns of a table that say when, who, and for which request; '' where it has none.
STAMPED_ON_INSERT = {
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
STAMPED_ON_WRITE = {
    "environments": ("updated_at", "updated_by", ""),
    "environment_policies": ("updated_at", "updated_by", ""),
    "gates": ("created_at", "created_by", ""),
}

# A number is above all that were given out before, those of deleted versions included; a name that was used belongs to
# its bytes for ever.
TAKE_NUMBER = """
CREATE FUNCTION mlcore.take_number() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT mlcore.is_bound(NEW.tenant_id) THEN
    RETURN NEW;
  END IF;
  IF TG_TABLE_NAME = 'versions' THEN
    IF EXISTS (SELECT 1 FROM mlcore.deleted_versions d WHERE d.tenant_id = NEW.tenant_id
        AND d.model_id = NEW.model_id AND d.version = NEW.version AND d.digest <> NEW.digest) THEN
      RAISE EXCEPTION 'Version % of % was deleted and had other bytes.', NEW.version, NEW.model_id
        USING ERRCODE = 'unique_violation';
    END IF;
    UPDATE mlcore.models SET next_number = NEW.number + 1
      WHERE tenant_id = NEW.tenant_id AND model_id = NEW.model_id AND next_number <= NEW.number;
  ELSE
    UPDATE mlcore.datasets SET next_number = NEW.number + 1
      WHERE tenant_id = NEW.tenant_id AND dataset_id = NEW.dataset_id AND next_number <= NEW.number;
  END IF;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'The number % was given out before.', NEW.number USING ERRCODE = 'unique_violation';
  END IF;
  RETURN NEW;
END
$$
"""

COUNT_ON = """
CREATE FUNCTION mlcore.count_on() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF mlcore.is_bound(NEW.tenant_id) AND NEW.next_number < OLD.next_number THEN
    RAISE EXCEPTION 'The next number of % can not go down.', TG_TABLE_NAME USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END
$$
"""

# The rows of a tenant that is being removed leave nothing.
BURY = """
CREATE FUNCTION mlcore.bury() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF mlcore.is_bound(OLD.tenant_id) THEN
    INSERT INTO mlcore.deleted_versions (tenant_id, model_id, version, digest)
      SELECT OLD.tenant_id, OLD.model_id, OLD.version, OLD.digest FROM mlcore.tenants t
      WHERE t.tenant_id = OLD.tenant_id AND t.deleted_at IS NULL
      ON CONFLICT DO NOTHING;
  END IF;
  RETURN NULL;
END
$$
"""

# A move of a pointer that its transaction gave no history gets one: before the next move, or at the commit.
NOTE_MOVE = """
CREATE FUNCTION mlcore.note_move(p_pointer mlcore.environments) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM mlcore.environment_history h WHERE h.tenant_id = p_pointer.tenant_id
      AND h.model_id = p_pointer.model_id AND h.environment = p_pointer.environment
      AND h.generation = p_pointer.generation) THEN
    INSERT INTO mlcore.environment_history
      (tenant_id, model_id, environment, generation, action, restored_generation, actor, reason)
      VALUES (p_pointer.tenant_id, p_pointer.model_id, p_pointer.environment, p_pointer.generation,
        CASE WHEN p_pointer.version IS NULL THEN 'withdraw' ELSE 'promote' END, p_pointer.generation, '',
        'Moved by SQL, not by the platform.');
  END IF;
END
$$
"""

MOVE_BY_ONE = """
CREATE FUNCTION mlcore.move_by_one() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT mlcore.is_bound(NEW.tenant_id) THEN
    RETURN NEW;
  END IF;
  IF TG_OP = 'INSERT' THEN
    IF NEW.generation = 1 THEN
      RETURN NEW;
    END IF;
  ELSIF NEW.generation = OLD.generation THEN
    IF (NEW.version, NEW.canary_version, NEW.canary_percent, NEW.canary_sticky, NEW.shadow_version)
      IS NOT DISTINCT FROM
      (OLD.version, OLD.canary_version, OLD.canary_percent, OLD.canary_sticky, OLD.shadow_version) THEN
      RETURN NEW;
    END IF;
  ELSIF NEW.generation = OLD.generation + 1 THEN
    PERFORM mlcore.note_move(OLD);
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'A pointer moves from one generation to the next.' USING ERRCODE = 'check_violation';
END
$$
"""

KEEP_HISTORY = """
CREATE FUNCTION mlcore.keep_history() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF mlcore.is_bound(NEW.tenant_id) THEN
    PERFORM mlcore.note_move(e) FROM mlcore.environments e WHERE e.tenant_id = NEW.tenant_id
      AND e.model_id = NEW.model_id AND e.environment = NEW.environment AND e.generation = NEW.generation;
  END IF;
  RETURN NULL;
END
$$
"""

# What the history says was served is what the pointer says is served.
TELL_THE_MOVE = """
CREATE FUNCTION mlcore.tell_the_move() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT mlcore.is_bound(NEW.tenant_id) THEN
    RETURN NEW;
  END IF;
  SELECT e.version, v.digest, e.canary_version, e.canary_percent, e.canary_sticky, e.shadow_version
    INTO NEW.version, NEW.digest, NEW.canary_version, NEW.canary_percent, NEW.canary_sticky, NEW.shadow_version
    FROM mlcore.environments e LEFT JOIN mlcore.versions v
      ON v.tenant_id = e.tenant_id AND v.model_id = e.model_id AND v.version = e.version
    WHERE e.tenant_id = NEW.tenant_id AND e.model_id = NEW.model_id AND e.environment = NEW.environment
      AND e.generation = NEW.generation;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'The pointer is not at generation %.', NEW.generation USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END
$$
"""

# A stamp of the feed from the future would be read again by every replica, at every look; one that goes back would hide
# a change. A key that was revoked stays so.
FOLLOW_THE_CLOCK = """
CREATE FUNCTION mlcore.follow_the_clock() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_cell text;
BEGIN
  IF NOT mlcore.is_bound(NEW.tenant_id) THEN
    RETURN NEW;
  END IF;
  IF TG_TABLE_NAME = 'tenants' THEN
    v_cell := NEW.cell;
  ELSE
    SELECT cell INTO v_cell FROM mlcore.tenants WHERE tenant_id = NEW.tenant_id;
  END IF;
  IF NEW.feed_generation > (SELECT generation FROM mlcore.feed_clock WHERE cell = v_cell) THEN
    RAISE EXCEPTION 'The clock of % is not at generation %.', v_cell, NEW.feed_generation
      USING ERRCODE = 'check_violation';
  END IF;
  IF TG_OP = 'UPDATE' THEN
    IF NEW.feed_generation < OLD.feed_generation THEN
      RAISE EXCEPTION 'A stamp of the feed can not go back.' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  IF TG_TABLE_NAME = 'environments' THEN
    IF NEW.cell <> v_cell THEN
      RAISE EXCEPTION 'The tenant is served by the cell %.', v_cell USING ERRCODE = 'check_violation';
    END IF;
  ELSIF TG_TABLE_NAME = 'api_keys' AND TG_OP = 'UPDATE' THEN
    IF NEW.revoked_at IS DISTINCT FROM OLD.revoked_at AND OLD.revoked_at IS NOT NULL THEN
      RAISE EXCEPTION 'A key that was revoked stays so.' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  RETURN NEW;
END
$$
"""

# Whoever may delete rows may also lock the table against everybody, so nobody may but the owner, whose function takes
# rows of the transaction's tenant by their keys: {"model_id": ["m"], "version": ["1", "2"]}.
ERASE = """
CREATE FUNCTION mlcore.erase(p_table text, p_key jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_conditions text;
  v_count bigint;
BEGIN
  IF p_table <> ALL (ARRAY['versions', 'version_tags', 'holds', 'gates', 'dataset_versions', 'runs', 'run_tags',
      'run_metrics', 'run_metric_summaries', 'run_artifacts']) THEN
    RAISE EXCEPTION 'Rows of % are not deleted one by one.', p_table USING ERRCODE = 'insufficient_privilege';
  END IF;
  SELECT string_agg(format(' AND %1$I = ANY (ARRAY(SELECT value::%2$s FROM jsonb_array_elements_text($1 -> %1$L)))',
      a.attname, format_type(a.atttypid, NULL)), '')
    INTO v_conditions
    FROM jsonb_object_keys(p_key) k LEFT JOIN pg_attribute a
      ON a.attrelid = format('mlcore.%I', p_table)::regclass AND a.attname = k AND a.attnum > 0;
  EXECUTE format('DELETE FROM mlcore.%I WHERE tenant_id = mlcore.current_tenant()%s', p_table, v_conditions)
    USING p_key;
  GET DIAGNOSTICS v_count = ROW_COUNT;
  RETURN v_count;
END
$$
"""

# The clock's row is locked until the caller commits, and a time limit does not bind who may set another. So whoever
# waits ends the session of a transaction that has kept it for a minute; those of the platform take milliseconds. The
# owner may do that as a member of the runtime's role.
ADVANCE_FEED = """
CREATE OR REPLACE FUNCTION mlcore.advance_feed(p_cell text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_generation bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(1835167600, hashtext(p_cell)) THEN
    PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
      WHERE a.datname = current_database() AND l.locktype = 'advisory' AND l.granted
        AND l.classid = 1835167600 AND l.objid = (hashtext(p_cell)::bigint & 4294967295)::oid
        AND COALESCE(a.xact_start, a.state_change) < clock_timestamp() - interval '1 minute';
    PERFORM pg_advisory_xact_lock(1835167600, hashtext(p_cell));
  END IF;
  UPDATE mlcore.feed_clock SET generation = generation + 1 WHERE cell = p_cell RETURNING generation INTO v_generation;
  PERFORM pg_notify('mlcore_feed', p_cell);
  RETURN v_generation;
END
$$
"""

GUARDS = {
    "take_number": ("BEFORE INSERT", ("versions", "dataset_versions")),
    "count_on": ("BEFORE UPDATE", ("models", "datasets")),
    "bury": ("AFTER DELETE", ("versions",)),
    "move_by_one": ("BEFORE INSERT OR UPDATE", ("environments",)),
    "tell_the_move": ("BEFORE INSERT", ("environment_history",)),
    "follow_the_clock": ("BEFORE INSERT OR UPDATE", ("tenants", "environments", "api_keys")),
}

FUNCTIONS = (
    "is_bound(text)",
    "erase(text, jsonb)",
    "stamp()",
    "keep_history()",
    "note_move(mlcore.environments)",
    *(f"{name}()" for name in GUARDS),
)

RULES = """
ALTER TABLE mlcore.environment_history
  ADD CONSTRAINT ck_environment_history_restored_generation CHECK (restored_generation BETWEEN 1 AND generation);
CREATE CONSTRAINT TRIGGER keep_history AFTER INSERT OR UPDATE ON mlcore.environments
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mlcore.keep_history();
ALTER TABLE mlcore.api_keys DROP CONSTRAINT uq_api_keys_key_id;
REVOKE INSERT ON mlcore.deleted_versions FROM mlcore_app;
REVOKE DELETE ON ALL TABLES IN SCHEMA mlcore FROM mlcore_app;
GRANT EXECUTE ON FUNCTION mlcore.erase(text, jsonb) TO mlcore_app;
"""


# Bytes of a column's text at most: 64 KiB of a text, 1 MiB of a document or a list, unless said otherwise.
TEXTS = {
    "tenants": "cell, deleted_by, history_policy",
    "models": "model_type",
    "versions": "digest, format, run_id, dataset_digest, parent_version, code_commit, created_by, data_digest",
    "deleted_versions": "digest",
    "version_tags": "value",
    "holds": "reason, created_by",
    "environments": "version, cell, updated_by, canary_version, canary_sticky, shadow_version",
    "environment_history": "action, version, digest, actor, reason, canary_version, canary_sticky, shadow_version,"
    " override_reason",
    "environment_policies": "updated_by",
    "gates": "kind, created_by",
    "approvals": "reason",
    "outbox": "topic",
    "audit": "principal, request_id, action",
    "api_keys": "name",
    "datasets": "created_by",
    "dataset_versions": "digest, created_by",
    "runs": "model_id, kind, status, error, parent_run_id, created_by",
    "run_tags": "value",
    "run_artifacts": "digest, format",
}
DOCUMENTS = {
    "versions": "metrics, hyperparameters, metadata, libraries, outside_types",
    "environment_history": "gates",
    "gates": "settings",
    "outbox": "payload",
    "audit": "subject, details",
    "api_keys": "scopes",
    "dataset_versions": "source",
    "runs": "parameters",
    "feedback": "label",
}
SERVED = {"versions": "signature, self_test"}
OF_TABLES = {"dataset_versions": "columns, profile"}
SIZES = ((TEXTS, 65_536), (DOCUMENTS, 1_048_576), (SERVED, 8_388_608), (OF_TABLES, 67_108_864))


def upgrade() -> None:
    if not op.get_bind().scalar(sa.text("SELECT to_regprocedure('mlcore.current_tenant()') IS NOT NULL")):
        # The policies of earlier migrations were changed before anything was released.
        raise SchemaOutOfDateError(
            "The registry was made by an unreleased version of the platform, and can't be upgraded.",
            remedy="Set MLCORE_HOME to a new folder, or name an empty database.",
        )
    for statement in (
        *(IS_BOUND, STAMP, TAKE_NUMBER, COUNT_ON, BURY, NOTE_MOVE, MOVE_BY_ONE, KEEP_HISTORY, TELL_THE_MOVE),
        *(FOLLOW_THE_CLOCK, ERASE, ADVANCE_FEED),
    ):
        op.execute(statement)
    for function in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION mlcore.{function} FROM PUBLIC")
    for event, stamped in (("INSERT", STAMPED_ON_INSERT), ("INSERT OR UPDATE", STAMPED_ON_WRITE)):
        for table, columns in stamped.items():
            _create_trigger("stamp", f"BEFORE {event}", table, ", ".join(repr(column) for column in columns))
    for name, (event, tables) in GUARDS.items():
        for table in tables:
            _create_trigger(name, event, table)
    op.execute(RULES)
    for table in {**TEXTS, **DOCUMENTS}:
        rules = " AND ".join(
            f"octet_length({column}::text) <= {size}"
            for columns, size in SIZES
            if table in columns
            for column in columns[table].split(", ")
        )
        op.execute(f"ALTER TABLE mlcore.{table} ADD CONSTRAINT ck_{table}_sizes CHECK ({rules})")


def _create_trigger(name: str, event: str, table: str, arguments: str = "") -> None:
    op.execute(
        f"CREATE TRIGGER {name} {event} ON mlcore.{table} FOR EACH ROW EXECUTE FUNCTION mlcore.{name}({arguments})"
    )


def downgrade() -> None:
    for table in {**TEXTS, **DOCUMENTS}:
        op.execute(f"ALTER TABLE mlcore.{table} DROP CONSTRAINT ck_{table}_sizes")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION mlcore.{function} CASCADE")
    op.execute("ALTER TABLE mlcore.environment_history DROP CONSTRAINT ck_environment_history_restored_generation")
