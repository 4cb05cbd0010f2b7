-- name: data_keys
SELECT number, key_id, wrapped, whole, created_at FROM data_key
 WHERE tenant = {tenant}
 ORDER BY number;

-- name: hold_writers
-- Who writes in the clear has done so before the first data key is drawn, or is refused.
LOCK TABLE transition, inbox, stream_item IN SHARE ROW EXCLUSIVE MODE;

-- name: insert_data_key
-- The first comes first: whoever is second finds it there.
INSERT INTO data_key (tenant, number, key_id, wrapped, whole, created_at)
SELECT {tenant}, :number::bigint, :key_id::text, :wrapped::bytea, :whole::bigint, :created_at::bigint
 WHERE NOT EXISTS (SELECT 1 FROM data_key WHERE tenant = {tenant} AND number = :number::bigint);

-- name: save_data_key
UPDATE data_key SET key_id = :key_id, wrapped = :wrapped, whole = :whole
 WHERE tenant = {tenant} AND number = :number;

-- name: is_used
SELECT (EXISTS (SELECT 1 FROM transition WHERE tenant = {tenant})
     OR EXISTS (SELECT 1 FROM schedule WHERE tenant = {tenant}))::int::bigint;

-- name: permit_reseal
INSERT INTO reseal_permit (tenant) VALUES ({tenant});

-- name: end_reseal
DELETE FROM reseal_permit WHERE tenant = {tenant};

-- name: stale_log
-- What is plain, or sealed by an older data key; like the next three, for sealing anew.
SELECT tenant, execution_id, seq, payload FROM transition
 WHERE tenant = {tenant} AND (execution_id, seq) > (:id::text, :number::bigint)
   AND payload IS NOT NULL AND substr(payload, 1, 6) <> :head::bytea
 ORDER BY execution_id, seq
 LIMIT :limit::bigint;

-- name: stale_inbox
SELECT tenant, execution_id, number, payload FROM inbox
 WHERE tenant = {tenant} AND (execution_id, number) > (:id::text, :number::bigint)
   AND payload IS NOT NULL AND substr(payload, 1, 6) <> :head::bytea
 ORDER BY execution_id, number
 LIMIT :limit::bigint;

-- name: stale_streams
SELECT tenant, execution_id, number, payload, name FROM stream_item
 WHERE tenant = {tenant} AND (execution_id, name, number) > (:id::text, :name::text, :number::bigint)
   AND substr(payload, 1, 6) <> :head::bytea
 ORDER BY execution_id, name, number
 LIMIT :limit::bigint;

-- name: stale_schedules
SELECT tenant, name, 0::bigint AS number, input FROM schedule
 WHERE tenant = {tenant} AND name > :id::text AND substr(input, 1, 6) <> :head::bytea
 ORDER BY name
 LIMIT :limit::bigint;

-- name: reseal_log
-- types: bigint text bigint bytea
UPDATE transition SET payload = v.column4
  FROM {rows}
 WHERE transition.tenant = {tenant} AND transition.execution_id = v.column2
   AND transition.seq = v.column3;

-- name: reseal_inbox
-- types: bigint text bigint bytea
UPDATE inbox SET payload = v.column4
  FROM {rows}
 WHERE inbox.tenant = {tenant}
   AND inbox.execution_id = v.column2 AND inbox.number = v.column3;

-- name: reseal_streams
-- types: bigint text bigint bytea text
UPDATE stream_item SET payload = v.column4
  FROM {rows}
 WHERE stream_item.tenant = {tenant} AND stream_item.execution_id = v.column2
   AND stream_item.number = v.column3 AND stream_item.name = v.column5;

-- name: reseal_schedules
-- types: bigint text bigint bytea
UPDATE schedule SET input = v.column4
  FROM {rows}
 WHERE schedule.tenant = {tenant} AND schedule.name = v.column2
   AND v.column3 = 0;

-- name: left_reseals
SELECT 'payloads' FROM reseal_permit WHERE tenant = {tenant};
