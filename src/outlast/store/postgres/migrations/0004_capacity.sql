-- Queues, limits and rates: who holds what, which lines there are, what an operator has set.

CREATE TABLE queue_setting (
  tenant bigint NOT NULL,
  name text COLLATE "C" NOT NULL,
  capacity bigint CHECK (capacity >= 0),
  paused_at bigint,
  paused_by text,
  why text,
  PRIMARY KEY (tenant, name)
);

CREATE TABLE gate_setting (
  tenant bigint NOT NULL,
  gate text COLLATE "C" NOT NULL,
  capacity bigint NOT NULL CHECK (capacity >= 0),
  interval_us bigint CHECK (interval_us >= 1),
  set_by text NOT NULL,
  set_at bigint NOT NULL,
  PRIMARY KEY (tenant, gate)
);

-- The theoretical arrival time of a rate; one that has passed says no more than none.
CREATE TABLE rate (
  tenant bigint NOT NULL,
  gate text COLLATE "C" NOT NULL,
  arrival_at bigint NOT NULL,
  PRIMARY KEY (tenant, gate)
) WITH (fillfactor = 50);

CREATE INDEX rate_arrival ON rate (arrival_at, tenant);

-- An index: who holds a limit, by the execution's row. The triggers below keep it; nobody else may.
CREATE TABLE holder (
  tenant bigint NOT NULL,
  gate text COLLATE "C" NOT NULL,
  execution_id text COLLATE "C" NOT NULL,
  PRIMARY KEY (tenant, gate, execution_id)
);

-- A line: blocked executions of one queue at one gate. look_at says when a claim has to look at it:
-- 0 at once, an instant where a rate opens, NULL when a holder leaves.
CREATE TABLE line (
  tenant bigint NOT NULL,
  gate text COLLATE "C" NOT NULL,
  queue text COLLATE "C" NOT NULL,
  look_at bigint,
  PRIMARY KEY (tenant, gate, queue)
) WITH (fillfactor = 50);

CREATE INDEX line_look ON line (queue, look_at, tenant) WHERE look_at IS NOT NULL;
CREATE INDEX line_opens ON line (look_at, tenant) WHERE look_at IS NOT NULL;

CREATE INDEX execution_blocked ON execution (tenant, gate, queue, turn, id)
  WHERE state = 'blocked';

-- Who holds: what is leased; where the limit says so, what has run and has not ended.
CREATE FUNCTION execution_holds() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  -- Shared; a claim that decides about gates has it for itself (docs/decisions/0023).
  PERFORM pg_advisory_xact_lock_shared(
    hashtextextended(format('outlast gates %s %s', NEW.tenant, current_schema()), 1));
  INSERT INTO holder (tenant, gate, execution_id)
  SELECT NEW.tenant, g ->> 'name', NEW.id
    FROM json_array_elements(facts(NEW.gates) -> 'limits') AS g
   WHERE NEW.worker IS NOT NULL
      OR (coalesce((g ->> 'hold')::boolean, FALSE) AND NEW.high_water = 3
          AND NEW.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled'))
   ORDER BY (g ->> 'name') COLLATE "C"
      ON CONFLICT DO NOTHING;
  DELETE FROM holder
   WHERE tenant = NEW.tenant AND execution_id = NEW.id
     AND gate IN (
      SELECT g ->> 'name'
        FROM json_array_elements(facts(NEW.gates) -> 'limits') AS g
       WHERE NOT (NEW.worker IS NOT NULL
                  OR (coalesce((g ->> 'hold')::boolean, FALSE) AND NEW.high_water = 3
                      AND NEW.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled'))));
  RETURN NULL;
END
$$;

CREATE TRIGGER execution_holds AFTER UPDATE OF state ON execution FOR EACH ROW
  WHEN (NEW.gates IS NOT NULL AND NEW.state <> OLD.state)
  EXECUTE FUNCTION execution_holds();

-- GUARD: what is born already leased has passed no gate.
CREATE FUNCTION execution_born_free() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF coalesce(json_array_length(facts(NEW.gates) -> 'limits'), 0) > 0
    OR coalesce(json_array_length(facts(NEW.gates) -> 'rates'), 0) > 0
    OR coalesce(json_array_length(facts(NEW.gates) -> 'needs'), 0) > 0
  THEN
    PERFORM refuse('what has gates is claimed, not born with a lease');
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER execution_born_free BEFORE INSERT ON execution FOR EACH ROW
  WHEN (NEW.gates IS NOT NULL AND NEW.worker IS NOT NULL)
  EXECUTE FUNCTION execution_born_free();

-- GUARD: no limit has more holders than it allows. The capacity is what is set for its name, or for
-- its family, else what an execution was born with; where those differ, the largest of those inside
-- counts, as the rows of one batch come in any order. Whoever adds a holder keeps others from doing
-- so at the same gate until the end of its transaction: else two could not see each other's.
CREATE FUNCTION holder_fits() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
  held bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('holder ' || NEW.gate, NEW.tenant));
  SELECT count(*) INTO held FROM holder AS h WHERE h.tenant = NEW.tenant AND h.gate = NEW.gate;
  IF held > (
    SELECT max(coalesce(
      (SELECT s.capacity FROM gate_setting AS s
        WHERE s.tenant = NEW.tenant AND s.gate = g ->> 'name'),
      (SELECT s.capacity FROM gate_setting AS s
        WHERE s.tenant = NEW.tenant AND s.gate = g ->> 'of'),
      (g ->> 'capacity')::bigint))
      FROM holder AS h
      JOIN execution AS e ON e.tenant = h.tenant AND e.id = h.execution_id
     CROSS JOIN json_array_elements(facts(e.gates) -> 'limits') AS g
     WHERE h.tenant = NEW.tenant AND h.gate = NEW.gate AND g ->> 'name' = NEW.gate)
  THEN
    PERFORM refuse('a limit has no more holders than it allows');
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER holder_fits AFTER INSERT ON holder
  FOR EACH ROW EXECUTE FUNCTION holder_fits();

-- Whoever leaves a limit lets those look again that wait at it.
CREATE FUNCTION holder_left() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  -- Shared; a claim that decides about gates has it for itself (docs/decisions/0023).
  PERFORM pg_advisory_xact_lock_shared(
    hashtextextended(format('outlast gates %s %s', OLD.tenant, current_schema()), 1));
  UPDATE line SET look_at = 0
   WHERE tenant = OLD.tenant AND gate = OLD.gate AND look_at IS NULL;
  RETURN NULL;
END
$$;

CREATE TRIGGER holder_left AFTER DELETE ON holder
  FOR EACH ROW EXECUTE FUNCTION holder_left();

-- So does whoever leaves a line otherwise than by a claim, or takes another place in it: the next one
-- may be allowed more than the one that stood before it.
CREATE FUNCTION line_changed() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  -- Shared; a claim that decides about gates has it for itself (docs/decisions/0023).
  PERFORM pg_advisory_xact_lock_shared(
    hashtextextended(format('outlast gates %s %s', OLD.tenant, current_schema()), 1));
  UPDATE line SET look_at = 0
   WHERE tenant = OLD.tenant AND gate = facts(OLD.detail) ->> 'gate' AND queue = OLD.queue
     AND look_at IS NULL;
  RETURN NULL;
END
$$;

CREATE TRIGGER line_changed AFTER UPDATE OF state, priority ON execution FOR EACH ROW
  WHEN (OLD.state = 'blocked' AND NEW.state <> 'starting'
        AND (NEW.state <> OLD.state OR NEW.priority <> OLD.priority))
  EXECUTE FUNCTION line_changed();
