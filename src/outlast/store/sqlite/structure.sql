-- name: insert_dependencies
-- columns: 3
-- The edges of new executions: who waits, for whom, and whose end counts.
INSERT INTO dependency (tenant, execution_id, upstream_id, watched_id)
SELECT {tenant}, v.column1, v.column2, v.column3 FROM (VALUES {rows}) AS v WHERE TRUE
    ON CONFLICT DO NOTHING;

-- name: insert_errands
-- columns: 3
-- padded
-- What these executions owe, now that they have ended. Columns of a row: id, state, children.
  WITH v (id, state, children) AS (VALUES {rows})
INSERT INTO errand (tenant, execution_id, what, source_id, source_state)
SELECT {tenant}, d.execution_id, 'upstream', d.upstream_id, v.state
  FROM v CROSS JOIN dependency AS d INDEXED BY dependency_watched
    ON d.tenant = {tenant} AND d.watched_id = v.id
 UNION ALL
SELECT {tenant}, c.id, 'parent', v.id, v.state
  FROM v CROSS JOIN execution AS c INDEXED BY execution_children
    ON c.tenant = {tenant} AND c.parent_id = v.id AND v.children > 0
 WHERE c.parent_key IS NOT NULL
   AND c.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled');

-- name: owing
-- Who owes the errands that were noted last.
  WITH e (execution_id, what, source_id) AS (
    SELECT execution_id, what, source_id FROM errand
     WHERE tenant = {tenant}
     ORDER BY number DESC LIMIT :count)
SELECT e.source_id FROM e WHERE e.what = 'parent'
 UNION ALL
SELECT d.watched_id FROM e CROSS JOIN dependency AS d
    ON d.tenant = {tenant} AND d.execution_id = e.execution_id AND d.upstream_id = e.source_id
 WHERE e.what = 'upstream';

-- name: watch_successor
-- An execution goes on as another one: that one's end counts for those that depend on it.
UPDATE dependency SET watched_id = :successor WHERE tenant = {tenant} AND watched_id = :id;

-- name: owe_successor
-- One whose parent has ended meanwhile goes on as another: that one is told in its place.
INSERT INTO errand (tenant, execution_id, what, source_id, source_state)
SELECT {tenant}, :successor, 'parent', p.id, p.state FROM execution AS p
 WHERE p.tenant = {tenant} AND p.id = :parent
   AND p.state IN ('succeeded', 'failed', 'timed_out', 'cancelled');

-- name: errands
SELECT number, execution_id, what, source_id, source_state
  FROM errand
 WHERE tenant = {tenant}
 ORDER BY number
 LIMIT :limit;

-- name: end_errands
-- columns: 1
DELETE FROM errand WHERE tenant = {tenant} AND number IN (VALUES {rows});

-- name: children_floor
-- How far so many children reach.
SELECT id FROM execution
 WHERE tenant = {tenant} AND parent_id = :parent_id AND parent_id IS NOT NULL AND id < :before_id
   AND id >= :from_id
 ORDER BY id DESC
 LIMIT 1 OFFSET :rows;

-- name: children_page
-- packed: 39, blobs 7
-- The newest first.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution INDEXED BY execution_children
 WHERE tenant = {tenant} AND parent_id = :parent_id AND parent_id IS NOT NULL AND id < :before_id AND id >= :from_id
   AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
   AND (:task IS NULL OR task = :task)
   AND (:origin IS NULL OR origin = :origin)
   AND (:input_digest IS NULL OR input_digest = :input_digest)
   AND (:created_after IS NULL OR created_at >= :created_after)
   AND (:created_before IS NULL OR created_at <= :created_before)
 ORDER BY id DESC
 LIMIT :limit;

-- name: dependents
SELECT DISTINCT execution_id FROM dependency INDEXED BY dependency_watched
 WHERE tenant = {tenant} AND watched_id = :id
 ORDER BY execution_id
 LIMIT :limit;

-- name: purge_dependencies
DELETE FROM dependency
 WHERE tenant = {tenant} AND execution_id IN (SELECT execution_id FROM purge_permit WHERE tenant = {tenant});

-- name: purge_watched
DELETE FROM dependency INDEXED BY dependency_watched
 WHERE tenant = {tenant} AND watched_id IN (SELECT execution_id FROM purge_permit WHERE tenant = {tenant});

-- name: purge_errands
-- Those for them; what they owe to others is still to be delivered.
DELETE FROM errand
 WHERE tenant = {tenant} AND execution_id IN (SELECT execution_id FROM purge_permit WHERE tenant = {tenant});
