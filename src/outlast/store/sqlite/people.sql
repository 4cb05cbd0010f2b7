-- name: asking_oldest
-- Executions that may have open questions: parked ones by the index of questions, the others, which
-- are few, where their log has a question. Without a recipient the first arm counts, else the second.
-- The longer list of states only proves that the index has them. It comes second, as SQLite seeks by
-- the first; tests/store/test_plans.py counts what that costs.
SELECT id FROM (
  SELECT id FROM (
    SELECT DISTINCT execution_id AS id FROM question
     WHERE :to IS NULL AND tenant = {tenant} AND execution_id > :after
     ORDER BY execution_id LIMIT :limit)
   UNION ALL
  SELECT id FROM (
    SELECT DISTINCT execution_id AS id FROM question INDEXED BY question_recipient
     WHERE tenant = {tenant} AND recipient IS NOT NULL AND recipient = :to AND execution_id > :after
     ORDER BY execution_id LIMIT :limit)
   UNION ALL
  SELECT e.id FROM execution AS e INDEXED BY execution_leased
   WHERE e.tenant = {tenant} AND e.worker IS NOT NULL AND e.id > :after AND e.attempt > 0
     AND EXISTS (
      SELECT 1 FROM transition AS t
       WHERE t.tenant = {tenant} AND t.execution_id = e.id AND t.kind = 'step_announced'
         AND t.data ->> '$.question' IS NOT NULL)
   UNION ALL
  SELECT e.id FROM execution AS e INDEXED BY execution_queued
   WHERE e.tenant = {tenant} AND e.state = 'queued' AND e.id > :after AND e.attempt > 0
     AND EXISTS (
      SELECT 1 FROM transition AS t
       WHERE t.tenant = {tenant} AND t.execution_id = e.id AND t.kind = 'step_announced'
         AND t.data ->> '$.question' IS NOT NULL)
   UNION ALL
  SELECT e.id FROM execution AS e INDEXED BY execution_parked
   WHERE e.tenant = {tenant} AND e.state IN ('blocked', 'paused', 'suspended')
     AND (e.state = 'scheduled' OR e.state = 'blocked' OR e.state = 'awaiting_input'
          OR e.state = 'waiting' OR e.state = 'retry_wait' OR e.state = 'paused'
          OR e.state = 'suspended')
     AND e.id > :after AND e.attempt > 0
     AND EXISTS (
      SELECT 1 FROM transition AS t
       WHERE t.tenant = {tenant} AND t.execution_id = e.id AND t.kind = 'step_announced'
         AND t.data ->> '$.question' IS NOT NULL))
 ORDER BY id
 LIMIT :limit;

-- name: asking_newest
-- The same in the other order.
SELECT id FROM (
  SELECT id FROM (
    SELECT DISTINCT execution_id AS id FROM question
     WHERE :to IS NULL AND tenant = {tenant} AND execution_id < :after
     ORDER BY execution_id DESC LIMIT :limit)
   UNION ALL
  SELECT id FROM (
    SELECT DISTINCT execution_id AS id FROM question INDEXED BY question_recipient
     WHERE tenant = {tenant} AND recipient IS NOT NULL AND recipient = :to AND execution_id < :after
     ORDER BY execution_id DESC LIMIT :limit)
   UNION ALL
  SELECT e.id FROM execution AS e INDEXED BY execution_leased
   WHERE e.tenant = {tenant} AND e.worker IS NOT NULL AND e.id < :after AND e.attempt > 0
     AND EXISTS (
      SELECT 1 FROM transition AS t
       WHERE t.tenant = {tenant} AND t.execution_id = e.id AND t.kind = 'step_announced'
         AND t.data ->> '$.question' IS NOT NULL)
   UNION ALL
  SELECT e.id FROM execution AS e INDEXED BY execution_queued
   WHERE e.tenant = {tenant} AND e.state = 'queued' AND e.id < :after AND e.attempt > 0
     AND EXISTS (
      SELECT 1 FROM transition AS t
       WHERE t.tenant = {tenant} AND t.execution_id = e.id AND t.kind = 'step_announced'
         AND t.data ->> '$.question' IS NOT NULL)
   UNION ALL
  SELECT e.id FROM execution AS e INDEXED BY execution_parked
   WHERE e.tenant = {tenant} AND e.state IN ('blocked', 'paused', 'suspended')
     AND (e.state = 'scheduled' OR e.state = 'blocked' OR e.state = 'awaiting_input'
          OR e.state = 'waiting' OR e.state = 'retry_wait' OR e.state = 'paused'
          OR e.state = 'suspended')
     AND e.id < :after AND e.attempt > 0
     AND EXISTS (
      SELECT 1 FROM transition AS t
       WHERE t.tenant = {tenant} AND t.execution_id = e.id AND t.kind = 'step_announced'
         AND t.data ->> '$.question' IS NOT NULL))
 ORDER BY id DESC
 LIMIT :limit;

-- name: keep_secret
-- The first one stays for good.
INSERT INTO secret (tenant, name, value) VALUES ({tenant}, :name, :value)
    ON CONFLICT (tenant, name) DO NOTHING;

-- name: secret
SELECT value FROM secret WHERE tenant = {tenant} AND name = :name;
