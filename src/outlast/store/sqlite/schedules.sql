-- name: schedule_by_name
SELECT tenant, name, task, plan, state, seq, is_declared, next_slot, next_at, waiting_slot, fired,
       last_slot, last_execution_id, created_at, updated_at, state_at, input, input_digest, options,
       why
  FROM schedule
 WHERE tenant = {tenant} AND name = :name;

-- name: schedules_page
-- By name. An empty list of states means all.
SELECT tenant, name, task, plan, state, seq, is_declared, next_slot, next_at, waiting_slot, fired,
       last_slot, last_execution_id, created_at, updated_at, state_at, input, input_digest, options,
       why
  FROM schedule
 WHERE tenant = {tenant} AND name > :after
   AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
 ORDER BY name
 LIMIT :limit;

-- name: due_schedules
SELECT name, seq FROM schedule
 WHERE tenant = {tenant} AND state = 'active' AND next_at IS NOT NULL AND next_at <= :now
   AND (SELECT closed_at FROM tenant WHERE number = {tenant}) IS NULL
 ORDER BY next_at, name
 LIMIT :limit;

-- name: freed_schedules
-- Those of which a slot waits, and no execution is open.
SELECT s.name, s.seq FROM schedule AS s INDEXED BY schedule_waiting
 WHERE s.tenant = {tenant} AND s.state = 'active' AND s.waiting_slot IS NOT NULL
   AND (SELECT closed_at FROM tenant WHERE number = {tenant}) IS NULL
   AND NOT EXISTS (
     SELECT 1 FROM execution AS e INDEXED BY execution_by_origin
      WHERE e.tenant = {tenant} AND e.origin IS NOT NULL AND e.origin = 'schedule:' || s.name
        AND e.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled'))
 ORDER BY s.name
 LIMIT :limit;

-- name: next_schedule_at
SELECT next_at FROM schedule
 WHERE tenant = {tenant} AND state = 'active' AND next_at IS NOT NULL
   AND (SELECT closed_at FROM tenant WHERE number = {tenant}) IS NULL
 ORDER BY next_at
 LIMIT 1;

-- name: open_of_origin
SELECT id FROM execution INDEXED BY execution_by_origin
 WHERE tenant = {tenant} AND origin IS NOT NULL AND origin = :origin
   AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')
 ORDER BY id
 LIMIT :limit;

-- name: insert_schedule
-- columns: 20
INSERT INTO schedule (tenant, name, task, plan, state, seq, is_declared, next_slot, next_at,
                      waiting_slot, fired, last_slot, last_execution_id, created_at, updated_at,
                      state_at, input, input_digest, options, why)
SELECT CASE column1 WHEN {tenant} THEN column1 END, column2, column3, column4, column5, column6,
       column7, column8, column9, column10, column11, column12, column13, column14, column15,
       column16, column17, column18, column19, column20
  FROM (VALUES {rows});

-- name: save_schedule
-- columns: 20
UPDATE schedule
   SET task = v.column3, plan = v.column4, state = v.column5, seq = v.column6,
       is_declared = v.column7, next_slot = v.column8, next_at = v.column9,
       waiting_slot = v.column10, fired = v.column11, last_slot = v.column12,
       last_execution_id = v.column13, created_at = v.column14, updated_at = v.column15,
       state_at = v.column16, input = v.column17, input_digest = v.column18, options = v.column19,
       why = v.column20
  FROM (VALUES {rows}) AS v
 WHERE schedule.tenant = {tenant} AND schedule.name = v.column2;

-- name: insert_schedule_entry
-- columns: 10
INSERT INTO schedule_entry (tenant, name, seq, kind, at, actor, slot, until_slot, execution_id, data)
SELECT CASE column1 WHEN {tenant} THEN column1 END, column2, column3, column4, column5, column6,
       column7, column8, column9, column10
  FROM (VALUES {rows});

-- name: schedule_log
-- The newest first.
SELECT seq, kind, at, actor, slot, until_slot, execution_id, data FROM schedule_entry
 WHERE tenant = {tenant} AND name = :name AND seq < :before
 ORDER BY seq DESC
 LIMIT :limit;

-- name: fate_of_slot
-- The newest first; of one schedule, and only when somebody asks.
SELECT seq, kind, at, actor, slot, until_slot, execution_id, data FROM schedule_entry
 WHERE tenant = {tenant} AND name = :name AND slot <= :slot AND coalesce(until_slot, slot) >= :slot
 ORDER BY seq DESC
 LIMIT 10;

-- name: prune_schedule_log
-- By age; the newest entry of each schedule stays.
DELETE FROM schedule_entry
 WHERE tenant = {tenant} AND (name, seq) IN (
   SELECT e.name, e.seq FROM schedule_entry AS e INDEXED BY schedule_entry_at
    WHERE e.tenant = {tenant} AND e.at < :before
      AND e.seq < (SELECT s.seq FROM schedule AS s WHERE s.tenant = {tenant} AND s.name = e.name)
    LIMIT :limit);

-- name: broken_schedules
-- Reads everything, once a verify.
SELECT s.name, s.seq, (SELECT max(e.seq) FROM schedule_entry AS e
                        WHERE e.tenant = {tenant} AND e.name = s.name) AS last
  FROM schedule AS s
 WHERE s.tenant = {tenant} AND s.seq IS NOT (SELECT max(e.seq) FROM schedule_entry AS e
                                       WHERE e.tenant = {tenant} AND e.name = s.name)
 LIMIT 100;
