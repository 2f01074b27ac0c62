-- Deletion. A role that may delete rows may also lock the table against everybody, so only the owner may, by these
-- functions.

-- Deletes rows of the transaction's tenant by their keys: {"model_id": ["m"], "version": ["1", "2"]}.
CREATE FUNCTION mlcore.erase(p_table text, p_key jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_conditions text;
  v_count bigint;
BEGIN
  IF p_table <> ALL (ARRAY['versions', 'version_tags', 'holds', 'gates', 'dataset_versions', 'runs', 'run_tags',
      'run_metrics', 'run_metric_summaries', 'run_artifacts', 'run_documents', 'idempotency_keys', 'schedules']) THEN
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
$$;

-- The row lock conflicts with the one that every journaled write takes: it waits for those before it, and those after
-- it find the tenant deleted. Nothing sets deleted_at back.
CREATE FUNCTION mlcore.close_tenant() RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_tenant text := mlcore.current_tenant();
  v_deleted_at timestamptz;
BEGIN
  PERFORM 1 FROM mlcore.tenants WHERE tenant_id = v_tenant FOR UPDATE;
  IF EXISTS (SELECT 1 FROM mlcore.holds WHERE tenant_id = v_tenant) THEN
    RAISE EXCEPTION 'The tenant % has holds.', v_tenant USING ERRCODE = 'restrict_violation';
  END IF;
  UPDATE mlcore.tenants
    SET deleted_at = COALESCE(deleted_at, now()),
        deleted_by = COALESCE(deleted_by,
          substr(current_setting('app.by'), strpos(current_setting('app.by'), E'\n') + 1))
    WHERE tenant_id = v_tenant RETURNING deleted_at INTO v_deleted_at;
  RETURN v_deleted_at;
END
$$;

-- The catalogue says which tables there are, so that one of a later release can't be forgotten; tables that others
-- reference come last. A partition is emptied by itself: its rows are found by their place there. Every key leads with
-- the tenant, so an index finds the next rows; a sequential scan would read the rows that earlier batches removed again
-- and again. Of a table that references itself, as parts of a run reference the whole, a batch takes only rows that no
-- other references: round by round, so that a long chain makes progress.
CREATE FUNCTION mlcore.remove_tenant_rows(p_limit bigint) RETURNS TABLE (removed_from text, row_count bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_tenant text := mlcore.current_tenant();
  v_left bigint := p_limit;
  v_done bigint;
  v_rest bigint;
  v_before bigint;
  v_leaves text;
  v_table record;
  v_part record;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM mlcore.tenants WHERE tenant_id = v_tenant AND deleted_at IS NOT NULL) THEN
    RAISE EXCEPTION 'The tenant % was not deleted.', v_tenant USING ERRCODE = 'restrict_violation';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('removal of ' || v_tenant, 0));
  FOR v_table IN
    WITH RECURSIVE owned AS (
      SELECT c.oid, c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
      WHERE c.relnamespace = 'mlcore'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND a.attname = 'tenant_id' AND NOT a.attisdropped AND c.relname <> 'tenants'
    ), ranked AS (
      SELECT oid, 0 AS rank FROM owned
      UNION
      SELECT k.confrelid, r.rank + 1 FROM ranked r JOIN pg_constraint k ON k.conrelid = r.oid
      JOIN owned o ON o.oid = k.confrelid
      WHERE k.contype = 'f' AND k.confrelid <> k.conrelid AND r.rank < 100
    )
    SELECT o.oid, o.relname FROM owned o JOIN ranked r ON r.oid = o.oid GROUP BY o.oid, o.relname
    ORDER BY max(r.rank), o.relname
  LOOP
    v_rest := v_left;
    SELECT COALESCE(string_agg(format(' AND NOT EXISTS (SELECT 1 FROM mlcore.%I part WHERE part.tenant_id = $1 AND %s)',
      v_table.relname, (
        SELECT string_agg(format('part.%I = whole.%I', a.attname, b.attname), ' AND ')
        FROM unnest(k.conkey, k.confkey) AS pair (own, other)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = pair.own
        JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = pair.other)), ''), '')
      INTO v_leaves
      FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = v_table.oid AND k.confrelid = k.conrelid;
    FOR v_round IN 1..100 LOOP
      v_before := v_left;
      FOR v_part IN
        SELECT p.oid, n.nspname, p.relname FROM pg_class p JOIN pg_namespace n ON n.oid = p.relnamespace
        WHERE p.relkind = 'r' AND (p.oid = v_table.oid OR p.oid IN (SELECT relid FROM pg_partition_tree(v_table.oid)))
      LOOP
        EXIT WHEN v_left = 0;
        EXECUTE format(
          'DELETE FROM %1$I.%2$I WHERE tenant_id = $1 AND ctid = ANY(ARRAY('
          'SELECT ctid FROM %1$I.%2$I whole WHERE tenant_id = $1%3$s LIMIT $2))',
          v_part.nspname, v_part.relname, v_leaves)
          USING v_tenant, v_left;
        GET DIAGNOSTICS v_done = ROW_COUNT;
        v_left := v_left - v_done;
      END LOOP;
      EXIT WHEN v_leaves = '' OR v_left IN (0, v_before);
    END LOOP;
    IF v_rest > v_left THEN
      removed_from := v_table.relname;
      row_count := v_rest - v_left;
      RETURN NEXT;
    END IF;
    EXIT WHEN v_left = 0;
    EXECUTE format('SELECT 1 FROM mlcore.%I WHERE tenant_id = $1 LIMIT 1', v_table.relname) INTO v_rest USING v_tenant;
    IF v_rest IS NOT NULL AND v_left = p_limit THEN
      RAISE EXCEPTION 'Rows of % in % can not be removed.', v_tenant, v_table.relname
        USING ERRCODE = 'restrict_violation';
    END IF;
    EXIT WHEN v_rest IS NOT NULL;  -- some came while these went: the next call takes them
  END LOOP;
END
$$;
