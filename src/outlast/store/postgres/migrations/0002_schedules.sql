-- Schedules: a row for each, and a log of what became of its slots and what people did.
--
-- A slot is fired once: the execution's key says so, and the index below. The row and its log change
-- in one transaction, the one that makes the execution.

CREATE TABLE schedule (
  tenant bigint NOT NULL,
  name text COLLATE "C" NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  task text COLLATE "C" NOT NULL,
  plan text NOT NULL,
  state text COLLATE "C" NOT NULL
    CHECK (state IN ('active', 'paused', 'exhausted', 'cancelled')),
  seq bigint NOT NULL CHECK (seq >= 1),
  is_declared bigint NOT NULL CHECK (is_declared IN (0, 1)),
  next_slot bigint,
  next_at bigint,
  waiting_slot bigint,
  fired bigint NOT NULL CHECK (fired >= 0),
  last_slot bigint,
  last_execution_id text COLLATE "C",
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL,
  state_at bigint NOT NULL,
  input bytea NOT NULL,
  input_digest bigint NOT NULL,
  options text NOT NULL,
  why text,
  PRIMARY KEY (tenant, name),
  CHECK ((next_slot IS NULL) = (next_at IS NULL)),
  CHECK (next_at IS NULL OR next_at >= next_slot),
  CHECK (state NOT IN ('exhausted', 'cancelled') OR (next_slot IS NULL AND waiting_slot IS NULL)),
  CHECK (state <> 'active' OR next_slot IS NOT NULL OR waiting_slot IS NOT NULL)
);

CREATE INDEX schedule_due ON schedule (tenant, next_at, name)
  WHERE state = 'active' AND next_at IS NOT NULL;
CREATE INDEX schedule_waiting ON schedule (tenant, name)
  WHERE state = 'active' AND waiting_slot IS NOT NULL;

CREATE TABLE schedule_entry (
  tenant bigint NOT NULL,
  name text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  kind text COLLATE "C" NOT NULL CHECK (kind IN (
    'create', 'update', 'fire', 'queue', 'skip', 'miss', 'trigger', 'backfill', 'pause', 'resume',
    'exhaust', 'cancel', 'retire')),
  at bigint NOT NULL,
  actor text NOT NULL CHECK (actor <> ''),
  slot bigint,
  until_slot bigint CHECK (until_slot IS NULL OR until_slot > slot),
  execution_id text COLLATE "C",
  data text,
  PRIMARY KEY (tenant, name, seq)
);

-- GUARD: a slot is fired once.
CREATE UNIQUE INDEX schedule_entry_fired ON schedule_entry (tenant, name, slot)
  WHERE kind = 'fire';
CREATE INDEX schedule_entry_at ON schedule_entry (at, tenant, name, seq);

-- Which executions of a schedule are open.
CREATE INDEX execution_by_origin ON execution (tenant, origin, id)
  WHERE origin IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled');

-- GUARD: a log is numbered without a gap, and append-only; its newest entry is never deleted.
CREATE FUNCTION schedule_entry_successor() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF NOT coalesce((
    SELECT p.seq = NEW.seq - 1 AND p.at <= NEW.at FROM schedule_entry AS p
     WHERE p.tenant = NEW.tenant AND p.name = NEW.name ORDER BY p.seq DESC LIMIT 1),
    NEW.seq = 1 AND EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant))
  THEN
    PERFORM refuse('not the successor of the last entry of its schedule');
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER schedule_entry_successor BEFORE INSERT ON schedule_entry
  FOR EACH ROW EXECUTE FUNCTION schedule_entry_successor();

CREATE TRIGGER schedule_entry_frozen BEFORE UPDATE OR TRUNCATE ON schedule_entry
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('the log of a schedule is append-only');

CREATE FUNCTION schedule_entry_kept() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM refuse('the newest entry of a schedule is kept')
    FROM old_row AS o
    JOIN schedule AS s ON s.tenant = o.tenant AND s.name = o.name AND s.seq <= o.seq;
  RETURN NULL;
END
$$;

CREATE TRIGGER schedule_entry_kept AFTER DELETE ON schedule_entry
  REFERENCING OLD TABLE AS old_row
  FOR EACH STATEMENT EXECUTE FUNCTION schedule_entry_kept();

-- GUARD: a row changes with its log only, and is never deleted.
CREATE FUNCTION schedule_equals() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF NEW.seq IS DISTINCT FROM (
    SELECT max(e.seq) FROM schedule_entry AS e WHERE e.tenant = NEW.tenant AND e.name = NEW.name)
  THEN
    PERFORM refuse(TG_ARGV[0]);
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER schedule_born AFTER INSERT ON schedule FOR EACH ROW
  EXECUTE FUNCTION schedule_equals('a schedule is made once, with its log');

CREATE TRIGGER schedule_equals AFTER UPDATE ON schedule FOR EACH ROW
  EXECUTE FUNCTION schedule_equals('a schedule changes with its log only');

CREATE TRIGGER schedule_changed BEFORE UPDATE ON schedule FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant OR NEW.name <> OLD.name OR NEW.seq <= OLD.seq
        OR NEW.updated_at < OLD.updated_at)
  EXECUTE FUNCTION refuse('a schedule changes with its log only');

CREATE TRIGGER schedule_kept BEFORE DELETE OR TRUNCATE ON schedule
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('schedules are cancelled, never deleted');
