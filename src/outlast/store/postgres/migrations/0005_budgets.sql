-- Budgets: limits on meters, what was charged to them, and what is set aside. Amounts are millionths.

-- spent = charged - charged_before. charged_before is what was charged before the last reset or
-- turn of the period, purged what was charged by executions that have been deleted since: so that
-- charged is always what the logs add up to.
CREATE TABLE budget (
  tenant bigint NOT NULL,
  scope text COLLATE "C" NOT NULL,
  meter text COLLATE "C" NOT NULL,
  limit_amount bigint CHECK (limit_amount >= 0),
  soft_share bigint CHECK (soft_share BETWEEN 1 AND 1000000),
  charged bigint NOT NULL,
  charged_before bigint NOT NULL CHECK (charged_before BETWEEN 0 AND charged),
  purged bigint NOT NULL CHECK (purged BETWEEN 0 AND charged),
  reserved bigint NOT NULL CHECK (reserved >= 0),
  period_us bigint CHECK (period_us > 0),
  turns_at bigint,
  soft_at bigint,
  spent_up_at bigint,
  event_count bigint NOT NULL,
  stirred bigint NOT NULL CHECK (stirred IN (0, 1)),
  PRIMARY KEY (tenant, scope, meter),
  CHECK ((period_us IS NULL) = (turns_at IS NULL))
) WITH (fillfactor = 50);

-- Somebody who waits for it may go on: for the next sweep.
CREATE INDEX budget_stirred ON budget (tenant, scope, meter) WHERE stirred = 1;
CREATE INDEX budget_spent_up ON budget (tenant, scope, meter) WHERE spent_up_at IS NOT NULL;
CREATE INDEX budget_turns ON budget (tenant, turns_at, scope, meter) WHERE turns_at IS NOT NULL;

-- What one execution has charged to a budget in all.
CREATE TABLE spending (
  tenant bigint NOT NULL,
  execution_id text COLLATE "C" NOT NULL,
  scope text COLLATE "C" NOT NULL,
  meter text COLLATE "C" NOT NULL,
  amount bigint NOT NULL CHECK (amount >= 0),
  PRIMARY KEY (tenant, execution_id, scope, meter)
);

CREATE INDEX spending_by_budget ON spending (scope, meter, tenant);

-- What an execution has set aside, by the key of the call it is for. One that outlives its lease
-- belongs to task code, any other to a body.
CREATE TABLE reservation (
  tenant bigint NOT NULL,
  execution_id text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  scope text COLLATE "C" NOT NULL,
  meter text COLLATE "C" NOT NULL,
  amount bigint NOT NULL CHECK (amount >= 0),
  outlives bigint NOT NULL CHECK (outlives IN (0, 1)),
  PRIMARY KEY (tenant, execution_id, key, scope, meter)
);

-- What happened to a budget, gap-free.
CREATE TABLE budget_event (
  tenant bigint NOT NULL,
  scope text COLLATE "C" NOT NULL,
  meter text COLLATE "C" NOT NULL,
  number bigint NOT NULL CHECK (number >= 1),
  what text COLLATE "C" NOT NULL
    CHECK (what IN ('set', 'raised', 'reset', 'turned', 'soft', 'spent_up')),
  actor text NOT NULL CHECK (actor <> ''),
  at bigint NOT NULL,
  execution_id text COLLATE "C",
  limit_amount bigint,
  spent bigint NOT NULL,
  id text COLLATE "C",
  PRIMARY KEY (tenant, scope, meter, number)
);

-- A change that is sent again is taken once.
CREATE UNIQUE INDEX budget_event_once ON budget_event (tenant, id, scope, meter) WHERE id IS NOT NULL;

-- Executions that are suspended until a budget has room for what they need.
CREATE INDEX execution_over_budget ON execution (tenant, budget_name, budget_need, id)
  WHERE state = 'suspended' AND budget_name IS NOT NULL;

-- GUARD: what was charged stays charged.
CREATE TRIGGER budget_charged BEFORE UPDATE ON budget FOR EACH ROW
  WHEN (NEW.charged < OLD.charged)
  EXECUTE FUNCTION refuse('what was charged stays charged');
