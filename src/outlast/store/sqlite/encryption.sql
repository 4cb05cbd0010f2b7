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
 WHERE tenant = {tenant} AND (execution_id, seq) > (:execution_id, :seq)
   AND payload IS NOT NULL AND substr(payload, 1, 6) <> :head
 ORDER BY execution_id, seq
 LIMIT :limit;

-- name: stale_transition_data
SELECT execution_id, seq, data FROM transition
 WHERE tenant = {tenant} AND (execution_id, seq) > (:execution_id, :seq)
   AND data IS NOT NULL
   AND coalesce(substr(data ->> '$.sealed', 1, 8), '') <> :head
 ORDER BY execution_id, seq
 LIMIT :limit;

-- name: stale_execution_detail
SELECT id, detail FROM execution
 WHERE tenant = {tenant} AND id > :id
   AND detail IS NOT NULL
   AND coalesce(substr(detail ->> '$.sealed', 1, 8), '') <> :head
 ORDER BY id
 LIMIT :limit;

-- name: stale_inbox_payload
SELECT execution_id, number, payload FROM inbox
 WHERE tenant = {tenant} AND (execution_id, number) > (:execution_id, :number)
   AND payload IS NOT NULL AND substr(payload, 1, 6) <> :head
 ORDER BY execution_id, number
 LIMIT :limit;

-- name: stale_inbox_data
SELECT execution_id, number, data FROM inbox
 WHERE tenant = {tenant} AND (execution_id, number) > (:execution_id, :number)
   AND data IS NOT NULL
   AND coalesce(substr(data ->> '$.sealed', 1, 8), '') <> :head
 ORDER BY execution_id, number
 LIMIT :limit;

-- name: stale_stream_item_payload
SELECT execution_id, name, number, payload FROM stream_item
 WHERE tenant = {tenant} AND (execution_id, name, number) > (:execution_id, :name, :number)
   AND payload IS NOT NULL AND substr(payload, 1, 6) <> :head
 ORDER BY execution_id, name, number
 LIMIT :limit;

-- name: stale_progress_text
SELECT execution_id, text FROM progress
 WHERE tenant = {tenant} AND execution_id > :execution_id
   AND text IS NOT NULL AND substr(text, 1, 15) <> :head
 ORDER BY execution_id
 LIMIT :limit;

-- name: stale_schedule_input
SELECT name, input FROM schedule
 WHERE tenant = {tenant} AND name > :name
   AND input IS NOT NULL AND substr(input, 1, 6) <> :head
 ORDER BY name
 LIMIT :limit;

-- name: stale_webhook_terms
SELECT id, terms FROM webhook
 WHERE tenant = {tenant} AND id > :id
   AND terms IS NOT NULL AND substr(terms, 1, 15) <> :head
 ORDER BY id
 LIMIT :limit;

-- name: stale_secret_value
SELECT name, value FROM secret
 WHERE tenant = {tenant} AND name > :name
   AND (length(value) = 32 OR substr(value, 1, 6) <> :head)
 ORDER BY name
 LIMIT :limit;

-- name: reseal_transition_payload
-- columns: 3
UPDATE transition SET payload = v.column3
  FROM (VALUES {rows}) AS v
 WHERE transition.tenant = {tenant} AND transition.execution_id = v.column1 AND transition.seq = v.column2;

-- name: reseal_transition_data
-- columns: 3
UPDATE transition SET data = v.column3
  FROM (VALUES {rows}) AS v
 WHERE transition.tenant = {tenant} AND transition.execution_id = v.column1 AND transition.seq = v.column2;

-- name: reseal_execution_detail
-- columns: 2
UPDATE execution SET detail = v.column2
  FROM (VALUES {rows}) AS v
 WHERE execution.tenant = {tenant} AND execution.id = v.column1;

-- name: reseal_inbox_payload
-- columns: 3
UPDATE inbox SET payload = v.column3
  FROM (VALUES {rows}) AS v
 WHERE inbox.tenant = {tenant} AND inbox.execution_id = v.column1 AND inbox.number = v.column2;

-- name: reseal_inbox_data
-- columns: 3
UPDATE inbox SET data = v.column3
  FROM (VALUES {rows}) AS v
 WHERE inbox.tenant = {tenant} AND inbox.execution_id = v.column1 AND inbox.number = v.column2;

-- name: reseal_stream_item_payload
-- columns: 4
UPDATE stream_item SET payload = v.column4
  FROM (VALUES {rows}) AS v
 WHERE stream_item.tenant = {tenant} AND stream_item.execution_id = v.column1 AND stream_item.name = v.column2
   AND stream_item.number = v.column3;

-- name: reseal_progress_text
-- columns: 2
UPDATE progress SET text = v.column2
  FROM (VALUES {rows}) AS v
 WHERE progress.tenant = {tenant} AND progress.execution_id = v.column1;

-- name: reseal_schedule_input
-- columns: 2
UPDATE schedule SET input = v.column2
  FROM (VALUES {rows}) AS v
 WHERE schedule.tenant = {tenant} AND schedule.name = v.column1;

-- name: reseal_webhook_terms
-- columns: 2
UPDATE webhook SET terms = v.column2
  FROM (VALUES {rows}) AS v
 WHERE webhook.tenant = {tenant} AND webhook.id = v.column1;

-- name: reseal_secret_value
-- columns: 2
UPDATE secret SET value = v.column2
  FROM (VALUES {rows}) AS v
 WHERE secret.tenant = {tenant} AND secret.name = v.column1;

-- name: left_reseals
SELECT 'payloads' FROM reseal_permit WHERE tenant = {tenant};
