-- The prediction log: what was answered, the labels that came later, and how many answers are missing.

CREATE TABLE mlcore.predictions (
  tenant_id text NOT NULL,
  request_id text NOT NULL,
  row_number integer NOT NULL,
  at timestamptz NOT NULL,
  model_id text NOT NULL,
  version text NOT NULL,
  environment text,
  rollout text NOT NULL,
  input_digest bytea NOT NULL,
  inputs json,
  prediction jsonb,
  probabilities jsonb,
  latency_ms real NOT NULL,
  CONSTRAINT pk_predictions PRIMARY KEY (tenant_id, request_id, row_number, at)
) PARTITION BY RANGE (at);
CREATE INDEX ix_predictions_tenant_id_at ON mlcore.predictions (tenant_id, at);
CREATE INDEX ix_predictions_tenant_id_model_id_at_version ON mlcore.predictions (tenant_id, model_id, at, version);
GRANT SELECT ON mlcore.predictions TO mlcore_app;
GRANT INSERT ON mlcore.predictions TO mlcore_ingest;

CREATE TABLE mlcore.feedback (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  request_id text NOT NULL,
  row_number integer NOT NULL,
  label jsonb NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_feedback PRIMARY KEY (tenant_id, model_id, request_id, row_number),
  CONSTRAINT fk_feedback_models FOREIGN KEY (tenant_id, model_id) REFERENCES mlcore.models (tenant_id, model_id),
  CONSTRAINT ck_feedback_row_number CHECK (row_number >= 0),
  CONSTRAINT ck_feedback_label CHECK (jsonb_typeof(label) IN ('string', 'number', 'boolean')),
  CONSTRAINT ck_feedback_sizes CHECK (octet_length(label::text) <= 1048576)
);
CREATE INDEX ix_feedback_tenant_id_at ON mlcore.feedback (tenant_id, at);
GRANT SELECT, INSERT, UPDATE (label, at, updated_at) ON mlcore.feedback TO mlcore_app;
GRANT SELECT, INSERT, UPDATE (label, at, updated_at) ON mlcore.feedback TO mlcore_ingest;

CREATE TABLE mlcore.prediction_losses (
  tenant_id text NOT NULL,
  day date NOT NULL,
  model_id text NOT NULL,
  reason text NOT NULL,
  loss_id text NOT NULL,
  row_count bigint NOT NULL,
  CONSTRAINT pk_prediction_losses PRIMARY KEY (tenant_id, day, model_id, reason, loss_id),
  CONSTRAINT ck_prediction_losses_row_count CHECK (row_count > 0)
);
GRANT SELECT ON mlcore.prediction_losses TO mlcore_app;
GRANT INSERT ON mlcore.prediction_losses TO mlcore_ingest;

-- A partition is created whole and then attached, which blocks no writer of the others; to create it as a partition
-- would lock the whole table. A partition has no policy for the runtime, so even a grant on it would show nothing; only
-- the removal of a tenant addresses partitions.
CREATE FUNCTION mlcore.create_prediction_partition(p_day date) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
  v_name text := 'predictions_' || to_char(p_day, 'YYYYMMDD');
BEGIN
  IF EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = 'mlcore_predictions'::regnamespace AND relname = v_name) THEN
    RETURN;
  END IF;
  PERFORM pg_advisory_xact_lock(1835167599, 1);
  -- Not to_regclass, which may answer from before the wait.
  IF EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = 'mlcore_predictions'::regnamespace AND relname = v_name) THEN
    RETURN;
  END IF;
  EXECUTE format('CREATE TABLE mlcore_predictions.%I (LIKE mlcore.predictions INCLUDING ALL)', v_name);
  EXECUTE format('ALTER TABLE mlcore_predictions.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', v_name);
  EXECUTE format(
    'CREATE POLICY tenant_removal ON mlcore_predictions.%I TO mlcore_owner'
    ' USING (tenant_id = (SELECT mlcore.current_tenant()))'
    ' WITH CHECK (tenant_id = (SELECT mlcore.current_tenant()))', v_name);
  EXECUTE format(
    'ALTER TABLE mlcore.predictions ATTACH PARTITION mlcore_predictions.%I FOR VALUES FROM (%L) TO (%L)',
    v_name, p_day::timestamptz, (p_day + 1)::timestamptz);
END
$$;

-- The database's clock decides, so that a replica whose clock is wrong creates no partitions of distant days.
CREATE FUNCTION mlcore.ensure_prediction_partitions(p_days date[]) RETURNS SETOF date
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '4s' AS $$
DECLARE
  v_day date;
BEGIN
  FOR v_day IN SELECT DISTINCT day FROM unnest(p_days) day WHERE day BETWEEN current_date - 7 AND current_date + 1
  LOOP
    PERFORM mlcore.create_prediction_partition(v_day);
    RETURN NEXT v_day;
  END LOOP;
END
$$;
