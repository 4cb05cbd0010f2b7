-- name: budgets_by_name
-- types: text text
-- Locked, in the order of names: what is read here is written again.
SELECT b.scope, b.meter, b.limit_amount, b.soft_share, b.charged, b.charged_before, b.purged,
       b.reserved, b.period_us, b.turns_at, b.soft_at, b.spent_up_at, b.event_count, b.stirred
  FROM (SELECT v.column1 COLLATE "C" AS scope, v.column2 COLLATE "C" AS meter
          FROM {rows} ORDER BY 1, 2 OFFSET 0) AS w
 CROSS JOIN LATERAL (
    SELECT x.scope, x.meter, x.limit_amount, x.soft_share, x.charged, x.charged_before, x.purged,
           x.reserved, x.period_us, x.turns_at, x.soft_at, x.spent_up_at, x.event_count, x.stirred
      FROM budget AS x
     WHERE x.tenant = {tenant} AND x.scope = w.scope AND x.meter = w.meter
       FOR NO KEY UPDATE) AS b;

-- name: budgets_of_scopes
SELECT scope, meter, limit_amount, soft_share, charged, charged_before, purged,
       reserved, period_us, turns_at, soft_at, spent_up_at, event_count, stirred
  FROM budget
 WHERE tenant = {tenant} AND scope = ANY (ARRAY(SELECT json_array_elements_text(:scopes::json)))
   AND scope > :after
 ORDER BY scope, meter
 LIMIT nullif(:limit, -1);

-- name: shared_budgets
SELECT scope, meter, limit_amount, soft_share, charged, charged_before, purged,
       reserved, period_us, turns_at, soft_at, spent_up_at, event_count, stirred
  FROM budget
 WHERE tenant = {tenant} AND scope >= 'task:' AND scope < 'tree:' AND scope > :after
 ORDER BY scope, meter
 LIMIT nullif(:limit, -1);

-- name: turning_budgets
SELECT scope, meter, limit_amount, soft_share, charged, charged_before, purged,
       reserved, period_us, turns_at, soft_at, spent_up_at, event_count, stirred
  FROM budget
 WHERE tenant = {tenant} AND turns_at IS NOT NULL AND turns_at <= :now
 ORDER BY turns_at, scope, meter
 LIMIT nullif(:limit, -1);

-- name: stirred_budgets
-- Locked: who is stirred is told again by whoever writes the budget, and may not be told in between.
SELECT scope, meter, limit_amount, soft_share, charged, charged_before, purged,
       reserved, period_us, turns_at, soft_at, spent_up_at, event_count, stirred
  FROM budget
 WHERE tenant = {tenant} AND stirred = 1
 ORDER BY scope, meter
 LIMIT nullif(:limit, -1)
   FOR NO KEY UPDATE;

-- name: save_budgets
-- types: text text bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint bigint
-- Somebody is stirred who waits for no more than is left now; no limit, and everything is.
INSERT INTO budget (tenant, scope, meter, limit_amount, soft_share, charged, charged_before, purged,
                    reserved, period_us, turns_at, soft_at, spent_up_at, event_count, stirred)
SELECT {tenant}, v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, v.column7, v.column8,
       v.column9, v.column10, v.column11, v.column12, v.column13,
       EXISTS (
         SELECT 1 FROM execution AS e
          WHERE e.tenant = {tenant} AND e.state = 'suspended'
            AND e.budget_name IS NOT NULL
            AND e.budget_name = v.column1 || ':' || v.column2
            AND e.budget_need <=
                coalesce(v.column3 - v.column5 + v.column6 - v.column8, 9223372036854775807))::int
  FROM {rows}
 ORDER BY v.column1 COLLATE "C", v.column2 COLLATE "C"
    ON CONFLICT (tenant, scope, meter) DO UPDATE
   SET limit_amount = excluded.limit_amount, soft_share = excluded.soft_share,
       charged = excluded.charged, charged_before = excluded.charged_before,
       purged = excluded.purged, reserved = excluded.reserved, period_us = excluded.period_us,
       turns_at = excluded.turns_at, soft_at = excluded.soft_at,
       spent_up_at = excluded.spent_up_at, event_count = excluded.event_count,
       stirred = excluded.stirred;

-- name: calm_budget
UPDATE budget SET stirred = 0 WHERE tenant = {tenant} AND scope = :scope AND meter = :meter;

-- name: waiting_for_budget
-- rule: T16
-- Passes over those that somebody has locked: who has them may want the budget (waiting_at_budget).
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution
 WHERE tenant = {tenant} AND state = 'suspended' AND budget_name IS NOT NULL
   AND budget_name = :name
   AND budget_need <= :left
 ORDER BY budget_need, id
 LIMIT nullif(:limit, -1)
   FOR NO KEY UPDATE SKIP LOCKED;

-- name: waiting_at_budget
-- How many there are, whoever has locked them.
SELECT count(*) FROM execution
 WHERE tenant = {tenant} AND state = 'suspended' AND budget_name IS NOT NULL
   AND budget_name = :name
   AND budget_need <= :left;

-- name: add_spending
-- types: text text text bigint
INSERT INTO spending (tenant, execution_id, scope, meter, amount)
SELECT {tenant}, v.column1, v.column2, v.column3, v.column4 FROM {rows}
    ON CONFLICT (tenant, execution_id, scope, meter) DO UPDATE
   SET amount = spending.amount + excluded.amount;

-- name: reservations_of
-- types: text
SELECT r.execution_id, r.key, r.scope, r.meter, r.amount, r.outlives
  FROM {rows}
 CROSS JOIN LATERAL (
    SELECT x.execution_id, x.key, x.scope, x.meter, x.amount, x.outlives FROM reservation AS x
     WHERE x.tenant = {tenant} AND x.execution_id = v.column1 OFFSET 0) AS r
 ORDER BY r.execution_id, r.key, r.scope, r.meter;

-- name: insert_reservations
-- types: text text text text bigint bigint
INSERT INTO reservation (tenant, execution_id, key, scope, meter, amount, outlives)
SELECT {tenant}, v.column1, v.column2, v.column3, v.column4, v.column5, v.column6
  FROM {rows} WHERE TRUE;

-- name: end_reservations
-- types: text text text text
DELETE FROM reservation AS r
 USING {rows}
 WHERE r.tenant = {tenant} AND r.execution_id = ANY (ARRAY(SELECT v.column1 FROM {rows}))
   AND r.execution_id = v.column1 AND r.key = v.column2 AND r.scope = v.column3
   AND r.meter = v.column4;

-- name: insert_budget_events
-- types: text text bigint text text bigint text bigint bigint text
INSERT INTO budget_event (tenant, scope, meter, number, what, actor, at, execution_id, limit_amount,
                          spent, id)
SELECT {tenant}, v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, v.column7, v.column8,
       v.column9, v.column10
  FROM {rows} WHERE TRUE;

-- name: known_changes
-- types: text
SELECT DISTINCT id FROM budget_event
 WHERE tenant = {tenant} AND id = ANY (ARRAY(SELECT v.column1 FROM {rows})) AND id IS NOT NULL;

-- name: budget_events
SELECT number, what, actor, at, execution_id, limit_amount, spent, id
  FROM budget_event
 WHERE tenant = {tenant} AND scope = :scope AND meter = :meter
 ORDER BY number;

-- name: spending_of
SELECT scope, meter, amount FROM spending
 WHERE tenant = {tenant} AND execution_id = :id
 ORDER BY scope, meter;

-- name: spendings
-- types: text
SELECT s.execution_id, s.scope, s.meter, s.amount
  FROM {rows}
 CROSS JOIN LATERAL (
    SELECT x.execution_id, x.scope, x.meter, x.amount
      FROM spending AS x
     WHERE x.tenant = {tenant} AND x.execution_id = v.column1 OFFSET 0) AS s;

-- name: unbalanced_budgets
-- What a budget says beside what was charged and set aside; once a verify.
SELECT b.scope, b.meter, b.charged, (b.purged + coalesce(s.amount, 0))::bigint AS spending,
       b.reserved, coalesce(r.amount, 0)::bigint AS reservations
  FROM budget AS b
  LEFT JOIN (
    SELECT scope, meter, sum(amount) AS amount FROM spending WHERE tenant = {tenant}
     GROUP BY scope, meter) AS s ON s.scope = b.scope AND s.meter = b.meter
  LEFT JOIN (
    SELECT scope, meter, sum(amount) AS amount FROM reservation WHERE tenant = {tenant}
     GROUP BY scope, meter) AS r ON r.scope = b.scope AND r.meter = b.meter
 WHERE b.tenant = {tenant} AND (b.charged <> b.purged + coalesce(s.amount, 0)
                         OR b.reserved <> coalesce(r.amount, 0));

-- name: purge_shares
-- What executions that are deleted have charged stays charged. Budgets are locked by their names.
  WITH shares AS MATERIALIZED (
        SELECT s.scope, s.meter, sum(s.amount)::bigint AS amount
          FROM purge_permit AS p
          JOIN spending AS s ON s.tenant = {tenant} AND s.execution_id = p.execution_id
         WHERE p.tenant = {tenant}
         GROUP BY s.scope, s.meter),
       locked AS MATERIALIZED (
        SELECT b.scope, b.meter, s.amount
          FROM (SELECT scope, meter, amount FROM shares
                 ORDER BY scope COLLATE "C", meter COLLATE "C" OFFSET 0) AS s
         CROSS JOIN LATERAL (
            SELECT x.scope, x.meter FROM budget AS x
             WHERE x.tenant = {tenant} AND x.scope = s.scope AND x.meter = s.meter
               FOR NO KEY UPDATE) AS b)
UPDATE budget
   SET purged = budget.purged + l.amount
  FROM locked AS l
 WHERE budget.tenant = {tenant} AND budget.scope = l.scope AND budget.meter = l.meter;

-- name: purge_spending
DELETE FROM spending
 WHERE tenant = {tenant}
   AND execution_id = ANY (ARRAY(SELECT execution_id FROM purge_permit WHERE tenant = {tenant}));

-- name: purge_tree_spending
-- What others have charged to a budget that goes with these.
DELETE FROM spending
 WHERE tenant = {tenant}
   AND scope = ANY (ARRAY(SELECT 'tree:' || execution_id FROM purge_permit WHERE tenant = {tenant}));

-- name: purge_reservations
DELETE FROM reservation
 WHERE tenant = {tenant}
   AND (execution_id = ANY (ARRAY(SELECT execution_id FROM purge_permit WHERE tenant = {tenant}))
        OR scope = ANY (ARRAY(SELECT 'tree:' || execution_id FROM purge_permit WHERE tenant = {tenant})));

-- name: purge_budget_events
DELETE FROM budget_event
 WHERE tenant = {tenant}
   AND scope = ANY (ARRAY(
        SELECT 'execution:' || execution_id FROM purge_permit WHERE tenant = {tenant}
         UNION ALL
        SELECT 'tree:' || execution_id FROM purge_permit WHERE tenant = {tenant}));

-- name: purge_budgets
DELETE FROM budget
 WHERE tenant = {tenant}
   AND scope = ANY (ARRAY(
        SELECT 'execution:' || execution_id FROM purge_permit WHERE tenant = {tenant}
         UNION ALL
        SELECT 'tree:' || execution_id FROM purge_permit WHERE tenant = {tenant}));

-- name: any_stirred
-- types: bigint
SELECT v.column1 FROM {rows}
 WHERE EXISTS (
   SELECT 1 FROM budget AS b WHERE b.tenant = {tenant} AND b.stirred = 1);

-- name: spent_up_budgets
-- The shared ones of which nothing is left.
SELECT scope, meter, limit_amount, soft_share, charged, charged_before, purged,
       reserved, period_us, turns_at, soft_at, spent_up_at, event_count, stirred
  FROM budget
 WHERE tenant = {tenant} AND spent_up_at IS NOT NULL AND scope >= 'task:' AND scope < 'tree:'
 ORDER BY scope, meter;
