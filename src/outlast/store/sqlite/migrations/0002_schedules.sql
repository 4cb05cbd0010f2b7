-- Schedules: a row for each, and a log of what became of its slots and what people did.
--
-- A slot is fired once: the execution's key says so, and the index below. The row and its log change
-- in one transaction, the one that makes the execution.

CREATE TABLE schedule (
  tenant INTEGER NOT NULL,
  name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  task TEXT NOT NULL,
  plan TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('active', 'paused', 'exhausted', 'cancelled')),
  seq INTEGER NOT NULL CHECK (seq >= 1),
  is_declared INTEGER NOT NULL CHECK (is_declared IN (0, 1)),
  next_slot INTEGER,
  next_at INTEGER,
  waiting_slot INTEGER,
  fired INTEGER NOT NULL CHECK (fired >= 0),
  last_slot INTEGER,
  last_execution_id TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  state_at INTEGER NOT NULL,
  input BLOB NOT NULL,
  input_digest INTEGER NOT NULL,
  options TEXT NOT NULL,
  why TEXT,
  PRIMARY KEY (tenant, name),
  CHECK ((next_slot IS NULL) = (next_at IS NULL)),
  CHECK (next_at IS NULL OR next_at >= next_slot),
  CHECK (state NOT IN ('exhausted', 'cancelled') OR (next_slot IS NULL AND waiting_slot IS NULL)),
  CHECK (state <> 'active' OR next_slot IS NOT NULL OR waiting_slot IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX schedule_due ON schedule (tenant, next_at)
  WHERE state = 'active' AND next_at IS NOT NULL;
CREATE INDEX schedule_waiting ON schedule (tenant, name)
  WHERE state = 'active' AND waiting_slot IS NOT NULL;

CREATE TABLE schedule_entry (
  tenant INTEGER NOT NULL,
  name TEXT NOT NULL,
  seq INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN (
    'create', 'update', 'fire', 'queue', 'skip', 'miss', 'trigger', 'backfill', 'pause', 'resume',
    'exhaust', 'cancel', 'retire')),
  at INTEGER NOT NULL,
  actor TEXT NOT NULL CHECK (actor <> ''),
  slot INTEGER,
  until_slot INTEGER CHECK (until_slot IS NULL OR until_slot > slot),
  execution_id TEXT,
  data TEXT,
  PRIMARY KEY (tenant, name, seq)
) STRICT, WITHOUT ROWID;

-- GUARD: a slot is fired once.
CREATE UNIQUE INDEX schedule_entry_fired ON schedule_entry (tenant, name, slot)
  WHERE kind = 'fire';
CREATE INDEX schedule_entry_at ON schedule_entry (tenant, at);

-- Which executions of a schedule are open.
CREATE INDEX execution_by_origin ON execution (tenant, origin, id)
  WHERE origin IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled');

-- GUARD: a log is numbered without a gap, and append-only; its newest entry is never deleted.
CREATE TRIGGER schedule_entry_successor BEFORE INSERT ON schedule_entry
WHEN NOT coalesce((
  SELECT p.seq = NEW.seq - 1 AND p.at <= NEW.at FROM schedule_entry AS p
   WHERE p.tenant = NEW.tenant AND p.name = NEW.name ORDER BY p.seq DESC LIMIT 1),
  NEW.seq = 1 AND EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant))
BEGIN
  SELECT RAISE(ABORT, 'guard: not the successor of the last entry of its schedule');
END;

CREATE TRIGGER schedule_entry_frozen BEFORE UPDATE ON schedule_entry
BEGIN
  SELECT RAISE(ABORT, 'guard: the log of a schedule is append-only');
END;

CREATE TRIGGER schedule_entry_kept BEFORE DELETE ON schedule_entry
WHEN EXISTS (
  SELECT 1 FROM schedule AS s
   WHERE s.tenant = OLD.tenant AND s.name = OLD.name AND s.seq <= OLD.seq)
BEGIN
  SELECT RAISE(ABORT, 'guard: the newest entry of a schedule is kept');
END;

-- GUARD: a row changes with its log only, and is never deleted.
CREATE TRIGGER schedule_born BEFORE INSERT ON schedule
WHEN EXISTS (SELECT 1 FROM schedule AS s WHERE s.tenant = NEW.tenant AND s.name = NEW.name)
  OR NEW.seq IS NOT (
    SELECT max(e.seq) FROM schedule_entry AS e WHERE e.tenant = NEW.tenant AND e.name = NEW.name)
BEGIN
  SELECT RAISE(ABORT, 'guard: a schedule is made once, with its log');
END;

CREATE TRIGGER schedule_changed AFTER UPDATE ON schedule
WHEN NEW.tenant <> OLD.tenant OR NEW.name <> OLD.name OR NEW.seq <= OLD.seq
  OR NEW.updated_at < OLD.updated_at
  OR NEW.seq IS NOT (
    SELECT max(e.seq) FROM schedule_entry AS e WHERE e.tenant = NEW.tenant AND e.name = NEW.name)
BEGIN
  SELECT RAISE(ABORT, 'guard: a schedule changes with its log only');
END;

CREATE TRIGGER schedule_kept BEFORE DELETE ON schedule
BEGIN
  SELECT RAISE(ABORT, 'guard: schedules are cancelled, never deleted');
END;
