-- Queues, limits and rates: who holds what, which lines there are, what an operator has set.

CREATE TABLE queue_setting (
  tenant INTEGER NOT NULL,
  name TEXT NOT NULL,
  capacity INTEGER CHECK (capacity >= 0),
  paused_at INTEGER,
  paused_by TEXT,
  why TEXT,
  PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE gate_setting (
  tenant INTEGER NOT NULL,
  gate TEXT NOT NULL,
  capacity INTEGER NOT NULL CHECK (capacity >= 0),
  interval_us INTEGER CHECK (interval_us >= 1),
  set_by TEXT NOT NULL,
  set_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, gate)
) STRICT, WITHOUT ROWID;

-- The theoretical arrival time of a rate; one that has passed says no more than none.
CREATE TABLE rate (
  tenant INTEGER NOT NULL,
  gate TEXT NOT NULL,
  arrival_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, gate)
) STRICT, WITHOUT ROWID;

CREATE INDEX rate_arrival ON rate (tenant, arrival_at);

-- An index: who holds a limit, by the execution's row. The triggers below keep it; nobody else may.
CREATE TABLE holder (
  tenant INTEGER NOT NULL,
  gate TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  PRIMARY KEY (tenant, gate, execution_id)
) STRICT, WITHOUT ROWID;

-- A line: blocked executions of one queue at one gate. look_at says when a claim has to look at it:
-- 0 at once, an instant where a rate opens, NULL when a holder leaves.
CREATE TABLE line (
  tenant INTEGER NOT NULL,
  gate TEXT NOT NULL,
  queue TEXT NOT NULL,
  look_at INTEGER,
  PRIMARY KEY (tenant, gate, queue)
) STRICT, WITHOUT ROWID;

CREATE INDEX line_look ON line (tenant, queue, look_at) WHERE look_at IS NOT NULL;
CREATE INDEX line_opens ON line (tenant, look_at) WHERE look_at IS NOT NULL;

CREATE INDEX execution_blocked ON execution (
    tenant, json_extract(detail, '$.gate'), queue,
    coalesce(json_extract(detail, '$.since'), state_at) - priority * 60000000, id)
  WHERE state = 'blocked';

-- Who holds: what is leased; where the limit says so, what has run and has not ended.
CREATE TRIGGER execution_holds AFTER UPDATE OF state ON execution
WHEN NEW.gates IS NOT NULL AND NEW.state <> OLD.state
BEGIN
  INSERT INTO holder (tenant, gate, execution_id)
  SELECT NEW.tenant, g.value ->> 'name', NEW.id
    FROM json_each(NEW.gates, '$.limits') AS g
   WHERE (NEW.worker IS NOT NULL
          OR (g.value ->> 'hold' AND NEW.high_water = 3
              AND NEW.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')))
     AND NOT EXISTS (
      SELECT 1 FROM holder AS h
       WHERE h.tenant = NEW.tenant AND h.gate = g.value ->> 'name' AND h.execution_id = NEW.id);
  DELETE FROM holder
   WHERE tenant = NEW.tenant AND execution_id = NEW.id
     AND gate IN (
      SELECT g.value ->> 'name'
        FROM json_each(NEW.gates, '$.limits') AS g
       WHERE NOT (NEW.worker IS NOT NULL
                  OR (g.value ->> 'hold' AND NEW.high_water = 3
                      AND NEW.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled'))));
END;

-- GUARD: what is born already leased has passed no gate.
CREATE TRIGGER execution_born_free BEFORE INSERT ON execution
WHEN NEW.gates IS NOT NULL AND NEW.worker IS NOT NULL
 AND (json_array_length(NEW.gates, '$.limits') > 0 OR json_array_length(NEW.gates, '$.rates') > 0
      OR json_array_length(NEW.gates, '$.needs') > 0)
BEGIN
  SELECT RAISE(ABORT, 'guard: what has gates is claimed, not born with a lease');
END;

-- GUARD: no limit has more holders than it allows. The capacity is what is set for its name, or for
-- its family, else what an execution was born with; where those differ, the largest of those inside
-- counts, as the rows of one batch come in any order.
CREATE TRIGGER holder_fits AFTER INSERT ON holder
WHEN (SELECT count(*) FROM holder AS h WHERE h.tenant = NEW.tenant AND h.gate = NEW.gate) > (
  SELECT coalesce(
    (SELECT s.capacity FROM gate_setting AS s
      WHERE s.tenant = NEW.tenant AND s.gate = g.value ->> 'name'),
    (SELECT s.capacity FROM gate_setting AS s
      WHERE s.tenant = NEW.tenant AND s.gate = g.value ->> 'of'),
    g.value ->> 'capacity')
    FROM execution AS e, json_each(e.gates, '$.limits') AS g
   WHERE e.tenant = NEW.tenant AND e.id = NEW.execution_id AND g.value ->> 'name' = NEW.gate)
BEGIN
  SELECT CASE
    WHEN (SELECT count(*) FROM holder AS h WHERE h.tenant = NEW.tenant AND h.gate = NEW.gate) > (
      SELECT max(coalesce(
        (SELECT s.capacity FROM gate_setting AS s
          WHERE s.tenant = NEW.tenant AND s.gate = g.value ->> 'name'),
        (SELECT s.capacity FROM gate_setting AS s
          WHERE s.tenant = NEW.tenant AND s.gate = g.value ->> 'of'),
        g.value ->> 'capacity'))
        FROM holder AS h, execution AS e, json_each(e.gates, '$.limits') AS g
       WHERE h.tenant = NEW.tenant AND h.gate = NEW.gate AND e.tenant = h.tenant
         AND e.id = h.execution_id AND g.value ->> 'name' = NEW.gate)
    THEN RAISE(ABORT, 'guard: a limit has no more holders than it allows')
  END;
END;

-- Whoever leaves a limit lets those look again that wait at it.
CREATE TRIGGER holder_left AFTER DELETE ON holder
BEGIN
  UPDATE line SET look_at = 0
   WHERE tenant = OLD.tenant AND gate = OLD.gate AND look_at IS NULL;
END;

-- So does whoever leaves a line otherwise than by a claim, or takes another place in it: the next one
-- may be allowed more than the one that stood before it.
CREATE TRIGGER line_changed AFTER UPDATE OF state, priority ON execution
WHEN OLD.state = 'blocked' AND NEW.state <> 'starting'
 AND (NEW.state <> OLD.state OR NEW.priority <> OLD.priority)
BEGIN
  UPDATE line SET look_at = 0
   WHERE tenant = OLD.tenant AND gate = json_extract(OLD.detail, '$.gate') AND queue = OLD.queue
     AND look_at IS NULL;
END;
