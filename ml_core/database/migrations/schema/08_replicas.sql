-- What replicas report: what each serves, and what it could not load.

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
  CONSTRAINT ck_replica_reports_cell CHECK (cell ~ '^[a-z][a-z0-9_-]{0,41}$'),
  CONSTRAINT ck_replica_reports_replica_id CHECK (replica_id ~ '^[A-Za-z0-9_-]{1,64}$'),
  CONSTRAINT ck_replica_reports_expires_at CHECK (expires_at <= reported_at + interval '10 minutes'),
  CONSTRAINT ck_replica_reports_counts CHECK (LEAST(pointers, resident, deferred, loading, failed, unlisted) >= 0)
);
GRANT SELECT (cell, replica_id, started_at, reported_at, expires_at, epoch, generation, unlisted)
  ON mlcore.replica_reports TO mlcore_app;
GRANT SELECT, INSERT, UPDATE (reported_at, expires_at) ON mlcore.replica_reports TO mlcore_ingest;

-- Requests of an interval of a replica in which it had any. Only the serving plane reads and writes them.
CREATE TABLE mlcore.replica_traffic (
  cell text NOT NULL,
  replica_id text NOT NULL,
  at timestamptz NOT NULL,
  answered bigint NOT NULL,
  refused bigint NOT NULL,
  failed bigint NOT NULL,
  latency bigint[] NOT NULL,
  CONSTRAINT pk_replica_traffic PRIMARY KEY (cell, replica_id, at),
  CONSTRAINT ck_replica_traffic_cell CHECK (cell ~ '^[a-z][a-z0-9_-]{0,41}$'),
  CONSTRAINT ck_replica_traffic_replica_id CHECK (replica_id ~ '^[A-Za-z0-9_-]{1,64}$'),
  CONSTRAINT ck_replica_traffic_counts CHECK (LEAST(answered, refused, failed) >= 0),
  CONSTRAINT ck_replica_traffic_latency CHECK (cardinality(latency) = 15)
);
CREATE INDEX ix_replica_traffic_at ON mlcore.replica_traffic (at);
GRANT SELECT, INSERT ON mlcore.replica_traffic TO mlcore_ingest;

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
  cause text,
  CONSTRAINT pk_replica_pending PRIMARY KEY (tenant_id, model_id, environment, version, cell, replica_id),
  CONSTRAINT ck_replica_pending_environment CHECK (environment ~ '^[a-z][a-z0-9_-]{0,39}$'),
  CONSTRAINT ck_replica_pending_version CHECK (version ~ '^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$'),
  CONSTRAINT ck_replica_pending_serves CHECK (serves ~ '^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$'),
  CONSTRAINT ck_replica_pending_position CHECK (position BETWEEN 0 AND 199),
  CONSTRAINT ck_replica_pending_state CHECK (state IN ('deferred', 'loading', 'failed')),
  CONSTRAINT ck_replica_pending_reason CHECK (char_length(code) <= 64 AND char_length(reason) <= 500
    AND char_length(cause) <= 500),
  CONSTRAINT fk_replica_pending_environments FOREIGN KEY (tenant_id, model_id, environment)
    REFERENCES mlcore.environments (tenant_id, model_id, environment) ON DELETE CASCADE,
  CONSTRAINT fk_replica_pending_replica_reports FOREIGN KEY (cell, replica_id)
    REFERENCES mlcore.replica_reports (cell, replica_id) ON DELETE CASCADE,
  CONSTRAINT uq_replica_pending_cell_replica_id_position UNIQUE (cell, replica_id, position),
  CONSTRAINT ck_replica_pending_sizes CHECK (octet_length(state::text) <= 65536 AND
    octet_length(serves::text) <= 65536 AND octet_length(code::text) <= 65536 AND
    octet_length(reason::text) <= 65536 AND octet_length(cause::text) <= 65536)
);
GRANT SELECT ON mlcore.replica_pending TO mlcore_app;
GRANT SELECT, INSERT ON mlcore.replica_pending TO mlcore_ingest;

-- Deletes the report of one replica, and those of replicas that died a while ago. Rows that another session is deleting
-- are skipped, so that two never wait for each other.
CREATE FUNCTION mlcore.drop_reports(p_cell text, p_replica_id text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  DELETE FROM mlcore.replica_reports WHERE cell = p_cell AND replica_id = p_replica_id;
  DELETE FROM mlcore.replica_reports WHERE cell = p_cell AND replica_id IN (
    SELECT replica_id FROM mlcore.replica_reports
    WHERE cell = p_cell AND expires_at < now() - interval '1 minute' FOR UPDATE SKIP LOCKED);
END;

-- Deletes what is older than the quarter of an hour that is shown, of all cells, in the same way.
CREATE FUNCTION mlcore.drop_traffic() RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  DELETE FROM mlcore.replica_traffic WHERE (cell, replica_id, at) IN (
    SELECT cell, replica_id, at FROM mlcore.replica_traffic
    WHERE at < now() - interval '15 minutes' FOR UPDATE SKIP LOCKED);
END;

-- What the control loop last found of the version that an environment serves.
CREATE TABLE mlcore.live_verdicts (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  environment text NOT NULL,
  version text NOT NULL,
  quality text NOT NULL,
  drift text NOT NULL,
  measured_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_live_verdicts PRIMARY KEY (tenant_id, model_id, environment),
  CONSTRAINT ck_live_verdicts_environment CHECK (environment ~ '^[a-z][a-z0-9_-]{0,39}$'),
  CONSTRAINT ck_live_verdicts_version CHECK (version ~ '^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$'),
  CONSTRAINT ck_live_verdicts_verdicts
    CHECK (quality IN ('ok', 'alert', 'unknown') AND drift IN ('ok', 'alert', 'unknown')),
  CONSTRAINT ck_live_verdicts_sizes CHECK (octet_length(version::text) <= 65536 AND
    octet_length(quality::text) <= 65536 AND octet_length(drift::text) <= 65536),
  CONSTRAINT fk_live_verdicts_environments FOREIGN KEY (tenant_id, model_id, environment)
    REFERENCES mlcore.environments (tenant_id, model_id, environment) ON DELETE CASCADE
);
CREATE INDEX ix_live_verdicts_alerts ON mlcore.live_verdicts (tenant_id)
  WHERE quality = 'alert' OR drift = 'alert';
GRANT SELECT, INSERT, UPDATE (version, quality, drift, measured_at) ON mlcore.live_verdicts TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON mlcore.live_verdicts
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('measured_at', '', '');
