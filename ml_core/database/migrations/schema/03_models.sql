-- Models, their versions, and what versions are found by.

-- A number is greater than all that were given out before, those of deleted versions included. The name of a deleted
-- version is only accepted with the same bytes.
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
$$;

CREATE FUNCTION mlcore.check_next_number() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF mlcore.is_bound(NEW.tenant_id) AND NEW.next_number < OLD.next_number THEN
    RAISE EXCEPTION 'The next number of % can not go down.', TG_TABLE_NAME USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END
$$;

-- Records the name of a deleted version, unless its tenant is being removed.
CREATE FUNCTION mlcore.keep_deleted_name() RETURNS trigger
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
$$;

CREATE TABLE mlcore.models (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  model_type text NOT NULL,
  next_number bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz,
  deleted_at timestamptz,
  metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
  CONSTRAINT pk_models PRIMARY KEY (tenant_id, model_id),
  CONSTRAINT ck_models_model_id CHECK (model_id ~ '^[a-z][a-z0-9_-]{0,79}$'),
  CONSTRAINT fk_models_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id),
  CONSTRAINT ck_models_sizes CHECK (octet_length(model_type::text) <= 65536 AND octet_length(metadata::text) <= 1048576)
);
GRANT SELECT, INSERT, UPDATE (model_type, next_number, archived_at, deleted_at, metadata)
  ON mlcore.models TO mlcore_app;
GRANT SELECT ON mlcore.models TO mlcore_ingest;
CREATE TRIGGER check_next_number BEFORE UPDATE ON mlcore.models
  FOR EACH ROW EXECUTE FUNCTION mlcore.check_next_number();
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.models FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('created_at', '', '');

CREATE TABLE mlcore.versions (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  version text NOT NULL,
  number bigint NOT NULL,
  digest text NOT NULL,
  size_bytes bigint NOT NULL,
  format text NOT NULL,
  signature jsonb NOT NULL DEFAULT '{}'::jsonb,
  self_test jsonb NOT NULL DEFAULT '{}'::jsonb,
  metrics jsonb NOT NULL DEFAULT '{}'::jsonb,
  hyperparameters jsonb NOT NULL DEFAULT '{}'::jsonb,
  metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
  run_id text,
  dataset_digest text,
  parent_version text,
  code_commit text,
  libraries jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  archived_at timestamptz,
  outside_types text[] NOT NULL DEFAULT '{}'::text[],
  modules jsonb NOT NULL DEFAULT '[]'::jsonb,
  data_digest text,
  compilation jsonb NOT NULL DEFAULT '{}'::jsonb,
  compiled_digest text,
  compiled_size_bytes bigint,
  CONSTRAINT pk_versions PRIMARY KEY (tenant_id, model_id, version),
  CONSTRAINT ck_versions_version CHECK (version ~ '^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$'),
  CONSTRAINT ck_versions_digest CHECK (digest ~ '^[0-9a-f]{64}$'),
  CONSTRAINT ck_versions_compiled_digest CHECK (compiled_digest ~ '^[0-9a-f]{64}$'),
  CONSTRAINT ck_versions_compiled CHECK ((compiled_digest IS NULL) = (compiled_size_bytes IS NULL)),
  CONSTRAINT fk_versions_models FOREIGN KEY (tenant_id, model_id) REFERENCES mlcore.models (tenant_id, model_id),
  CONSTRAINT uq_versions_tenant_id_model_id_number UNIQUE (tenant_id, model_id, number),
  CONSTRAINT ck_versions_sizes CHECK (octet_length(digest::text) <= 65536 AND
    octet_length(format::text) <= 65536 AND octet_length(signature::text) <= 8388608 AND
    octet_length(self_test::text) <= 8388608 AND octet_length(metrics::text) <= 1048576 AND
    octet_length(hyperparameters::text) <= 1048576 AND octet_length(metadata::text) <= 1048576 AND
    octet_length(run_id::text) <= 65536 AND octet_length(dataset_digest::text) <= 65536 AND
    octet_length(parent_version::text) <= 65536 AND octet_length(code_commit::text) <= 65536 AND
    octet_length(libraries::text) <= 1048576 AND octet_length(created_by::text) <= 65536 AND
    octet_length(outside_types::text) <= 1048576 AND octet_length(modules::text) <= 1048576 AND
    octet_length(data_digest::text) <= 65536 AND octet_length(compilation::text) <= 1048576 AND
    octet_length(compiled_digest::text) <= 65536)
);
CREATE INDEX ix_versions_compiled ON mlcore.versions (tenant_id, compiled_digest) WHERE compiled_digest IS NOT NULL;
CREATE INDEX ix_versions_shown ON mlcore.versions (tenant_id, model_id, number) WHERE archived_at IS NULL;
CREATE INDEX ix_versions_tenant_id_created_at_model_id_version
  ON mlcore.versions (tenant_id, created_at, model_id, version);
CREATE INDEX ix_versions_tenant_id_dataset_digest ON mlcore.versions (tenant_id, dataset_digest);
CREATE INDEX ix_versions_tenant_id_digest ON mlcore.versions (tenant_id, digest);
CREATE INDEX ix_versions_tenant_id_model_id_parent_version ON mlcore.versions (tenant_id, model_id, parent_version);
CREATE INDEX ix_versions_tenant_id_run_id ON mlcore.versions (tenant_id, run_id);
GRANT SELECT, INSERT, UPDATE (metadata, archived_at) ON mlcore.versions TO mlcore_app;
GRANT SELECT ON mlcore.versions TO mlcore_ingest;
CREATE TRIGGER keep_deleted_name AFTER DELETE ON mlcore.versions
  FOR EACH ROW EXECUTE FUNCTION mlcore.keep_deleted_name();
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.versions
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('created_at', 'created_by', '');
CREATE TRIGGER take_number BEFORE INSERT ON mlcore.versions FOR EACH ROW EXECUTE FUNCTION mlcore.take_number();

CREATE TABLE mlcore.deleted_versions (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  version text NOT NULL,
  digest text NOT NULL,
  deleted_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_deleted_versions PRIMARY KEY (tenant_id, model_id, version),
  CONSTRAINT fk_deleted_versions_models FOREIGN KEY (tenant_id, model_id)
    REFERENCES mlcore.models (tenant_id, model_id),
  CONSTRAINT ck_deleted_versions_sizes CHECK (octet_length(digest::text) <= 65536)
);
GRANT SELECT ON mlcore.deleted_versions TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.deleted_versions
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('deleted_at', '', '');

CREATE TABLE mlcore.version_tags (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  version text NOT NULL,
  key text NOT NULL,
  value text NOT NULL,
  CONSTRAINT pk_version_tags PRIMARY KEY (tenant_id, model_id, version, key),
  CONSTRAINT fk_version_tags_versions FOREIGN KEY (tenant_id, model_id, version)
    REFERENCES mlcore.versions (tenant_id, model_id, version) ON DELETE CASCADE,
  CONSTRAINT ck_version_tags_sizes CHECK (octet_length(value::text) <= 65536)
);
CREATE INDEX ix_version_tags_tenant_id_key_value ON mlcore.version_tags (tenant_id, key, "left"(value, 250));
GRANT SELECT, INSERT, UPDATE (value) ON mlcore.version_tags TO mlcore_app;

CREATE TABLE mlcore.version_metrics (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  version text NOT NULL,
  split text NOT NULL,
  metric text NOT NULL,
  value double precision NOT NULL,
  CONSTRAINT pk_version_metrics PRIMARY KEY (tenant_id, model_id, version, split, metric),
  CONSTRAINT fk_version_metrics_versions FOREIGN KEY (tenant_id, model_id, version)
    REFERENCES mlcore.versions (tenant_id, model_id, version) ON DELETE CASCADE
);
CREATE INDEX ix_version_metrics_sorted ON mlcore.version_metrics (tenant_id, split, metric, value, model_id, version);
GRANT SELECT, INSERT ON mlcore.version_metrics TO mlcore_app;

CREATE TABLE mlcore.holds (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  version text NOT NULL,
  name text NOT NULL,
  reason text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  CONSTRAINT pk_holds PRIMARY KEY (tenant_id, model_id, version, name),
  CONSTRAINT ck_holds_name CHECK (name ~ '^[a-z][a-z0-9_-]{0,39}$'),
  CONSTRAINT fk_holds_versions FOREIGN KEY (tenant_id, model_id, version)
    REFERENCES mlcore.versions (tenant_id, model_id, version),
  CONSTRAINT ck_holds_sizes CHECK (octet_length(reason::text) <= 65536 AND octet_length(created_by::text) <= 65536)
);
GRANT SELECT, INSERT ON mlcore.holds TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.holds
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('created_at', 'created_by', '');
