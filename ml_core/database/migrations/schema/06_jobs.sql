-- Jobs, their batches and schedules, and the shares of tenants in their queue.

-- Jobs of several tenants that were submitted as one. They belong to no tenant, as platform_keys do.
CREATE TABLE mlcore.job_batches (
  batch_id text NOT NULL,
  kind text NOT NULL,
  spec jsonb NOT NULL DEFAULT '{}'::jsonb,
  idempotency_key text,
  submitted_at timestamptz NOT NULL DEFAULT now(),
  submitted_by text NOT NULL,
  without_dataset bigint NOT NULL,
  refused jsonb NOT NULL,
  CONSTRAINT pk_job_batches PRIMARY KEY (batch_id),
  CONSTRAINT uq_job_batches_submitted_by_idempotency_key UNIQUE (submitted_by, idempotency_key),
  CONSTRAINT ck_job_batches_batch_id CHECK (batch_id ~ '^batch_[0-9a-f]{16}$'),
  CONSTRAINT ck_job_batches_kind CHECK (kind IN ('train', 'tune', 'predict')),
  CONSTRAINT ck_job_batches_idempotency_key CHECK (char_length(idempotency_key) BETWEEN 1 AND 200)
);
CREATE INDEX ix_job_batches_submitted_at_batch_id ON mlcore.job_batches (submitted_at, batch_id);
GRANT SELECT, INSERT ON mlcore.job_batches TO mlcore_app;

CREATE TABLE mlcore.jobs (
  tenant_id text NOT NULL,
  job_id text NOT NULL,
  kind text NOT NULL,
  spec jsonb NOT NULL DEFAULT '{}'::jsonb,
  state text NOT NULL DEFAULT 'queued',
  priority bigint NOT NULL DEFAULT 0,
  cpus double precision NOT NULL,
  idempotency_key text,
  scopes text[] NOT NULL,
  submitted_at timestamptz NOT NULL DEFAULT now(),
  submitted_by text NOT NULL,
  request_id text NOT NULL,
  not_before timestamptz NOT NULL DEFAULT now(),
  attempt bigint NOT NULL DEFAULT 0,
  max_attempts bigint NOT NULL,
  run_id text,
  dispatcher text,
  process text,
  batch_id text,
  lease_until timestamptz,
  started_at timestamptz,
  finished_at timestamptz,
  cpu_seconds double precision NOT NULL DEFAULT 0,
  progress jsonb NOT NULL DEFAULT '{}'::jsonb,
  result jsonb NOT NULL DEFAULT '{}'::jsonb,
  error jsonb,
  position bigint NOT NULL,
  CONSTRAINT pk_jobs PRIMARY KEY (tenant_id, job_id),
  CONSTRAINT fk_jobs_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id),
  CONSTRAINT fk_jobs_job_batches FOREIGN KEY (batch_id) REFERENCES mlcore.job_batches (batch_id),
  CONSTRAINT uq_jobs_tenant_id_idempotency_key UNIQUE (tenant_id, idempotency_key),
  CONSTRAINT ck_jobs_job_id CHECK (job_id ~ '^job_[0-9a-f]{16}$'),
  -- The queue reads rows of all tenants: what a tenant writes past the repository must not be what it can't read.
  CONSTRAINT ck_jobs_kind CHECK (kind IN ('train', 'tune', 'predict')),
  CONSTRAINT ck_jobs_run_id CHECK (run_id ~ '^run_[0-9a-f]{16}$'),
  CONSTRAINT ck_jobs_process CHECK (process ~ '^run_[0-9a-f]{16}$'),
  CONSTRAINT ck_jobs_holding CHECK (NOT (state IN ('starting', 'running', 'cancelling'))
    OR (run_id IS NOT NULL AND process IS NOT NULL)),
  CONSTRAINT ck_jobs_state
    CHECK (state IN ('queued', 'starting', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')),
  CONSTRAINT ck_jobs_priority CHECK (priority BETWEEN -100 AND 100),
  CONSTRAINT ck_jobs_cpus CHECK (cpus > 0 AND cpus <= 10000),
  CONSTRAINT ck_jobs_idempotency_key CHECK (char_length(idempotency_key) BETWEEN 1 AND 200),
  CONSTRAINT ck_jobs_sizes CHECK (octet_length(kind::text) <= 65536 AND octet_length(spec::text) <= 1048576 AND
    octet_length(state::text) <= 65536 AND octet_length(idempotency_key::text) <= 65536 AND
    octet_length(scopes::text) <= 1048576 AND octet_length(submitted_by::text) <= 65536 AND
    octet_length(request_id::text) <= 65536 AND octet_length(run_id::text) <= 65536 AND
    octet_length(dispatcher::text) <= 65536 AND octet_length(process::text) <= 65536 AND
    octet_length(batch_id::text) <= 65536 AND octet_length(progress::text) <= 1048576 AND
    octet_length(result::text) <= 1048576 AND octet_length(error::text) <= 1048576)
);
CREATE INDEX ix_jobs_tenant_id_submitted_at_job_id ON mlcore.jobs (tenant_id, submitted_at, job_id);
CREATE INDEX ix_jobs_tenant_id_state_submitted_at_job_id ON mlcore.jobs (tenant_id, state, submitted_at, job_id);
CREATE INDEX ix_jobs_tenant_id_finished_at ON mlcore.jobs (tenant_id, finished_at);
CREATE INDEX ix_jobs_batch_id ON mlcore.jobs (batch_id, state) WHERE batch_id IS NOT NULL;
CREATE INDEX ix_jobs_waiting ON mlcore.jobs (tenant_id, priority DESC, submitted_at) WHERE state = 'queued';
CREATE INDEX ix_jobs_position ON mlcore.jobs (position);
CREATE INDEX ix_jobs_holding ON mlcore.jobs (tenant_id, lease_until)
  WHERE state IN ('starting', 'running', 'cancelling');
-- Not the specification, nor on whose behalf it is done.
GRANT SELECT, INSERT, UPDATE (state, not_before, attempt, run_id, dispatcher, process, lease_until, started_at,
  finished_at, cpu_seconds, progress, result, error) ON mlcore.jobs TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.jobs
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('submitted_at', 'submitted_by', 'request_id');

-- The position of the transaction that changed a job last, comparable with those of the audit: see
-- ml_core.registry.changes.
CREATE FUNCTION mlcore.note_position() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.position := mlcore.audit_position(pg_current_xact_id());
  RETURN NEW;
END
$$;
CREATE TRIGGER note_position BEFORE INSERT OR UPDATE ON mlcore.jobs
  FOR EACH ROW EXECUTE FUNCTION mlcore.note_position();

CREATE TABLE mlcore.job_logs (
  tenant_id text NOT NULL,
  job_id text NOT NULL,
  lines text NOT NULL,
  CONSTRAINT pk_job_logs PRIMARY KEY (tenant_id, job_id),
  CONSTRAINT fk_job_logs_jobs FOREIGN KEY (tenant_id, job_id) REFERENCES mlcore.jobs (tenant_id, job_id),
  CONSTRAINT ck_job_logs_sizes CHECK (octet_length(lines::text) <= 65536)
);
GRANT SELECT, INSERT, UPDATE (lines) ON mlcore.job_logs TO mlcore_app;

CREATE TABLE mlcore.job_quotas (
  tenant_id text NOT NULL,
  weight double precision NOT NULL DEFAULT 1,
  max_queued bigint DEFAULT 1000,
  max_running bigint,
  max_cpus double precision,
  cpu_seconds_per_day double precision,
  CONSTRAINT pk_job_quotas PRIMARY KEY (tenant_id),
  CONSTRAINT fk_job_quotas_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id),
  CONSTRAINT ck_job_quotas_weight CHECK (weight BETWEEN 0.01 AND 100)
);
GRANT SELECT, INSERT, UPDATE (weight, max_queued, max_running, max_cpus, cpu_seconds_per_day)
  ON mlcore.job_quotas TO mlcore_app;

-- The last turn of a tenant that has submitted a job, and since when it waits for its next one. Only the trigger writes.
CREATE TABLE mlcore.job_turns (
  tenant_id text NOT NULL,
  began double precision NOT NULL DEFAULT 0,
  ended double precision NOT NULL DEFAULT 0,
  waiting_since timestamptz,
  CONSTRAINT pk_job_turns PRIMARY KEY (tenant_id),
  CONSTRAINT fk_job_turns_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id)
);
CREATE INDEX ix_job_turns_began ON mlcore.job_turns (began);
CREATE INDEX ix_job_turns_waiting ON mlcore.job_turns (ended, waiting_since) WHERE waiting_since IS NOT NULL;
GRANT SELECT ON mlcore.job_turns TO mlcore_app;

-- Whoever changes the queue of a tenant holds its row until the end of the transaction. So the last statement, which
-- sees what was committed while the lock was awaited, overlooks no job.
CREATE FUNCTION mlcore.note_turn() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NEW.state = 'queued' THEN
    INSERT INTO mlcore.job_turns AS t (tenant_id, waiting_since) VALUES (NEW.tenant_id, now())
      ON CONFLICT (tenant_id) DO UPDATE SET waiting_since = now() WHERE t.waiting_since IS NULL;
  ELSIF TG_OP = 'UPDATE' AND OLD.state = 'queued' THEN
    PERFORM 1 FROM mlcore.job_turns WHERE tenant_id = NEW.tenant_id FOR UPDATE;
    IF NEW.state = 'starting' THEN
      -- It begins where virtual time is now.
      UPDATE mlcore.job_turns t SET (began, ended) = (SELECT v.began, v.began + NEW.cpus / v.weight FROM (
          SELECT greatest(t.ended, (SELECT max(began) FROM mlcore.job_turns)) AS began,
            coalesce((SELECT weight FROM mlcore.job_quotas WHERE tenant_id = NEW.tenant_id), 1) AS weight) v)
        WHERE tenant_id = NEW.tenant_id;
    END IF;
    UPDATE mlcore.job_turns SET waiting_since = NULL WHERE tenant_id = NEW.tenant_id
      AND NOT EXISTS (SELECT 1 FROM mlcore.jobs WHERE tenant_id = NEW.tenant_id AND state = 'queued');
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER note_turn AFTER INSERT OR UPDATE OF state ON mlcore.jobs
  FOR EACH ROW EXECUTE FUNCTION mlcore.note_turn();

CREATE TABLE mlcore.schedules (
  tenant_id text NOT NULL,
  name text NOT NULL,
  cron text NOT NULL,
  timezone text NOT NULL,
  kind text NOT NULL,
  spec jsonb NOT NULL DEFAULT '{}'::jsonb,
  options jsonb NOT NULL DEFAULT '{}'::jsonb,
  scopes text[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  state text NOT NULL DEFAULT 'active',
  next_at timestamptz,
  last_at timestamptz,
  last_job_id text,
  note text,
  on_drift jsonb,
  retraining jsonb,
  CONSTRAINT pk_schedules PRIMARY KEY (tenant_id, name),
  CONSTRAINT fk_schedules_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id),
  CONSTRAINT ck_schedules_kind CHECK (kind IN ('train', 'tune', 'predict')),
  CONSTRAINT ck_schedules_name CHECK (name ~ '^[a-z][a-z0-9_-]{0,39}$'),
  CONSTRAINT ck_schedules_state CHECK (state IN ('active', 'paused', 'stopped')),
  CONSTRAINT ck_schedules_sizes CHECK (octet_length(cron::text) <= 65536 AND octet_length(timezone::text) <= 65536 AND
    octet_length(kind::text) <= 65536 AND octet_length(spec::text) <= 1048576 AND
    octet_length(options::text) <= 1048576 AND octet_length(scopes::text) <= 1048576 AND
    octet_length(created_by::text) <= 65536 AND octet_length(state::text) <= 65536 AND
    octet_length(last_job_id::text) <= 65536 AND octet_length(note::text) <= 65536 AND
    octet_length(on_drift::text) <= 1048576 AND octet_length(retraining::text) <= 1048576)
);
CREATE INDEX ix_schedules_due ON mlcore.schedules (next_at) WHERE state = 'active';
CREATE INDEX ix_schedules_retraining ON mlcore.schedules (tenant_id, name) WHERE retraining IS NOT NULL;
-- Neither what it does nor on whose behalf: that takes another schedule.
GRANT SELECT, INSERT, UPDATE (state, next_at, last_at, last_job_id, note, retraining) ON mlcore.schedules TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.schedules
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('created_at', 'created_by', '');
