-- Datasets with their versions; experiments; runs with their series, tags, files and documents.

CREATE TABLE mlcore.datasets (
  tenant_id text NOT NULL,
  dataset_id text NOT NULL,
  next_number bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  CONSTRAINT pk_datasets PRIMARY KEY (tenant_id, dataset_id),
  CONSTRAINT ck_datasets_dataset_id CHECK (dataset_id ~ '^[a-z][a-z0-9_-]{0,79}$'),
  CONSTRAINT fk_datasets_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id),
  CONSTRAINT ck_datasets_sizes CHECK (octet_length(created_by::text) <= 65536)
);
GRANT SELECT, INSERT, UPDATE (next_number) ON mlcore.datasets TO mlcore_app;
CREATE TRIGGER check_next_number BEFORE UPDATE ON mlcore.datasets
  FOR EACH ROW EXECUTE FUNCTION mlcore.check_next_number();
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.datasets
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('created_at', 'created_by', '');

CREATE TABLE mlcore.dataset_versions (
  tenant_id text NOT NULL,
  dataset_id text NOT NULL,
  number bigint NOT NULL,
  digest text NOT NULL,
  size_bytes bigint NOT NULL,
  row_count bigint NOT NULL,
  columns jsonb NOT NULL,
  profile jsonb NOT NULL DEFAULT '{}'::jsonb,
  source jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  archived_at timestamptz,
  CONSTRAINT pk_dataset_versions PRIMARY KEY (tenant_id, dataset_id, number),
  CONSTRAINT ck_dataset_versions_digest CHECK (digest ~ '^[0-9a-f]{64}$'),
  CONSTRAINT fk_dataset_versions_datasets FOREIGN KEY (tenant_id, dataset_id)
    REFERENCES mlcore.datasets (tenant_id, dataset_id),
  CONSTRAINT ck_dataset_versions_sizes CHECK (octet_length(digest::text) <= 65536 AND
    octet_length(columns::text) <= 67108864 AND octet_length(profile::text) <= 67108864 AND
    octet_length(source::text) <= 1048576 AND octet_length(created_by::text) <= 65536)
);
CREATE INDEX ix_dataset_versions_tenant_id_digest ON mlcore.dataset_versions (tenant_id, digest);
GRANT SELECT, INSERT, UPDATE (archived_at) ON mlcore.dataset_versions TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.dataset_versions
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('created_at', 'created_by', '');
CREATE TRIGGER take_number BEFORE INSERT ON mlcore.dataset_versions FOR EACH ROW EXECUTE FUNCTION mlcore.take_number();

CREATE TABLE mlcore.experiments (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  name text NOT NULL,
  tags jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz,
  CONSTRAINT pk_experiments PRIMARY KEY (tenant_id, model_id),
  CONSTRAINT ck_experiments_model_id CHECK (model_id ~ '^[a-z][a-z0-9_-]{0,79}$'),
  CONSTRAINT fk_experiments_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id),
  CONSTRAINT ck_experiments_sizes CHECK (octet_length(name::text) <= 65536 AND octet_length(tags::text) <= 1048576)
);
CREATE UNIQUE INDEX ix_experiments_tenant_id_name ON mlcore.experiments (tenant_id, name);
GRANT SELECT, INSERT, UPDATE (name, tags, updated_at, archived_at) ON mlcore.experiments TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.experiments
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('created_at', '', '');

-- A parameter that a run has keeps its value; others may be added.
CREATE FUNCTION mlcore.keep_parameters() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM jsonb_each(OLD.parameters) p WHERE NEW.parameters -> p.key IS DISTINCT FROM p.value) THEN
    RAISE EXCEPTION 'A parameter of the run % has another value.', OLD.run_id USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END
$$;

CREATE TABLE mlcore.runs (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  model_id text NOT NULL,
  kind text NOT NULL,
  status text NOT NULL,
  parameters jsonb NOT NULL DEFAULT '{}'::jsonb,
  started_at timestamptz NOT NULL DEFAULT now(),
  heartbeat_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  error text,
  parent_run_id text,
  created_by text,
  CONSTRAINT pk_runs PRIMARY KEY (tenant_id, run_id),
  CONSTRAINT fk_runs_runs FOREIGN KEY (tenant_id, parent_run_id) REFERENCES mlcore.runs (tenant_id, run_id),
  CONSTRAINT fk_runs_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id),
  CONSTRAINT ck_runs_sizes CHECK (octet_length(model_id::text) <= 65536 AND
    octet_length(kind::text) <= 65536 AND octet_length(status::text) <= 65536 AND
    octet_length(parameters::text) <= 1048576 AND octet_length(error::text) <= 65536 AND
    octet_length(parent_run_id::text) <= 65536 AND octet_length(created_by::text) <= 65536)
);
CREATE INDEX ix_runs_tenant_id_model_id_started_at_run_id ON mlcore.runs (tenant_id, model_id, started_at, run_id);
CREATE INDEX ix_runs_tenant_id_parent_run_id_started_at_run_id
  ON mlcore.runs (tenant_id, parent_run_id, started_at, run_id);
CREATE INDEX ix_runs_tenant_id_started_at_run_id ON mlcore.runs (tenant_id, started_at, run_id);
CREATE INDEX ix_runs_tenant_id_status_started_at_run_id ON mlcore.runs (tenant_id, status, started_at, run_id);
GRANT SELECT, INSERT, UPDATE (status, parameters, heartbeat_at, finished_at, error) ON mlcore.runs TO mlcore_app;
CREATE TRIGGER keep_parameters BEFORE UPDATE OF parameters ON mlcore.runs
  FOR EACH ROW EXECUTE FUNCTION mlcore.keep_parameters();
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.runs
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('started_at', 'created_by', '');

CREATE TABLE mlcore.run_tags (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  key text NOT NULL,
  value text NOT NULL,
  CONSTRAINT pk_run_tags PRIMARY KEY (tenant_id, run_id, key),
  CONSTRAINT fk_run_tags_runs FOREIGN KEY (tenant_id, run_id) REFERENCES mlcore.runs (tenant_id, run_id),
  CONSTRAINT ck_run_tags_sizes CHECK (octet_length(value::text) <= 65536)
);
CREATE INDEX ix_run_tags_tenant_id_key_value_run_id ON mlcore.run_tags (tenant_id, key, "left"(value, 250), run_id);
GRANT SELECT, INSERT, UPDATE (value) ON mlcore.run_tags TO mlcore_app;

CREATE TABLE mlcore.run_metrics (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  metric text NOT NULL,
  step bigint NOT NULL,
  value double precision NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_run_metrics PRIMARY KEY (tenant_id, run_id, metric, step),
  CONSTRAINT fk_run_metrics_runs FOREIGN KEY (tenant_id, run_id) REFERENCES mlcore.runs (tenant_id, run_id)
);
GRANT SELECT, INSERT, UPDATE (value, at) ON mlcore.run_metrics TO mlcore_app;

CREATE TABLE mlcore.run_metric_summaries (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  metric text NOT NULL,
  points bigint NOT NULL,
  not_finite bigint NOT NULL,
  last_step bigint NOT NULL,
  last_value double precision NOT NULL,
  minimum double precision,
  maximum double precision,
  CONSTRAINT pk_run_metric_summaries PRIMARY KEY (tenant_id, run_id, metric),
  CONSTRAINT fk_run_metric_summaries_runs FOREIGN KEY (tenant_id, run_id) REFERENCES mlcore.runs (tenant_id, run_id)
);
CREATE INDEX ix_run_metric_summaries_tenant_id_metric_last_value
  ON mlcore.run_metric_summaries (tenant_id, metric, last_value);
GRANT SELECT, INSERT, UPDATE (points, not_finite, last_step, last_value, minimum, maximum)
  ON mlcore.run_metric_summaries TO mlcore_app;

CREATE TABLE mlcore.run_artifacts (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  name text NOT NULL,
  digest text NOT NULL,
  size_bytes bigint NOT NULL,
  format text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_run_artifacts PRIMARY KEY (tenant_id, run_id, name),
  CONSTRAINT ck_run_artifacts_digest CHECK (digest ~ '^[0-9a-f]{64}$'),
  CONSTRAINT fk_run_artifacts_runs FOREIGN KEY (tenant_id, run_id) REFERENCES mlcore.runs (tenant_id, run_id),
  CONSTRAINT ck_run_artifacts_sizes CHECK (octet_length(digest::text) <= 65536 AND octet_length(format::text) <= 65536)
);
CREATE INDEX ix_run_artifacts_tenant_id_digest ON mlcore.run_artifacts (tenant_id, digest);
GRANT SELECT, INSERT ON mlcore.run_artifacts TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.run_artifacts
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('created_at', '', '');

CREATE TABLE mlcore.run_documents (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  kind text NOT NULL,
  name text NOT NULL,
  document jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_run_documents PRIMARY KEY (tenant_id, run_id, kind, name),
  CONSTRAINT fk_run_documents_runs FOREIGN KEY (tenant_id, run_id) REFERENCES mlcore.runs (tenant_id, run_id),
  CONSTRAINT ck_run_documents_sizes CHECK (octet_length(document::text) <= 1048576)
);
CREATE INDEX ix_run_documents_tenant_id_kind_created_at_name
  ON mlcore.run_documents (tenant_id, kind, created_at, name);
GRANT SELECT, INSERT, UPDATE (document) ON mlcore.run_documents TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.run_documents
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('created_at', '', '');
