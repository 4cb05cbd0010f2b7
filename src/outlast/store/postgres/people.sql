-- name: asking_oldest
-- Executions that may have open questions: parked ones by the index of questions, the others, which
-- are few, where their log has a question. Without a recipient the first arm counts, else the
-- second.
SELECT id FROM (
  (SELECT DISTINCT execution_id AS id FROM question
    WHERE :to::text IS NULL AND tenant = {tenant} AND execution_id > :after
    ORDER BY execution_id LIMIT nullif(:limit, -1))
   UNION ALL
  (SELECT DISTINCT execution_id FROM question
    WHERE tenant = {tenant} AND recipient IS NOT NULL AND recipient = :to::text AND execution_id > :after
    ORDER BY execution_id LIMIT nullif(:limit, -1))
   UNION ALL
  SELECT e.id
    FROM (
      SELECT id, attempt FROM execution WHERE tenant = {tenant} AND worker IS NOT NULL AND id > :after
       UNION ALL
      SELECT id, attempt FROM execution WHERE tenant = {tenant} AND state = 'queued' AND id > :after
       UNION ALL
      SELECT id, attempt FROM execution
       WHERE tenant = {tenant} AND state IN ('blocked', 'paused', 'suspended')
         AND state IN ('scheduled', 'blocked', 'awaiting_input', 'waiting', 'retry_wait', 'paused',
                       'suspended')
         AND id > :after) AS e
   WHERE e.attempt > 0
     AND EXISTS (
      SELECT 1 FROM transition AS t
       WHERE t.tenant = {tenant} AND t.execution_id = e.id AND t.kind = 'step_announced'
         AND facts(t.data) ->> 'question' IS NOT NULL)) AS a
 ORDER BY id
 LIMIT nullif(:limit, -1);

-- name: asking_newest
-- The same in the other order.
SELECT id FROM (
  (SELECT DISTINCT execution_id AS id FROM question
    WHERE :to::text IS NULL AND tenant = {tenant} AND execution_id < :after
    ORDER BY execution_id DESC LIMIT nullif(:limit, -1))
   UNION ALL
  (SELECT DISTINCT execution_id FROM question
    WHERE tenant = {tenant} AND recipient IS NOT NULL AND recipient = :to::text AND execution_id < :after
    ORDER BY execution_id DESC LIMIT nullif(:limit, -1))
   UNION ALL
  SELECT e.id
    FROM (
      SELECT id, attempt FROM execution WHERE tenant = {tenant} AND worker IS NOT NULL AND id < :after
       UNION ALL
      SELECT id, attempt FROM execution WHERE tenant = {tenant} AND state = 'queued' AND id < :after
       UNION ALL
      SELECT id, attempt FROM execution
       WHERE tenant = {tenant} AND state IN ('blocked', 'paused', 'suspended')
         AND state IN ('scheduled', 'blocked', 'awaiting_input', 'waiting', 'retry_wait', 'paused',
                       'suspended')
         AND id < :after) AS e
   WHERE e.attempt > 0
     AND EXISTS (
      SELECT 1 FROM transition AS t
       WHERE t.tenant = {tenant} AND t.execution_id = e.id AND t.kind = 'step_announced'
         AND facts(t.data) ->> 'question' IS NOT NULL)) AS a
 ORDER BY id DESC
 LIMIT nullif(:limit, -1);

-- name: keep_secret
-- The first one stays for good.
INSERT INTO secret (tenant, name, value) VALUES ({tenant}, :name, :value)
    ON CONFLICT (tenant, name) DO NOTHING;

-- name: secret
SELECT value FROM secret WHERE tenant = {tenant} AND name = :name;
