-- name: feed_head
-- The last column tells whether every row from its beginning on is, or will be, in it.
SELECT s.name, s.pruned, coalesce(
         (SELECT f.number FROM feed AS f WHERE f.tenant = {tenant} ORDER BY f.number DESC LIMIT 1),
         s.pruned), s.read_at, 0, 1
  FROM feed_state AS s
 WHERE s.tenant = {tenant};

-- name: begin_feed
INSERT INTO feed_state (tenant, name, since, read_at, settled, pruned, writer)
VALUES ({tenant}, :name, :now, :now, 0, 0, 0)
    ON CONFLICT (tenant) DO UPDATE SET read_at = max(read_at, excluded.read_at);

-- name: feed_rows
-- A row of a log that was purged is told as missing.
SELECT t.tenant, t.execution_id, t.seq, t.kind, t.from_state, t.to_state, t.fence, t.nonce, t.actor,
       t.at, t.key, t.digest, t.data, CASE WHEN :payload THEN t.payload END,
       f.number, f.execution_id, f.seq, e.task, e.labels
  FROM feed AS f
  LEFT JOIN transition AS t
    ON t.tenant = {tenant} AND t.execution_id = f.execution_id AND t.seq = f.seq
  LEFT JOIN execution AS e ON e.tenant = {tenant} AND e.id = f.execution_id
 WHERE f.tenant = {tenant} AND f.number > :after
 ORDER BY f.number
 LIMIT :limit;

-- name: feed_horizon
-- The first that is kept.
SELECT f.number FROM feed AS f WHERE f.tenant = {tenant} AND f.at >= :before ORDER BY f.number LIMIT 1;

-- name: hold_export
UPDATE feed_state SET exporter = :holder, exporter_until = :until
 WHERE tenant = {tenant} AND (exporter IS NULL OR exporter = :holder OR exporter_until < :now);

-- name: note_exported
UPDATE feed_state SET exported = :position, exporter_until = :until
 WHERE tenant = {tenant} AND exporter = :holder AND exported <= :position;

-- name: exported
SELECT exported FROM feed_state WHERE tenant = {tenant};

-- name: prune_feed
DELETE FROM feed WHERE tenant = {tenant} AND number <= :upto;

-- name: note_pruned
UPDATE feed_state SET pruned = max(pruned, :upto) WHERE tenant = {tenant};

-- name: end_feed
DELETE FROM feed_state
 WHERE tenant = {tenant} AND read_at < :before
   AND NOT EXISTS (SELECT 1 FROM webhook AS w WHERE w.tenant = {tenant});

-- name: lose_feed
-- After a failover: webhooks have to begin anew, too, and are told that there is a gap.
DELETE FROM feed_state WHERE tenant = {tenant};

-- name: empty_feed
DELETE FROM feed WHERE tenant = {tenant};
