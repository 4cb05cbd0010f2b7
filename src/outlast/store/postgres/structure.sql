-- name: insert_dependencies
-- types: text text text
-- The edges of new executions: who waits, for whom, and whose end counts.
INSERT INTO dependency (tenant, execution_id, upstream_id, watched_id)
SELECT {tenant}, v.column1, v.column2, v.column3 FROM {rows}
    ON CONFLICT DO NOTHING;

-- name: insert_errands
-- types: text text bigint
-- What these executions owe, now that they have ended. Columns of a row: id, state, children.
INSERT INTO errand (tenant, execution_id, what, source_id, source_state)
SELECT {tenant}, o.execution_id, o.what, o.source_id, v.column2
  FROM {rows}
 CROSS JOIN LATERAL (
    SELECT d.execution_id, 'upstream' AS what, d.upstream_id AS source_id
      FROM dependency AS d
     WHERE d.tenant = {tenant} AND d.watched_id = v.column1
     UNION ALL
    SELECT c.id, 'parent', v.column1
      FROM execution AS c
     WHERE v.column3 > 0 AND c.tenant = {tenant} AND c.parent_id = v.column1 AND c.parent_key IS NOT NULL
       AND c.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')
    OFFSET 0) AS o;

-- name: owing
-- Who owes the errands that this session noted last. One may be missing where others note some at
-- the same time: it is run by the next sweep then, a little later.
  WITH e (execution_id, what, source_id) AS (
    SELECT execution_id, what, source_id FROM errand
     WHERE tenant = {tenant} AND number <= lastval()
     ORDER BY number DESC LIMIT :count::bigint)
SELECT e.source_id FROM e WHERE e.what = 'parent'
 UNION ALL
SELECT d.watched_id
  FROM e
  JOIN dependency AS d
    ON d.tenant = {tenant} AND d.execution_id = e.execution_id AND d.upstream_id = e.source_id
 WHERE e.what = 'upstream';

-- name: watch_successor
-- An execution goes on as another one: that one's end counts for those that depend on it.
UPDATE dependency SET watched_id = :successor WHERE tenant = {tenant} AND watched_id = :id;

-- name: owe_successor
-- One whose parent has ended meanwhile goes on as another: that one is told in its place.
INSERT INTO errand (tenant, execution_id, what, source_id, source_state)
SELECT {tenant}, :successor::text, 'parent', p.id, p.state FROM execution AS p
 WHERE p.tenant = {tenant} AND p.id = :parent
   AND p.state IN ('succeeded', 'failed', 'timed_out', 'cancelled');

-- name: errands
SELECT number, execution_id, what, source_id, source_state
  FROM errand
 WHERE tenant = {tenant}
 ORDER BY number
 LIMIT nullif(:limit, -1)
   FOR UPDATE SKIP LOCKED;

-- name: end_errands
-- types: bigint
DELETE FROM errand WHERE tenant = {tenant} AND number = ANY (ARRAY(SELECT v.column1 FROM {rows}));

-- name: children_floor
-- How far so many children reach.
SELECT id FROM execution
 WHERE tenant = {tenant} AND parent_id = :parent_id AND parent_id IS NOT NULL AND id < :before_id
   AND id >= :from_id
 ORDER BY id DESC
 LIMIT 1 OFFSET :rows;

-- name: children_page
-- The newest first.
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND parent_id = :parent_id AND parent_id IS NOT NULL AND id < :before_id AND id >= :from_id
   AND (:states::json IS NULL
        OR state = ANY (ARRAY(SELECT json_array_elements_text(:states::json))))
   AND (:task::text IS NULL OR task = :task)
   AND (:origin::text IS NULL OR origin = :origin)
   AND (:input_digest::bigint IS NULL OR input_digest = :input_digest)
   AND (:created_after::bigint IS NULL OR created_at >= :created_after)
   AND (:created_before::bigint IS NULL OR created_at <= :created_before)
 ORDER BY id DESC
 LIMIT nullif(:limit, -1);

-- name: dependents
SELECT DISTINCT execution_id FROM dependency
 WHERE tenant = {tenant} AND watched_id = :id
 ORDER BY execution_id
 LIMIT nullif(:limit, -1);

-- name: purge_dependencies
DELETE FROM dependency
 WHERE tenant = {tenant}
   AND execution_id = ANY (ARRAY(SELECT execution_id FROM purge_permit WHERE tenant = {tenant}));

-- name: purge_watched
DELETE FROM dependency
 WHERE tenant = {tenant}
   AND watched_id = ANY (ARRAY(SELECT execution_id FROM purge_permit WHERE tenant = {tenant}));

-- name: purge_errands
-- Those for them; what they owe to others is still to be delivered.
DELETE FROM errand
 WHERE tenant = {tenant}
   AND execution_id = ANY (ARRAY(SELECT execution_id FROM purge_permit WHERE tenant = {tenant}));
