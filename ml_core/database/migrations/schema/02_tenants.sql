-- Tenants, the feed's clock, keys, the audit, and answers to requests that may be repeated.

-- Moves the feed's clock forward by one, with the owner's rights, so that the runtime can move it in no other way. The
-- clock's row is locked until the caller commits: a later generation is a later commit. A time limit does not bind a
-- session that may set another. So whoever waits ends the session of a transaction that has held the lock for a minute;
-- those of the platform take milliseconds. The owner may do that as a member of the runtime's role.
CREATE FUNCTION mlcore.advance_feed() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_generation bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(1835167600, 0) THEN
    PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
      WHERE a.datname = current_database() AND l.locktype = 'advisory' AND l.granted
        AND l.classid = 1835167600 AND l.objid = 0
        AND COALESCE(a.xact_start, a.state_change) < clock_timestamp() - interval '1 minute';
    PERFORM pg_advisory_xact_lock(1835167600, 0);
  END IF;
  UPDATE mlcore.feed_clock SET generation = generation + 1 RETURNING generation INTO v_generation;
  NOTIFY mlcore_feed;
  RETURN v_generation;
END
$$;

-- A feed generation in the future would be read by every replica at every poll; one that decreases would hide a change.
-- A revoked key stays revoked. The platform's own transactions stamp a tenant that moves to another cell, no more.
CREATE FUNCTION mlcore.check_feed_generation() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_TABLE_NAME = 'tenants' AND TG_OP = 'UPDATE' AND mlcore.current_tenant() = '*' THEN
    IF to_jsonb(NEW) - 'feed_generation' <> to_jsonb(OLD) - 'feed_generation' THEN
      RAISE EXCEPTION 'The row violates row-level security: the platform changes the stamp of a tenant only.'
        USING ERRCODE = 'insufficient_privilege';
    END IF;
  ELSIF NOT mlcore.is_bound(NEW.tenant_id) THEN
    RETURN NEW;
  END IF;
  IF NEW.feed_generation > (SELECT generation FROM mlcore.feed_clock) THEN
    RAISE EXCEPTION 'The clock is not at generation %.', NEW.feed_generation USING ERRCODE = 'check_violation';
  END IF;
  IF TG_OP = 'UPDATE' THEN
    IF NEW.feed_generation < OLD.feed_generation THEN
      RAISE EXCEPTION 'A stamp of the feed can not go back.' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  IF TG_TABLE_NAME = 'api_keys' AND TG_OP = 'UPDATE' THEN
    IF NEW.revoked_at IS DISTINCT FROM OLD.revoked_at AND OLD.revoked_at IS NOT NULL THEN
      RAISE EXCEPTION 'A key that was revoked stays so.' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  RETURN NEW;
END
$$;

CREATE TABLE mlcore.feed_clock (
  epoch uuid NOT NULL DEFAULT gen_random_uuid(),
  generation bigint NOT NULL DEFAULT 0,
  CONSTRAINT pk_feed_clock PRIMARY KEY (epoch)
);
GRANT SELECT ON mlcore.feed_clock TO mlcore_app;
GRANT SELECT ON mlcore.feed_clock TO mlcore_ingest;

CREATE TABLE mlcore.tenants (
  tenant_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  feed_generation bigint NOT NULL,
  deleted_by text,
  prediction_policy text NOT NULL DEFAULT 'digest',
  self_test_rows text NOT NULL DEFAULT 'training',
  CONSTRAINT pk_tenants PRIMARY KEY (tenant_id),
  CONSTRAINT ck_tenants_tenant_id CHECK (tenant_id ~ '^[a-z][a-z0-9_-]{0,39}$'),
  CONSTRAINT ck_tenants_prediction_policy CHECK (prediction_policy IN ('nothing', 'digest', 'inputs')),
  CONSTRAINT ck_tenants_self_test_rows CHECK (self_test_rows IN ('training', 'synthetic')),
  CONSTRAINT ck_tenants_sizes CHECK (octet_length(deleted_by::text) <= 65536 AND
    octet_length(prediction_policy::text) <= 65536 AND octet_length(self_test_rows::text) <= 65536)
);
CREATE INDEX ix_tenants_feed_generation ON mlcore.tenants (feed_generation);
GRANT SELECT, INSERT, UPDATE (feed_generation, prediction_policy, self_test_rows) ON mlcore.tenants TO mlcore_app;
GRANT SELECT ON mlcore.tenants TO mlcore_ingest;
CREATE TRIGGER check_feed_generation BEFORE INSERT OR UPDATE ON mlcore.tenants
  FOR EACH ROW EXECUTE FUNCTION mlcore.check_feed_generation();
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.tenants FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('created_at', '', '');

-- What a tenant may ask of its cell. A tenant without a row has the defaults; a rate that is null is the platform's.
CREATE TABLE mlcore.prediction_quotas (
  tenant_id text NOT NULL,
  weight double precision NOT NULL DEFAULT 1,
  requests_per_s double precision,
  rows_per_s double precision,
  burst_s double precision NOT NULL DEFAULT 1,
  CONSTRAINT pk_prediction_quotas PRIMARY KEY (tenant_id),
  CONSTRAINT fk_prediction_quotas_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id),
  CONSTRAINT ck_prediction_quotas_bounds CHECK (weight BETWEEN 0.01 AND 100
    AND requests_per_s BETWEEN 0.001 AND 1000000 AND rows_per_s BETWEEN 0.001 AND 1000000
    AND burst_s BETWEEN 0.001 AND 3600)
);
GRANT SELECT, INSERT, UPDATE (weight, requests_per_s, rows_per_s, burst_s) ON mlcore.prediction_quotas TO mlcore_app;
GRANT SELECT ON mlcore.prediction_quotas TO mlcore_ingest;

-- Which cell serves a tenant, with the bounds of its dedicated cell; the row of '*' has those of the shared cell. Only
-- the platform writes: see the policies. Once has_moved is true the shared cell no longer follows the tenant.
-- requested_at is kept where min_replicas is 0.
CREATE TABLE mlcore.placements (
  tenant_id text NOT NULL,
  is_dedicated boolean NOT NULL,
  has_moved boolean NOT NULL DEFAULT false,
  min_replicas bigint NOT NULL,
  max_replicas bigint NOT NULL,
  target_ongoing bigint NOT NULL,
  requested_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  updated_by text NOT NULL,
  CONSTRAINT pk_placements PRIMARY KEY (tenant_id),
  CONSTRAINT ck_placements_bounds CHECK (max_replicas BETWEEN 1 AND 1000 AND target_ongoing BETWEEN 1 AND 256
    AND min_replicas <= max_replicas AND (min_replicas >= 1 OR min_replicas = 0 AND is_dedicated)),
  CONSTRAINT ck_placements_sizes CHECK (octet_length(updated_by::text) <= 65536)
);
GRANT SELECT, INSERT,
  UPDATE (is_dedicated, has_moved, min_replicas, max_replicas, target_ongoing, requested_at, updated_at, updated_by)
  ON mlcore.placements TO mlcore_app;
GRANT SELECT, UPDATE (requested_at) ON mlcore.placements TO mlcore_ingest;
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.placements
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('updated_at', 'updated_by', '');

CREATE TABLE mlcore.api_keys (
  tenant_id text NOT NULL,
  key_id text NOT NULL,
  salt bytea NOT NULL,
  hash bytea NOT NULL,
  scopes text[] NOT NULL,
  name text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  revoked_at timestamptz,
  feed_generation bigint NOT NULL,
  CONSTRAINT pk_api_keys PRIMARY KEY (tenant_id, key_id),
  CONSTRAINT ck_api_keys_key_id CHECK (key_id ~ '^[0-9a-f]{16}$'),
  CONSTRAINT ck_api_keys_hash CHECK (octet_length(hash) = 32),
  CONSTRAINT ck_api_keys_scopes CHECK (cardinality(scopes) > 0 AND array_position(scopes, NULL) IS NULL),
  CONSTRAINT ck_api_keys_name CHECK (char_length(name) BETWEEN 1 AND 100),
  CONSTRAINT fk_api_keys_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id),
  CONSTRAINT ck_api_keys_sizes CHECK (octet_length(scopes::text) <= 1048576 AND octet_length(name::text) <= 65536)
);
CREATE INDEX ix_api_keys_feed_generation ON mlcore.api_keys (feed_generation);
CREATE INDEX ix_api_keys_key_id ON mlcore.api_keys (key_id);
GRANT SELECT, INSERT, UPDATE (revoked_at, feed_generation) ON mlcore.api_keys TO mlcore_app;
GRANT SELECT ON mlcore.api_keys TO mlcore_ingest;
CREATE TRIGGER check_feed_generation BEFORE INSERT OR UPDATE ON mlcore.api_keys
  FOR EACH ROW EXECUTE FUNCTION mlcore.check_feed_generation();
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.api_keys FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('created_at', '', '');

-- One row: what is added to a transaction's id, so that positions of the audit go on rising after a restore, when
-- another server counts its transactions from another number. It makes them microseconds of the epoch at the time it is
-- set. They fall behind the clock from then on, as no server begins a million transactions a second.
CREATE TABLE mlcore.audit_clock (base bigint NOT NULL, CONSTRAINT pk_audit_clock PRIMARY KEY (base));
INSERT INTO mlcore.audit_clock
  VALUES (extract(epoch FROM clock_timestamp())::bigint * 1000000 - pg_current_xact_id()::text::bigint);

-- The position of a transaction in the audit.
CREATE FUNCTION mlcore.audit_position(p_transaction xid8) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT base FROM mlcore.audit_clock) + p_transaction::text::bigint;
END
$$;

CREATE TABLE mlcore.audit (
  tenant_id text NOT NULL,
  position bigint NOT NULL DEFAULT mlcore.audit_position(pg_current_xact_id()),
  audit_id bigint GENERATED ALWAYS AS IDENTITY,
  at timestamptz NOT NULL DEFAULT now(),
  principal text NOT NULL DEFAULT session_user,
  request_id text NOT NULL DEFAULT '',
  action text NOT NULL,
  subject jsonb NOT NULL DEFAULT '{}'::jsonb,
  details jsonb NOT NULL DEFAULT '{}'::jsonb,
  CONSTRAINT pk_audit PRIMARY KEY (tenant_id, position, audit_id),
  CONSTRAINT fk_audit_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id),
  CONSTRAINT ck_audit_sizes CHECK (octet_length(principal::text) <= 65536 AND
    octet_length(request_id::text) <= 65536 AND octet_length(action::text) <= 65536 AND
    octet_length(subject::text) <= 1048576 AND octet_length(details::text) <= 1048576)
);
CREATE INDEX ix_audit_request ON mlcore.audit (tenant_id, request_id, position, audit_id) WHERE request_id <> '';
CREATE INDEX ix_audit_tenant_id_action_position_audit_id ON mlcore.audit (tenant_id, action, position, audit_id);
CREATE INDEX ix_audit_tenant_id_at ON mlcore.audit (tenant_id, at);
CREATE INDEX ix_audit_position ON mlcore.audit (position);
-- Not the position: it is the transaction's own, whatever a statement would say.
GRANT SELECT, INSERT (tenant_id, at, principal, request_id, action, subject, details) ON mlcore.audit TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.audit
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('at', 'principal', 'request_id');

-- Keys that belong to no tenant. Only a transaction that entered the platform's own '*' sees or writes them, and SQL
-- that is injected into a tenant's transaction can't enter it: see the policy, and ml_core.database.binding.
CREATE TABLE mlcore.platform_keys (
  key_id text NOT NULL,
  salt bytea NOT NULL,
  hash bytea NOT NULL,
  scopes text[] NOT NULL,
  name text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  revoked_at timestamptz,
  revoked_by text,
  CONSTRAINT pk_platform_keys PRIMARY KEY (key_id),
  CONSTRAINT ck_platform_keys_key_id CHECK (key_id ~ '^[0-9a-f]{16}$'),
  CONSTRAINT ck_platform_keys_hash CHECK (octet_length(hash) = 32),
  CONSTRAINT ck_platform_keys_scopes CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['admin', 'read']),
  CONSTRAINT ck_platform_keys_name CHECK (char_length(name) BETWEEN 1 AND 100)
);
GRANT SELECT, INSERT, UPDATE (revoked_at, revoked_by) ON mlcore.platform_keys TO mlcore_app;

-- Answers to requests that a client may repeat. The status is null while the first request runs, which renews alive_at.
-- No foreign key: requests of the platform's own have '*' as their tenant.
CREATE TABLE mlcore.idempotency_keys (
  tenant_id text NOT NULL,
  principal text NOT NULL,
  key text NOT NULL,
  request_digest text NOT NULL,
  status integer,
  response bytea,
  headers jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  alive_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_idempotency_keys PRIMARY KEY (tenant_id, principal, key),
  CONSTRAINT ck_idempotency_keys_key CHECK (char_length(key) BETWEEN 1 AND 200),
  CONSTRAINT ck_idempotency_keys_response CHECK (octet_length(response) <= 1048576),
  CONSTRAINT ck_idempotency_keys_sizes CHECK (octet_length(request_digest::text) <= 65536 AND
    octet_length(headers::text) <= 1048576)
);
CREATE INDEX ix_idempotency_keys_tenant_id_created_at ON mlcore.idempotency_keys (tenant_id, created_at);
GRANT SELECT, INSERT, UPDATE (status, response, headers, alive_at) ON mlcore.idempotency_keys TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.idempotency_keys
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('created_at', 'principal', '');

INSERT INTO mlcore.feed_clock DEFAULT VALUES;
