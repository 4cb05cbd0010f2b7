-- Row-level security, the second wall: whoever does not own the tables sees and writes the rows of the
-- one tenant that its transaction has named, whatever its statements forget. Without a name it sees
-- nothing. The setting is read once a statement, not once a row.
--
-- The owner is not kept out: it can change the walls themselves. Engines are better run by a role of
-- their own (outlast db grant ROLE).
DO $$
DECLARE
  kept text;
BEGIN
  FOR kept IN
    SELECT c.relname
      FROM pg_class AS c
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant'
     WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p')
     ORDER BY c.relname
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', kept);
    EXECUTE format(
      'CREATE POLICY of_tenant ON %I USING (tenant = ('
      'SELECT nullif(current_setting(''outlast.tenant'', true), '''')::bigint))', kept);
  END LOOP;
END
$$;

-- Names are looked up before a tenant is known.
ALTER TABLE tenant ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_name ON tenant USING (TRUE);
