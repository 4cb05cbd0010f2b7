-- Where to look for executions by a label, and by what they were made of.

-- One row for each label of an execution; kept by the triggers below, from the row's own mapping.
CREATE TABLE label (
  tenant INTEGER NOT NULL,
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  PRIMARY KEY (tenant, name, value, execution_id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER execution_labelled AFTER INSERT ON execution
WHEN NEW.labels IS NOT NULL
BEGIN
  INSERT INTO label (tenant, name, value, execution_id)
  SELECT NEW.tenant, j.key, j.value, NEW.id FROM json_each(NEW.labels) AS j;
END;

CREATE TRIGGER execution_relabelled AFTER UPDATE OF labels ON execution
WHEN NEW.labels IS NOT OLD.labels
BEGIN
  DELETE FROM label
   WHERE (tenant, name, value, execution_id) IN (
    SELECT OLD.tenant, j.key, j.value, OLD.id FROM json_each(OLD.labels) AS j);
  INSERT INTO label (tenant, name, value, execution_id)
  SELECT NEW.tenant, j.key, j.value, NEW.id FROM json_each(NEW.labels) AS j;
END;

CREATE TRIGGER execution_unlabelled AFTER DELETE ON execution
WHEN OLD.labels IS NOT NULL
BEGIN
  DELETE FROM label
   WHERE (tenant, name, value, execution_id) IN (
    SELECT OLD.tenant, j.key, j.value, OLD.id FROM json_each(OLD.labels) AS j);
END;

-- Which execution was made of which. The source may be gone; what was made of it still names it.
CREATE TABLE descent (
  tenant INTEGER NOT NULL,
  id TEXT NOT NULL,
  source_id TEXT NOT NULL,
  mode TEXT NOT NULL CHECK (mode IN ('rerun', 'fork', 'recover')),
  step TEXT,
  PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX descent_of_source ON descent (tenant, source_id, id);

-- GUARD: an execution was made of what the first row of its log says.
CREATE TRIGGER descent_told BEFORE INSERT ON descent
WHEN NOT coalesce((
  SELECT json_extract(t.data, '$.from.id') = NEW.source_id
    FROM transition AS t
   WHERE t.tenant = NEW.tenant AND t.execution_id = NEW.id AND t.seq = 1), FALSE)
BEGIN
  SELECT RAISE(ABORT, 'guard: the log of an execution says what it was made of');
END;

CREATE TRIGGER descent_frozen BEFORE UPDATE ON descent
BEGIN
  SELECT RAISE(ABORT, 'guard: what an execution was made of never changes');
END;

CREATE TRIGGER descent_gone AFTER DELETE ON execution
BEGIN
  DELETE FROM descent WHERE tenant = OLD.tenant AND id = OLD.id;
END;
