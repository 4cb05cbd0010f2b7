-- name: labelled_floor
-- How far so many with a label reach.
SELECT execution_id FROM label
 WHERE tenant = {tenant} AND name = :label AND value = :label_value AND execution_id < :before_id
   AND execution_id >= :from_id
 ORDER BY execution_id DESC
 LIMIT 1 OFFSET :rows;

-- name: labelled_page
-- packed: 39, blobs 7
-- The newest first of those with a label: along the index of that one, the others are looked up.
SELECT e.tenant, e.id, e.task, e.state, e.seq, e.fence, e.nonce, e.worker, e.high_water, e.cause,
       e.paused_from, e.attempt, e.failures, e.claims, e.idle_claims, e.inbox_count,
       e.inbox_seen, e.cancel_at, e.pause_at, e.created_at, e.updated_at, e.state_at, e.started_at,
       e.due_at, e.deadline_at, e.queue, e.priority, e.key, e.input_digest, e.version, e.parent_id,
       e.origin, e.parent_key, e.root_id, e.start_by, e.children, e.gates, e.labels, e.detail
  FROM label AS l
 CROSS JOIN execution AS e ON e.tenant = {tenant} AND e.id = l.execution_id
 WHERE l.tenant = {tenant} AND l.name = :label AND l.value = :label_value AND l.execution_id < :before_id
   AND l.execution_id >= :from_id
   AND NOT EXISTS (
    SELECT 1 FROM json_each(:labels)
     WHERE NOT EXISTS (
      SELECT 1 FROM label AS o
       WHERE o.tenant = {tenant} AND o.name = json_each.key AND o.value = json_each.value
         AND o.execution_id = e.id))
   AND (:states IS NULL OR e.state IN (SELECT value FROM json_each(:states)))
   AND (:task IS NULL OR e.task = :task)
   AND (:parent_id IS NULL OR e.parent_id = :parent_id)
   AND (:origin IS NULL OR e.origin = :origin)
   AND (:input_digest IS NULL OR e.input_digest = :input_digest)
   AND (:created_after IS NULL OR e.created_at >= :created_after)
   AND (:created_before IS NULL OR e.created_at <= :created_before)
   AND NOT (:roots AND e.parent_id IS NOT NULL)
 ORDER BY l.execution_id DESC
 LIMIT :limit;

-- name: insert_descents
-- columns: 4
-- What new executions were made of: id, source, mode, step.
INSERT INTO descent (tenant, id, source_id, mode, step)
SELECT {tenant}, v.column1, v.column2, v.column3, v.column4 FROM (VALUES {rows}) AS v;

-- name: descents
-- Of what these were made, and what was made of them.
SELECT id, source_id, mode, step FROM descent
 WHERE tenant = {tenant} AND id IN (SELECT value FROM json_each(:ids))
 UNION ALL
SELECT id, source_id, mode, step FROM descent INDEXED BY descent_of_source
 WHERE tenant = {tenant} AND source_id IN (SELECT value FROM json_each(:ids));

-- name: wrong_labels
-- Labels that the index has and the rows do not, or the reverse. Reads everything, once a verify.
SELECT id FROM (
  SELECT e.id AS id, j.key AS name, j.value AS value
    FROM execution AS e, json_each(e.labels) AS j WHERE e.tenant = {tenant} AND e.labels IS NOT NULL
  EXCEPT SELECT execution_id, name, value FROM label WHERE tenant = {tenant})
 UNION
SELECT id FROM (
  SELECT execution_id AS id, name, value FROM label WHERE tenant = {tenant}
  EXCEPT
  SELECT e.id, j.key, j.value
    FROM execution AS e, json_each(e.labels) AS j WHERE e.tenant = {tenant} AND e.labels IS NOT NULL)
 LIMIT 100;
