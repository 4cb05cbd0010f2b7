-- The core: executions, their logs, their inboxes, the workers, and the guards.
--
-- The guards are the alarm, not the mechanism: the engine decides and compares first, and one that
-- fires is a bug above it. They rest on one idea: each row of a log is checked against the row
-- before it. From that follow gap-free numbers, legal edges, the fence and nonce of every owned
-- write, and that nothing follows a final row; the execution's row must then equal its last row.
--
-- How they are written, as it decides what they cost (docs/performance.md): what compares an old row
-- with the new one is the WHEN of a row trigger, whose function is called only to complain. What has
-- to look something up is one trigger a statement, over its transition table. It asks for one row by
-- its key at a time: a scalar subquery, as the planner would make a join of NOT EXISTS; and without
-- seq scans, as it plans for a table as small as it was when it last looked, and keeps that plan.
--
-- Texts sort by their bytes (COLLATE "C"), as in Python. JSON is text: it comes back as it was.
--
-- An index that is no key, and not partial, begins with what it is there for, the tenant behind it:
-- while a table is empty, one that begins with the tenant looks to the planner as good as the key.

CREATE TABLE meta (
  name text COLLATE "C" PRIMARY KEY,
  value bytea NOT NULL
);

CREATE TABLE migration (
  number bigint PRIMARY KEY,
  applied_at bigint NOT NULL
);

-- Filled from lifecycle.EDGES when the schema is made, and compared with it at every start.
CREATE TABLE edge (
  kind text COLLATE "C" NOT NULL,
  from_state text COLLATE "C" NOT NULL,
  to_state text COLLATE "C" NOT NULL,
  PRIMARY KEY (kind, from_state, to_state)
);

-- All guards speak with one voice, and one SQLSTATE.
CREATE FUNCTION refuse(complaint text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'OL001', MESSAGE = 'guard: ' || complaint;
END
$$;

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM refuse(TG_ARGV[0]);
END
$$;

-- What a transaction does not wait to see, as it is hardly ever there: then it is broken off, and
-- begins again with a look. No guard: it is nobody's fault.
CREATE FUNCTION unforeseen() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'OL003', MESSAGE = 'there is a row that was not looked for';
END
$$;

-- JSON text to be taken apart. PostgreSQL has no character for \u0000, wherever it stands in a text.
-- Not in SQL: the server would put its body into each generated column anew, with each statement.
CREATE FUNCTION facts(document text) RETURNS json
LANGUAGE plpgsql STRICT IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  IF strpos(document, E'\\u0000') > 0 THEN
    document := regexp_replace(document, E'(?<!\\\\)((?:\\\\\\\\)*)\\\\u0000', E'\\1\\\\u2400', 'g');
  END IF;
  RETURN document::json;
END
$$;

-- The time by the server's clock: it judges leases, and no machine's own.
CREATE FUNCTION instant() RETURNS bigint LANGUAGE sql VOLATILE
RETURN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;

-- Whom rows belong to. Every table but the four above begins with a tenant's number; a key, an index
-- or a reference never leaves it.
CREATE TABLE tenant (
  number bigint PRIMARY KEY CHECK (number >= 1),
  name text COLLATE "C" NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63),
  created_at bigint NOT NULL,
  closed_at bigint CHECK (closed_at IS NULL OR number > 1)
);

-- The one that is always there, and administers the others.
INSERT INTO tenant (number, name, created_at) VALUES (1, 'default', 0);

-- GUARD: a tenant is never another one, and stays.
CREATE TRIGGER tenant_named BEFORE UPDATE ON tenant FOR EACH ROW
  WHEN (NEW.number <> OLD.number OR NEW.name <> OLD.name OR NEW.created_at <> OLD.created_at)
  EXECUTE FUNCTION refuse('who a tenant is never changes');

CREATE TRIGGER tenant_kept BEFORE DELETE OR TRUNCATE ON tenant
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('a tenant is closed, never deleted');

CREATE TABLE worker (
  tenant bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  host text NOT NULL,
  pid bigint NOT NULL,
  started_at bigint NOT NULL,
  seen_at bigint NOT NULL,
  lease_us bigint CHECK (lease_us > 0),
  expires_at bigint,
  state text COLLATE "C" NOT NULL CHECK (state IN ('active', 'draining', 'left', 'lost')),
  service text NOT NULL,
  PRIMARY KEY (tenant, id),
  CHECK ((lease_us IS NULL) = (expires_at IS NULL))
) WITH (fillfactor = 50);

-- Whose lease is over gets it back never: it has lost its executions, or may lose them any moment.
CREATE TRIGGER worker_is_over BEFORE UPDATE ON worker FOR EACH ROW
  WHEN (OLD.state IN ('left', 'lost') AND NEW.state IS DISTINCT FROM OLD.state)
  EXECUTE FUNCTION refuse('a worker that is over never serves again');

CREATE TABLE execution (
  tenant bigint NOT NULL,
  id text COLLATE "C" NOT NULL CHECK (length(id) BETWEEN 1 AND 64),
  task text COLLATE "C" NOT NULL,
  state text COLLATE "C" NOT NULL CHECK (state IN (
    'scheduled', 'queued', 'blocked', 'starting', 'running', 'awaiting_input', 'waiting',
    'retry_wait', 'paused', 'suspended', 'succeeded', 'failed', 'timed_out', 'cancelled')),
  seq bigint NOT NULL CHECK (seq >= 1),
  fence bigint NOT NULL CHECK (fence >= 0),
  nonce bytea CHECK (nonce IS NULL OR length(nonce) = 16),
  worker text COLLATE "C",
  high_water bigint NOT NULL CHECK (high_water BETWEEN 0 AND 3),
  cause text COLLATE "C",
  paused_from text COLLATE "C",
  attempt bigint NOT NULL,
  failures bigint NOT NULL,
  claims bigint NOT NULL,
  idle_claims bigint NOT NULL CHECK (idle_claims BETWEEN 0 AND claims),
  inbox_count bigint NOT NULL,
  inbox_seen bigint NOT NULL CHECK (inbox_seen BETWEEN 0 AND inbox_count),
  cancel_at bigint,
  pause_at bigint,
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL,
  state_at bigint NOT NULL,
  started_at bigint,
  due_at bigint,
  deadline_at bigint,
  queue text COLLATE "C" NOT NULL,
  priority bigint NOT NULL,
  key text COLLATE "C",
  input_digest bigint NOT NULL,
  version text COLLATE "C",
  parent_id text COLLATE "C",
  origin text COLLATE "C",
  parent_key text COLLATE "C",
  root_id text COLLATE "C",
  start_by bigint,
  children bigint NOT NULL CHECK (children >= 0),
  gates text,
  labels text,
  detail text,
  -- What is sought by is a column: under row-level security an index is sought by nothing else than
  -- comparisons that can leak nothing, which the functions of JSON are not (docs/decisions/0039).
  code text COLLATE "C" GENERATED ALWAYS AS (
    CASE WHEN state = 'queued'
      THEN task || coalesce(chr(31) || (facts(gates) ->> 'version'), '') END) STORED,
  turn bigint GENERATED ALWAYS AS (
    CASE WHEN state = 'queued' OR state = 'blocked'
      THEN coalesce((facts(detail) ->> 'since')::bigint, state_at) - priority * 60000000 END) STORED,
  gate text COLLATE "C" GENERATED ALWAYS AS (
    CASE WHEN state = 'blocked' THEN facts(detail) ->> 'gate' END) STORED,
  budget_name text COLLATE "C" GENERATED ALWAYS AS (
    CASE WHEN state = 'suspended' THEN facts(detail) #>> '{budget,name}' END) STORED,
  budget_need bigint GENERATED ALWAYS AS (
    CASE WHEN state = 'suspended' THEN (facts(detail) #>> '{budget,need}')::bigint END) STORED,
  PRIMARY KEY (tenant, id),
  CHECK ((state IN ('starting', 'running')) = (nonce IS NOT NULL)),
  CHECK ((nonce IS NULL) = (worker IS NULL)),
  CHECK (claims BETWEEN (nonce IS NOT NULL)::int AND fence),
  CHECK ((state = 'paused') = (paused_from IS NOT NULL)),
  CHECK ((parent_id IS NULL) = (root_id IS NULL)),
  CHECK (parent_id IS NOT NULL OR parent_key IS NULL),
  CHECK (state <> 'retry_wait' OR due_at IS NOT NULL),
  CHECK (state <> 'scheduled' OR due_at IS NOT NULL OR detail IS NOT NULL),
  CHECK (state NOT IN ('waiting', 'awaiting_input', 'suspended', 'paused') OR detail IS NOT NULL)
) WITH (fillfactor = 80);

CREATE UNIQUE INDEX execution_by_key ON execution (tenant, key) WHERE key IS NOT NULL;
-- Priority and waiting time together, which keep their order by themselves: a minute is worth one
-- step of priority (lifecycle.gate.turn_of). By queue, so that a closed one is not looked at, and by
-- what code can run it (lifecycle.gate.code_of): a claim never passes what its engine does not know.
CREATE INDEX execution_queued ON execution (tenant, queue, code, turn, id)
  WHERE state = 'queued';
CREATE INDEX execution_due ON execution (tenant, due_at, id)
  WHERE due_at IS NOT NULL AND state IN ('scheduled', 'waiting', 'awaiting_input', 'retry_wait');
CREATE INDEX execution_deadline ON execution (tenant, deadline_at, id)
  WHERE deadline_at IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled');
CREATE INDEX execution_start_by ON execution (tenant, start_by, id)
  WHERE start_by IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled');
CREATE INDEX execution_children ON execution (tenant, parent_id, id) WHERE parent_id IS NOT NULL;
CREATE INDEX execution_leased ON execution (tenant, worker, id, queue) WHERE worker IS NOT NULL;
-- Each renewal asks for these: its cost does not grow with what a worker holds.
CREATE INDEX execution_unread ON execution (tenant, worker, id)
 WHERE worker IS NOT NULL AND inbox_count > inbox_seen;
CREATE INDEX execution_parked ON execution (tenant, state, id)
  WHERE state IN ('scheduled', 'blocked', 'awaiting_input', 'waiting', 'retry_wait', 'paused',
                  'suspended');

CREATE TABLE transition (
  tenant bigint NOT NULL,
  execution_id text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  kind text COLLATE "C" NOT NULL,
  from_state text COLLATE "C" NOT NULL,
  to_state text COLLATE "C" NOT NULL,
  fence bigint NOT NULL,
  nonce bytea,
  actor text NOT NULL CHECK (actor <> ''),
  at bigint NOT NULL,
  key text COLLATE "C",
  digest bigint,
  data text,
  payload bytea,
  PRIMARY KEY (tenant, execution_id, seq)
);

CREATE TABLE inbox (
  tenant bigint NOT NULL,
  execution_id text COLLATE "C" NOT NULL,
  number bigint NOT NULL CHECK (number >= 1),
  id text COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL,
  actor text NOT NULL CHECK (actor <> ''),
  key text COLLATE "C",
  data text,
  payload bytea,
  at bigint NOT NULL,
  PRIMARY KEY (tenant, execution_id, number),
  -- GUARD: a message is taken once.
  CONSTRAINT inbox_once UNIQUE (tenant, execution_id, id)
);

-- GUARD: the first answer to a question wins.
CREATE UNIQUE INDEX inbox_one_answer ON inbox (tenant, execution_id, key) WHERE kind = 'answer';

-- A purge names here, in its own transaction, what it may delete.
CREATE TABLE purge_permit (
  tenant bigint NOT NULL,
  execution_id text COLLATE "C" NOT NULL,
  PRIMARY KEY (tenant, execution_id)
);

-- GUARD: a row of the log is a legal successor of the row before it, or a birth where there is none.
-- That there is no other row with its number is the primary key's to say.
CREATE FUNCTION transition_successor() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
DECLARE
  complaint text;
BEGIN
  SELECT CASE WHEN r.is_successor THEN 'the lifecycle has no such edge'
              ELSE 'not a legal successor of the last row of its log' END
    INTO complaint
    FROM (
      SELECT n.kind, n.from_state, n.to_state, coalesce((
          SELECT p.at <= n.at AND p.to_state = n.from_state AND CASE
              WHEN n.kind = 'step' THEN n.fence = p.fence AND n.nonce IS NOT DISTINCT FROM p.nonce
              -- Leased: the same fence and nonce, or a takeover, which raises the fence and has no
              -- nonce.
              WHEN p.to_state IN ('running', 'starting') THEN
                (n.fence = p.fence AND n.nonce IS NOT DISTINCT FROM p.nonce)
                OR (n.fence = p.fence + 1 AND n.nonce IS NULL
                    AND n.kind IN ('lease_expired', 'worker_lost', 'cancel', 'deadline'))
              WHEN p.to_state IN ('succeeded', 'failed', 'timed_out', 'cancelled') THEN FALSE
              -- A claim raises the fence by one, or to the floor of a new epoch, and draws a
              -- nonce; nobody else has one. What is born in this epoch may begin below the floor.
              WHEN n.kind = 'claim' THEN
                coalesce(length(n.nonce), 0) = 16 AND CASE
                  WHEN n.fence = p.fence + 1 THEN p.kind = 'create' OR n.fence >= coalesce((
                    SELECT x.floor FROM epoch AS x
                     WHERE x.tenant = n.tenant ORDER BY x.number DESC LIMIT 1), 0)
                  ELSE n.fence > p.fence
                    AND coalesce((facts(n.data) ->> 'floor')::bigint = n.fence, FALSE)
                END
              ELSE n.fence = p.fence AND n.nonce IS NULL
            END
            FROM transition AS p
           WHERE p.tenant = n.tenant AND p.execution_id = n.execution_id AND p.seq = n.seq - 1),
          n.seq = 1 AND n.kind = 'create' AND n.fence = 0 AND n.nonce IS NULL
          AND (SELECT o.number FROM tenant AS o WHERE o.number = n.tenant) IS NOT NULL
        ) AS is_successor
        FROM new_row AS n) AS r
   WHERE NOT r.is_successor
      OR NOT ((r.kind = 'step' AND r.from_state = 'running' AND r.to_state = 'running')
              OR EXISTS (
                SELECT 1 FROM edge AS e
                 WHERE e.kind = r.kind AND e.from_state = r.from_state AND e.to_state = r.to_state))
   LIMIT 1;
  IF FOUND THEN
    PERFORM refuse(complaint);
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER transition_successor AFTER INSERT ON transition
  REFERENCING NEW TABLE AS new_row
  FOR EACH STATEMENT EXECUTE FUNCTION transition_successor();

-- GUARD: the log is append-only.
CREATE TRIGGER transition_frozen BEFORE UPDATE OR TRUNCATE ON transition
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('the log is append-only');

-- What a purge deletes, it has named before.
CREATE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
  PERFORM refuse(TG_ARGV[0])
    FROM old_row AS o
   WHERE (
    SELECT p.tenant FROM purge_permit AS p
     WHERE p.tenant = o.tenant AND p.execution_id = o.execution_id) IS NULL;
  RETURN NULL;
END
$$;

CREATE TRIGGER transition_kept AFTER DELETE ON transition
  REFERENCING OLD TABLE AS old_row
  FOR EACH STATEMENT EXECUTE FUNCTION kept('the log is append-only');

-- GUARD: an execution's row equals the last row of its log, from its birth on.
CREATE FUNCTION execution_equals() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
  PERFORM refuse('the row does not equal the last row of its log')
    FROM new_row AS n
   WHERE NOT coalesce((
    SELECT t.seq = n.seq AND t.at = n.updated_at AND t.to_state = n.state AND t.fence = n.fence
       AND (n.nonce IS NULL OR t.nonce IS NOT DISTINCT FROM n.nonce)
      FROM transition AS t
     WHERE t.tenant = n.tenant AND t.execution_id = n.id
     ORDER BY t.seq DESC LIMIT 1), FALSE);
  RETURN NULL;
END
$$;

CREATE TRIGGER execution_equals_at_birth AFTER INSERT ON execution
  REFERENCING NEW TABLE AS new_row
  FOR EACH STATEMENT EXECUTE FUNCTION execution_equals();

CREATE TRIGGER execution_equals AFTER UPDATE ON execution
  REFERENCING NEW TABLE AS new_row
  FOR EACH STATEMENT EXECUTE FUNCTION execution_equals();

-- GUARD: messages are counted as they come.
CREATE TRIGGER execution_born BEFORE INSERT ON execution FOR EACH ROW
  WHEN (NEW.inbox_count <> 0)
  EXECUTE FUNCTION refuse('messages are counted as they come');

-- GUARD: a row changes with its log only, and never once it is final.
CREATE FUNCTION execution_changed() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM refuse(CASE
    WHEN OLD.state IN ('succeeded', 'failed', 'timed_out', 'cancelled')
    THEN 'a final execution never changes'
    WHEN NEW.seq < OLD.seq OR NEW.fence < OLD.fence OR NEW.claims < OLD.claims
      OR NEW.high_water < OLD.high_water OR NEW.attempt < OLD.attempt
      OR NEW.children < OLD.children
      OR NEW.failures < OLD.failures OR NEW.inbox_seen < OLD.inbox_seen
    THEN 'numbers, fences and counts never go down'
    WHEN NEW.seq = OLD.seq THEN 'a row changes with its log only'
    WHEN NEW.nonce IS NOT DISTINCT FROM OLD.nonce THEN 'a new owner draws a new nonce'
    ELSE 'a new lease raises the fence and is counted'
  END);
END
$$;

CREATE TRIGGER execution_changed BEFORE UPDATE ON execution FOR EACH ROW
  WHEN (
    OLD.state IN ('succeeded', 'failed', 'timed_out', 'cancelled')
    OR NEW.seq < OLD.seq OR NEW.fence < OLD.fence OR NEW.claims < OLD.claims
    OR NEW.high_water < OLD.high_water OR NEW.attempt < OLD.attempt
    OR NEW.children < OLD.children
    OR NEW.failures < OLD.failures OR NEW.inbox_seen < OLD.inbox_seen
    OR (NEW.nonce IS DISTINCT FROM OLD.nonce AND NEW.nonce IS NOT NULL
        AND (NEW.fence <= OLD.fence OR NEW.claims <= OLD.claims))
    OR (NEW.nonce IS NOT DISTINCT FROM OLD.nonce AND NEW.worker IS DISTINCT FROM OLD.worker)
    OR (NEW.seq = OLD.seq AND (
      NEW.state <> OLD.state OR NEW.fence <> OLD.fence OR NEW.nonce IS DISTINCT FROM OLD.nonce
      OR NEW.high_water <> OLD.high_water OR NEW.cause IS DISTINCT FROM OLD.cause
      OR NEW.paused_from IS DISTINCT FROM OLD.paused_from OR NEW.attempt <> OLD.attempt
      OR NEW.failures <> OLD.failures OR NEW.claims <> OLD.claims
      OR NEW.idle_claims <> OLD.idle_claims OR NEW.inbox_seen <> OLD.inbox_seen
      OR NEW.cancel_at IS DISTINCT FROM OLD.cancel_at
      OR NEW.pause_at IS DISTINCT FROM OLD.pause_at
      OR NEW.updated_at <> OLD.updated_at OR NEW.state_at <> OLD.state_at
      OR NEW.started_at IS DISTINCT FROM OLD.started_at
      OR NEW.due_at IS DISTINCT FROM OLD.due_at
      OR NEW.deadline_at IS DISTINCT FROM OLD.deadline_at
      OR NEW.priority <> OLD.priority OR NEW.version IS DISTINCT FROM OLD.version
      OR NEW.start_by IS DISTINCT FROM OLD.start_by OR NEW.children <> OLD.children
      OR NEW.gates IS DISTINCT FROM OLD.gates OR NEW.labels IS DISTINCT FROM OLD.labels
      OR NEW.detail IS DISTINCT FROM OLD.detail)))
  EXECUTE FUNCTION execution_changed();

-- It looks at statements that name one of these columns, as none of ours does.
CREATE TRIGGER execution_named
  BEFORE UPDATE OF tenant, id, task, key, input_digest, created_at, queue, parent_id, origin,
                   parent_key, root_id
  ON execution FOR EACH ROW
  WHEN (
    NEW.tenant <> OLD.tenant OR NEW.id <> OLD.id OR NEW.task <> OLD.task
    OR NEW.key IS DISTINCT FROM OLD.key OR NEW.input_digest <> OLD.input_digest
    OR NEW.created_at <> OLD.created_at OR NEW.queue <> OLD.queue
    OR NEW.parent_id IS DISTINCT FROM OLD.parent_id OR NEW.origin IS DISTINCT FROM OLD.origin
    OR NEW.parent_key IS DISTINCT FROM OLD.parent_key
    OR NEW.root_id IS DISTINCT FROM OLD.root_id)
  EXECUTE FUNCTION refuse('who an execution is never changes');

CREATE FUNCTION execution_counted() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF NEW.inbox_count IS DISTINCT FROM (
    SELECT i.number FROM inbox AS i
     WHERE i.tenant = NEW.tenant AND i.execution_id = NEW.id
     ORDER BY i.number DESC LIMIT 1)
  THEN
    PERFORM refuse('the row counts the messages that there are');
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER execution_counted AFTER UPDATE OF inbox_count ON execution FOR EACH ROW
  WHEN (NEW.inbox_count <> OLD.inbox_count)
  EXECUTE FUNCTION execution_counted();

CREATE FUNCTION execution_kept() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
  PERFORM refuse('executions are deleted by a purge only')
    FROM old_row AS o
   WHERE (
    SELECT p.tenant FROM purge_permit AS p
     WHERE p.tenant = o.tenant AND p.execution_id = o.id) IS NULL;
  RETURN NULL;
END
$$;

CREATE TRIGGER execution_kept AFTER DELETE ON execution
  REFERENCING OLD TABLE AS old_row
  FOR EACH STATEMENT EXECUTE FUNCTION execution_kept();

CREATE TRIGGER execution_truncated BEFORE TRUNCATE ON execution
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('executions are deleted by a purge only');

-- GUARD: messages go to executions that have not ended, are numbered without a gap, and never change.
CREATE FUNCTION inbox_successor() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
  PERFORM refuse('messages go to executions that have not ended')
    FROM new_row AS n
   WHERE (
    SELECT e.seq FROM execution AS e
     WHERE e.tenant = n.tenant AND e.id = n.execution_id
       AND e.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')) IS NULL;
  PERFORM refuse('messages are numbered without a gap')
    FROM new_row AS n
   WHERE n.number > 1 AND (
    SELECT p.number FROM inbox AS p
     WHERE p.tenant = n.tenant AND p.execution_id = n.execution_id
       AND p.number = n.number - 1) IS NULL;
  RETURN NULL;
END
$$;

CREATE TRIGGER inbox_successor AFTER INSERT ON inbox
  REFERENCING NEW TABLE AS new_row
  FOR EACH STATEMENT EXECUTE FUNCTION inbox_successor();

CREATE TRIGGER inbox_frozen BEFORE UPDATE OR TRUNCATE ON inbox
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('messages never change');

CREATE TRIGGER inbox_kept AFTER DELETE ON inbox
  REFERENCING OLD TABLE AS old_row
  FOR EACH STATEMENT EXECUTE FUNCTION kept('messages are deleted by a purge only');

-- GUARD: only what has ended is purged.
CREATE FUNCTION purge_of_ended() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
  PERFORM refuse('only what has ended is purged')
    FROM new_row AS n
   WHERE (
    SELECT e.seq FROM execution AS e
     WHERE e.tenant = n.tenant AND e.id = n.execution_id
       AND e.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')) IS NOT NULL;
  RETURN NULL;
END
$$;

CREATE TRIGGER purge_of_ended AFTER INSERT ON purge_permit
  REFERENCING NEW TABLE AS new_row
  FOR EACH STATEMENT EXECUTE FUNCTION purge_of_ended();
