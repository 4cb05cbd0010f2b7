-- name: data_keys
SELECT number, key_id, wrapped, whole, created_at FROM data_key
 WHERE tenant = {tenant}
 ORDER BY number;

-- name: hold_writers
-- Nobody else writes while somebody does.
UPDATE meta SET value = value WHERE FALSE;

-- name: insert_data_key
-- The first comes first: whoever is second finds it there.
INSERT INTO data_key (tenant, number, key_id, wrapped, whole, created_at)
SELECT {tenant}, :number, :key_id, :wrapped, :whole, :created_at
 WHERE NOT EXISTS (SELECT 1 FROM data_key WHERE tenant = {tenant} AND number = :number);

-- name: save_data_key
UPDATE data_key SET key_id = :key_id, wrapped = :wrapped, whole = :whole
 WHERE tenant = {tenant} AND number = :number;

-- name: is_used
SELECT EXISTS (SELECT 1 FROM transition WHERE tenant = {tenant})
    OR EXISTS (SELECT 1 FROM schedule WHERE tenant = {tenant});

-- name: permit_reseal
INSERT INTO reseal_permit (tenant) VALUES ({tenant});

-- name: end_reseal
DELETE FROM reseal_permit WHERE tenant = {tenant};

-- name: stale_log
-- What is plain, or sealed by an older data key; like the next three, for sealing anew.
SELECT tenant, execution_id, seq, payload FROM transition
 WHERE tenant = {tenant} AND (execution_id, seq) > (:id, :number)
   AND payload IS NOT NULL AND substr(payload, 1, 6) <> :head
 ORDER BY execution_id, seq
 LIMIT :limit;

-- name: stale_inbox
SELECT tenant, execution_id, number, payload FROM inbox
 WHERE tenant = {tenant} AND (execution_id, number) > (:id, :number)
   AND payload IS NOT NULL AND substr(payload, 1, 6) <> :head
 ORDER BY execution_id, number
 LIMIT :limit;

-- name: stale_streams
SELECT tenant, execution_id, number, payload, name FROM stream_item
 WHERE tenant = {tenant} AND (execution_id, name, number) > (:id, :name, :number)
   AND substr(payload, 1, 6) <> :head
 ORDER BY execution_id, name, number
 LIMIT :limit;

-- name: stale_schedules
SELECT tenant, name, 0 AS number, input FROM schedule
 WHERE tenant = {tenant} AND name > :id AND substr(input, 1, 6) <> :head
 ORDER BY name
 LIMIT :limit;

-- name: reseal_log
-- columns: 4
UPDATE transition SET payload = v.column4
  FROM (VALUES {rows}) AS v
 WHERE transition.tenant = {tenant} AND transition.execution_id = v.column2
   AND transition.seq = v.column3;

-- name: reseal_inbox
-- columns: 4
UPDATE inbox SET payload = v.column4
  FROM (VALUES {rows}) AS v
 WHERE inbox.tenant = {tenant}
   AND inbox.execution_id = v.column2 AND inbox.number = v.column3;

-- name: reseal_streams
-- columns: 5
UPDATE stream_item SET payload = v.column4
  FROM (VALUES {rows}) AS v
 WHERE stream_item.tenant = {tenant} AND stream_item.execution_id = v.column2
   AND stream_item.number = v.column3 AND stream_item.name = v.column5;

-- name: reseal_schedules
-- columns: 4
UPDATE schedule SET input = v.column4
  FROM (VALUES {rows}) AS v
 WHERE schedule.tenant = {tenant} AND schedule.name = v.column2
   AND v.column3 = 0;

-- name: left_reseals
SELECT 'payloads' FROM reseal_permit WHERE tenant = {tenant};
