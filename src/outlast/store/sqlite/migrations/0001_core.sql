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

CREATE TABLE worker (
  id TEXT PRIMARY KEY,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE execution (
  tenant INTEGER NOT NULL,
  id TEXT NOT NULL CHECK (length(id) BETWEEN 1 AND 64),
  task TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN (
    'scheduled', 'queued', 'blocked', 'starting', 'running', 'awaiting_input', 'waiting',
    'retry_wait', 'paused', 'suspended', 'succeeded', 'failed', 'timed_out', 'cancelled')),
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
  idle_claims INTEGER NOT NULL CHECK (idle_claims <= claims),
  inbox_count INTEGER NOT NULL,
  inbox_seen INTEGER NOT NULL CHECK (inbox_seen <= inbox_count),
  cancel_at INTEGER,
  pause_at INTEGER,
  created_at INTEGER NOT NULL,
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
  detail TEXT,
  PRIMARY KEY (tenant, id),
  CHECK ((state IN ('starting', 'running')) = (nonce IS NOT NULL)),
  CHECK ((nonce IS NULL) = (worker IS NULL)),
  CHECK (state <> 'retry_wait' OR due_at IS NOT NULL),
  CHECK (state NOT IN ('waiting', 'awaiting_input', 'suspended', 'paused') OR detail IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX execution_by_key ON execution (tenant, key) WHERE key IS NOT NULL;
CREATE INDEX execution_queued ON execution (tenant, priority DESC, state_at, id)
  WHERE state = 'queued';
CREATE INDEX execution_due ON execution (tenant, due_at)
  WHERE due_at IS NOT NULL AND state IN ('scheduled', 'waiting', 'awaiting_input', 'retry_wait');
CREATE INDEX execution_deadline ON execution (tenant, deadline_at)
  WHERE deadline_at IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled');
CREATE INDEX execution_leased ON execution (tenant, worker) WHERE worker IS NOT NULL;
CREATE INDEX execution_parked ON execution (tenant, state, id)
  WHERE state IN ('scheduled', 'blocked', 'awaiting_input', 'waiting', 'retry_wait', 'paused',
                  'suspended');

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

-- GUARD: a row of the log is a legal successor of the row before it.
CREATE TRIGGER transition_successor BEFORE INSERT ON transition WHEN NEW.seq > 1
BEGIN
  SELECT RAISE(ABORT, 'guard: not a legal successor of the row before it')
   WHERE NOT EXISTS (
    SELECT 1 FROM transition AS p
     WHERE p.tenant = NEW.tenant AND p.execution_id = NEW.execution_id AND p.seq = NEW.seq - 1
       AND p.to_state = NEW.from_state
       AND p.to_state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')
       AND CASE
        -- Leased: the same fence and nonce, or a takeover, which raises the fence and has no nonce.
        WHEN p.to_state IN ('starting', 'running') THEN
          (NEW.fence = p.fence AND NEW.nonce = p.nonce)
          OR (NEW.fence = p.fence + 1 AND NEW.nonce IS NULL
              AND NEW.kind IN ('lease_expired', 'worker_lost', 'cancel', 'deadline'))
        -- A claim raises the fence and draws a nonce; nobody else has one.
        WHEN NEW.kind = 'claim' THEN NEW.fence = p.fence + 1 AND length(NEW.nonce) = 16
        ELSE NEW.fence = p.fence AND NEW.nonce IS NULL
       END)
   OR NOT EXISTS (
    SELECT 1 FROM edge AS e
     WHERE e.kind = NEW.kind AND e.from_state = NEW.from_state AND e.to_state = NEW.to_state);
END;

-- GUARD: a log begins with a birth.
CREATE TRIGGER transition_birth BEFORE INSERT ON transition WHEN NEW.seq <= 1
BEGIN
  SELECT RAISE(ABORT, 'guard: a log begins with create, number 1')
   WHERE NEW.seq <> 1 OR NEW.kind <> 'create' OR NEW.fence <> 0 OR NEW.nonce IS NOT NULL
      OR NOT EXISTS (
    SELECT 1 FROM edge AS e
     WHERE e.kind = NEW.kind AND e.from_state = NEW.from_state AND e.to_state = NEW.to_state);
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

-- GUARD: an execution's row equals the last row of its log.
CREATE TRIGGER execution_born AFTER INSERT ON execution
BEGIN
  SELECT RAISE(ABORT, 'guard: the row does not equal the last row of its log')
   WHERE NOT EXISTS (
    SELECT 1 FROM transition AS t
     WHERE t.tenant = NEW.tenant AND t.execution_id = NEW.id AND t.seq = NEW.seq
       AND t.to_state = NEW.state AND t.fence = NEW.fence
       AND (NEW.nonce IS NULL OR t.nonce = NEW.nonce))
   OR EXISTS (
    SELECT 1 FROM transition AS t
     WHERE t.tenant = NEW.tenant AND t.execution_id = NEW.id AND t.seq = NEW.seq + 1);
END;

CREATE TRIGGER execution_changed AFTER UPDATE ON execution
WHEN NEW.seq <> OLD.seq OR NEW.state <> OLD.state OR NEW.fence <> OLD.fence
  OR NEW.nonce IS NOT OLD.nonce OR NEW.claims <> OLD.claims
BEGIN
  SELECT RAISE(ABORT, 'guard: a final execution never changes')
   WHERE OLD.state IN ('succeeded', 'failed', 'timed_out', 'cancelled');
  SELECT RAISE(ABORT, 'guard: claims are counted, fences and numbers never go down')
   WHERE NEW.seq < OLD.seq OR NEW.fence < OLD.fence OR NEW.claims < OLD.claims
      OR (NEW.nonce IS NOT NULL AND NEW.nonce IS NOT OLD.nonce
          AND (NEW.fence <= OLD.fence OR NEW.claims <= OLD.claims));
  SELECT RAISE(ABORT, 'guard: the row does not equal the last row of its log')
   WHERE NOT EXISTS (
    SELECT 1 FROM transition AS t
     WHERE t.tenant = NEW.tenant AND t.execution_id = NEW.id AND t.seq = NEW.seq
       AND t.to_state = NEW.state AND t.fence = NEW.fence
       AND (NEW.nonce IS NULL OR t.nonce = NEW.nonce))
   OR EXISTS (
    SELECT 1 FROM transition AS t
     WHERE t.tenant = NEW.tenant AND t.execution_id = NEW.id AND t.seq = NEW.seq + 1);
END;

CREATE TRIGGER execution_named BEFORE UPDATE OF tenant, id, task, key, input_digest, created_at
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

-- GUARD: messages are numbered without a gap and never change.
CREATE TRIGGER inbox_successor BEFORE INSERT ON inbox
BEGIN
  SELECT RAISE(ABORT, 'guard: messages are numbered without a gap')
   WHERE NEW.number <> 1 AND NOT EXISTS (
    SELECT 1 FROM inbox AS p
     WHERE p.tenant = NEW.tenant AND p.execution_id = NEW.execution_id
       AND p.number = NEW.number - 1);
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
