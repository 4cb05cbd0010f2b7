-- name: waiting_queues
-- The queues in which something waits to be claimed, or a line has to be looked at, and what is set
-- for them. Each queue costs one step, however much waits in it. In a closed tenant nothing waits.
-- With the floor of fences.
WITH RECURSIVE
  q (name) AS (
    (SELECT queue FROM execution
      WHERE tenant = {tenant} AND state = 'queued' ORDER BY queue LIMIT 1)
     UNION ALL
    SELECT (SELECT e.queue FROM execution AS e
             WHERE e.tenant = {tenant} AND e.state = 'queued' AND e.queue > q.name
             ORDER BY e.queue LIMIT 1)
      FROM q WHERE q.name IS NOT NULL),
  w (name) AS (
    (SELECT queue FROM line
      WHERE tenant = {tenant} AND look_at IS NOT NULL ORDER BY queue LIMIT 1)
     UNION ALL
    SELECT (SELECT l.queue FROM line AS l
             WHERE l.tenant = {tenant} AND l.look_at IS NOT NULL AND l.queue > w.name
             ORDER BY l.queue LIMIT 1)
      FROM w WHERE w.name IS NOT NULL)
SELECT f.name, f.has_lines,
       coalesce((SELECT x.floor FROM epoch AS x
                 WHERE x.tenant = {tenant} ORDER BY x.number DESC LIMIT 1), 0),
       s.capacity, s.paused_at, s.paused_by, s.why
  FROM (SELECT name, 0::bigint AS has_lines FROM q UNION ALL SELECT name, 1 FROM w) AS f
  LEFT JOIN queue_setting AS s ON s.tenant = {tenant} AND s.name = f.name
 WHERE f.name IS NOT NULL
   AND (SELECT closed_at FROM tenant WHERE number = {tenant}) IS NULL;

-- name: waiting_codes
-- For what code something waits in a queue: tasks, and pinned versions of tasks. Each costs one step.
WITH RECURSIVE c (code) AS (
  (SELECT code FROM execution
    WHERE tenant = {tenant} AND state = 'queued' AND queue = :queue
    ORDER BY code LIMIT 1)
   UNION ALL
  SELECT (SELECT e.code
            FROM execution AS e
           WHERE e.tenant = {tenant} AND e.state = 'queued' AND e.queue = :queue
             AND e.code > c.code
           ORDER BY e.code LIMIT 1)
    FROM c WHERE c.code IS NOT NULL)
SELECT code FROM c WHERE code IS NOT NULL;

-- name: open_lines
SELECT gate, look_at FROM line
 WHERE tenant = {tenant} AND queue = :queue AND look_at <= :now AND look_at IS NOT NULL
 ORDER BY look_at
 LIMIT nullif(:limit, -1);

-- name: look_for_capabilities
-- A worker that offers something looks at those who wait for it.
UPDATE line SET look_at = 0
 WHERE tenant = {tenant} AND gate = ANY (ARRAY(SELECT json_array_elements_text(:gates::json)))
   AND look_at IS NULL;

-- name: blocked_executions
-- rule: T06
-- The line of a gate in one queue, behind one turn; with the first row of the log.
SELECT e.tenant, e.id, e.task, e.state, e.seq, e.fence, e.nonce, e.worker, e.high_water, e.cause,
       e.paused_from, e.attempt, e.failures, e.claims, e.idle_claims, e.inbox_count,
       e.inbox_seen, e.cancel_at, e.pause_at, e.created_at, e.updated_at, e.state_at, e.started_at,
       e.due_at, e.deadline_at, e.queue, e.priority, e.key, e.input_digest, e.version, e.parent_id,
       e.origin, e.parent_key, e.root_id, e.start_by, e.children, e.gates, e.labels, e.detail,
       t.tenant, t.execution_id, t.seq, t.kind, t.from_state, t.to_state, t.fence, t.nonce, t.actor,
       t.at, t.key, t.digest, t.data, t.payload
  FROM execution AS e
 CROSS JOIN LATERAL (
    SELECT x.tenant, x.execution_id, x.seq, x.kind, x.from_state, x.to_state, x.fence, x.nonce,
           x.actor, x.at, x.key, x.digest, x.data, x.payload
      FROM transition AS x
     WHERE x.tenant = {tenant} AND x.execution_id = e.id AND x.seq = 1 OFFSET 0) AS t
 WHERE e.tenant = {tenant} AND e.state = 'blocked' AND e.gate = :gate
   AND e.queue = :queue
   AND e.turn >= :turn
   AND (e.turn > :turn
        OR e.id > :id)
   AND e.task = ANY (ARRAY(SELECT json_array_elements_text(:tasks::json)))
   AND (facts(e.gates) ->> 'version' IS NULL
        OR e.task || chr(31) || (facts(e.gates) ->> 'version')
           = ANY (ARRAY(SELECT json_array_elements_text(:versions::json))))
 ORDER BY e.turn, e.id
 LIMIT nullif(:limit, -1)
   FOR NO KEY UPDATE OF e SKIP LOCKED;

-- name: end_empty_lines
-- types: text text
-- Columns of a row: gate, queue.
DELETE FROM line AS l
 USING {rows}
 WHERE l.tenant = {tenant} AND l.gate = ANY (ARRAY(SELECT v.column1 FROM {rows}))
   AND l.gate = v.column1 AND l.queue = v.column2
   AND NOT EXISTS (
    SELECT 1 FROM execution AS e
     WHERE e.tenant = {tenant} AND e.state = 'blocked'
       AND e.gate = l.gate AND e.queue = l.queue);

-- name: close_lines
-- types: text text bigint
-- Columns of a row: gate, queue, look_at.
UPDATE line SET look_at = v.column3
  FROM {rows}
 WHERE line.tenant = {tenant} AND line.gate = ANY (ARRAY(SELECT v.column1 FROM {rows}))
   AND line.gate = v.column1 AND line.queue = v.column2;

-- name: put_lines
-- types: text text bigint
INSERT INTO line (tenant, gate, queue, look_at)
SELECT {tenant}, v.column1, v.column2, v.column3 FROM {rows}
    ON CONFLICT (tenant, gate, queue) DO UPDATE SET look_at = excluded.look_at;

-- name: holders
SELECT execution_id FROM holder WHERE tenant = {tenant} AND gate = :gate ORDER BY execution_id;

-- name: queue_holders
SELECT id FROM execution
 WHERE tenant = {tenant} AND worker IS NOT NULL AND queue = :queue;

-- name: arrival
SELECT arrival_at FROM rate WHERE tenant = {tenant} AND gate = :gate;

-- name: put_rates
-- types: text bigint
INSERT INTO rate (tenant, gate, arrival_at)
SELECT {tenant}, v.column1, v.column2 FROM {rows}
    ON CONFLICT (tenant, gate) DO UPDATE SET arrival_at = excluded.arrival_at;

-- name: end_rates
-- Those at rest say nothing.
DELETE FROM rate WHERE tenant = {tenant} AND arrival_at <= :now;

-- name: gate_setting
SELECT gate, capacity, interval_us, set_by, set_at FROM gate_setting
 WHERE tenant = {tenant} AND gate = :gate;

-- name: gate_settings
SELECT gate, capacity, interval_us, set_by, set_at FROM gate_setting WHERE tenant = {tenant} ORDER BY gate;

-- name: queue_setting
SELECT name, capacity, paused_at, paused_by, why FROM queue_setting
 WHERE tenant = {tenant} AND name = :name;

-- name: queue_settings
SELECT name, capacity, paused_at, paused_by, why FROM queue_setting WHERE tenant = {tenant} ORDER BY name;

-- name: put_queue_setting
-- types: text bigint bigint text text
INSERT INTO queue_setting (tenant, name, capacity, paused_at, paused_by, why)
SELECT {tenant}, v.column1, v.column2, v.column3, v.column4, v.column5 FROM {rows}
    ON CONFLICT (tenant, name) DO UPDATE
   SET capacity = excluded.capacity, paused_at = excluded.paused_at,
       paused_by = excluded.paused_by, why = excluded.why;

-- name: put_gate_setting
-- types: text bigint bigint text bigint
INSERT INTO gate_setting (tenant, gate, capacity, interval_us, set_by, set_at)
SELECT {tenant}, v.column1, v.column2, v.column3, v.column4, v.column5 FROM {rows}
    ON CONFLICT (tenant, gate) DO UPDATE
   SET capacity = excluded.capacity, interval_us = excluded.interval_us,
       set_by = excluded.set_by, set_at = excluded.set_at;

-- name: end_gate_setting
DELETE FROM gate_setting WHERE tenant = {tenant} AND gate = :gate;

-- name: look_at_gate
-- The lines of a gate, or of all gates of a family; ';' is the character behind ':'.
UPDATE line SET look_at = 0
 WHERE tenant = {tenant} AND gate >= :gate::text AND gate < :gate::text || ';'
   AND (gate = :gate::text OR gate > :gate::text || ':');

-- name: queue_states
-- For people: how many of each queue wait and run.
SELECT queue, state, count(*), min(coalesce((facts(detail) ->> 'since')::bigint, state_at))
  FROM execution
 WHERE tenant = {tenant} AND state = 'queued' GROUP BY queue, state
 UNION ALL
SELECT queue, state, count(*), min(coalesce((facts(detail) ->> 'since')::bigint, state_at))
  FROM execution
 WHERE tenant = {tenant} AND state = 'blocked' GROUP BY queue, state
 UNION ALL
SELECT queue, 'leased', count(*), NULL::bigint FROM execution
 WHERE tenant = {tenant} AND worker IS NOT NULL GROUP BY queue;

-- name: gate_names
-- For people: the gates that are held, or waited at.
SELECT gate FROM holder WHERE tenant = {tenant}
 UNION
SELECT gate FROM line WHERE tenant = {tenant}
 ORDER BY 1
 LIMIT nullif(:limit, -1);

-- name: line_of
-- For people: how many wait at a gate, and who is next.
SELECT count(*), (
    SELECT n.id FROM execution AS n
     WHERE n.tenant = {tenant} AND n.state = 'blocked'
       AND n.gate = :gate
     ORDER BY n.turn,
              n.id
     LIMIT 1)
  FROM execution AS e
 WHERE e.tenant = {tenant} AND e.state = 'blocked' AND e.gate = :gate;

-- name: place_in_queue
SELECT count(*) FROM execution AS e
 WHERE e.tenant = {tenant} AND e.state = 'queued' AND e.queue = :queue
   AND e.turn <= :turn
   AND (e.turn < :turn
        OR e.id <= :id);

-- name: place_in_line
SELECT count(*) FROM execution AS e
 WHERE e.tenant = {tenant} AND e.state = 'blocked' AND e.gate = :gate
   AND e.turn <= :turn
   AND (e.turn < :turn
        OR e.id <= :id);

-- name: wrong_holders
-- For verify: where the index of holders is not what the rows say.
  WITH said (gate, execution_id) AS (
    SELECT (g ->> 'name') COLLATE "C", e.id
      FROM execution AS e
     CROSS JOIN json_array_elements(facts(e.gates) -> 'limits') AS g
     WHERE e.tenant = {tenant} AND e.gates IS NOT NULL
       AND (e.worker IS NOT NULL
            OR (coalesce((g ->> 'hold')::boolean, FALSE) AND e.high_water = 3
                AND e.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled'))))
SELECT gate, execution_id, 'is no holder by the index' FROM (
    SELECT gate, execution_id FROM said
    EXCEPT SELECT gate, execution_id FROM holder WHERE tenant = {tenant}) AS m
 UNION ALL
SELECT gate, execution_id, 'is a holder by the index only' FROM (
    SELECT gate, execution_id FROM holder WHERE tenant = {tenant}
    EXCEPT SELECT gate, execution_id FROM said) AS m
 UNION ALL
SELECT facts(e.detail) ->> 'gate', e.id, 'stands in a line that there is not'
  FROM execution AS e
 WHERE e.tenant = {tenant} AND e.state = 'blocked' AND NOT EXISTS (
    SELECT 1 FROM line AS l
     WHERE l.tenant = {tenant} AND l.gate = facts(e.detail) ->> 'gate' AND l.queue = e.queue)
 LIMIT 20;
