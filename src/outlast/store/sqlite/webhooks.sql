-- name: webhooks
SELECT w.tenant, w.id, w.revision, w.state, w.terms, w.secret_version, w.former_until, w.created_at,
       w.updated_at, w.feed, w.position, w.numbered, w.failing_since,
       (SELECT count(*) FROM webhook_delivery AS d INDEXED BY webhook_delivery_pending
         WHERE d.tenant = {tenant} AND d.webhook_id = w.id AND d.state = 'pending'),
       (SELECT min(d.created_at) FROM webhook_delivery AS d INDEXED BY webhook_delivery_pending
         WHERE d.tenant = {tenant} AND d.webhook_id = w.id AND d.state = 'pending')
  FROM webhook AS w
 WHERE w.tenant = {tenant}
 ORDER BY w.id;

-- name: webhook_by_id
SELECT w.tenant, w.id, w.revision, w.state, w.terms, w.secret_version, w.former_until, w.created_at,
       w.updated_at, w.feed, w.position, w.numbered, w.failing_since,
       (SELECT count(*) FROM webhook_delivery AS d INDEXED BY webhook_delivery_pending
         WHERE d.tenant = {tenant} AND d.webhook_id = w.id AND d.state = 'pending'),
       (SELECT min(d.created_at) FROM webhook_delivery AS d INDEXED BY webhook_delivery_pending
         WHERE d.tenant = {tenant} AND d.webhook_id = w.id AND d.state = 'pending')
  FROM webhook AS w
 WHERE w.tenant = {tenant} AND w.id = :id;

-- name: count_webhooks
SELECT count(*) FROM webhook WHERE tenant = {tenant};

-- name: insert_webhook
-- columns: 11
INSERT INTO webhook (tenant, id, revision, state, terms, secret_version, former_until, created_at,
                     updated_at, feed, position)
SELECT CASE column1 WHEN {tenant} THEN column1 END, column2, column3, column4, column5, column6,
       column7, column8, column9, column10, column11
  FROM (VALUES {rows});

-- name: save_webhook
-- Behind the revision that was read.
-- columns: 7
UPDATE webhook
   SET revision = v.column2, state = v.column3, terms = v.column4, secret_version = v.column5,
       former_until = v.column6, updated_at = v.column7,
       failing_since = CASE WHEN v.column3 <> 'active' OR webhook.state = 'active'
                            THEN webhook.failing_since END
  FROM (VALUES {rows}) AS v
 WHERE webhook.tenant = {tenant} AND webhook.id = v.column1 AND webhook.revision = v.column2 - 1;

-- name: delete_webhook
DELETE FROM webhook WHERE tenant = {tenant} AND id = :id;

-- name: delete_deliveries
DELETE FROM webhook_delivery WHERE tenant = {tenant} AND webhook_id = :id;

-- name: hold_webhooks
INSERT INTO webhook_sender AS s (tenant, holder, until) VALUES ({tenant}, :holder, :until)
    ON CONFLICT (tenant) DO UPDATE SET holder = excluded.holder, until = excluded.until
 WHERE s.tenant = {tenant} AND (s.holder = excluded.holder OR s.until < :now);

-- name: let_webhooks_go
DELETE FROM webhook_sender WHERE tenant = {tenant} AND holder = :holder;

-- name: move_webhook
UPDATE webhook SET feed = :feed, position = :position
 WHERE tenant = {tenant} AND id = :id AND feed = :was_feed AND position = :was_position;

-- name: number_deliveries
UPDATE webhook SET numbered = numbered + :count WHERE tenant = {tenant} AND id = :id;

-- name: numbered
SELECT numbered FROM webhook WHERE tenant = {tenant} AND id = :id;

-- name: insert_deliveries
-- columns: 8
INSERT INTO webhook_delivery (tenant, webhook_id, number, kind, execution_id, seq, created_at, next_at)
SELECT CASE column1 WHEN {tenant} THEN column1 END, column2, column3, column4, column5, column6,
       column7, column8
  FROM (VALUES {rows});

-- name: due_deliveries
-- Of each execution the first that is pending, so that its rows arrive in their order.
SELECT d.webhook_id, d.number, d.kind, d.execution_id, d.seq, d.state, d.attempts, d.created_at,
       d.next_at, d.tried_at, d.status, d.error
  FROM webhook_delivery AS d INDEXED BY webhook_delivery_pending
 WHERE d.tenant = {tenant} AND d.webhook_id = :id AND d.state = 'pending' AND d.next_at <= :now
   AND (SELECT w.state FROM webhook AS w WHERE w.tenant = {tenant} AND w.id = :id) = 'active'
   AND NOT EXISTS (
     SELECT 1 FROM webhook_delivery AS e
      WHERE e.tenant = {tenant} AND e.webhook_id = :id AND e.state = 'pending'
        AND e.execution_id = d.execution_id AND e.number < d.number)
 ORDER BY d.next_at, d.number
 LIMIT :limit;

-- name: note_attempt
UPDATE webhook
   SET failing_since = CASE WHEN :state <> 'delivered'
                            THEN coalesce(failing_since, :tried_at) END
 WHERE tenant = {tenant} AND id = :id
   AND EXISTS (
     SELECT 1 FROM webhook_delivery AS d
      WHERE d.tenant = {tenant} AND d.webhook_id = :id AND d.number = :number
        AND d.state = 'pending');

-- name: note_delivery
UPDATE webhook_delivery
   SET state = :state, attempts = :attempts, next_at = :next_at, tried_at = :tried_at,
       status = :status, error = :error
 WHERE tenant = {tenant} AND webhook_id = :id AND number = :number AND state = 'pending';

-- name: deliveries
-- The newest first.
SELECT d.webhook_id, d.number, d.kind, d.execution_id, d.seq, d.state, d.attempts, d.created_at,
       d.next_at, d.tried_at, d.status, d.error
  FROM webhook_delivery AS d
 WHERE d.tenant = {tenant} AND d.webhook_id = :id AND d.number < :before
   AND (:states IS NULL OR d.state IN (SELECT value FROM json_each(:states)))
 ORDER BY d.number DESC
 LIMIT :limit;

-- name: redeliver
UPDATE webhook_delivery SET state = 'pending', attempts = 0, next_at = :now
 WHERE tenant = {tenant} AND webhook_id = :id AND number = :number;

-- name: prune_deliveries
DELETE FROM webhook_delivery
 WHERE tenant = {tenant} AND (webhook_id, number) IN (
   SELECT d.webhook_id, d.number FROM webhook_delivery AS d
    WHERE d.tenant = {tenant} AND d.state <> 'pending' AND d.created_at < :before
    ORDER BY d.created_at
    LIMIT :limit);

-- name: webhook_floor
-- How far all webhooks have come in the feed; NULL where there is none.
SELECT min(position) FROM webhook WHERE tenant = {tenant};
