-- The core: executions, their logs, their inboxes, the workers, and the guards.
--
-- The guards are the alarm, not the mechanism: the engine decides and compares first, and one that
-- fires is a bug above it. They rest on one idea: each row of a log is checked against the row
-- before it. From that follow gap-free numbers, legal edges, the fence and nonce of every owned
-- write, and that nothing follows a final row; the execution's row must then equal its last row.

CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE migration (
  number INTEGER PRIMARY KEY,
  applied_at INTEGER NOT NULL
) STRICT;

-- Filled from lifecycle.EDGES when the schema is made, and compared with it at every start.
CREATE TABLE edge (
  kind TEXT NOT NULL,
  from_state TEXT NOT NULL,
  to_state TEXT NOT NULL,
  PRIMARY KEY (kind, from_state, to_state)
) STRICT, WITHOUT ROWID;

-- Whom rows belong to. Every table but the four above begins with a tenant's number; a key, an index
-- or a reference never leaves it.
CREATE TABLE tenant (
  number INTEGER PRIMARY KEY CHECK (number >= 1),
  name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63),
  created_at INTEGER NOT NULL,
  closed_at INTEGER CHECK (closed_at IS NULL OR number > 1)
) STRICT;

-- The one that is always there, and administers the others.
INSERT INTO tenant (number, name, created_at) VALUES (1, 'default', 0);

-- GUARD: a tenant is never another one, and stays.
CREATE TRIGGER tenant_named BEFORE UPDATE OF number, name, created_at ON tenant
BEGIN SELECT RAISE(ABORT, 'guard: who a tenant is never changes'); END;

CREATE TRIGGER tenant_kept BEFORE DELETE ON tenant
BEGIN SELECT RAISE(ABORT, 'guard: a tenant is closed, never deleted'); END;

CREATE TABLE worker (
  tenant INTEGER NOT NULL,
  id TEXT NOT NULL,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  seen_at INTEGER NOT NULL,
  lease_us INTEGER CHECK (lease_us > 0),
  expires_at INTEGER,
  state TEXT NOT NULL CHECK (state IN ('active', 'draining', 'left', 'lost')),
  service TEXT NOT NULL,
  PRIMARY KEY (tenant, id),
  CHECK ((lease_us IS NULL) = (expires_at IS NULL))
) STRICT, WITHOUT ROWID;

-- Whose lease is over gets it back never: it has lost its executions, or may lose them any moment.
CREATE TRIGGER worker_is_over BEFORE UPDATE ON worker
WHEN OLD.state IN ('left', 'lost') AND NEW.state IS NOT OLD.state
BEGIN SELECT RAISE(ABORT, 'guard: a worker that is over never serves again'); END;

-- Lists that are looked at for each row are spelled out with OR, the commonest first: an IN list is a
-- table to SQLite, in which each row is made a key of and searched for, half a microsecond a list.
CREATE TABLE execution (
  tenant INTEGER NOT NULL,
  id TEXT NOT NULL CHECK (length(id) BETWEEN 1 AND 64),
  task TEXT NOT NULL,
  state TEXT NOT NULL CHECK (
    state = 'queued' OR state = 'starting' OR state = 'running' OR state = 'succeeded'
    OR state = 'awaiting_input' OR state = 'waiting' OR state = 'retry_wait' OR state = 'scheduled'
    OR state = 'blocked' OR state = 'paused' OR state = 'suspended' OR state = 'failed'
    OR state = 'timed_out' OR state = 'cancelled'),
  seq INTEGER NOT NULL CHECK (seq >= 1),
  fence INTEGER NOT NULL CHECK (fence >= 0),
  nonce BLOB CHECK (nonce IS NULL OR length(nonce) = 16),
  worker TEXT,
  high_water INTEGER NOT NULL CHECK (high_water BETWEEN 0 AND 3),
  cause TEXT,
  paused_from TEXT,
  attempt INTEGER NOT NULL,
  failures INTEGER NOT NULL,
  claims INTEGER NOT NULL,
  idle_claims INTEGER NOT NULL CHECK (idle_claims BETWEEN 0 AND claims),
  inbox_count INTEGER NOT NULL,
  inbox_seen INTEGER NOT NULL CHECK (inbox_seen BETWEEN 0 AND inbox_count),
  cancel_at INTEGER,
  pause_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  state_at INTEGER NOT NULL,
  started_at INTEGER,
  due_at INTEGER,
  deadline_at INTEGER,
  queue TEXT NOT NULL,
  priority INTEGER NOT NULL,
  key TEXT,
  input_digest INTEGER NOT NULL,
  version TEXT,
  parent_id TEXT,
  origin TEXT,
  parent_key TEXT,
  root_id TEXT,
  start_by INTEGER,
  children INTEGER NOT NULL CHECK (children >= 0),
  gates TEXT,
  labels TEXT,
  detail TEXT,
  PRIMARY KEY (tenant, id),
  CHECK ((state IN ('starting', 'running')) = (nonce IS NOT NULL)),
  CHECK ((nonce IS NULL) = (worker IS NULL)),
  CHECK (claims BETWEEN (nonce IS NOT NULL) AND fence),
  CHECK ((state = 'paused') = (paused_from IS NOT NULL)),
  CHECK ((parent_id IS NULL) = (root_id IS NULL)),
  CHECK (parent_id IS NOT NULL OR parent_key IS NULL),
  CHECK (state <> 'retry_wait' OR due_at IS NOT NULL),
  CHECK (state <> 'scheduled' OR due_at IS NOT NULL OR detail IS NOT NULL),
  CHECK (detail IS NOT NULL OR (
    state <> 'waiting' AND state <> 'awaiting_input' AND state <> 'suspended'
    AND state <> 'paused'))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX execution_by_key ON execution (tenant, key) WHERE key IS NOT NULL;
-- Priority and waiting time together, which keep their order by themselves: a minute is worth one
-- step of priority (lifecycle.gate.turn_of). By queue, so that a closed one is not looked at, and by
-- what code can run it (lifecycle.gate.code_of): a claim never passes what its engine does not know.
CREATE INDEX execution_queued ON execution (
    tenant, queue, task || coalesce(char(31) || (gates ->> 'version'), ''),
    coalesce(json_extract(detail, '$.since'), state_at) - priority * 60000000, id)
  WHERE state = 'queued';
CREATE INDEX execution_due ON execution (tenant, due_at)
  WHERE due_at IS NOT NULL AND state IN ('scheduled', 'waiting', 'awaiting_input', 'retry_wait');
CREATE INDEX execution_deadline ON execution (tenant, deadline_at)
  WHERE deadline_at IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled');
CREATE INDEX execution_start_by ON execution (tenant, start_by)
  WHERE start_by IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled');
CREATE INDEX execution_children ON execution (tenant, parent_id, id) WHERE parent_id IS NOT NULL;
CREATE INDEX execution_leased ON execution (tenant, worker, id, queue) WHERE worker IS NOT NULL;
CREATE INDEX execution_parked ON execution (tenant, state, id)
  WHERE state = 'scheduled' OR state = 'blocked' OR state = 'awaiting_input' OR state = 'waiting'
     OR state = 'retry_wait' OR state = 'paused' OR state = 'suspended';

CREATE TABLE transition (
  tenant INTEGER NOT NULL,
  execution_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  kind TEXT NOT NULL,
  from_state TEXT NOT NULL,
  to_state TEXT NOT NULL,
  fence INTEGER NOT NULL,
  nonce BLOB,
  actor TEXT NOT NULL CHECK (actor <> ''),
  at INTEGER NOT NULL,
  key TEXT,
  digest INTEGER,
  data TEXT,
  payload BLOB,
  PRIMARY KEY (tenant, execution_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE inbox (
  tenant INTEGER NOT NULL,
  execution_id TEXT NOT NULL,
  number INTEGER NOT NULL CHECK (number >= 1),
  id TEXT NOT NULL,
  kind TEXT NOT NULL,
  actor TEXT NOT NULL CHECK (actor <> ''),
  key TEXT,
  data TEXT,
  payload BLOB,
  at INTEGER NOT NULL,
  PRIMARY KEY (tenant, execution_id, number),
  UNIQUE (tenant, execution_id, id)
) STRICT, WITHOUT ROWID;

-- The first answer to a question wins.
CREATE UNIQUE INDEX inbox_one_answer ON inbox (tenant, execution_id, key) WHERE kind = 'answer';

-- A purge names here, in its own transaction, what it may delete.
CREATE TABLE purge_permit (
  tenant INTEGER NOT NULL,
  execution_id TEXT NOT NULL,
  PRIMARY KEY (tenant, execution_id)
) STRICT, WITHOUT ROWID;

-- GUARD: a row of the log is a legal successor of the last one, or a birth where there is none.
-- One seek finds the last row, so that a repeat (also by REPLACE) and a gap are the same question.
-- The commonest kind is asked first and without the edge table, and lists are spelled out with OR:
-- SQLite builds a table for an IN list each time a trigger fires, which costs a microsecond a row.
CREATE TRIGGER transition_successor BEFORE INSERT ON transition
BEGIN
  SELECT CASE
    WHEN NOT coalesce((
      SELECT p.seq = NEW.seq - 1 AND p.at <= NEW.at AND p.to_state = NEW.from_state AND CASE
        WHEN NEW.kind = 'step' THEN NEW.fence = p.fence AND NEW.nonce IS p.nonce
        -- Leased: the same fence and nonce, or a takeover, which raises the fence and has no nonce.
        WHEN p.to_state = 'running' OR p.to_state = 'starting' THEN
          (NEW.fence = p.fence AND NEW.nonce IS p.nonce)
          OR (NEW.fence = p.fence + 1 AND NEW.nonce IS NULL
              AND (NEW.kind = 'lease_expired' OR NEW.kind = 'worker_lost' OR NEW.kind = 'cancel'
                   OR NEW.kind = 'deadline'))
        WHEN p.to_state = 'succeeded' OR p.to_state = 'failed' OR p.to_state = 'timed_out'
          OR p.to_state = 'cancelled' THEN FALSE
        -- A claim raises the fence by one, or to the floor of a new epoch, and draws a nonce;
        -- nobody else has one. What is born in this epoch may begin below the floor.
        WHEN NEW.kind = 'claim' THEN length(NEW.nonce) IS 16 AND CASE
          WHEN NEW.fence = p.fence + 1 THEN p.kind = 'create' OR NEW.fence >= coalesce((
            SELECT x.floor FROM epoch AS x
                     WHERE x.tenant = NEW.tenant ORDER BY x.number DESC LIMIT 1), 0)
          ELSE NEW.fence > p.fence AND (NEW.data ->> 'floor') IS NEW.fence
         END
        ELSE NEW.fence = p.fence AND NEW.nonce IS NULL
       END
        FROM transition AS p
       WHERE p.tenant = NEW.tenant AND p.execution_id = NEW.execution_id
       ORDER BY p.seq DESC LIMIT 1),
      NEW.seq = 1 AND NEW.kind = 'create' AND NEW.fence = 0 AND NEW.nonce IS NULL
      AND EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant))
    THEN RAISE(ABORT, 'guard: not a legal successor of the last row of its log')
    WHEN NEW.kind = 'step' AND NEW.from_state = 'running' AND NEW.to_state = 'running' THEN NULL
    WHEN NOT EXISTS (
      SELECT 1 FROM edge AS e
       WHERE e.kind = NEW.kind AND e.from_state = NEW.from_state AND e.to_state = NEW.to_state)
    THEN RAISE(ABORT, 'guard: the lifecycle has no such edge')
  END;
END;

-- GUARD: the log is append-only.
CREATE TRIGGER transition_frozen BEFORE UPDATE ON transition
BEGIN
  SELECT RAISE(ABORT, 'guard: the log is append-only');
END;

CREATE TRIGGER transition_kept BEFORE DELETE ON transition
WHEN NOT EXISTS (
  SELECT 1 FROM purge_permit AS p
   WHERE p.tenant = OLD.tenant AND p.execution_id = OLD.execution_id)
BEGIN
  SELECT RAISE(ABORT, 'guard: the log is append-only');
END;

-- GUARD: an execution is born once, and its row equals the last row of its log.
CREATE TRIGGER execution_born BEFORE INSERT ON execution
BEGIN
  SELECT CASE
    WHEN EXISTS (SELECT 1 FROM execution AS e WHERE e.tenant = NEW.tenant AND e.id = NEW.id)
      OR (NEW.key IS NOT NULL AND EXISTS (
        SELECT 1 FROM execution AS e WHERE e.tenant = NEW.tenant AND e.key = NEW.key))
    THEN RAISE(ABORT, 'guard: the execution, or its key, exists already')
    WHEN NEW.inbox_count <> 0 THEN RAISE(ABORT, 'guard: messages are counted as they come')
    WHEN NOT coalesce((
      SELECT t.seq = NEW.seq AND t.at = NEW.updated_at AND t.to_state = NEW.state
         AND t.fence = NEW.fence
         AND (NEW.nonce IS NULL OR t.nonce IS NEW.nonce)
        FROM transition AS t
       WHERE t.tenant = NEW.tenant AND t.execution_id = NEW.id
       ORDER BY t.seq DESC LIMIT 1), FALSE)
    THEN RAISE(ABORT, 'guard: the row does not equal the last row of its log')
  END;
END;

-- GUARD: a row changes with its log only, and never once it is final.
CREATE TRIGGER execution_changed AFTER UPDATE ON execution
BEGIN
  SELECT CASE
    WHEN OLD.state = 'succeeded' OR OLD.state = 'failed' OR OLD.state = 'timed_out'
      OR OLD.state = 'cancelled'
    THEN RAISE(ABORT, 'guard: a final execution never changes')
    WHEN NEW.seq < OLD.seq OR NEW.fence < OLD.fence OR NEW.claims < OLD.claims
      OR NEW.high_water < OLD.high_water OR NEW.attempt < OLD.attempt
      OR NEW.children < OLD.children
      OR NEW.failures < OLD.failures OR NEW.inbox_seen < OLD.inbox_seen
    THEN RAISE(ABORT, 'guard: numbers, fences and counts never go down')
    WHEN NEW.nonce IS NOT OLD.nonce AND NEW.nonce IS NOT NULL
      AND (NEW.fence <= OLD.fence OR NEW.claims <= OLD.claims)
    THEN RAISE(ABORT, 'guard: a new lease raises the fence and is counted')
    WHEN NEW.nonce IS OLD.nonce AND NEW.worker IS NOT OLD.worker
    THEN RAISE(ABORT, 'guard: a new owner draws a new nonce')
    WHEN NEW.inbox_count <> OLD.inbox_count AND NEW.inbox_count IS NOT (
      SELECT max(i.number) FROM inbox AS i
       WHERE i.tenant = NEW.tenant AND i.execution_id = NEW.id)
    THEN RAISE(ABORT, 'guard: the row counts the messages that there are')
    WHEN NEW.seq = OLD.seq AND (
      NEW.state <> OLD.state OR NEW.fence <> OLD.fence OR NEW.nonce IS NOT OLD.nonce
      OR NEW.high_water <> OLD.high_water OR NEW.cause IS NOT OLD.cause
      OR NEW.paused_from IS NOT OLD.paused_from OR NEW.attempt <> OLD.attempt
      OR NEW.failures <> OLD.failures OR NEW.claims <> OLD.claims
      OR NEW.idle_claims <> OLD.idle_claims OR NEW.inbox_seen <> OLD.inbox_seen
      OR NEW.cancel_at IS NOT OLD.cancel_at OR NEW.pause_at IS NOT OLD.pause_at
      OR NEW.updated_at <> OLD.updated_at OR NEW.state_at <> OLD.state_at OR NEW.started_at IS NOT OLD.started_at
      OR NEW.due_at IS NOT OLD.due_at OR NEW.deadline_at IS NOT OLD.deadline_at
      OR NEW.priority <> OLD.priority OR NEW.version IS NOT OLD.version
      OR NEW.start_by IS NOT OLD.start_by OR NEW.children <> OLD.children
      OR NEW.gates IS NOT OLD.gates OR NEW.labels IS NOT OLD.labels
      OR NEW.detail IS NOT OLD.detail)
    THEN RAISE(ABORT, 'guard: a row changes with its log only')
    WHEN NEW.seq > OLD.seq AND NOT coalesce((
      SELECT t.seq = NEW.seq AND t.at = NEW.updated_at AND t.to_state = NEW.state
         AND t.fence = NEW.fence
         AND (NEW.nonce IS NULL OR t.nonce IS NEW.nonce)
        FROM transition AS t
       WHERE t.tenant = NEW.tenant AND t.execution_id = NEW.id
       ORDER BY t.seq DESC LIMIT 1), FALSE)
    THEN RAISE(ABORT, 'guard: the row does not equal the last row of its log')
  END;
END;

CREATE TRIGGER execution_named
BEFORE UPDATE OF tenant, id, task, key, input_digest, created_at, queue, parent_id, origin,
                 parent_key, root_id
ON execution
BEGIN
  SELECT RAISE(ABORT, 'guard: who an execution is never changes');
END;

CREATE TRIGGER execution_kept BEFORE DELETE ON execution
WHEN NOT EXISTS (
  SELECT 1 FROM purge_permit AS p WHERE p.tenant = OLD.tenant AND p.execution_id = OLD.id)
BEGIN
  SELECT RAISE(ABORT, 'guard: executions are deleted by a purge only');
END;

-- GUARD: messages go to executions that have not ended, are numbered without a gap, taken once, and
-- never change. (REPLACE would delete the earlier row without a word; hence the question for it.)
CREATE TRIGGER inbox_successor BEFORE INSERT ON inbox
BEGIN
  SELECT CASE
    WHEN NOT EXISTS (
      SELECT 1 FROM execution AS e
       WHERE e.tenant = NEW.tenant AND e.id = NEW.execution_id
         AND e.state <> 'succeeded' AND e.state <> 'failed' AND e.state <> 'timed_out'
         AND e.state <> 'cancelled')
    THEN RAISE(ABORT, 'guard: messages go to executions that have not ended')
    WHEN NOT coalesce((
      SELECT p.number = NEW.number - 1 FROM inbox AS p
       WHERE p.tenant = NEW.tenant AND p.execution_id = NEW.execution_id
       ORDER BY p.number DESC LIMIT 1), NEW.number = 1)
    THEN RAISE(ABORT, 'guard: messages are numbered without a gap')
    WHEN EXISTS (
      SELECT 1 FROM inbox AS p
       WHERE p.tenant = NEW.tenant AND p.execution_id = NEW.execution_id AND p.id = NEW.id)
    THEN RAISE(ABORT, 'guard: a message is taken once')
    WHEN NEW.kind = 'answer' AND EXISTS (
      SELECT 1 FROM inbox AS p
       WHERE p.tenant = NEW.tenant AND p.execution_id = NEW.execution_id AND p.key = NEW.key
         AND p.kind = 'answer')
    THEN RAISE(ABORT, 'guard: the first answer wins')
  END;
END;

CREATE TRIGGER inbox_frozen BEFORE UPDATE ON inbox
BEGIN
  SELECT RAISE(ABORT, 'guard: messages never change');
END;

CREATE TRIGGER inbox_kept BEFORE DELETE ON inbox
WHEN NOT EXISTS (
  SELECT 1 FROM purge_permit AS p
   WHERE p.tenant = OLD.tenant AND p.execution_id = OLD.execution_id)
BEGIN
  SELECT RAISE(ABORT, 'guard: messages are deleted by a purge only');
END;

-- GUARD: only what has ended is purged.
CREATE TRIGGER purge_of_ended BEFORE INSERT ON purge_permit
WHEN EXISTS (
  SELECT 1 FROM execution AS e
   WHERE e.tenant = NEW.tenant AND e.id = NEW.execution_id
     AND e.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled'))
BEGIN
  SELECT RAISE(ABORT, 'guard: only what has ended is purged');
END;
