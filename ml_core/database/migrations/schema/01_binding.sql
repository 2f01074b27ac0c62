-- Which tenant a transaction acts for, and in whose name: see ml_core.database.binding.

-- One row, which only the owner reads. Its 244 random bits are those of two UUIDs.
CREATE TABLE mlcore.tenant_key (tenant_key bytea NOT NULL, CONSTRAINT pk_tenant_key PRIMARY KEY (tenant_key));
INSERT INTO mlcore.tenant_key VALUES (sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));

-- A transaction names its tenant and, in p_by, the request, a line break and the principal. The application seals both
-- with the key. The database seals them again together with the transaction's time and process, which no text can
-- imitate, as their bytes hold zeros. The inner hash has a fixed length, so no seal can be extended.
--
-- The process of a job has a seal with the key behind the inner hash, so that neither kind passes for the other. Its
-- p_by is the job, a line break and the run. It enters while the job holds cores for that run, in the name of the row.
CREATE FUNCTION mlcore.enter(p_tenant text, p_by text, p_seal text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_key bytea;
  v_job text[];
BEGIN
  SELECT tenant_key INTO v_key FROM mlcore.tenant_key;
  IF p_seal IS DISTINCT FROM encode(sha256(v_key || sha256(convert_to(p_tenant || E'\n' || p_by, 'UTF8'))), 'hex') THEN
    IF p_seal IS DISTINCT FROM encode(sha256(sha256(convert_to(p_tenant || E'\n' || p_by, 'UTF8')) || v_key), 'hex') THEN
      RAISE EXCEPTION 'The seal of the tenant does not fit.' USING ERRCODE = 'invalid_authorization_specification';
    END IF;
    v_job := string_to_array(p_by, E'\n');
    -- The owner, too, sees the job only from within the tenant. What raises leaves the tenant again.
    PERFORM mlcore.enter(
      p_tenant, '', encode(sha256(v_key || sha256(convert_to(p_tenant || E'\n', 'UTF8'))), 'hex'));
    SELECT request_id || E'\n' || submitted_by INTO p_by FROM mlcore.jobs
    WHERE tenant_id = p_tenant AND job_id = v_job[1] AND run_id = v_job[2]
      AND state IN ('starting', 'running', 'cancelling');
    IF NOT FOUND THEN
      RAISE EXCEPTION 'The job % goes on without the run %.', v_job[1], v_job[2]
        USING ERRCODE = 'invalid_authorization_specification';
    END IF;
  END IF;
  -- One expression: three statements would take three times as long.
  p_seal := set_config('app.tenant_id', p_tenant, true) || set_config('app.by', p_by, true)
    || set_config('app.seal', encode(sha256(v_key || sha256(
      convert_to(current_setting('app.tenant_id', true) || E'\n' || current_setting('app.by', true), 'UTF8')
      || timestamptz_send(transaction_timestamp()) || int4send(pg_backend_pid()))), 'hex'), true);
END
$$;

-- The tenant that the transaction entered, or null. It is called for each table of a statement, so it calls no other
-- function of the schema: setting the search path and the role once more would double its time.
CREATE FUNCTION mlcore.current_tenant() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_key bytea;
BEGIN
  SELECT tenant_key INTO v_key FROM mlcore.tenant_key;
  RETURN CASE WHEN current_setting('app.seal', true) = encode(sha256(v_key || sha256(
      convert_to(current_setting('app.tenant_id', true) || E'\n' || current_setting('app.by', true), 'UTF8')
      || timestamptz_send(transaction_timestamp()) || int4send(pg_backend_pid()))), 'hex')
    THEN current_setting('app.tenant_id', true) END;
END
$$;

-- Whether a row is one of the tenant that the transaction entered. A superuser, to whom no policy applies, may write
-- any row, as a restore does. Nobody else may, nor in the middle of a statement that left its tenant after the policies
-- were evaluated.
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
$$;

-- Fills in when, who and for which request, whatever the statement says. The arguments are the names of the three
-- columns; '' where a table lacks one. The platform's own transactions add rows of any tenant where a policy lets them.
CREATE FUNCTION mlcore.stamp() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_by text := current_setting('app.by', true);
  v_break integer := strpos(v_by, E'\n');
BEGIN
  IF mlcore.current_tenant() = '*' OR mlcore.is_bound(NEW.tenant_id) THEN
    NEW := jsonb_populate_record(NEW, jsonb_build_object(
      TG_ARGV[0], now(), TG_ARGV[1], substr(v_by, v_break + 1), TG_ARGV[2], left(v_by, v_break - 1)));
  END IF;
  RETURN NEW;
END
$$;
