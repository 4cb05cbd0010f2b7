-- name: executions_by_id
-- columns: 1
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest, version,
       parent_id, origin, detail
  FROM execution
 WHERE tenant = 1 AND id IN (VALUES {rows});

-- name: executions_by_key
-- columns: 1
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest, version,
       parent_id, origin, detail
  FROM execution
 WHERE tenant = 1 AND key IN (VALUES {rows});

-- name: queued_executions
-- rule: T06
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest, version,
       parent_id, origin, detail
  FROM execution
 WHERE tenant = 1 AND state = 'queued' AND task IN (SELECT value FROM json_each(:tasks))
 ORDER BY priority DESC, state_at, id
 LIMIT :limit;

-- name: due_executions
-- rule: T03 T16 T23
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest, version,
       parent_id, origin, detail
  FROM execution
 WHERE tenant = 1 AND due_at <= :now
   AND due_at IS NOT NULL AND state IN ('scheduled', 'waiting', 'awaiting_input', 'retry_wait')
 ORDER BY due_at
 LIMIT :limit;

-- name: overdue_executions
-- rule: T29
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest, version,
       parent_id, origin, detail
  FROM execution
 WHERE tenant = 1 AND deadline_at <= :now
   AND deadline_at IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')
 ORDER BY deadline_at
 LIMIT :limit;

-- name: next_due
SELECT (SELECT min(due_at) FROM execution
         WHERE tenant = 1 AND due_at IS NOT NULL
           AND state IN ('scheduled', 'waiting', 'awaiting_input', 'retry_wait')) AS due_at,
       (SELECT min(deadline_at) FROM execution
         WHERE tenant = 1 AND deadline_at IS NOT NULL
           AND state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')) AS deadline_at;

-- name: leased_executions
-- rule: T08 T09
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest, version,
       parent_id, origin, detail
  FROM execution
 WHERE tenant = 1 AND worker IS NOT NULL AND worker <> :alive
   AND (:dead IS NULL OR worker IN (SELECT value FROM json_each(:dead)))
 LIMIT :limit;

-- name: unread_executions
SELECT id FROM execution
 WHERE tenant = 1 AND worker = :worker AND inbox_count > inbox_seen;

-- name: executions_page
-- The newest first; ids begin with their time. An empty list of states means all.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest, version,
       parent_id, origin, detail
  FROM execution
 WHERE tenant = 1 AND id < :before_id
   AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
   AND (:task IS NULL OR task = :task)
   AND (:origin IS NULL OR origin = :origin)
   AND (:input_digest IS NULL OR input_digest = :input_digest)
   AND (:created_after IS NULL OR created_at >= :created_after)
 ORDER BY id DESC
 LIMIT :limit;

-- name: ids_beginning
SELECT id FROM execution WHERE tenant = 1 AND id >= :text AND id < :text || '~' LIMIT :limit;

-- name: ids_ending
SELECT id FROM execution WHERE tenant = 1 AND substr(id, -length(:text)) = :text LIMIT :limit;

-- name: open_counts
SELECT state, count(*) FROM execution
 WHERE tenant = 1 AND state = 'queued' GROUP BY state
 UNION ALL
SELECT state, count(*) FROM execution
 WHERE tenant = 1 AND worker IS NOT NULL GROUP BY state
 UNION ALL
SELECT state, count(*) FROM execution
 WHERE tenant = 1 AND state IN ('scheduled', 'blocked', 'awaiting_input', 'waiting', 'retry_wait',
                                'paused', 'suspended')
 GROUP BY state;

-- name: log
SELECT tenant, execution_id, seq, kind, from_state, to_state, fence, nonce, actor, at, key, digest,
       data, payload
  FROM transition
 WHERE tenant = 1 AND execution_id = :id AND seq > :after
 ORDER BY seq
 LIMIT :limit;

-- name: births
-- columns: 1
SELECT tenant, execution_id, seq, kind, from_state, to_state, fence, nonce, actor, at, key, digest,
       data, payload
  FROM transition
 WHERE tenant = 1 AND seq = 1 AND execution_id IN (VALUES {rows});

-- name: inbox
SELECT number, id, kind, actor, key, data, payload, at
  FROM inbox
 WHERE tenant = 1 AND execution_id = :id AND number > :after
 ORDER BY number;

-- name: workers
SELECT id, host, pid, started_at, seen_at FROM worker ORDER BY started_at DESC LIMIT 100;

-- name: all_ids
SELECT id FROM execution WHERE tenant = 1 ORDER BY id;

-- name: orphan_logs
-- Rows of a log without an execution, which no constraint can see.
SELECT count(*) FROM transition AS t
 WHERE t.seq = 1 AND NOT EXISTS (
  SELECT 1 FROM execution AS e WHERE e.tenant = t.tenant AND e.id = t.execution_id);
