-- name: put_worker
INSERT INTO worker (tenant, id, host, pid, started_at, seen_at, lease_us, expires_at, state,
                    service)
VALUES ({tenant}, :id, :host, :pid, :started_at, :now, :lease_us, :now + :lease_us, 'active', :service)
    ON CONFLICT (tenant, id) DO UPDATE SET seen_at = excluded.seen_at;

-- name: renew_worker
-- Only a lease that still runs is renewed: what has run out may be taken over any moment.
UPDATE worker
   SET seen_at = :now, lease_us = :lease_us, expires_at = :now + :lease_us, state = :state
 WHERE tenant = {tenant} AND id = :id AND state IN ('active', 'draining') AND expires_at > :now
RETURNING seen_at;

-- name: instant
SELECT :now;

-- name: leave_worker
UPDATE worker
   SET state = 'left', seen_at = :now,
       expires_at = CASE WHEN lease_us IS NOT NULL THEN :now END
 WHERE tenant = {tenant} AND id = :id AND state IN ('active', 'draining');

-- name: expired_workers
SELECT id FROM worker
 WHERE tenant = {tenant} AND state IN ('active', 'draining') AND expires_at <= :now
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
-- Those whose lease has run out are lost; those without one are, where somebody says so.
UPDATE worker
   SET state = 'lost'
 WHERE tenant = {tenant} AND state IN ('active', 'draining') AND id <> :alive
   AND id IN (SELECT value FROM json_each(:dead))
   AND (expires_at <= :now OR expires_at IS NULL);

-- name: serving_workers
SELECT id FROM worker WHERE tenant = {tenant} AND state IN ('active', 'draining');

-- name: protected_workers
SELECT id FROM worker
 WHERE tenant = {tenant} AND state IN ('active', 'draining') AND expires_at > :now;

-- name: forget_workers
DELETE FROM worker WHERE tenant = {tenant} AND state IN ('left', 'lost') AND seen_at < :before;

-- name: workers
SELECT id, host, pid, started_at, seen_at, lease_us, expires_at, state, service, (
       SELECT count(*) FROM execution AS e
        WHERE e.tenant = {tenant} AND e.worker IS NOT NULL AND e.worker = worker.id)
  FROM worker
 WHERE tenant = {tenant}
 ORDER BY state IN ('left', 'lost'), started_at DESC, id
 LIMIT :limit;
