-- name: stream_ends
-- types: text text
-- How long these streams are. Columns of a row: execution, stream.
SELECT v.column1, v.column2, (
       SELECT max(s.number) FROM stream_item AS s
        WHERE s.tenant = {tenant} AND s.execution_id = v.column1 AND s.name = v.column2)
  FROM {rows};

-- name: stream_parts
-- types: text text text bigint bigint
-- How much of these streams came from these tries. Columns of a row: execution, stream, step,
-- attempt, lease.
SELECT v.column1, v.column2, v.column3, v.column4, v.column5, (
       SELECT max(s.part) FROM stream_item AS s
        WHERE s.tenant = {tenant} AND s.execution_id = v.column1 AND s.name = v.column2
          AND s.step = v.column3 AND s.attempt = v.column4 AND s.lease = v.column5)
  FROM {rows};

-- name: insert_stream_items
-- types: bigint text text bigint text bigint bigint bigint bigint bytea
INSERT INTO stream_item (tenant, execution_id, name, number, step, attempt, lease, part, at,
                         payload)
SELECT CASE v.column1 WHEN {tenant} THEN v.column1 END, v.column2, v.column3, v.column4, v.column5,
       v.column6, v.column7, v.column8, v.column9, v.column10
  FROM {rows};

-- name: save_progress
-- types: bigint text bigint float8 float8 text text
INSERT INTO progress (tenant, execution_id, at, done, total, text, step)
SELECT CASE v.column1 WHEN {tenant} THEN v.column1 END, v.column2, v.column3, v.column4, v.column5,
       v.column6, v.column7
  FROM {rows}
    ON CONFLICT (tenant, execution_id) DO UPDATE
   SET at = excluded.at, done = excluded.done, total = excluded.total, text = excluded.text,
       step = excluded.step;

-- name: stream_items
SELECT number, step, attempt, lease, part, at, payload
  FROM stream_item
 WHERE tenant = {tenant} AND execution_id = :id AND name = :name AND number > :after
 ORDER BY number
 LIMIT nullif(:limit, -1);

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
 WHERE tenant = {tenant} AND execution_id = ANY (ARRAY(SELECT json_array_elements_text(:ids::json)));

-- name: purge_stream_items
DELETE FROM stream_item
 WHERE tenant = {tenant}
   AND execution_id = ANY (ARRAY(SELECT execution_id FROM purge_permit WHERE tenant = {tenant}));

-- name: purge_progress
DELETE FROM progress
 WHERE tenant = {tenant}
   AND execution_id = ANY (ARRAY(SELECT execution_id FROM purge_permit WHERE tenant = {tenant}));
