-- Where to look for executions by a label, and by what they were made of.

-- One row for each label of an execution; kept by the triggers below, from the row's own mapping.
CREATE TABLE label (
  tenant bigint NOT NULL,
  name text COLLATE "C" NOT NULL,
  value text COLLATE "C" NOT NULL,
  execution_id text COLLATE "C" NOT NULL,
  PRIMARY KEY (tenant, name, value, execution_id)
);

CREATE FUNCTION execution_labelled() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    DELETE FROM label AS l
     USING json_each_text(facts(OLD.labels)) AS j
     WHERE l.tenant = OLD.tenant AND l.name = j.key AND l.value = j.value
       AND l.execution_id = OLD.id;
  END IF;
  IF TG_OP <> 'DELETE' THEN
    INSERT INTO label (tenant, name, value, execution_id)
    SELECT NEW.tenant, j.key, j.value, NEW.id FROM json_each_text(facts(NEW.labels)) AS j;
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER execution_labelled AFTER INSERT ON execution FOR EACH ROW
  WHEN (NEW.labels IS NOT NULL)
  EXECUTE FUNCTION execution_labelled();

CREATE TRIGGER execution_relabelled AFTER UPDATE OF labels ON execution FOR EACH ROW
  WHEN (NEW.labels IS DISTINCT FROM OLD.labels)
  EXECUTE FUNCTION execution_labelled();

CREATE TRIGGER execution_unlabelled AFTER DELETE ON execution FOR EACH ROW
  WHEN (OLD.labels IS NOT NULL)
  EXECUTE FUNCTION execution_labelled();

-- Which execution was made of which. The source may be gone; what was made of it still names it.
CREATE TABLE descent (
  tenant bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  source_id text COLLATE "C" NOT NULL,
  mode text COLLATE "C" NOT NULL CHECK (mode IN ('rerun', 'fork', 'recover')),
  step text COLLATE "C",
  PRIMARY KEY (tenant, id)
);

CREATE INDEX descent_of_source ON descent (source_id, tenant, id);

-- GUARD: an execution was made of what the first row of its log says.
CREATE FUNCTION descent_told() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF NOT coalesce((
    SELECT facts(t.data) #>> '{from,id}' = NEW.source_id
      FROM transition AS t
     WHERE t.tenant = NEW.tenant AND t.execution_id = NEW.id AND t.seq = 1), FALSE)
  THEN
    PERFORM refuse('the log of an execution says what it was made of');
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER descent_told BEFORE INSERT ON descent
  FOR EACH ROW EXECUTE FUNCTION descent_told();

CREATE TRIGGER descent_frozen BEFORE UPDATE OR TRUNCATE ON descent
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('what an execution was made of never changes');

CREATE FUNCTION descent_gone() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  DELETE FROM descent WHERE tenant = OLD.tenant AND id = OLD.id;
  RETURN NULL;
END
$$;

CREATE TRIGGER descent_gone AFTER DELETE ON execution
  FOR EACH ROW EXECUTE FUNCTION descent_gone();
