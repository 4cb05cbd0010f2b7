-- name: refused_heads
-- types: text bigint bytea bigint bigint
-- Compare what owners knew with what is stored, and return only those that differ, or have ended.
-- Columns of a row: id, fence, nonce, seq, messages seen (or NULL where it does not matter).
SELECT v.column1, e.state, e.fence, e.nonce, e.seq, e.inbox_count
  FROM {rows}
  LEFT JOIN LATERAL (
    SELECT x.id, x.state, x.fence, x.nonce, x.seq, x.inbox_count FROM execution AS x
     WHERE x.tenant = {tenant} AND x.id = v.column1 OFFSET 0) AS e ON TRUE
 WHERE e.id IS NULL OR e.fence <> v.column2 OR e.nonce IS DISTINCT FROM v.column3
    OR e.seq <> v.column4 OR e.inbox_count <> v.column5
    OR e.state IN ('succeeded', 'failed', 'timed_out', 'cancelled');

-- name: taken_ids
-- types: text
-- Which of these executions exist already, as a create was sent twice; and which queues have rules,
-- so that what is born there with a claim has to wait for one. In a closed tenant nothing is born.
SELECT id, NULL::bigint, NULL::bigint FROM execution
 WHERE tenant = {tenant} AND id = ANY (ARRAY(SELECT v.column1 FROM {rows}))
 UNION ALL
SELECT name, capacity, paused_at FROM queue_setting
 WHERE tenant = {tenant} AND (capacity IS NOT NULL OR paused_at IS NOT NULL)
 UNION ALL
SELECT '', number, closed_at FROM tenant WHERE number = {tenant} AND closed_at IS NOT NULL;

-- name: insert_transitions
-- types: bigint text bigint text text text bigint bytea text bigint text bigint text bytea
INSERT INTO transition (tenant, execution_id, seq, kind, from_state, to_state, fence, nonce, actor,
                        at, key, digest, data, payload)
SELECT CASE v.column1 WHEN {tenant} THEN v.column1 END, v.column2, v.column3, v.column4, v.column5,
       v.column6, v.column7, v.column8, v.column9, v.column10, v.column11, v.column12, v.column13,
       v.column14
  FROM {rows};

-- name: insert_executions
-- types: bigint text text text bigint bigint bytea text bigint text text bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint text bigint text bigint text text text text text bigint bigint text text text
INSERT INTO execution (tenant, id, task, state, seq, fence, nonce, worker, high_water, cause,
                       paused_from, attempt, failures, claims, idle_claims, inbox_count, inbox_seen,
                       cancel_at, pause_at, created_at, updated_at, state_at, started_at, due_at,
                       deadline_at, queue, priority, key, input_digest, version, parent_id, origin,
                       parent_key, root_id, start_by, children, gates, labels, detail)
SELECT CASE v.column1 WHEN {tenant} THEN v.column1 END, v.column2, v.column3, v.column4, v.column5,
       v.column6, v.column7, v.column8, v.column9, v.column10, v.column11, v.column12, v.column13,
       v.column14, v.column15, v.column16, v.column17, v.column18, v.column19, v.column20,
       v.column21, v.column22, v.column23, v.column24, v.column25, v.column26, v.column27,
       v.column28, v.column29, v.column30, v.column31, v.column32, v.column33, v.column34,
       v.column35, v.column36, v.column37, v.column38, v.column39
  FROM {rows};

-- name: insert_plain_executions
-- types: text text bigint text bigint bigint text
-- What waits in its queue and has nothing but what all have: id, task, the time, queue, priority,
-- the digest of its input, version.
INSERT INTO execution (tenant, id, task, state, seq, fence, high_water, cause, attempt, failures,
                       claims, idle_claims, inbox_count, inbox_seen, created_at, updated_at,
                       state_at, queue, priority, input_digest, version, children)
SELECT {tenant}, v.column1, v.column2, 'queued', 1, 0, 0, 'first', 0, 0, 0, 0, 0, 0, v.column3,
       v.column3, v.column3, v.column4, v.column5, v.column6, v.column7, 0
  FROM {rows};

-- name: first_between
-- The first execution in a range of ids; and since when the tenant is closed, where nothing is born.
SELECT min(id), (SELECT closed_at FROM tenant WHERE number = {tenant})
  FROM execution
 WHERE tenant = {tenant} AND id BETWEEN :first::text AND :last::text;

-- name: bear_transitions
-- The births of executions that are alike.
INSERT INTO transition (tenant, execution_id, seq, kind, from_state, to_state, fence, actor, at, data,
                        payload)
SELECT {tenant}, v.id, 1, 'create', '', 'queued', 0, :actor::text, :created_at::bigint,
       :facts::text || v.digest::text || '}', v.payload
  FROM (SELECT unnest(:ids::text[]) AS id, unnest(:digests::bigint[]) AS digest,
               unnest(:payloads::bytea[]) AS payload) AS v;

-- name: bear_executions
-- Their rows, as of insert_plain_executions.
INSERT INTO execution (tenant, id, task, state, seq, fence, high_water, cause, attempt, failures,
                       claims, idle_claims, inbox_count, inbox_seen, created_at, updated_at,
                       state_at, queue, priority, input_digest, version, children)
SELECT {tenant}, v.id, :task::text, 'queued', 1, 0, 0, 'first', 0, 0, 0, 0, 0, 0,
       :created_at::bigint, :created_at::bigint, :created_at::bigint, :queue::text,
       :priority::bigint, v.digest, :version::text, 0
  FROM (SELECT unnest(:ids::text[]) AS id, unnest(:digests::bigint[]) AS digest) AS v;

-- name: move_executions
-- types: text bigint bigint bigint bigint
-- Only the position changed: id, seq, idle_claims, inbox_seen, updated_at.
UPDATE execution
   SET seq = v.column2, idle_claims = v.column3, inbox_seen = v.column4, updated_at = v.column5
  FROM (
    SELECT v.*, e.place
      FROM {rows}
     CROSS JOIN LATERAL (
      SELECT x.ctid AS place FROM execution AS x
       WHERE x.tenant = {tenant} AND x.id = v.column1 OFFSET 0) AS e) AS v
 WHERE execution.ctid = v.place;

-- name: save_executions
-- types: text text bigint bigint bytea text bigint text text bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint text bigint bigint text text text
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
  FROM (
    SELECT v.*, e.place
      FROM {rows}
     CROSS JOIN LATERAL (
      SELECT x.ctid AS place FROM execution AS x
       WHERE x.tenant = {tenant} AND x.id = v.column1 OFFSET 0) AS e) AS v
 WHERE execution.ctid = v.place;

-- name: claim_executions
-- types: text text bigint bigint bytea text bigint bigint bigint bigint bigint
-- What a claim changes of what waited in its queue.
UPDATE execution
   SET state = v.column2, seq = v.column3, fence = v.column4, nonce = v.column5,
       worker = v.column6, high_water = v.column7, claims = v.column8, idle_claims = v.column9,
       updated_at = v.column10, state_at = v.column11, due_at = NULL, detail = NULL
  FROM (
    SELECT v.*, e.place
      FROM {rows}
     CROSS JOIN LATERAL (
      SELECT x.ctid AS place FROM execution AS x
       WHERE x.tenant = {tenant} AND x.id = v.column1 OFFSET 0) AS e) AS v
 WHERE execution.ctid = v.place;

-- name: save_told_executions
-- types: text text bigint bigint bytea text bigint text text bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint text bigint bigint text text text bigint
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
  FROM (
    SELECT v.*, e.place
      FROM {rows}
     CROSS JOIN LATERAL (
      SELECT x.ctid AS place FROM execution AS x
       WHERE x.tenant = {tenant} AND x.id = v.column1 OFFSET 0) AS e) AS v
 WHERE execution.ctid = v.place;

-- name: count_messages
-- types: text bigint
-- A message is in: the row counts it.
UPDATE execution
   SET inbox_count = v.column2
  FROM (
    SELECT v.*, e.place
      FROM {rows}
     CROSS JOIN LATERAL (
      SELECT x.ctid AS place FROM execution AS x
       WHERE x.tenant = {tenant} AND x.id = v.column1 OFFSET 0) AS e) AS v
 WHERE execution.ctid = v.place;

-- name: insert_messages
-- types: bigint text bigint text text text text text bytea bigint
INSERT INTO inbox (tenant, execution_id, number, id, kind, actor, key, data, payload, at)
SELECT CASE v.column1 WHEN {tenant} THEN v.column1 END, v.column2, v.column3, v.column4, v.column5,
       v.column6, v.column7, v.column8, v.column9, v.column10
  FROM {rows};

-- name: earlier_messages
-- types: text text text
-- Messages of these executions that have this id, or answer this question: execution, id, key.
SELECT i.execution_id, i.id, i.kind, i.key
  FROM {rows}
 CROSS JOIN LATERAL (
    SELECT x.execution_id, x.id, x.kind, x.key FROM inbox AS x
     WHERE x.tenant = {tenant} AND x.execution_id = v.column1 AND x.id = v.column2
     UNION ALL
    SELECT x.execution_id, x.id, x.kind, x.key FROM inbox AS x
     WHERE x.tenant = {tenant} AND x.execution_id = v.column1 AND x.kind = 'answer'
       AND x.key = v.column3
    OFFSET 0) AS i;
