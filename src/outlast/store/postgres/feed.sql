-- name: feed_head
-- Whether there are rows without a position; and whether every row from its beginning on is, or will
-- be, in it: not while a transaction is open that began before it and wrote, perhaps, past it.
SELECT s.name, s.pruned, s.settled, s.read_at,
       EXISTS (SELECT FROM feed AS f WHERE f.tenant = {tenant} AND f.position IS NULL)::int,
       (s.writer < pg_snapshot_xmin(pg_current_snapshot())::text::bigint)::int
  FROM feed_state AS s
 WHERE s.tenant = {tenant};

-- name: begin_feed
INSERT INTO feed_state (tenant, name, since, read_at, settled, pruned, writer)
VALUES ({tenant}, :name, :now, :now, 0, 0, pg_current_xact_id()::text::bigint)
    ON CONFLICT (tenant) DO UPDATE SET read_at = greatest(feed_state.read_at, excluded.read_at);

-- name: feed_rows
-- A row of a log that was purged is told as missing.
SELECT t.tenant, t.execution_id, t.seq, t.kind, t.from_state, t.to_state, t.fence, t.nonce, t.actor,
       t.at, t.key, t.digest, t.data, CASE WHEN :payload THEN t.payload END,
       f.position, f.execution_id, f.seq, e.task, e.labels
  FROM feed AS f
  LEFT JOIN transition AS t
    ON t.tenant = {tenant} AND t.execution_id = f.execution_id AND t.seq = f.seq
  LEFT JOIN execution AS e ON e.tenant = {tenant} AND e.id = f.execution_id
 WHERE f.tenant = {tenant} AND f.position > :after
 ORDER BY f.position
 LIMIT :limit;

-- name: feed_horizon
-- The first that is kept.
SELECT f.position
  FROM feed AS f
 WHERE f.tenant = {tenant} AND f.position IS NOT NULL AND f.at >= :before
 ORDER BY f.position
 LIMIT 1;

-- name: hold_export
UPDATE feed_state SET exporter = :holder, exporter_until = :until
 WHERE tenant = {tenant} AND (exporter IS NULL OR exporter = :holder OR exporter_until < :now);

-- name: note_exported
UPDATE feed_state SET exported = :position, exporter_until = :until
 WHERE tenant = {tenant} AND exporter = :holder AND exported <= :position;

-- name: exported
SELECT exported FROM feed_state WHERE tenant = {tenant};

-- name: prune_feed
DELETE FROM feed WHERE tenant = {tenant} AND position <= :upto;

-- name: note_pruned
UPDATE feed_state SET pruned = greatest(pruned, :upto) WHERE tenant = {tenant};

-- name: end_feed
DELETE FROM feed_state
 WHERE tenant = {tenant} AND read_at < :before
   AND NOT EXISTS (SELECT 1 FROM webhook AS w WHERE w.tenant = {tenant});

-- name: lose_feed
-- After a failover: webhooks have to begin anew, too, and are told that there is a gap.
DELETE FROM feed_state WHERE tenant = {tenant};

-- name: empty_feed
DELETE FROM feed WHERE tenant = {tenant};
