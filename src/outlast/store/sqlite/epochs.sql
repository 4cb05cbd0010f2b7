-- name: epochs
SELECT number, id, cause, began_at, floor, executions, workers, detail FROM epoch
 WHERE tenant = {tenant}
 ORDER BY number DESC
 LIMIT :limit;

-- name: insert_epoch
INSERT INTO epoch (tenant, number, id, cause, began_at, floor, executions, workers, detail)
SELECT {tenant}, :number, :id, :cause, :began_at, :floor, :executions,
       :workers, :detail;

-- name: epoch_losses
SELECT epoch, worker, at, known, missing, behind, rows_lost, messages, examples FROM epoch_loss
 WHERE tenant = {tenant} AND epoch = :epoch
 ORDER BY worker;

-- name: insert_epoch_loss
INSERT INTO epoch_loss (tenant, epoch, worker, at, known, missing, behind, rows_lost, messages, examples)
SELECT {tenant}, :epoch, :worker, :at, :known, :missing, :behind,
       :rows_lost, :messages, :examples
 WHERE NOT EXISTS (
  SELECT 1 FROM epoch_loss AS l WHERE l.tenant = {tenant} AND l.epoch = :epoch AND l.worker = :worker);

-- name: end_workers
-- Nobody serves any more: whoever lived through it comes back under another name.
UPDATE worker SET state = 'lost'
 WHERE tenant = {tenant} AND state IN ('active', 'draining');

-- name: put_identity
INSERT INTO sight (tenant, identity) VALUES ({tenant}, :value)
    ON CONFLICT (tenant) DO UPDATE SET identity = excluded.identity;

-- name: identity
SELECT identity FROM sight WHERE tenant = {tenant};
