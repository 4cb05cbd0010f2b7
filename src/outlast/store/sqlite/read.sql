-- name: executions_by_id
-- packed: 39, blobs 7
-- columns: 1
-- padded
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND id IN (VALUES {rows});

-- name: executions_by_key
-- Without statistics SQLite takes a tenant's executions for ten; hence the index by name.
-- packed: 39, blobs 7
-- columns: 1
-- padded
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution INDEXED BY execution_by_key
 WHERE tenant = {tenant} AND key IS NOT NULL AND key IN (VALUES {rows});

-- name: queued_executions
-- packed: 53, blobs 7 47 53
-- rule: T06
-- What waits in a queue for the same code, behind one turn, with the first row of its log, which has
-- the input. The cross join keeps the order of the index.
SELECT e.tenant, e.id, e.task, e.state, e.seq, e.fence, e.nonce, e.worker, e.high_water, e.cause,
       e.paused_from, e.attempt, e.failures, e.claims, e.idle_claims, e.inbox_count,
       e.inbox_seen, e.cancel_at, e.pause_at, e.created_at, e.updated_at, e.state_at, e.started_at,
       e.due_at, e.deadline_at, e.queue, e.priority, e.key, e.input_digest, e.version, e.parent_id,
       e.origin, e.parent_key, e.root_id, e.start_by, e.children, e.gates, e.labels, e.detail,
       t.tenant, t.execution_id, t.seq, t.kind, t.from_state, t.to_state, t.fence, t.nonce, t.actor,
       t.at, t.key, t.digest, t.data, t.payload
  FROM execution AS e
 CROSS JOIN transition AS t ON t.tenant = {tenant} AND t.execution_id = e.id AND t.seq = 1
 WHERE e.tenant = {tenant} AND e.state = 'queued' AND e.queue = :queue
   AND e.task || coalesce(char(31) || (e.gates ->> 'version'), '') = :code
   AND coalesce(json_extract(e.detail, '$.since'), e.state_at) - e.priority * 60000000 >= :turn
   AND (coalesce(json_extract(e.detail, '$.since'), e.state_at) - e.priority * 60000000 > :turn
        OR e.id > :id)
 ORDER BY coalesce(json_extract(e.detail, '$.since'), e.state_at) - e.priority * 60000000, e.id
 LIMIT :limit;

-- name: due_executions
-- packed: 39, blobs 7
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
 LIMIT :limit;

-- name: overdue_executions
-- packed: 39, blobs 7
-- rule: T29
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND deadline_at <= :now
   AND deadline_at IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')
 ORDER BY deadline_at, id
 LIMIT :limit;

-- name: unstarted_executions
-- packed: 39, blobs 7
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
 LIMIT :limit;

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
       (SELECT 0 FROM errand WHERE tenant = {tenant} LIMIT 1) AS errand,
       (SELECT 0 FROM budget WHERE tenant = {tenant} AND stirred = 1 LIMIT 1) AS stirred,
       (SELECT turns_at FROM budget WHERE tenant = {tenant} AND turns_at IS NOT NULL
         ORDER BY turns_at LIMIT 1) AS turns_at,
       (SELECT look_at FROM line
         WHERE tenant = {tenant} AND look_at > :now AND look_at IS NOT NULL
         ORDER BY look_at LIMIT 1) AS opens_at;

-- name: leased_executions
-- packed: 39, blobs 7
-- rule: T08 T09
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND worker IS NOT NULL AND worker <> :alive
   AND (:dead IS NULL OR worker IN (SELECT value FROM json_each(:dead)))
 ORDER BY worker, id
 LIMIT :limit;

-- name: unread_executions
SELECT id FROM execution INDEXED BY execution_leased
 WHERE tenant = {tenant} AND worker IS NOT NULL AND worker = :worker AND inbox_count > inbox_seen
 ORDER BY id;

-- name: executions_page
-- packed: 39, blobs 7
-- The newest first; ids begin with their time. An empty list of states means all.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND id < :before_id AND id >= :from_id
   AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
   AND (:task IS NULL OR task = :task)
   AND (:origin IS NULL OR origin = :origin)
   AND (:input_digest IS NULL OR input_digest = :input_digest)
   AND (:created_after IS NULL OR created_at >= :created_after)
   AND (:created_before IS NULL OR created_at <= :created_before)
   AND NOT (:roots AND parent_id IS NOT NULL)
 ORDER BY id DESC
 LIMIT :limit;

-- name: task_ids
-- The newest of a task, along the index of tasks.
SELECT id FROM execution INDEXED BY execution_by_task
 WHERE tenant = {tenant} AND task = :task AND id < :before_id AND id >= :from_id
 ORDER BY id DESC
 LIMIT :rows;

-- name: picked_page
-- packed: 39, blobs 7
-- The same of some ids, as an index gave them.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND id IN (SELECT value FROM json_each(:ids))
   AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
   AND (:origin IS NULL OR origin = :origin)
   AND (:input_digest IS NULL OR input_digest = :input_digest)
   AND (:created_after IS NULL OR created_at >= :created_after)
   AND (:created_before IS NULL OR created_at <= :created_before)
   AND NOT (:roots AND parent_id IS NOT NULL)
 ORDER BY id DESC
 LIMIT :limit;

-- name: executions_floor
-- How far so many rows reach: a page of any filter looks at no others.
SELECT id FROM execution
 WHERE tenant = {tenant} AND id < :before_id AND id >= :from_id
 ORDER BY id DESC
 LIMIT 1 OFFSET :rows;

-- name: task_floor
-- The same along the index of tasks.
SELECT id FROM execution INDEXED BY execution_by_task
 WHERE tenant = {tenant} AND task = :task AND id < :before_id AND id >= :from_id
 ORDER BY id DESC
 LIMIT 1 OFFSET :rows;

-- name: parked_floor
-- The same along the index of those that wait.
SELECT id FROM execution INDEXED BY execution_parked
 WHERE tenant = {tenant} AND state = :state
   AND (state = 'scheduled' OR state = 'blocked' OR state = 'awaiting_input' OR state = 'waiting'
        OR state = 'retry_wait' OR state = 'paused' OR state = 'suspended')
   AND id < :before_id AND id >= :from_id
 ORDER BY id DESC
 LIMIT 1 OFFSET :rows;

-- name: ended_floor
-- The same along the index of those that have ended.
SELECT id FROM execution INDEXED BY execution_ended
 WHERE tenant = {tenant} AND state = :state
   AND (state = 'succeeded' OR state = 'failed' OR state = 'timed_out' OR state = 'cancelled')
   AND id < :before_id AND id >= :from_id
 ORDER BY id DESC
 LIMIT 1 OFFSET :rows;

-- name: many_open
-- Whether more are open than so many.
SELECT 1
  FROM (
    SELECT id FROM execution WHERE tenant = {tenant} AND state = 'queued'
     UNION ALL
    SELECT id FROM execution INDEXED BY execution_leased WHERE tenant = {tenant} AND worker IS NOT NULL
     UNION ALL
    SELECT id FROM execution
     WHERE tenant = {tenant}
       AND (state = 'scheduled' OR state = 'blocked' OR state = 'awaiting_input'
            OR state = 'waiting' OR state = 'retry_wait' OR state = 'paused'
            OR state = 'suspended')) AS o
 LIMIT 1 OFFSET :rows;

-- name: parked_page
-- packed: 39, blobs 7
-- The same for one state in which executions wait for something, along the index of those.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution INDEXED BY execution_parked
 WHERE tenant = {tenant} AND id < :before_id AND id >= :from_id
   AND state = :state
   AND (state = 'scheduled' OR state = 'blocked' OR state = 'awaiting_input' OR state = 'waiting'
        OR state = 'retry_wait' OR state = 'paused' OR state = 'suspended')
   AND (:task IS NULL OR task = :task)
   AND (:origin IS NULL OR origin = :origin)
   AND (:input_digest IS NULL OR input_digest = :input_digest)
   AND (:created_after IS NULL OR created_at >= :created_after)
   AND (:created_before IS NULL OR created_at <= :created_before)
   AND NOT (:roots AND parent_id IS NOT NULL)
 ORDER BY id DESC
 LIMIT :limit;

-- name: ended_page
-- packed: 39, blobs 7
-- The same for one state in which executions ended, along the index of those.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution INDEXED BY execution_ended
 WHERE tenant = {tenant} AND id < :before_id AND id >= :from_id
   AND state = :state
   AND (state = 'succeeded' OR state = 'failed' OR state = 'timed_out' OR state = 'cancelled')
   AND (:task IS NULL OR task = :task)
   AND (:origin IS NULL OR origin = :origin)
   AND (:input_digest IS NULL OR input_digest = :input_digest)
   AND (:created_after IS NULL OR created_at >= :created_after)
   AND (:created_before IS NULL OR created_at <= :created_before)
   AND NOT (:roots AND parent_id IS NOT NULL)
 ORDER BY id DESC
 LIMIT :limit;

-- name: open_executions_page
-- packed: 39, blobs 7
-- The same for open states only, from the indexes of open rows: what has ended is not looked at.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND id < :before_id AND id >= :from_id
   AND id IN (
    SELECT id FROM execution WHERE tenant = {tenant} AND state = 'queued'
     UNION ALL
    SELECT id FROM execution INDEXED BY execution_leased WHERE tenant = {tenant} AND worker IS NOT NULL
     UNION ALL
    SELECT id FROM execution
     WHERE tenant = {tenant}
       AND (state = 'scheduled' OR state = 'blocked' OR state = 'awaiting_input'
            OR state = 'waiting' OR state = 'retry_wait' OR state = 'paused'
            OR state = 'suspended'))
   AND state IN (SELECT value FROM json_each(:states))
   AND (:task IS NULL OR task = :task)
   AND (:origin IS NULL OR origin = :origin)
   AND (:input_digest IS NULL OR input_digest = :input_digest)
   AND (:created_after IS NULL OR created_at >= :created_after)
   AND (:created_before IS NULL OR created_at <= :created_before)
   AND NOT (:roots AND parent_id IS NOT NULL)
 ORDER BY id DESC
 LIMIT :limit;

-- name: ids_beginning
SELECT id FROM execution
 WHERE tenant = {tenant} AND id >= :text AND id < :text || '~'
 ORDER BY id
 LIMIT :limit;

-- name: ids_ending
-- The newest first; it looks at so many ids.
SELECT e.id
  FROM (SELECT id FROM execution WHERE tenant = {tenant} ORDER BY id DESC LIMIT :among) AS e
 WHERE substr(e.id, -length(:text)) = :text
 ORDER BY e.id DESC
 LIMIT :limit;

-- name: open_counts
SELECT state, count(*) FROM execution
 WHERE tenant = {tenant} AND state = 'queued' GROUP BY state
 UNION ALL
SELECT state, count(*) FROM execution INDEXED BY execution_leased
 WHERE tenant = {tenant} AND worker IS NOT NULL GROUP BY state
 UNION ALL
SELECT state, count(*) FROM execution
 WHERE tenant = {tenant}
   AND (state = 'scheduled' OR state = 'blocked' OR state = 'awaiting_input' OR state = 'waiting'
        OR state = 'retry_wait' OR state = 'paused' OR state = 'suspended')
 GROUP BY state;

-- name: overdue
-- What the clock should have moved; a thousand is as bad as more.
SELECT count(*), min(due_at)
  FROM (SELECT due_at FROM execution
         WHERE tenant = {tenant} AND due_at IS NOT NULL AND due_at <= :before
           AND state IN ('scheduled', 'waiting', 'awaiting_input', 'retry_wait')
         ORDER BY due_at
         LIMIT 1000);

-- name: store_settings
SELECT 'journal_mode', journal_mode FROM pragma_journal_mode
 UNION ALL
SELECT 'free_pages', freelist_count FROM pragma_freelist_count
 UNION ALL
SELECT 'pages', page_count FROM pragma_page_count
 UNION ALL
SELECT 'migration', max(number) FROM migration;

-- name: ended_counts
SELECT state, count(*) FROM execution INDEXED BY execution_ended
 WHERE tenant = {tenant}
   AND (state = 'succeeded' OR state = 'failed' OR state = 'timed_out' OR state = 'cancelled')
 GROUP BY state;

-- name: queue_census
-- What waits and runs by queue, by what the indexes say: the head of each line is one step.
WITH RECURSIVE
  q (name) AS (
    SELECT queue FROM (SELECT queue FROM execution
                    WHERE tenant = {tenant} AND state = 'queued' ORDER BY queue LIMIT 1)
     UNION ALL
    SELECT (SELECT e.queue FROM execution AS e
             WHERE e.tenant = {tenant} AND e.state = 'queued' AND e.queue > q.name
             ORDER BY e.queue LIMIT 1)
      FROM q WHERE q.name IS NOT NULL),
  c (queue, code) AS (
    SELECT q.name, (
        SELECT e.task || coalesce(char(31) || (e.gates ->> 'version'), '')
          FROM execution AS e
         WHERE e.tenant = {tenant} AND e.state = 'queued' AND e.queue = q.name
         ORDER BY e.task || coalesce(char(31) || (e.gates ->> 'version'), '') LIMIT 1)
      FROM q WHERE q.name IS NOT NULL
     UNION ALL
    SELECT c.queue, (
        SELECT e.task || coalesce(char(31) || (e.gates ->> 'version'), '')
          FROM execution AS e
         WHERE e.tenant = {tenant} AND e.state = 'queued' AND e.queue = c.queue
           AND e.task || coalesce(char(31) || (e.gates ->> 'version'), '') > c.code
         ORDER BY e.task || coalesce(char(31) || (e.gates ->> 'version'), '') LIMIT 1)
      FROM c WHERE c.code IS NOT NULL)
SELECT f.queue, sum(f.queued), sum(f.leased), min(f.turn_at)
  FROM (
    SELECT queue, count(*) AS queued, 0 AS leased, NULL AS turn_at FROM execution
     WHERE tenant = {tenant} AND state = 'queued' GROUP BY queue
     UNION ALL
    SELECT queue, 0, count(*), NULL FROM execution INDEXED BY execution_leased
     WHERE tenant = {tenant} AND worker IS NOT NULL GROUP BY queue
     UNION ALL
    SELECT c.queue, 0, 0, (
        SELECT coalesce(json_extract(e.detail, '$.since'), e.state_at) - e.priority * 60000000
          FROM execution AS e
         WHERE e.tenant = {tenant} AND e.state = 'queued' AND e.queue = c.queue
           AND e.task || coalesce(char(31) || (e.gates ->> 'version'), '') = c.code
         ORDER BY coalesce(json_extract(e.detail, '$.since'), e.state_at) - e.priority * 60000000 LIMIT 1)
      FROM c WHERE c.code IS NOT NULL) AS f
 GROUP BY f.queue;

-- name: logs
-- packed: 14, blobs 8 14
-- columns: 1
-- padded
SELECT t.tenant, t.execution_id, t.seq, t.kind, t.from_state, t.to_state, t.fence, t.nonce, t.actor,
       t.at, t.key, t.digest, t.data, t.payload
  FROM (VALUES {rows}) AS v
 CROSS JOIN transition AS t ON t.tenant = {tenant} AND t.execution_id = v.column1;

-- name: log
-- packed: 14, blobs 8 14
SELECT tenant, execution_id, seq, kind, from_state, to_state, fence, nonce, actor, at, key, digest,
       data, payload
  FROM transition
 WHERE tenant = {tenant} AND execution_id = :id AND seq > :after
 ORDER BY seq
 LIMIT :limit;

-- name: inbox
SELECT number, id, kind, actor, key, data, payload, at
  FROM inbox
 WHERE tenant = {tenant} AND execution_id = :id AND number > :after
 ORDER BY number;

-- name: inboxes
-- columns: 1
-- padded
SELECT i.number, i.id, i.kind, i.actor, i.key, i.data, i.payload, i.at, i.execution_id
  FROM (VALUES {rows}) AS v
 CROSS JOIN inbox AS i ON i.tenant = {tenant} AND i.execution_id = v.column1;

-- name: all_ids
SELECT id FROM execution WHERE tenant = {tenant} AND id > :after ORDER BY id LIMIT :limit;

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
