-- What is sealed is sealed anew by another data key: within a transaction that says so, and with
-- nothing else of a row changed. Of facts, what stays readable was there before.

CREATE TABLE reseal_permit (
  tenant INTEGER NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

DROP TRIGGER transition_frozen;

-- GUARD: the log is append-only, but for what it is sealed by.
CREATE TRIGGER transition_frozen BEFORE UPDATE ON transition
WHEN NOT (
  EXISTS (SELECT 1 FROM reseal_permit AS p WHERE p.tenant = OLD.tenant)
    AND (NEW.payload IS OLD.payload
      OR (OLD.payload IS NOT NULL AND coalesce(hex(substr(NEW.payload, 1, 2)) = 'C101', FALSE)))
    AND (NEW.data IS OLD.data OR (
      coalesce(json_valid(NEW.data), FALSE)
      AND coalesce(substr(NEW.data ->> '$.sealed', 1, 4) = 'wQEA', FALSE) AND NOT EXISTS (
        SELECT 1 FROM json_each(NEW.data) AS n LEFT JOIN json_each(OLD.data) AS o ON o.key = n.key
         WHERE n.key <> 'sealed' AND (o.key IS NULL OR (n.atom IS NOT o.atom AND n.key <> 'question')))))
    AND (NEW.tenant, NEW.execution_id, NEW.seq, NEW.kind, NEW.from_state, NEW.to_state, NEW.fence,
         NEW.nonce, NEW.actor, NEW.at, NEW.key, NEW.digest)
     IS (OLD.tenant, OLD.execution_id, OLD.seq, OLD.kind, OLD.from_state, OLD.to_state, OLD.fence,
         OLD.nonce, OLD.actor, OLD.at, OLD.key, OLD.digest))
BEGIN
  SELECT RAISE(ABORT, 'guard: the log is append-only');
END;

DROP TRIGGER inbox_frozen;

-- GUARD: messages never change, but for what it is sealed by.
CREATE TRIGGER inbox_frozen BEFORE UPDATE ON inbox
WHEN NOT (
  EXISTS (SELECT 1 FROM reseal_permit AS p WHERE p.tenant = OLD.tenant)
    AND (NEW.payload IS OLD.payload
      OR (OLD.payload IS NOT NULL AND coalesce(hex(substr(NEW.payload, 1, 2)) = 'C101', FALSE)))
    AND (NEW.data IS OLD.data OR (
      coalesce(json_valid(NEW.data), FALSE)
      AND coalesce(substr(NEW.data ->> '$.sealed', 1, 4) = 'wQEA', FALSE) AND NOT EXISTS (
        SELECT 1 FROM json_each(NEW.data) AS n LEFT JOIN json_each(OLD.data) AS o ON o.key = n.key
         WHERE n.key <> 'sealed' AND (o.key IS NULL OR (n.atom IS NOT o.atom AND n.key <> 'question')))))
    AND (NEW.tenant, NEW.execution_id, NEW.number, NEW.id, NEW.kind, NEW.actor, NEW.key,
         NEW.at)
     IS (OLD.tenant, OLD.execution_id, OLD.number, OLD.id, OLD.kind, OLD.actor, OLD.key,
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

DROP TRIGGER execution_changed;

-- GUARD: a row changes with its log only, and never once it is final, but for what it is sealed by.
CREATE TRIGGER execution_changed AFTER UPDATE ON execution
WHEN NOT (
  NEW.seq = OLD.seq AND NEW.detail IS NOT OLD.detail
    AND EXISTS (SELECT 1 FROM reseal_permit AS p WHERE p.tenant = OLD.tenant)
    AND (NEW.detail IS OLD.detail OR (
      coalesce(json_valid(NEW.detail), FALSE)
      AND coalesce(substr(NEW.detail ->> '$.sealed', 1, 4) = 'wQEA', FALSE) AND NOT EXISTS (
        SELECT 1 FROM json_each(NEW.detail) AS n LEFT JOIN json_each(OLD.detail) AS o ON o.key = n.key
         WHERE n.key <> 'sealed' AND (o.key IS NULL OR (n.atom IS NOT o.atom AND n.key <> 'question')))))
    AND (NEW.state, NEW.seq, NEW.fence, NEW.nonce, NEW.high_water, NEW.cause, NEW.paused_from,
         NEW.attempt, NEW.failures, NEW.claims, NEW.idle_claims, NEW.inbox_count,
         NEW.inbox_seen, NEW.cancel_at, NEW.pause_at, NEW.created_at, NEW.updated_at,
         NEW.state_at, NEW.started_at, NEW.due_at, NEW.deadline_at, NEW.priority, NEW.version,
         NEW.start_by, NEW.children, NEW.gates, NEW.labels, NEW.worker)
     IS (OLD.state, OLD.seq, OLD.fence, OLD.nonce, OLD.high_water, OLD.cause, OLD.paused_from,
         OLD.attempt, OLD.failures, OLD.claims, OLD.idle_claims, OLD.inbox_count,
         OLD.inbox_seen, OLD.cancel_at, OLD.pause_at, OLD.created_at, OLD.updated_at,
         OLD.state_at, OLD.started_at, OLD.due_at, OLD.deadline_at, OLD.priority, OLD.version,
         OLD.start_by, OLD.children, OLD.gates, OLD.labels, OLD.worker))
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
