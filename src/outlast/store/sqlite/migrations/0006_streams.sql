-- What executions hand out while they run: streams of values, and how far they are.
--
-- Neither is part of the log, as nothing is decided by it. An item is written with the next row of
-- its execution or before it, and never changes.

-- step '' is the task's own code, attempt the how-manieth try of the task or step, lease the fence
-- under which a step's body ran (0 for task code, which says the same again in every replay).
CREATE TABLE stream_item (
  tenant INTEGER NOT NULL,
  execution_id TEXT NOT NULL,
  name TEXT NOT NULL,
  number INTEGER NOT NULL CHECK (number >= 1),
  step TEXT NOT NULL,
  attempt INTEGER NOT NULL CHECK (attempt >= 1),
  lease INTEGER NOT NULL CHECK (lease >= 0),
  part INTEGER NOT NULL CHECK (part >= 1),
  at INTEGER NOT NULL,
  payload BLOB NOT NULL,
  PRIMARY KEY (tenant, execution_id, name, number)
) STRICT, WITHOUT ROWID;

-- What was said is there once, however often it is said again.
CREATE UNIQUE INDEX stream_item_once
    ON stream_item (tenant, execution_id, name, step, attempt, lease, part);

-- GUARD: a stream is numbered without a gap, and only grows.
CREATE TRIGGER stream_item_successor BEFORE INSERT ON stream_item
WHEN NEW.number <> 1 + coalesce((
  SELECT max(p.number) FROM stream_item AS p
   WHERE p.tenant = NEW.tenant AND p.execution_id = NEW.execution_id AND p.name = NEW.name), 0)
BEGIN
  SELECT RAISE(ABORT, 'guard: a stream is numbered without a gap');
END;

CREATE TRIGGER stream_item_frozen BEFORE UPDATE ON stream_item
BEGIN
  SELECT RAISE(ABORT, 'guard: a stream only grows');
END;

CREATE TRIGGER stream_item_kept BEFORE DELETE ON stream_item
WHEN NOT EXISTS (
  SELECT 1 FROM purge_permit AS p
   WHERE p.tenant = OLD.tenant AND p.execution_id = OLD.execution_id)
BEGIN
  SELECT RAISE(ABORT, 'guard: streams are deleted by a purge only');
END;

-- The latest that an execution said of how far it is; step '' is the task's own code.
CREATE TABLE progress (
  tenant INTEGER NOT NULL,
  execution_id TEXT NOT NULL,
  at INTEGER NOT NULL,
  done REAL NOT NULL,
  total REAL,
  text TEXT,
  step TEXT NOT NULL,
  PRIMARY KEY (tenant, execution_id)
) STRICT, WITHOUT ROWID;
