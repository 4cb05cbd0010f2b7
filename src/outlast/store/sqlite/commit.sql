-- name: refused_heads
-- columns: 5
-- padded
-- Compare what owners knew with what is stored, and return only those that differ, or have ended.
-- Columns of a row: id, fence, nonce, seq, messages seen (or NULL where it does not matter).
SELECT v.column1, e.state, e.fence, e.nonce, e.seq, e.inbox_count
  FROM (VALUES {rows}) AS v
  LEFT JOIN execution AS e ON e.tenant = {tenant} AND e.id = v.column1
 WHERE v.column1 IS NOT NULL
   AND (e.id IS NULL OR e.fence <> v.column2 OR e.nonce IS NOT v.column3 OR e.seq <> v.column4
        OR e.inbox_count <> v.column5
        OR e.state IN ('succeeded', 'failed', 'timed_out', 'cancelled'));

-- name: taken_ids
-- columns: 1
-- padded
-- Which of these executions exist already, as a create was sent twice; and which queues have rules,
-- so that what is born there with a claim has to wait for one. In a closed tenant nothing is born.
SELECT id, NULL, NULL FROM execution WHERE tenant = {tenant} AND id IN (VALUES {rows})
 UNION ALL
SELECT name, capacity, paused_at FROM queue_setting
 WHERE tenant = {tenant} AND (capacity IS NOT NULL OR paused_at IS NOT NULL)
 UNION ALL
SELECT '', number, closed_at FROM tenant WHERE number = {tenant} AND closed_at IS NOT NULL;

-- name: insert_transitions
-- columns: 14
-- padded
INSERT INTO transition (tenant, execution_id, seq, kind, from_state, to_state, fence, nonce, actor,
                        at, key, digest, data, payload)
SELECT CASE column1 WHEN {tenant} THEN column1 END, column2, column3, column4, column5, column6,
       column7, column8, column9, column10, column11, column12, column13, column14
  FROM (VALUES {rows}) WHERE column1 IS NOT NULL;

-- name: insert_executions
-- columns: 39
-- padded
INSERT INTO execution (tenant, id, task, state, seq, fence, nonce, worker, high_water, cause,
                       paused_from, attempt, failures, claims, idle_claims, inbox_count, inbox_seen,
                       cancel_at, pause_at, created_at, updated_at, state_at, started_at, due_at,
                       deadline_at, queue, priority, key, input_digest, version, parent_id, origin,
                       parent_key, root_id, start_by, children, gates, labels, detail)
SELECT CASE column1 WHEN {tenant} THEN column1 END, column2, column3, column4, column5, column6,
       column7, column8, column9, column10, column11, column12, column13, column14, column15,
       column16, column17, column18, column19, column20, column21, column22, column23, column24,
       column25, column26, column27, column28, column29, column30, column31, column32, column33,
       column34, column35, column36, column37, column38, column39
  FROM (VALUES {rows}) WHERE column1 IS NOT NULL;

-- name: insert_plain_executions
-- columns: 7
-- padded
-- What waits in its queue and has nothing but what all have: id, task, the time, queue, priority,
-- the digest of its input, version.
INSERT INTO execution (tenant, id, task, state, seq, fence, high_water, cause, attempt, failures,
                       claims, idle_claims, inbox_count, inbox_seen, created_at, updated_at,
                       state_at, queue, priority, input_digest, version, children)
SELECT {tenant}, column1, column2, 'queued', 1, 0, 0, 'first', 0, 0, 0, 0, 0, 0, column3, column3,
       column3, column4, column5, column6, column7, 0
  FROM (VALUES {rows}) WHERE column1 IS NOT NULL;

-- name: first_between
-- The first execution in a range of ids; and since when the tenant is closed, where nothing is born.
SELECT min(id), (SELECT closed_at FROM tenant WHERE number = {tenant})
  FROM execution
 WHERE tenant = {tenant} AND id BETWEEN :first AND :last;

-- name: bear_transitions
-- The births of executions that are alike. Each is one blob: the id, whose width is given, the digest
-- of its input in 20 digits, the input. What is a text, or an array, of many rows has to be prepared
-- or taken apart anew; this is one parameter.
INSERT INTO transition (tenant, execution_id, seq, kind, from_state, to_state, fence, actor, at, data,
                        payload)
SELECT {tenant}, CAST(substr(v.value, 1, :width) AS TEXT), 1, 'create', '', 'queued', 0, :actor,
       :created_at, :facts || CAST(CAST(substr(v.value, :width + 1, 20) AS TEXT) AS INTEGER) || '}',
       substr(v.value, :width + 21)
  FROM carray(:births) AS v;

-- name: bear_executions
-- Their rows, as of insert_plain_executions.
INSERT INTO execution (tenant, id, task, state, seq, fence, high_water, cause, attempt, failures,
                       claims, idle_claims, inbox_count, inbox_seen, created_at, updated_at,
                       state_at, queue, priority, input_digest, version, children)
SELECT {tenant}, CAST(substr(v.value, 1, :width) AS TEXT), :task, 'queued', 1, 0, 0, 'first', 0, 0, 0,
       0, 0, 0, :created_at, :created_at, :created_at, :queue, :priority,
       CAST(CAST(substr(v.value, :width + 1, 20) AS TEXT) AS INTEGER), :version, 0
  FROM carray(:births) AS v;

-- name: move_executions
-- columns: 5
-- padded
-- Only the position changed: id, seq, idle_claims, inbox_seen, updated_at.
UPDATE execution
   SET seq = v.column2, idle_claims = v.column3, inbox_seen = v.column4, updated_at = v.column5
  FROM (VALUES {rows}) AS v
 WHERE execution.tenant = {tenant} AND execution.id = v.column1;

-- name: save_executions
-- columns: 28
-- padded
-- Every column that a transition can change; inbox_count is the deliverers' own.
UPDATE execution
   SET state = v.column2, seq = v.column3, fence = v.column4, nonce = v.column5,
       worker = v.column6, high_water = v.column7, cause = v.column8, paused_from = v.column9,
       attempt = v.column10, failures = v.column11, claims = v.column12, idle_claims = v.column13,
       inbox_seen = v.column14, cancel_at = v.column15, pause_at = v.column16,
       updated_at = v.column17, state_at = v.column18, started_at = v.column19,
       due_at = v.column20, deadline_at = v.column21, priority = v.column22, version = v.column23,
       start_by = v.column24, children = v.column25, gates = v.column26, labels = v.column27,
       detail = v.column28
  FROM (VALUES {rows}) AS v
 WHERE execution.tenant = {tenant} AND execution.id = v.column1;

-- name: claim_executions
-- columns: 11
-- padded
-- What a claim changes of what waited in its queue.
UPDATE execution
   SET state = v.column2, seq = v.column3, fence = v.column4, nonce = v.column5,
       worker = v.column6, high_water = v.column7, claims = v.column8, idle_claims = v.column9,
       updated_at = v.column10, state_at = v.column11, due_at = NULL, detail = NULL
  FROM (VALUES {rows}) AS v
 WHERE execution.tenant = {tenant} AND execution.id = v.column1;

-- name: save_told_executions
-- columns: 29
-- padded
-- The same, of executions that a message has moved: it is counted, too.
UPDATE execution
   SET state = v.column2, seq = v.column3, fence = v.column4, nonce = v.column5,
       worker = v.column6, high_water = v.column7, cause = v.column8, paused_from = v.column9,
       attempt = v.column10, failures = v.column11, claims = v.column12, idle_claims = v.column13,
       inbox_seen = v.column14, cancel_at = v.column15, pause_at = v.column16,
       updated_at = v.column17, state_at = v.column18, started_at = v.column19,
       due_at = v.column20, deadline_at = v.column21, priority = v.column22, version = v.column23,
       start_by = v.column24, children = v.column25, gates = v.column26, labels = v.column27,
       detail = v.column28, inbox_count = v.column29
  FROM (VALUES {rows}) AS v
 WHERE execution.tenant = {tenant} AND execution.id = v.column1;

-- name: count_messages
-- columns: 2
-- padded
-- A message is in: the row counts it.
UPDATE execution
   SET inbox_count = v.column2
  FROM (VALUES {rows}) AS v
 WHERE execution.tenant = {tenant} AND execution.id = v.column1;

-- name: insert_messages
-- columns: 10
-- padded
INSERT INTO inbox (tenant, execution_id, number, id, kind, actor, key, data, payload, at)
SELECT CASE column1 WHEN {tenant} THEN column1 END, column2, column3, column4, column5, column6,
       column7, column8, column9, column10
  FROM (VALUES {rows}) WHERE column1 IS NOT NULL;

-- name: earlier_messages
-- columns: 3
-- padded
-- Messages of these executions that have this id, or answer this question: execution, id, key.
  WITH v (execution_id, id, key) AS (VALUES {rows})
SELECT i.execution_id, i.id, i.kind, i.key
  FROM v JOIN inbox AS i ON i.tenant = {tenant} AND i.execution_id = v.execution_id AND i.id = v.id
 UNION ALL
SELECT i.execution_id, i.id, i.kind, i.key
  FROM v JOIN inbox AS i
    ON i.tenant = {tenant} AND i.execution_id = v.execution_id AND i.kind = 'answer' AND i.key = v.key;
