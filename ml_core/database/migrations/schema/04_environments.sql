-- Environments: pointers with their rollouts and moves, and the rules by which a pointer may be moved.

CREATE FUNCTION mlcore.check_generation() RETURNS trigger
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
    PERFORM mlcore.append_move(OLD);
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'A pointer moves from one generation to the next.' USING ERRCODE = 'check_violation';
END
$$;

CREATE FUNCTION mlcore.complete_moves() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF mlcore.is_bound(NEW.tenant_id) THEN
    PERFORM mlcore.append_move(e) FROM mlcore.environments e WHERE e.tenant_id = NEW.tenant_id
      AND e.model_id = NEW.model_id AND e.environment = NEW.environment AND e.generation = NEW.generation;
  END IF;
  RETURN NULL;
END
$$;

-- A move records what the pointer holds, whatever the statement says.
CREATE FUNCTION mlcore.fill_move() RETURNS trigger
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
$$;

CREATE TABLE mlcore.environments (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  environment text NOT NULL,
  version text,
  generation bigint NOT NULL,
  feed_generation bigint NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  updated_by text NOT NULL,
  canary_version text,
  canary_percent integer,
  canary_sticky text,
  shadow_version text,
  CONSTRAINT pk_environments PRIMARY KEY (tenant_id, model_id, environment),
  CONSTRAINT ck_environments_environment CHECK (environment ~ '^[a-z][a-z0-9_-]{0,39}$'),
  CONSTRAINT ck_environments_canary CHECK (CASE WHEN canary_version IS NULL THEN canary_percent IS NULL AND
    canary_sticky IS NULL ELSE version IS NOT NULL AND canary_version <> version AND
    COALESCE(canary_percent BETWEEN 1 AND 99, false) END),
  CONSTRAINT ck_environments_shadow CHECK (shadow_version IS NULL OR (version IS NOT NULL AND
    shadow_version <> version AND shadow_version IS DISTINCT FROM canary_version)),
  CONSTRAINT fk_environments_models FOREIGN KEY (tenant_id, model_id) REFERENCES mlcore.models (tenant_id, model_id),
  CONSTRAINT fk_environments_versions FOREIGN KEY (tenant_id, model_id, version)
    REFERENCES mlcore.versions (tenant_id, model_id, version),
  CONSTRAINT fk_environments_canary_version FOREIGN KEY (tenant_id, model_id, canary_version)
    REFERENCES mlcore.versions (tenant_id, model_id, version),
  CONSTRAINT fk_environments_shadow_version FOREIGN KEY (tenant_id, model_id, shadow_version)
    REFERENCES mlcore.versions (tenant_id, model_id, version),
  CONSTRAINT ck_environments_sizes CHECK (octet_length(version::text) <= 65536 AND
    octet_length(updated_by::text) <= 65536 AND octet_length(canary_version::text) <= 65536 AND
    octet_length(canary_sticky::text) <= 65536 AND octet_length(shadow_version::text) <= 65536)
);
CREATE INDEX ix_environments_feed_generation ON mlcore.environments (feed_generation);
CREATE INDEX ix_environments_tenant_id_model_id_version ON mlcore.environments (tenant_id, model_id, version);
GRANT SELECT, INSERT, UPDATE (version, generation, feed_generation, updated_at, updated_by,
    canary_version, canary_percent, canary_sticky, shadow_version)
  ON mlcore.environments TO mlcore_app;
GRANT SELECT ON mlcore.environments TO mlcore_ingest;
CREATE TRIGGER check_feed_generation BEFORE INSERT OR UPDATE ON mlcore.environments
  FOR EACH ROW EXECUTE FUNCTION mlcore.check_feed_generation();
CREATE CONSTRAINT TRIGGER complete_moves AFTER INSERT OR UPDATE ON mlcore.environments
  DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION mlcore.complete_moves();
CREATE TRIGGER check_generation BEFORE INSERT OR UPDATE ON mlcore.environments
  FOR EACH ROW EXECUTE FUNCTION mlcore.check_generation();
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON mlcore.environments
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('updated_at', 'updated_by', '');

-- Appends the move that a transaction did not append itself: before the next move, or at the commit.
CREATE FUNCTION mlcore.append_move(p_pointer mlcore.environments) RETURNS void
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
$$;

CREATE TABLE mlcore.environment_history (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  environment text NOT NULL,
  generation bigint NOT NULL,
  action text NOT NULL,
  version text,
  digest text,
  restored_generation bigint NOT NULL,
  actor text NOT NULL,
  reason text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  canary_version text,
  canary_percent integer,
  canary_sticky text,
  shadow_version text,
  gates jsonb NOT NULL DEFAULT '[]'::jsonb,
  override_reason text,
  CONSTRAINT pk_environment_history PRIMARY KEY (tenant_id, model_id, environment, generation),
  CONSTRAINT ck_environment_history_restored_generation CHECK (restored_generation BETWEEN 1 AND generation),
  CONSTRAINT fk_environment_history_models FOREIGN KEY (tenant_id, model_id)
    REFERENCES mlcore.models (tenant_id, model_id),
  CONSTRAINT ck_environment_history_sizes CHECK (octet_length(action::text) <= 65536 AND
    octet_length(version::text) <= 65536 AND octet_length(digest::text) <= 65536 AND
    octet_length(actor::text) <= 65536 AND octet_length(reason::text) <= 65536 AND
    octet_length(canary_version::text) <= 65536 AND octet_length(canary_sticky::text) <= 65536 AND
    octet_length(shadow_version::text) <= 65536 AND octet_length(gates::text) <= 1048576 AND
    octet_length(override_reason::text) <= 65536)
);
GRANT SELECT, INSERT ON mlcore.environment_history TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.environment_history
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('at', 'actor', '');
CREATE TRIGGER fill_move BEFORE INSERT ON mlcore.environment_history
  FOR EACH ROW EXECUTE FUNCTION mlcore.fill_move();

CREATE TABLE mlcore.environment_policies (
  tenant_id text NOT NULL,
  environment text NOT NULL,
  is_protected boolean NOT NULL DEFAULT false,
  updated_at timestamptz NOT NULL DEFAULT now(),
  updated_by text NOT NULL,
  CONSTRAINT pk_environment_policies PRIMARY KEY (tenant_id, environment),
  CONSTRAINT ck_environment_policies_environment CHECK (environment ~ '^[a-z][a-z0-9_-]{0,39}$'),
  CONSTRAINT fk_environment_policies_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id),
  CONSTRAINT ck_environment_policies_sizes CHECK (octet_length(updated_by::text) <= 65536)
);
GRANT SELECT, INSERT, UPDATE (is_protected, updated_at, updated_by) ON mlcore.environment_policies TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON mlcore.environment_policies
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('updated_at', 'updated_by', '');

CREATE TABLE mlcore.gates (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  environment text NOT NULL,
  name text NOT NULL,
  kind text NOT NULL,
  settings jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  CONSTRAINT pk_gates PRIMARY KEY (tenant_id, model_id, environment, name),
  CONSTRAINT ck_gates_environment CHECK (environment ~ '^[a-z][a-z0-9_-]{0,39}$'),
  CONSTRAINT fk_gates_models FOREIGN KEY (tenant_id, model_id) REFERENCES mlcore.models (tenant_id, model_id),
  CONSTRAINT ck_gates_sizes CHECK (octet_length(kind::text) <= 65536 AND
    octet_length(settings::text) <= 1048576 AND octet_length(created_by::text) <= 65536)
);
GRANT SELECT, INSERT, UPDATE (kind, settings, created_at, created_by) ON mlcore.gates TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON mlcore.gates
  FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('created_at', 'created_by', '');

CREATE TABLE mlcore.approvals (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  version text NOT NULL,
  environment text NOT NULL,
  approver text NOT NULL,
  reason text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_approvals PRIMARY KEY (tenant_id, model_id, version, environment, approver),
  CONSTRAINT ck_approvals_environment CHECK (environment ~ '^[a-z][a-z0-9_-]{0,39}$'),
  CONSTRAINT fk_approvals_versions FOREIGN KEY (tenant_id, model_id, version)
    REFERENCES mlcore.versions (tenant_id, model_id, version) ON DELETE CASCADE,
  CONSTRAINT ck_approvals_sizes CHECK (octet_length(reason::text) <= 65536)
);
GRANT SELECT, INSERT ON mlcore.approvals TO mlcore_app;
CREATE TRIGGER stamp BEFORE INSERT ON mlcore.approvals FOR EACH ROW EXECUTE FUNCTION mlcore.stamp('at', 'approver', '');
