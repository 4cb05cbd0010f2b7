-- name: budgets_by_name
-- columns: 2
SELECT b.scope, b.meter, b.limit_amount, b.soft_share, b.charged, b.charged_before, b.purged,
       b.reserved, b.period_us, b.turns_at, b.soft_at, b.spent_up_at, b.event_count, b.stirred
  FROM (VALUES {rows}) AS v
  JOIN budget AS b ON b.tenant = {tenant} AND b.scope = v.column1 AND b.meter = v.column2;

-- name: budgets_of_scopes
SELECT scope, meter, limit_amount, soft_share, charged, charged_before, purged,
       reserved, period_us, turns_at, soft_at, spent_up_at, event_count, stirred
  FROM budget
 WHERE tenant = {tenant} AND scope IN (SELECT value FROM json_each(:scopes)) AND scope > :after
 ORDER BY scope, meter
 LIMIT :limit;

-- name: shared_budgets
SELECT scope, meter, limit_amount, soft_share, charged, charged_before, purged,
       reserved, period_us, turns_at, soft_at, spent_up_at, event_count, stirred
  FROM budget
 WHERE tenant = {tenant} AND scope >= 'task:' AND scope < 'tree:' AND scope > :after
 ORDER BY scope, meter
 LIMIT :limit;

-- name: turning_budgets
SELECT scope, meter, limit_amount, soft_share, charged, charged_before, purged,
       reserved, period_us, turns_at, soft_at, spent_up_at, event_count, stirred
  FROM budget
 WHERE tenant = {tenant} AND turns_at IS NOT NULL AND turns_at <= :now
 ORDER BY turns_at, scope, meter
 LIMIT :limit;

-- name: stirred_budgets
SELECT scope, meter, limit_amount, soft_share, charged, charged_before, purged,
       reserved, period_us, turns_at, soft_at, spent_up_at, event_count, stirred
  FROM budget INDEXED BY budget_stirred
 WHERE tenant = {tenant} AND stirred = 1
 ORDER BY scope, meter
 LIMIT :limit;

-- name: save_budgets
-- columns: 13
-- Somebody is stirred who waits for no more than is left now; no limit, and everything is.
INSERT INTO budget (tenant, scope, meter, limit_amount, soft_share, charged, charged_before, purged,
                    reserved, period_us, turns_at, soft_at, spent_up_at, event_count, stirred)
SELECT {tenant}, v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, v.column7, v.column8,
       v.column9, v.column10, v.column11, v.column12, v.column13,
       EXISTS (
         SELECT 1 FROM execution AS e INDEXED BY execution_over_budget
          WHERE e.tenant = {tenant} AND e.state = 'suspended'
            AND json_extract(e.detail, '$.budget.name') IS NOT NULL
            AND json_extract(e.detail, '$.budget.name') = v.column1 || ':' || v.column2
            AND json_extract(e.detail, '$.budget.need') <=
                coalesce(v.column3 - v.column5 + v.column6 - v.column8, 9223372036854775807))
  FROM (VALUES {rows}) AS v WHERE TRUE
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
-- packed: 39, blobs 7
-- rule: T16
SELECT tenant, id, task, state, seq, fence, nonce, worker, high_water, cause, paused_from, attempt,
       failures, claims, idle_claims, inbox_count, inbox_seen, cancel_at, pause_at, created_at,
       updated_at, state_at, started_at, due_at, deadline_at, queue, priority, key, input_digest,
       version, parent_id, origin, parent_key, root_id, start_by, children, gates, labels, detail
  FROM execution INDEXED BY execution_over_budget
 WHERE tenant = {tenant} AND state = 'suspended' AND json_extract(detail, '$.budget.name') IS NOT NULL
   AND json_extract(detail, '$.budget.name') = :name
   AND json_extract(detail, '$.budget.need') <= :left
 ORDER BY json_extract(detail, '$.budget.need'), id
 LIMIT :limit;

-- name: waiting_at_budget
-- How many there are, whoever has locked them.
SELECT count(*) FROM execution INDEXED BY execution_over_budget
 WHERE tenant = {tenant} AND state = 'suspended' AND json_extract(detail, '$.budget.name') IS NOT NULL
   AND json_extract(detail, '$.budget.name') = :name
   AND json_extract(detail, '$.budget.need') <= :left;

-- name: add_spending
-- columns: 4
INSERT INTO spending (tenant, execution_id, scope, meter, amount)
SELECT {tenant}, v.column1, v.column2, v.column3, v.column4 FROM (VALUES {rows}) AS v WHERE TRUE
    ON CONFLICT (tenant, execution_id, scope, meter) DO UPDATE
   SET amount = amount + excluded.amount;

-- name: reservations_of
-- columns: 1
-- padded
SELECT r.execution_id, r.key, r.scope, r.meter, r.amount, r.outlives
  FROM (VALUES {rows}) AS v
 CROSS JOIN reservation AS r ON r.tenant = {tenant} AND r.execution_id = v.column1;

-- name: insert_reservations
-- columns: 6
INSERT INTO reservation (tenant, execution_id, key, scope, meter, amount, outlives)
SELECT {tenant}, v.column1, v.column2, v.column3, v.column4, v.column5, v.column6
  FROM (VALUES {rows}) AS v WHERE TRUE;

-- name: end_reservations
-- columns: 4
DELETE FROM reservation
 WHERE tenant = {tenant} AND (execution_id, key, scope, meter) IN (VALUES {rows});

-- name: insert_budget_events
-- columns: 10
INSERT INTO budget_event (tenant, scope, meter, number, what, actor, at, execution_id, limit_amount,
                          spent, id)
SELECT {tenant}, v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, v.column7, v.column8,
       v.column9, v.column10
  FROM (VALUES {rows}) AS v WHERE TRUE;

-- name: known_changes
-- columns: 1
SELECT DISTINCT id FROM budget_event WHERE tenant = {tenant} AND id IN (VALUES {rows}) AND id IS NOT NULL;

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
-- columns: 1
-- padded
SELECT s.execution_id, s.scope, s.meter, s.amount
  FROM (VALUES {rows}) AS v
 CROSS JOIN spending AS s ON s.tenant = {tenant} AND s.execution_id = v.column1;

-- name: unbalanced_budgets
-- What a budget says beside what was charged and set aside; once a verify.
SELECT b.scope, b.meter, b.charged, b.purged + coalesce((
         SELECT sum(s.amount) FROM spending AS s INDEXED BY spending_by_budget
          WHERE s.tenant = {tenant} AND s.scope = b.scope AND s.meter = b.meter), 0) AS spending,
       b.reserved, coalesce(r.amount, 0) AS reservations
  FROM budget AS b
  LEFT JOIN (
    SELECT scope, meter, sum(amount) AS amount FROM reservation WHERE tenant = {tenant}
     GROUP BY scope, meter) AS r ON r.scope = b.scope AND r.meter = b.meter
 WHERE b.tenant = {tenant} AND (b.charged <> spending OR b.reserved <> reservations);

-- name: purge_shares
-- What executions that are deleted have charged stays charged.
UPDATE budget
   SET purged = budget.purged + s.amount
  FROM (SELECT s.scope, s.meter, sum(s.amount) AS amount
          FROM purge_permit AS p
         CROSS JOIN spending AS s ON s.tenant = {tenant} AND s.execution_id = p.execution_id
         WHERE p.tenant = {tenant}
         GROUP BY s.scope, s.meter) AS s
 WHERE budget.tenant = {tenant} AND budget.scope = s.scope AND budget.meter = s.meter;

-- name: purge_spending
DELETE FROM spending
 WHERE tenant = {tenant}
   AND execution_id IN (SELECT execution_id FROM purge_permit WHERE tenant = {tenant});

-- name: purge_tree_spending
-- What others have charged to a budget that goes with these.
DELETE FROM spending INDEXED BY spending_by_budget
 WHERE tenant = {tenant}
   AND scope IN (SELECT 'tree:' || execution_id FROM purge_permit WHERE tenant = {tenant});

-- name: purge_reservations
DELETE FROM reservation
 WHERE tenant = {tenant}
   AND (execution_id IN (SELECT execution_id FROM purge_permit WHERE tenant = {tenant})
        OR scope IN (SELECT 'tree:' || execution_id FROM purge_permit WHERE tenant = {tenant}));

-- name: purge_budget_events
DELETE FROM budget_event
 WHERE tenant = {tenant}
   AND scope IN (SELECT 'execution:' || execution_id FROM purge_permit WHERE tenant = {tenant}
                  UNION ALL
                 SELECT 'tree:' || execution_id FROM purge_permit WHERE tenant = {tenant});

-- name: purge_budgets
DELETE FROM budget
 WHERE tenant = {tenant}
   AND scope IN (SELECT 'execution:' || execution_id FROM purge_permit WHERE tenant = {tenant}
                  UNION ALL
                 SELECT 'tree:' || execution_id FROM purge_permit WHERE tenant = {tenant});

-- name: any_stirred
-- columns: 1
SELECT v.column1 FROM (VALUES {rows}) AS v
 WHERE EXISTS (
   SELECT 1 FROM budget AS b INDEXED BY budget_stirred WHERE b.tenant = {tenant} AND b.stirred = 1);

-- name: spent_up_budgets
-- The shared ones of which nothing is left.
SELECT scope, meter, limit_amount, soft_share, charged, charged_before, purged,
       reserved, period_us, turns_at, soft_at, spent_up_at, event_count, stirred
  FROM budget INDEXED BY budget_spent_up
 WHERE tenant = {tenant} AND spent_up_at IS NOT NULL AND scope >= 'task:' AND scope < 'tree:'
 ORDER BY scope, meter;
