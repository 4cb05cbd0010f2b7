-- name: stream_ends
-- columns: 2
-- How long these streams are. Columns of a row: execution, stream.
SELECT v.column1, v.column2, (
       SELECT max(s.number) FROM stream_item AS s
        WHERE s.tenant = {tenant} AND s.execution_id = v.column1 AND s.name = v.column2)
  FROM (VALUES {rows}) AS v;

-- name: stream_parts
-- columns: 5
-- How much of these streams came from these tries. Columns of a row: execution, stream, step,
-- attempt, lease.
SELECT v.column1, v.column2, v.column3, v.column4, v.column5, (
       SELECT max(s.part) FROM stream_item AS s
        WHERE s.tenant = {tenant} AND s.execution_id = v.column1 AND s.name = v.column2
          AND s.step = v.column3 AND s.attempt = v.column4 AND s.lease = v.column5)
  FROM (VALUES {rows}) AS v;

-- name: insert_stream_items
-- columns: 10
-- padded
INSERT INTO stream_item (tenant, execution_id, name, number, step, attempt, lease, part, at,
                         payload)
SELECT CASE column1 WHEN {tenant} THEN column1 END, column2, column3, column4, column5, column6,
       column7, column8, column9, column10
  FROM (VALUES {rows}) WHERE column1 IS NOT NULL;

-- name: save_progress
-- columns: 7
INSERT INTO progress (tenant, execution_id, at, done, total, text, step)
SELECT CASE column1 WHEN {tenant} THEN column1 END, column2, column3, column4, column5, column6,
       column7
  FROM (VALUES {rows}) WHERE TRUE
    ON CONFLICT (tenant, execution_id) DO UPDATE
   SET at = excluded.at, done = excluded.done, total = excluded.total, text = excluded.text,
       step = excluded.step;

-- name: stream_items
-- packed: 7, blobs 7
SELECT number, step, attempt, lease, part, at, payload
  FROM stream_item
 WHERE tenant = {tenant} AND execution_id = :id AND name = :name AND number > :after
 ORDER BY number
 LIMIT :limit;

-- name: stream_heads
-- The streams of an execution, each by a look at its end.
  WITH RECURSIVE n (name) AS (
       SELECT min(s.name) FROM stream_item AS s WHERE s.tenant = {tenant} AND s.execution_id = :id
        UNION ALL
       SELECT (SELECT min(s.name) FROM stream_item AS s
                WHERE s.tenant = {tenant} AND s.execution_id = :id AND s.name > n.name)
         FROM n
        WHERE n.name IS NOT NULL)
SELECT s.name, s.number, s.at
  FROM n
  JOIN stream_item AS s ON s.tenant = {tenant} AND s.execution_id = :id AND s.name = n.name
   AND s.number = (
       SELECT max(l.number) FROM stream_item AS l
        WHERE l.tenant = {tenant} AND l.execution_id = :id AND l.name = n.name)
 ORDER BY s.name;

-- name: progress_of
SELECT execution_id, at, done, total, text, step
  FROM progress
 WHERE tenant = {tenant} AND execution_id IN (SELECT value FROM json_each(:ids));

-- name: purge_stream_items
DELETE FROM stream_item
 WHERE tenant = {tenant} AND execution_id IN (SELECT execution_id FROM purge_permit WHERE tenant = {tenant});

-- name: purge_progress
DELETE FROM progress
 WHERE tenant = {tenant} AND execution_id IN (SELECT execution_id FROM purge_permit WHERE tenant = {tenant});
