-- name: data_keys
SELECT number, key_id, wrapped, whole, created_at FROM data_key
 WHERE tenant = 1
 ORDER BY number;

-- name: insert_data_key
-- The first comes first: whoever is second finds it there.
INSERT INTO data_key (tenant, number, key_id, wrapped, whole, created_at)
SELECT 1, :number::bigint, :key_id::text, :wrapped::bytea, :whole::bigint, :created_at::bigint
 WHERE NOT EXISTS (SELECT 1 FROM data_key WHERE tenant = 1 AND number = :number::bigint);

-- name: save_data_key
UPDATE data_key SET key_id = :key_id, wrapped = :wrapped, whole = :whole
 WHERE tenant = 1 AND number = :number;

-- name: is_used
SELECT (EXISTS (SELECT 1 FROM transition WHERE tenant = 1)
     OR EXISTS (SELECT 1 FROM schedule WHERE tenant = 1))::int::bigint;
