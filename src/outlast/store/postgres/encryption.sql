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
-- Whether something may be in the clear; what belongs to an execution comes with its log.
SELECT EXISTS (SELECT 1 FROM transition WHERE tenant = {tenant})
    OR EXISTS (SELECT 1 FROM schedule WHERE tenant = {tenant})
    OR EXISTS (SELECT 1 FROM webhook WHERE tenant = {tenant})
    OR EXISTS (SELECT 1 FROM secret WHERE tenant = {tenant});

-- name: permit_reseal
INSERT INTO reseal_permit (tenant) VALUES ({tenant});

-- name: end_reseal
DELETE FROM reseal_permit WHERE tenant = {tenant};

-- name: stale_transition_payload
-- What is plain, or sealed by an older data key; like those that follow. In the order of the key.
SELECT execution_id, seq, payload FROM transition
 WHERE tenant = {tenant} AND (execution_id, seq) > (:execution_id::text, :seq::bigint)
   AND payload IS NOT NULL AND substr(payload, 1, 6) <> :head::bytea
 ORDER BY execution_id, seq
 LIMIT :limit::bigint;

-- name: stale_transition_data
SELECT execution_id, seq, data FROM transition
 WHERE tenant = {tenant} AND (execution_id, seq) > (:execution_id::text, :seq::bigint)
   AND data IS NOT NULL
   AND coalesce(substr(facts(data) ->> 'sealed', 1, 8), '') <> :head::text
 ORDER BY execution_id, seq
 LIMIT :limit::bigint;

-- name: stale_execution_detail
SELECT id, detail FROM execution
 WHERE tenant = {tenant} AND id > :id::text
   AND detail IS NOT NULL
   AND coalesce(substr(facts(detail) ->> 'sealed', 1, 8), '') <> :head::text
 ORDER BY id
 LIMIT :limit::bigint;

-- name: stale_inbox_payload
SELECT execution_id, number, payload FROM inbox
 WHERE tenant = {tenant} AND (execution_id, number) > (:execution_id::text, :number::bigint)
   AND payload IS NOT NULL AND substr(payload, 1, 6) <> :head::bytea
 ORDER BY execution_id, number
 LIMIT :limit::bigint;

-- name: stale_inbox_data
SELECT execution_id, number, data FROM inbox
 WHERE tenant = {tenant} AND (execution_id, number) > (:execution_id::text, :number::bigint)
   AND data IS NOT NULL
   AND coalesce(substr(facts(data) ->> 'sealed', 1, 8), '') <> :head::text
 ORDER BY execution_id, number
 LIMIT :limit::bigint;

-- name: stale_stream_item_payload
SELECT execution_id, name, number, payload FROM stream_item
 WHERE tenant = {tenant} AND (execution_id, name, number) > (:execution_id::text, :name::text, :number::bigint)
   AND payload IS NOT NULL AND substr(payload, 1, 6) <> :head::bytea
 ORDER BY execution_id, name, number
 LIMIT :limit::bigint;

-- name: stale_progress_text
SELECT execution_id, text FROM progress
 WHERE tenant = {tenant} AND execution_id > :execution_id::text
   AND text IS NOT NULL AND substr(text, 1, 15) <> :head::text
 ORDER BY execution_id
 LIMIT :limit::bigint;

-- name: stale_schedule_input
SELECT name, input FROM schedule
 WHERE tenant = {tenant} AND name > :name::text
   AND input IS NOT NULL AND substr(input, 1, 6) <> :head::bytea
 ORDER BY name
 LIMIT :limit::bigint;

-- name: stale_webhook_terms
SELECT id, terms FROM webhook
 WHERE tenant = {tenant} AND id > :id::text
   AND terms IS NOT NULL AND substr(terms, 1, 15) <> :head::text
 ORDER BY id
 LIMIT :limit::bigint;

-- name: stale_secret_value
SELECT name, value FROM secret
 WHERE tenant = {tenant} AND name > :name::text
   AND (length(value) = 32 OR substr(value, 1, 6) <> :head::bytea)
 ORDER BY name
 LIMIT :limit::bigint;

-- name: reseal_transition_payload
-- types: text bigint bytea
UPDATE transition SET payload = v.column3
  FROM {rows}
 WHERE transition.tenant = {tenant} AND transition.execution_id = v.column1 AND transition.seq = v.column2;

-- name: reseal_transition_data
-- types: text bigint text
UPDATE transition SET data = v.column3
  FROM {rows}
 WHERE transition.tenant = {tenant} AND transition.execution_id = v.column1 AND transition.seq = v.column2;

-- name: reseal_execution_detail
-- types: text text
UPDATE execution SET detail = v.column2
  FROM {rows}
 WHERE execution.tenant = {tenant} AND execution.id = v.column1;

-- name: reseal_inbox_payload
-- types: text bigint bytea
UPDATE inbox SET payload = v.column3
  FROM {rows}
 WHERE inbox.tenant = {tenant} AND inbox.execution_id = v.column1 AND inbox.number = v.column2;

-- name: reseal_inbox_data
-- types: text bigint text
UPDATE inbox SET data = v.column3
  FROM {rows}
 WHERE inbox.tenant = {tenant} AND inbox.execution_id = v.column1 AND inbox.number = v.column2;

-- name: reseal_stream_item_payload
-- types: text text bigint bytea
UPDATE stream_item SET payload = v.column4
  FROM {rows}
 WHERE stream_item.tenant = {tenant} AND stream_item.execution_id = v.column1 AND stream_item.name = v.column2
   AND stream_item.number = v.column3;

-- name: reseal_progress_text
-- types: text text
UPDATE progress SET text = v.column2
  FROM {rows}
 WHERE progress.tenant = {tenant} AND progress.execution_id = v.column1;

-- name: reseal_schedule_input
-- types: text bytea
UPDATE schedule SET input = v.column2
  FROM {rows}
 WHERE schedule.tenant = {tenant} AND schedule.name = v.column1;

-- name: reseal_webhook_terms
-- types: text text
UPDATE webhook SET terms = v.column2
  FROM {rows}
 WHERE webhook.tenant = {tenant} AND webhook.id = v.column1;

-- name: reseal_secret_value
-- types: text bytea
UPDATE secret SET value = v.column2
  FROM {rows}
 WHERE secret.tenant = {tenant} AND secret.name = v.column1;

-- name: left_reseals
SELECT 'payloads' FROM reseal_permit WHERE tenant = {tenant};
