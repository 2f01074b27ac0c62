-- Row-level security of every table with a tenant, asked of the catalogue, so that none can be forgotten. It is forced
-- on the owner too: what the functions of the schema may touch are the rows of the tenant that the caller's transaction
-- entered, and of no other. The sub-select is evaluated once a statement, not once a row.
DO $$
DECLARE
  v_table regclass;
  v_rule text := '(tenant_id = (SELECT mlcore.current_tenant()))';
BEGIN
  FOR v_table IN
    SELECT c.oid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'mlcore'::regnamespace AND c.relkind IN ('r', 'p') AND a.attname = 'tenant_id'
  LOOP
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', v_table);
    EXECUTE format('CREATE POLICY tenant_isolation ON %s TO mlcore_app USING %s WITH CHECK %2$s', v_table, v_rule);
    EXECUTE format('CREATE POLICY tenant_removal ON %s TO mlcore_owner USING %s WITH CHECK %2$s', v_table, v_rule);
  END LOOP;
END
$$;

-- What belongs to no tenant belongs to '*', which is no tenant's name.
ALTER TABLE mlcore.platform_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY platform_only ON mlcore.platform_keys TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant())) WITH CHECK ('*' = (SELECT mlcore.current_tenant()));
ALTER TABLE mlcore.job_batches ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY platform_only ON mlcore.job_batches TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant())) WITH CHECK ('*' = (SELECT mlcore.current_tenant()));

-- The queue of jobs spans all tenants; so it is read and moved in the platform's name. A tenant reads its quota, and
-- only the platform sets it: a restrictive policy takes back what the tenant's own policy permits.
CREATE POLICY platform_reads ON mlcore.jobs FOR SELECT TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_changes ON mlcore.jobs FOR UPDATE TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_reads ON mlcore.job_quotas FOR SELECT TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_changes ON mlcore.job_quotas FOR UPDATE TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_adds ON mlcore.job_quotas FOR INSERT TO mlcore_app
  WITH CHECK ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY only_platform_adds ON mlcore.job_quotas AS RESTRICTIVE FOR INSERT TO mlcore_app
  WITH CHECK ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY only_platform_changes ON mlcore.job_quotas AS RESTRICTIVE FOR UPDATE TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_reads ON mlcore.job_turns FOR SELECT TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_turns ON mlcore.job_turns TO mlcore_owner
  USING ('*' = (SELECT mlcore.current_tenant())) WITH CHECK ('*' = (SELECT mlcore.current_tenant()));

-- A batch is submitted in the platform's name: it finds the tenants that have its dataset, keeps them from being deleted
-- meanwhile, which takes the right to change their rows, and adds their jobs with an audit row each. A tenant adds none
-- to a batch.
CREATE POLICY platform_reads ON mlcore.tenants FOR SELECT TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_changes ON mlcore.tenants FOR UPDATE TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_reads ON mlcore.dataset_versions FOR SELECT TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_adds ON mlcore.jobs FOR INSERT TO mlcore_app
  WITH CHECK ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_adds ON mlcore.audit FOR INSERT TO mlcore_app
  WITH CHECK ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY only_platform_adds ON mlcore.jobs AS RESTRICTIVE FOR INSERT TO mlcore_app
  WITH CHECK (batch_id IS NULL OR '*' = (SELECT mlcore.current_tenant()));

-- Where a tenant is served is decided by the platform, with an audit row; the tenant may read it.
CREATE POLICY platform_reads ON mlcore.audit FOR SELECT TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_reads ON mlcore.placements FOR SELECT TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_changes ON mlcore.placements FOR UPDATE TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_adds ON mlcore.placements FOR INSERT TO mlcore_app
  WITH CHECK ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY only_platform_adds ON mlcore.placements AS RESTRICTIVE FOR INSERT TO mlcore_app
  WITH CHECK ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY only_platform_changes ON mlcore.placements AS RESTRICTIVE FOR UPDATE TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
-- So is how much it may ask.
CREATE POLICY platform_reads ON mlcore.prediction_quotas FOR SELECT TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_changes ON mlcore.prediction_quotas FOR UPDATE TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_adds ON mlcore.prediction_quotas FOR INSERT TO mlcore_app
  WITH CHECK ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY only_platform_adds ON mlcore.prediction_quotas AS RESTRICTIVE FOR INSERT TO mlcore_app
  WITH CHECK ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY only_platform_changes ON mlcore.prediction_quotas AS RESTRICTIVE FOR UPDATE TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));

-- The control loop finds the schedules that are due; what it does about them it does in their tenants.
CREATE POLICY platform_reads ON mlcore.schedules FOR SELECT TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));

-- It finds the environments that are to be measured; and operators see how many alerts each tenant has.
CREATE POLICY platform_reads ON mlcore.environments FOR SELECT TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));
CREATE POLICY platform_reads ON mlcore.live_verdicts FOR SELECT TO mlcore_app
  USING ('*' = (SELECT mlcore.current_tenant()));

-- The serving plane reads what it serves of all tenants.
CREATE POLICY serving_reads ON mlcore.tenants FOR SELECT TO mlcore_ingest USING (true);
CREATE POLICY serving_reads ON mlcore.placements FOR SELECT TO mlcore_ingest USING (true);
CREATE POLICY serving_reads ON mlcore.prediction_quotas FOR SELECT TO mlcore_ingest USING (true);
CREATE POLICY serving_reads ON mlcore.models FOR SELECT TO mlcore_ingest USING (true);
CREATE POLICY serving_reads ON mlcore.versions FOR SELECT TO mlcore_ingest USING (true);
CREATE POLICY serving_reads ON mlcore.environments FOR SELECT TO mlcore_ingest USING (true);
CREATE POLICY serving_reads ON mlcore.api_keys FOR SELECT TO mlcore_ingest USING (true);
CREATE POLICY serving_reads ON mlcore.replica_pending FOR SELECT TO mlcore_ingest USING (true);
-- It adds rows of all tenants. A report is replaced whole: its rows go with it by the foreign key, which no policy
-- stops.
CREATE POLICY serving_inserts ON mlcore.predictions FOR INSERT TO mlcore_ingest WITH CHECK (true);
CREATE POLICY serving_inserts ON mlcore.prediction_losses FOR INSERT TO mlcore_ingest WITH CHECK (true);
CREATE POLICY serving_inserts ON mlcore.replica_pending FOR INSERT TO mlcore_ingest WITH CHECK (true);
-- It notes when a tenant was last asked for predictions; of placements it may change nothing else.
CREATE POLICY serving_changes ON mlcore.placements FOR UPDATE TO mlcore_ingest USING (true);
-- It reads and writes the labels of the transaction's tenant.
CREATE POLICY serving_writes ON mlcore.feedback TO mlcore_ingest
  USING (tenant_id = (SELECT mlcore.current_tenant())) WITH CHECK (tenant_id = (SELECT mlcore.current_tenant()));

-- A new function is open to PUBLIC until that is revoked.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mlcore FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mlcore.enter, mlcore.current_tenant TO mlcore_app, mlcore_ingest;
GRANT EXECUTE ON FUNCTION mlcore.advance_feed, mlcore.audit_position, mlcore.erase, mlcore.close_tenant,
  mlcore.remove_tenant_rows TO mlcore_app;
GRANT EXECUTE ON FUNCTION mlcore.ensure_prediction_partitions, mlcore.drop_reports, mlcore.drop_traffic
  TO mlcore_ingest;
GRANT SELECT ON mlcore.alembic_version TO mlcore_app, mlcore_ingest;
