-- name: executions_by_id
-- types: text
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND id = ANY (ARRAY(SELECT v.column1 FROM {rows}));

-- name: executions_by_key
-- types: text
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM {rows}
 CROSS JOIN LATERAL (
    SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from,
           attempt, failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at,
           created_at, updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key,
           input_digest, version, parent_id, origin, parent_key, root_id, start_by, children, gates,
           labels, detail
      FROM execution
     WHERE tenant = {tenant} AND key IS NOT NULL AND key = v.column1 OFFSET 0) AS e;

-- name: queued_executions
-- rule: T06
-- What waits in a queue for the same code, behind one turn, with the first row of its log, which has
-- the input. What another claim has locked is its own.
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
 WHERE e.tenant = {tenant} AND e.state = 'queued' AND e.queue = :queue
   AND e.code = :code
   AND e.turn >= :turn
   AND (e.turn > :turn
        OR e.id > :id)
 ORDER BY e.turn, e.id
 LIMIT nullif(:limit, -1)
   FOR NO KEY UPDATE OF e SKIP LOCKED;

-- name: due_executions
-- rule: T03 T16 T23
-- One that is scheduled and has a detail waits for other executions first; what is overdue is ended.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND due_at <= :now
   AND due_at IS NOT NULL AND state IN ('scheduled', 'waiting', 'awaiting_input', 'retry_wait')
   AND NOT (state = 'scheduled' AND detail IS NOT NULL)
   AND (deadline_at IS NULL OR deadline_at > :now) AND (start_by IS NULL OR start_by > :now)
 ORDER BY due_at, id
 LIMIT nullif(:limit, -1)
   FOR NO KEY UPDATE SKIP LOCKED;

-- name: overdue_executions
-- rule: T29
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND deadline_at <= :now
   AND deadline_at IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')
 ORDER BY deadline_at, id
 LIMIT nullif(:limit, -1)
   FOR NO KEY UPDATE SKIP LOCKED;

-- name: unstarted_executions
-- rule: T29
-- Those that have not begun in time, but for those whose deadline has passed as well.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND start_by <= :now
   AND start_by IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')
   AND (deadline_at IS NULL OR deadline_at > :now)
 ORDER BY start_by, id
 LIMIT nullif(:limit, -1)
   FOR NO KEY UPDATE SKIP LOCKED;

-- name: next_due
SELECT (SELECT due_at FROM execution
         WHERE tenant = {tenant} AND due_at IS NOT NULL
           AND state IN ('scheduled', 'waiting', 'awaiting_input', 'retry_wait')
           AND NOT (state = 'scheduled' AND detail IS NOT NULL)
         ORDER BY due_at LIMIT 1) AS due_at,
       (SELECT deadline_at FROM execution
         WHERE tenant = {tenant} AND deadline_at IS NOT NULL
           AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')
         ORDER BY deadline_at LIMIT 1) AS deadline_at,
       (SELECT start_by FROM execution
         WHERE tenant = {tenant} AND start_by IS NOT NULL
           AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')
         ORDER BY start_by LIMIT 1) AS start_by,
       (SELECT 0::bigint FROM errand WHERE tenant = {tenant} LIMIT 1) AS errand,
       (SELECT 0::bigint FROM budget WHERE tenant = {tenant} AND stirred = 1 LIMIT 1) AS stirred,
       (SELECT turns_at FROM budget WHERE tenant = {tenant} AND turns_at IS NOT NULL
         ORDER BY turns_at LIMIT 1) AS turns_at,
       (SELECT look_at FROM line
         WHERE tenant = {tenant} AND look_at > :now AND look_at IS NOT NULL
         ORDER BY look_at LIMIT 1) AS opens_at;

-- name: leased_executions
-- rule: T08 T09
-- Locked by id, as batches lock them, and waited for: nobody looks at a lost worker again so soon.
  WITH page AS MATERIALIZED (
    SELECT id FROM execution
     WHERE tenant = {tenant} AND worker IS NOT NULL AND worker <> :alive
       AND (:dead::json IS NULL
            OR worker = ANY (ARRAY(SELECT json_array_elements_text(:dead::json))))
     ORDER BY worker, id
     LIMIT nullif(:limit, -1))
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND id = ANY (ARRAY(SELECT id FROM page))
   AND worker IS NOT NULL AND worker <> :alive
   AND (:dead::json IS NULL
        OR worker = ANY (ARRAY(SELECT json_array_elements_text(:dead::json))))
 ORDER BY id
   FOR NO KEY UPDATE;

-- name: unread_executions
SELECT id FROM execution
 WHERE tenant = {tenant} AND worker IS NOT NULL AND worker = :worker AND inbox_count > inbox_seen
 ORDER BY id;

-- name: executions_page
-- The newest first; ids begin with their time. An empty list of states means all.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND id < :before_id AND id >= :from_id
   AND (:states::json IS NULL
        OR state = ANY (ARRAY(SELECT json_array_elements_text(:states::json))))
   AND (:task::text IS NULL OR task = :task)
   AND (:origin::text IS NULL OR origin = :origin)
   AND (:input_digest::bigint IS NULL OR input_digest = :input_digest)
   AND (:created_after::bigint IS NULL OR created_at >= :created_after)
   AND (:created_before::bigint IS NULL OR created_at <= :created_before)
   AND NOT (:roots::boolean AND parent_id IS NOT NULL)
 ORDER BY id DESC
 LIMIT nullif(:limit, -1);

-- name: task_ids
-- The newest of a task, along the index of tasks: that both bounds are pairs keeps the planner from
-- going along the ids of all, where it takes the task for common.
SELECT id FROM execution
 WHERE tenant = {tenant} AND (task, id) < (:task, :before_id) AND (task, id) >= (:task, :from_id)
 ORDER BY task DESC, id DESC
 LIMIT :rows;

-- name: picked_page
-- The same of some ids, as an index gave them.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND id = ANY (ARRAY(SELECT json_array_elements_text(:ids::json)))
   AND (:states::json IS NULL
        OR state = ANY (ARRAY(SELECT json_array_elements_text(:states::json))))
   AND (:origin::text IS NULL OR origin = :origin)
   AND (:input_digest::bigint IS NULL OR input_digest = :input_digest)
   AND (:created_after::bigint IS NULL OR created_at >= :created_after)
   AND (:created_before::bigint IS NULL OR created_at <= :created_before)
   AND NOT (:roots::boolean AND parent_id IS NOT NULL)
 ORDER BY id DESC
 LIMIT nullif(:limit, -1);

-- name: executions_floor
-- How far so many rows reach: a page of any filter looks at no others.
SELECT id FROM execution
 WHERE tenant = {tenant} AND id < :before_id AND id >= :from_id
 ORDER BY id DESC
 LIMIT 1 OFFSET :rows;

-- name: task_floor
-- The same along the index of tasks.
SELECT id FROM execution
 WHERE tenant = {tenant} AND (task, id) < (:task, :before_id) AND (task, id) >= (:task, :from_id)
 ORDER BY task DESC, id DESC
 LIMIT 1 OFFSET :rows;

-- name: parked_floor
-- The same along the index of those that wait.
SELECT id FROM execution
 WHERE tenant = {tenant} AND state = :state
   AND state IN ('scheduled', 'blocked', 'awaiting_input', 'waiting', 'retry_wait', 'paused',
                 'suspended')
   AND id < :before_id AND id >= :from_id
 ORDER BY id DESC
 LIMIT 1 OFFSET :rows;

-- name: ended_floor
-- The same along the index of those that have ended.
SELECT id FROM execution
 WHERE tenant = {tenant} AND state = :state AND state IN ('succeeded', 'failed', 'timed_out', 'cancelled')
   AND id < :before_id AND id >= :from_id
 ORDER BY id DESC
 LIMIT 1 OFFSET :rows;

-- name: many_open
-- Whether more are open than so many.
SELECT 1
  FROM (
    SELECT id FROM execution WHERE tenant = {tenant} AND state = 'queued'
     UNION ALL
    SELECT id FROM execution WHERE tenant = {tenant} AND worker IS NOT NULL
     UNION ALL
    SELECT id FROM execution
     WHERE tenant = {tenant} AND state IN ('scheduled', 'blocked', 'awaiting_input', 'waiting',
                                    'retry_wait', 'paused', 'suspended')) AS o
 LIMIT 1 OFFSET :rows;

-- name: parked_page
-- The same for one state in which executions wait for something, along the index of those.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND id < :before_id AND id >= :from_id
   AND state = :state
   AND state IN ('scheduled', 'blocked', 'awaiting_input', 'waiting', 'retry_wait', 'paused',
                 'suspended')
   AND (:task::text IS NULL OR task = :task)
   AND (:origin::text IS NULL OR origin = :origin)
   AND (:input_digest::bigint IS NULL OR input_digest = :input_digest)
   AND (:created_after::bigint IS NULL OR created_at >= :created_after)
   AND (:created_before::bigint IS NULL OR created_at <= :created_before)
   AND NOT (:roots::boolean AND parent_id IS NOT NULL)
 ORDER BY id DESC
 LIMIT nullif(:limit, -1);

-- name: ended_page
-- The same for one state in which executions ended, along the index of those.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND id < :before_id AND id >= :from_id
   AND state = :state AND state IN ('succeeded', 'failed', 'timed_out', 'cancelled')
   AND (:task::text IS NULL OR task = :task)
   AND (:origin::text IS NULL OR origin = :origin)
   AND (:input_digest::bigint IS NULL OR input_digest = :input_digest)
   AND (:created_after::bigint IS NULL OR created_at >= :created_after)
   AND (:created_before::bigint IS NULL OR created_at <= :created_before)
   AND NOT (:roots::boolean AND parent_id IS NOT NULL)
 ORDER BY id DESC
 LIMIT nullif(:limit, -1);

-- name: open_executions_page
-- The same for open states only, from the indexes of open rows: what has ended is not looked at.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND id < :before_id AND id >= :from_id
   AND id = ANY (ARRAY(
    SELECT id FROM execution WHERE tenant = {tenant} AND state = 'queued'
     UNION ALL
    SELECT id FROM execution WHERE tenant = {tenant} AND worker IS NOT NULL
     UNION ALL
    SELECT id FROM execution
     WHERE tenant = {tenant} AND state IN ('scheduled', 'blocked', 'awaiting_input', 'waiting',
                                    'retry_wait', 'paused', 'suspended')))
   AND state = ANY (ARRAY(SELECT json_array_elements_text(:states::json)))
   AND (:task::text IS NULL OR task = :task)
   AND (:origin::text IS NULL OR origin = :origin)
   AND (:input_digest::bigint IS NULL OR input_digest = :input_digest)
   AND (:created_after::bigint IS NULL OR created_at >= :created_after)
   AND (:created_before::bigint IS NULL OR created_at <= :created_before)
   AND NOT (:roots::boolean AND parent_id IS NOT NULL)
 ORDER BY id DESC
 LIMIT nullif(:limit, -1);

-- name: ids_beginning
SELECT id FROM execution
 WHERE tenant = {tenant} AND id >= :text::text AND id < :text::text || '~'
 ORDER BY id
 LIMIT nullif(:limit, -1);

-- name: ids_ending
-- The newest first; it looks at so many ids.
SELECT e.id
  FROM (SELECT id FROM execution WHERE tenant = {tenant} ORDER BY id DESC LIMIT :among::bigint) AS e
 WHERE right(e.id, length(:text::text)) = :text::text
 ORDER BY e.id DESC
 LIMIT nullif(:limit, -1);

-- name: open_counts
SELECT state, count(*) FROM execution
 WHERE tenant = {tenant} AND state = 'queued' GROUP BY state
 UNION ALL
SELECT state, count(*) FROM execution
 WHERE tenant = {tenant} AND worker IS NOT NULL GROUP BY state
 UNION ALL
SELECT state, count(*) FROM execution
 WHERE tenant = {tenant} AND state IN ('scheduled', 'blocked', 'awaiting_input', 'waiting', 'retry_wait',
                                'paused', 'suspended')
 GROUP BY state;

-- name: overdue
-- What the clock should have moved; a thousand is as bad as more.
SELECT count(*), min(due_at)
  FROM (SELECT due_at FROM execution
         WHERE tenant = {tenant} AND due_at IS NOT NULL AND due_at <= :before
           AND state IN ('scheduled', 'waiting', 'awaiting_input', 'retry_wait')
         ORDER BY due_at
         LIMIT 1000) AS d;

-- name: store_settings
SELECT name, setting FROM pg_settings
 WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'server_version', 'max_connections')
 UNION ALL
SELECT 'size_bytes', pg_database_size(current_database())::text
 UNION ALL
SELECT 'connections', count(*)::text FROM pg_stat_activity
 UNION ALL
SELECT 'longest_us', max(extract(epoch FROM clock_timestamp() - xact_start) * 1000000)::bigint::text
  FROM pg_stat_activity
 WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
 UNION ALL
SELECT 'clock_us', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text
 UNION ALL
SELECT 'is_standby', pg_is_in_recovery()::text
 UNION ALL
SELECT 'migration', max(number)::text FROM migration;

-- name: ended_counts
SELECT state, count(*) FROM execution
 WHERE tenant = {tenant} AND state IN ('succeeded', 'failed', 'timed_out', 'cancelled')
 GROUP BY state;

-- name: queue_census
-- What waits and runs by queue, by what the indexes say: the head of each line is one step.
WITH RECURSIVE place (queue, code) AS (
  (SELECT e.queue, e.task || coalesce(chr(31) || (facts(e.gates) ->> 'version'), '') FROM execution AS e
    WHERE e.tenant = {tenant} AND e.state = 'queued'
    ORDER BY e.queue, e.task || coalesce(chr(31) || (facts(e.gates) ->> 'version'), '') LIMIT 1)
   UNION ALL
  (SELECT n.queue, n.code
     FROM place AS p
    CROSS JOIN LATERAL (
      SELECT e.queue, e.task || coalesce(chr(31) || (facts(e.gates) ->> 'version'), '') AS code
        FROM execution AS e
       WHERE e.tenant = {tenant} AND e.state = 'queued'
         AND (e.queue, e.task || coalesce(chr(31) || (facts(e.gates) ->> 'version'), ''))
           > (p.queue, p.code)
       ORDER BY e.queue, e.task || coalesce(chr(31) || (facts(e.gates) ->> 'version'), '') LIMIT 1) AS n)),
  head (queue, turn_at) AS (
    SELECT p.queue, min(h.turn_at)
      FROM place AS p
     CROSS JOIN LATERAL (
       SELECT coalesce((facts(e.detail) ->> 'since')::bigint, e.state_at) - e.priority * 60000000
                AS turn_at
         FROM execution AS e
        WHERE e.tenant = {tenant} AND e.state = 'queued' AND e.queue = p.queue
          AND e.task || coalesce(chr(31) || (facts(e.gates) ->> 'version'), '') = p.code
        ORDER BY coalesce((facts(e.detail) ->> 'since')::bigint, e.state_at)
                 - e.priority * 60000000 LIMIT 1) AS h
     GROUP BY p.queue)
SELECT f.queue, sum(f.queued), sum(f.leased), min(f.turn_at)
  FROM (
    SELECT queue, count(*) AS queued, 0::bigint AS leased, NULL::bigint AS turn_at FROM execution
     WHERE tenant = {tenant} AND state = 'queued' GROUP BY queue
     UNION ALL
    SELECT queue, 0, count(*), NULL FROM execution
     WHERE tenant = {tenant} AND worker IS NOT NULL GROUP BY queue
     UNION ALL
    SELECT queue, 0, 0, turn_at FROM head) AS f
 GROUP BY f.queue;

-- name: logs
-- types: text
SELECT t.tenant, t.execution_id, t.seq, t.kind, t.from_state, t.to_state, t.fence, t.nonce, t.actor,
       t.at, t.key, t.digest, t.data, t.payload
  FROM {rows}
 CROSS JOIN LATERAL (
    SELECT x.tenant, x.execution_id, x.seq, x.kind, x.from_state, x.to_state, x.fence, x.nonce,
           x.actor, x.at, x.key, x.digest, x.data, x.payload
      FROM transition AS x
     WHERE x.tenant = {tenant} AND x.execution_id = v.column1 OFFSET 0) AS t
 ORDER BY t.execution_id, t.seq;

-- name: log
SELECT tenant, execution_id, seq, kind, from_state, to_state, fence, nonce, actor, at, key, digest,
       data, payload
  FROM transition
 WHERE tenant = {tenant} AND execution_id = :id AND seq > :after
 ORDER BY seq
 LIMIT nullif(:limit::bigint, -1);

-- name: inbox
SELECT number, id, kind, actor, key, data, payload, at
  FROM inbox
 WHERE tenant = {tenant} AND execution_id = :id AND number > :after
 ORDER BY number;

-- name: inboxes
-- types: text
SELECT i.number, i.id, i.kind, i.actor, i.key, i.data, i.payload, i.at, i.execution_id
  FROM {rows}
 CROSS JOIN LATERAL (
    SELECT x.number, x.id, x.kind, x.actor, x.key, x.data, x.payload, x.at, x.execution_id
      FROM inbox AS x
     WHERE x.tenant = {tenant} AND x.execution_id = v.column1
     ORDER BY x.number OFFSET 0) AS i;

-- name: all_ids
SELECT id FROM execution WHERE tenant = {tenant} AND id > :after ORDER BY id LIMIT nullif(:limit, -1);

-- name: stray_ids
-- Logs and inboxes without an execution, which no guard can see. Reads everything, once a verify.
SELECT t.execution_id FROM transition AS t
 WHERE t.tenant = {tenant} AND NOT EXISTS (
  SELECT 1 FROM execution AS e WHERE e.tenant = {tenant} AND e.id = t.execution_id)
 UNION
SELECT i.execution_id FROM inbox AS i
 WHERE i.tenant = {tenant} AND NOT EXISTS (
  SELECT 1 FROM execution AS e WHERE e.tenant = {tenant} AND e.id = i.execution_id)
 LIMIT 100;
