-- name: wrong_questions
-- Questions that the index has and the rows do not, or the reverse. Like all of this file, it reads
-- whole tables, once a verify.
  WITH said (id, key, recipient) AS (
    SELECT e.id, (w ->> 'key') COLLATE "C", (w ->> 'to') COLLATE "C"
      FROM execution AS e
     CROSS JOIN json_array_elements(facts(e.detail) -> 'waits') AS w
     WHERE e.tenant = {tenant} AND e.state = 'awaiting_input' AND w ->> 'kind' = 'ask'),
  kept (id, key, recipient) AS (
    SELECT execution_id, key, recipient FROM question WHERE tenant = {tenant})
SELECT id FROM (
  SELECT id, key, recipient FROM said EXCEPT SELECT id, key, recipient FROM kept) AS m
 UNION
SELECT id FROM (
  SELECT id, key, recipient FROM kept EXCEPT SELECT id, key, recipient FROM said) AS m
 LIMIT 100;

-- name: wrong_descents
  WITH said (id, source_id, mode, step) AS (
    SELECT t.execution_id, (facts(t.data) #>> '{from,id}') COLLATE "C",
           (facts(t.data) #>> '{from,mode}') COLLATE "C",
           (facts(t.data) #>> '{from,step}') COLLATE "C"
      FROM transition AS t
     WHERE t.tenant = {tenant} AND t.seq = 1 AND facts(t.data) ->> 'from' IS NOT NULL),
  kept (id, source_id, mode, step) AS (
    SELECT id, source_id, mode, step FROM descent WHERE tenant = {tenant})
SELECT id FROM (
  SELECT id, source_id, mode, step FROM said
  EXCEPT SELECT id, source_id, mode, step FROM kept) AS m
 UNION
SELECT id FROM (
  SELECT id, source_id, mode, step FROM kept
  EXCEPT SELECT id, source_id, mode, step FROM said) AS m
 LIMIT 100;

-- name: wrong_dependencies
-- Whoever depends is there, and its birth names the other; what is watched has not been deleted.
SELECT d.execution_id, d.upstream_id FROM dependency AS d
 WHERE d.tenant = {tenant}
   AND (NOT EXISTS (
      SELECT 1 FROM transition AS t
       CROSS JOIN json_array_elements(facts(t.data) -> 'waits_on') AS w
       WHERE t.tenant = {tenant} AND t.execution_id = d.execution_id AND t.seq = 1
         AND w ->> 'id' = d.upstream_id)
     OR NOT EXISTS (SELECT 1 FROM execution AS e WHERE e.tenant = {tenant} AND e.id = d.watched_id))
 LIMIT 100;

-- name: lost_dependencies
-- Whoever waits for another one watches what has not ended, or an errand will tell it.
SELECT e.id, w ->> 'id'
  FROM execution AS e
 CROSS JOIN json_array_elements(facts(e.detail) -> 'waits_on') AS w
 WHERE e.tenant = {tenant} AND e.state = 'scheduled' AND e.detail IS NOT NULL
   AND w ->> 'ended' IS NULL
   AND NOT EXISTS (
    SELECT 1 FROM dependency AS d
      JOIN execution AS o ON o.tenant = {tenant} AND o.id = d.watched_id
     WHERE d.tenant = {tenant} AND d.execution_id = e.id AND d.upstream_id = w ->> 'id'
       AND o.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled'))
   AND NOT EXISTS (
    SELECT 1 FROM errand AS r
     WHERE r.tenant = {tenant} AND r.execution_id = e.id AND r.what = 'upstream'
       AND r.source_id = w ->> 'id')
 LIMIT 100;

-- name: wrong_errands
-- An errand is for somebody who is there, and of a parent, or of one that it depends on. Whoever owes
-- it has ended, or been deleted since.
SELECT r.execution_id, r.what || ' ' || r.source_id
  FROM errand AS r
  LEFT JOIN execution AS e ON e.tenant = {tenant} AND e.id = r.execution_id
  LEFT JOIN execution AS s ON s.tenant = {tenant} AND s.id = r.source_id
 WHERE r.tenant = {tenant} AND (
    e.id IS NULL
    OR s.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')
    OR (r.what = 'parent' AND (e.parent_id IS DISTINCT FROM r.source_id OR e.parent_key IS NULL
                               OR s.state <> r.source_state))
    OR (r.what = 'upstream' AND NOT EXISTS (
      SELECT 1 FROM transition AS t
       CROSS JOIN json_array_elements(facts(t.data) -> 'waits_on') AS w
       WHERE t.tenant = {tenant} AND t.execution_id = r.execution_id AND t.seq = 1
         AND w ->> 'id' = r.source_id)))
 LIMIT 100;

-- name: lost_errands
-- An open child of a parent that has ended is being told, or has been, or is to end anyway.
SELECT c.id, p.id
  FROM execution AS c
  JOIN execution AS p ON p.tenant = {tenant} AND p.id = c.parent_id
 WHERE c.tenant = {tenant} AND c.parent_id IS NOT NULL AND c.parent_key IS NOT NULL AND c.cancel_at IS NULL
   AND c.state NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')
   AND p.state IN ('succeeded', 'failed', 'timed_out', 'cancelled')
   AND NOT EXISTS (
    SELECT 1 FROM errand AS r
     WHERE r.tenant = {tenant} AND r.execution_id = c.id AND r.what = 'parent' AND r.source_id = p.id)
   AND NOT EXISTS (
    SELECT 1 FROM inbox AS i
     WHERE i.tenant = {tenant} AND i.execution_id = c.id AND i.kind = 'cancel')
 LIMIT 100;

-- name: wrong_children
-- A parent's log says in which call it made a child, or the one that the child goes on from.
SELECT c.id, c.parent_id
  FROM execution AS c
 WHERE c.tenant = {tenant} AND c.parent_id IS NOT NULL AND c.parent_key IS NOT NULL
   AND EXISTS (SELECT 1 FROM execution AS p WHERE p.tenant = {tenant} AND p.id = c.parent_id)
   AND NOT EXISTS (
    SELECT 1 FROM transition AS t
     WHERE t.tenant = {tenant} AND t.execution_id = c.parent_id AND t.key = c.parent_key
       AND facts(t.data) ->> 'child' IS NOT NULL)
 LIMIT 100;

-- name: wrong_schedules
-- What says that a schedule made it: the schedule is there, and what its log says of it is so. Old
-- entries of that log may be gone.
SELECT e.id, e.origin FROM execution AS e
 WHERE e.tenant = {tenant} AND e.origin >= 'schedule:' AND e.origin < 'schedule;'
   AND NOT EXISTS (
    SELECT 1 FROM schedule AS s WHERE s.tenant = {tenant} AND s.name = substr(e.origin, 10))
 UNION
SELECT e.id, s.name
  FROM schedule_entry AS s
  JOIN execution AS e ON e.tenant = {tenant} AND e.id = s.execution_id
 WHERE s.tenant = {tenant} AND s.kind IN ('fire', 'trigger', 'backfill')
   AND facts(s.data) ->> 'was_there' IS NULL AND e.origin IS DISTINCT FROM 'schedule:' || s.name
 LIMIT 100;

-- name: wrong_reservations
SELECT r.execution_id, r.scope || ':' || r.meter FROM reservation AS r
 WHERE r.tenant = {tenant}
   AND (NOT EXISTS (
      SELECT 1 FROM budget AS b
       WHERE b.tenant = {tenant} AND b.scope = r.scope AND b.meter = r.meter)
     OR NOT EXISTS (SELECT 1 FROM execution AS e WHERE e.tenant = {tenant} AND e.id = r.execution_id))
 LIMIT 100;

-- name: miscounted_budgets
SELECT b.scope, b.meter, b.event_count, coalesce(v.last, 0) AS last
  FROM budget AS b
  LEFT JOIN (
    SELECT scope, meter, max(number) AS last, count(*) AS count FROM budget_event
     WHERE tenant = {tenant} GROUP BY scope, meter) AS v ON v.scope = b.scope AND v.meter = b.meter
 WHERE b.tenant = {tenant} AND (b.event_count <> coalesce(v.last, 0) OR v.last <> v.count)
 LIMIT 100;

-- name: left_permits
SELECT execution_id FROM purge_permit WHERE tenant = {tenant};

-- name: wrong_streams
-- A stream is numbered without a gap, and is an execution's.
SELECT s.execution_id, s.name FROM stream_item AS s
 WHERE s.tenant = {tenant}
 GROUP BY s.execution_id, s.name
HAVING max(s.number) <> count(*)
    OR NOT EXISTS (SELECT 1 FROM execution AS e WHERE e.tenant = {tenant} AND e.id = s.execution_id)
 LIMIT 100;

-- name: stray_progress
SELECT p.execution_id FROM progress AS p
 WHERE p.tenant = {tenant}
   AND NOT EXISTS (SELECT 1 FROM execution AS e WHERE e.tenant = {tenant} AND e.id = p.execution_id)
 LIMIT 100;
