-- name: ended_executions
-- Ids begin with the time of birth: the range of ids is what bounds the search.
SELECT id, task, state, state_at FROM execution
 WHERE tenant = {tenant} AND id > :after_id AND id < :before_id
   AND state IN ('succeeded', 'failed', 'timed_out', 'cancelled') AND state_at < :before
 ORDER BY id
 LIMIT :limit;

-- name: permit_purge
-- Name what may be deleted; the guards let only that go, and only what has ended can be named.
INSERT INTO purge_permit (tenant, execution_id)
SELECT {tenant}, e.id FROM execution AS e
 WHERE e.tenant = {tenant} AND e.id IN (SELECT value FROM json_each(:ids))
   AND +e.state IN ('succeeded', 'failed', 'timed_out', 'cancelled');

-- name: purge_transitions
DELETE FROM transition
 WHERE tenant = {tenant} AND execution_id IN (SELECT execution_id FROM purge_permit WHERE tenant = {tenant});

-- name: purge_messages
DELETE FROM inbox
 WHERE tenant = {tenant} AND execution_id IN (SELECT execution_id FROM purge_permit WHERE tenant = {tenant});

-- name: purge_executions
-- The last of the three: how many it deletes is how many are gone.
DELETE FROM execution
 WHERE tenant = {tenant} AND id IN (SELECT execution_id FROM purge_permit WHERE tenant = {tenant});

-- name: end_purge
DELETE FROM purge_permit WHERE tenant = {tenant};
