-- Payloads are sealed anew by another data key: within a transaction that says so, and with nothing
-- else of a row changed.

CREATE TABLE reseal_permit (
  tenant INTEGER NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

DROP TRIGGER transition_frozen;

-- GUARD: the log is append-only, but for what it is sealed by.
CREATE TRIGGER transition_frozen BEFORE UPDATE ON transition
WHEN NOT (
  EXISTS (SELECT 1 FROM reseal_permit AS p WHERE p.tenant = OLD.tenant)
    AND OLD.payload IS NOT NULL AND coalesce(hex(substr(NEW.payload, 1, 2)) = 'C101', FALSE)
    AND (NEW.tenant, NEW.execution_id, NEW.seq, NEW.kind, NEW.from_state, NEW.to_state, NEW.fence,
         NEW.nonce, NEW.actor, NEW.at, NEW.key, NEW.digest, NEW.data)
     IS (OLD.tenant, OLD.execution_id, OLD.seq, OLD.kind, OLD.from_state, OLD.to_state, OLD.fence,
         OLD.nonce, OLD.actor, OLD.at, OLD.key, OLD.digest, OLD.data))
BEGIN
  SELECT RAISE(ABORT, 'guard: the log is append-only');
END;

DROP TRIGGER inbox_frozen;

-- GUARD: messages never change, but for what it is sealed by.
CREATE TRIGGER inbox_frozen BEFORE UPDATE ON inbox
WHEN NOT (
  EXISTS (SELECT 1 FROM reseal_permit AS p WHERE p.tenant = OLD.tenant)
    AND OLD.payload IS NOT NULL AND coalesce(hex(substr(NEW.payload, 1, 2)) = 'C101', FALSE)
    AND (NEW.tenant, NEW.execution_id, NEW.number, NEW.id, NEW.kind, NEW.actor, NEW.key, NEW.data,
         NEW.at)
     IS (OLD.tenant, OLD.execution_id, OLD.number, OLD.id, OLD.kind, OLD.actor, OLD.key, OLD.data,
         OLD.at))
BEGIN
  SELECT RAISE(ABORT, 'guard: messages never change');
END;

DROP TRIGGER stream_item_frozen;

-- GUARD: a stream only grows, but for what it is sealed by.
CREATE TRIGGER stream_item_frozen BEFORE UPDATE ON stream_item
WHEN NOT (
  EXISTS (SELECT 1 FROM reseal_permit AS p WHERE p.tenant = OLD.tenant)
    AND OLD.payload IS NOT NULL AND coalesce(hex(substr(NEW.payload, 1, 2)) = 'C101', FALSE)
    AND (NEW.tenant, NEW.execution_id, NEW.name, NEW.number, NEW.step, NEW.attempt, NEW.lease,
         NEW.part, NEW.at)
     IS (OLD.tenant, OLD.execution_id, OLD.name, OLD.number, OLD.step, OLD.attempt, OLD.lease,
         OLD.part, OLD.at))
BEGIN
  SELECT RAISE(ABORT, 'guard: a stream only grows');
END;

DROP TRIGGER schedule_changed;

CREATE TRIGGER schedule_changed AFTER UPDATE ON schedule
WHEN (NEW.tenant <> OLD.tenant OR NEW.name <> OLD.name OR NEW.seq <= OLD.seq
      OR NEW.updated_at < OLD.updated_at
      OR NEW.seq IS NOT (
        SELECT max(e.seq) FROM schedule_entry AS e
         WHERE e.tenant = NEW.tenant AND e.name = NEW.name))
  AND NOT (
    EXISTS (SELECT 1 FROM reseal_permit AS p WHERE p.tenant = OLD.tenant)
      AND coalesce(hex(substr(NEW.input, 1, 2)) = 'C101', FALSE)
      AND (NEW.tenant, NEW.name, NEW.seq, NEW.updated_at, NEW.state, NEW.plan, NEW.input_digest)
       IS (OLD.tenant, OLD.name, OLD.seq, OLD.updated_at, OLD.state, OLD.plan, OLD.input_digest))
BEGIN
  SELECT RAISE(ABORT, 'guard: a schedule changes with its log only');
END;
