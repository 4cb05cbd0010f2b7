-- name: put_worker
INSERT INTO worker (tenant, id, host, pid, started_at, seen_at, lease_us, expires_at, state,
                    service)
SELECT {tenant}, :id, :host, :pid::bigint, :started_at::bigint, c.now, :lease_us::bigint,
       c.now + :lease_us::bigint, 'active', :service
  FROM (SELECT instant() AS now) AS c
    ON CONFLICT (tenant, id) DO UPDATE SET seen_at = excluded.seen_at;

-- name: renew_worker
-- Only a lease that still runs is renewed: what has run out may be taken over any moment. It runs
-- from when this was asked for, and is judged when it is the row's turn.
UPDATE worker
   SET seen_at = c.now, lease_us = :lease_us::bigint, expires_at = c.now + :lease_us::bigint,
       state = :state
  FROM (SELECT instant() AS now) AS c
 WHERE tenant = {tenant} AND id = :id AND state IN ('active', 'draining') AND expires_at > instant()
RETURNING seen_at;

-- name: instant
SELECT instant();

-- name: leave_worker
UPDATE worker
   SET state = 'left', seen_at = instant(),
       expires_at = CASE WHEN lease_us IS NOT NULL THEN instant() END
 WHERE tenant = {tenant} AND id = :id AND state IN ('active', 'draining');

-- name: expired_workers
SELECT id FROM worker
 WHERE tenant = {tenant} AND state IN ('active', 'draining') AND expires_at <= instant()
 ORDER BY id;

-- name: holding_workers
-- Who holds executions, each by a look at the index.
  WITH RECURSIVE h (id) AS (
       SELECT min(e.worker) FROM execution AS e WHERE e.tenant = {tenant} AND e.worker IS NOT NULL
        UNION ALL
       SELECT (SELECT min(e.worker) FROM execution AS e
                WHERE e.tenant = {tenant} AND e.worker IS NOT NULL AND e.worker > h.id)
         FROM h
        WHERE h.id IS NOT NULL)
SELECT id FROM h WHERE id IS NOT NULL;

-- name: lose_workers
-- rule: T08 T09
-- Those whose lease has run out are lost; those without one are, where somebody says so. One that
-- is being renewed, or taken over, in this very moment is left to whoever does that.
  WITH picked AS MATERIALIZED (
       SELECT id FROM worker
        WHERE tenant = {tenant} AND state IN ('active', 'draining') AND id <> :alive
          AND id = ANY (ARRAY(SELECT json_array_elements_text(:dead::json)))
          AND (expires_at <= instant() OR expires_at IS NULL)
        ORDER BY id
          FOR UPDATE SKIP LOCKED)
UPDATE worker AS w
   SET state = 'lost'
  FROM picked AS p
 WHERE w.tenant = {tenant} AND w.id = p.id;

-- name: serving_workers
SELECT id FROM worker WHERE tenant = {tenant} AND state IN ('active', 'draining');

-- name: protected_workers
SELECT id FROM worker
 WHERE tenant = {tenant} AND state IN ('active', 'draining') AND expires_at > instant();

-- name: forget_workers
DELETE FROM worker WHERE tenant = {tenant} AND state IN ('left', 'lost') AND seen_at < :before;

-- name: workers
SELECT id, host, pid, started_at, seen_at, lease_us, expires_at, state, service, (
       SELECT count(*) FROM execution AS e
        WHERE e.tenant = {tenant} AND e.worker IS NOT NULL AND e.worker = worker.id)
  FROM worker
 WHERE tenant = {tenant}
 ORDER BY state IN ('left', 'lost'), started_at DESC, id
 LIMIT nullif(:limit, -1);
