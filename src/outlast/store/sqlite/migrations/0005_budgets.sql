-- Budgets: limits on meters, what was charged to them, and what is set aside. Amounts are millionths.

-- spent = charged - charged_before. charged_before is what was charged before the last reset or
-- turn of the period, purged what was charged by executions that have been deleted since: so that
-- charged is always what the logs add up to.
CREATE TABLE budget (
  tenant INTEGER NOT NULL,
  scope TEXT NOT NULL,
  meter TEXT NOT NULL,
  limit_amount INTEGER CHECK (limit_amount >= 0),
  soft_share INTEGER CHECK (soft_share BETWEEN 1 AND 1000000),
  charged INTEGER NOT NULL,
  charged_before INTEGER NOT NULL CHECK (charged_before BETWEEN 0 AND charged),
  purged INTEGER NOT NULL CHECK (purged BETWEEN 0 AND charged),
  reserved INTEGER NOT NULL CHECK (reserved >= 0),
  period_us INTEGER CHECK (period_us > 0),
  turns_at INTEGER,
  soft_at INTEGER,
  spent_up_at INTEGER,
  event_count INTEGER NOT NULL,
  stirred INTEGER NOT NULL CHECK (stirred IN (0, 1)),
  PRIMARY KEY (tenant, scope, meter),
  CHECK ((period_us IS NULL) = (turns_at IS NULL))
) STRICT, WITHOUT ROWID;

-- Somebody who waits for it may go on: for the next sweep.
CREATE INDEX budget_stirred ON budget (tenant, scope, meter) WHERE stirred = 1;
CREATE INDEX budget_spent_up ON budget (tenant, scope, meter) WHERE spent_up_at IS NOT NULL;
CREATE INDEX budget_turns ON budget (tenant, turns_at) WHERE turns_at IS NOT NULL;

-- What one execution has charged to a budget in all.
CREATE TABLE spending (
  tenant INTEGER NOT NULL,
  execution_id TEXT NOT NULL,
  scope TEXT NOT NULL,
  meter TEXT NOT NULL,
  amount INTEGER NOT NULL CHECK (amount >= 0),
  PRIMARY KEY (tenant, execution_id, scope, meter)
) STRICT, WITHOUT ROWID;

CREATE INDEX spending_by_budget ON spending (tenant, scope, meter);

-- What an execution has set aside, by the key of the call it is for. One that outlives its lease
-- belongs to task code, any other to a body.
CREATE TABLE reservation (
  tenant INTEGER NOT NULL,
  execution_id TEXT NOT NULL,
  key TEXT NOT NULL,
  scope TEXT NOT NULL,
  meter TEXT NOT NULL,
  amount INTEGER NOT NULL CHECK (amount >= 0),
  outlives INTEGER NOT NULL CHECK (outlives IN (0, 1)),
  PRIMARY KEY (tenant, execution_id, key, scope, meter)
) STRICT, WITHOUT ROWID;

-- What happened to a budget, gap-free.
CREATE TABLE budget_event (
  tenant INTEGER NOT NULL,
  scope TEXT NOT NULL,
  meter TEXT NOT NULL,
  number INTEGER NOT NULL CHECK (number >= 1),
  what TEXT NOT NULL CHECK (what IN ('set', 'raised', 'reset', 'turned', 'soft', 'spent_up')),
  actor TEXT NOT NULL CHECK (actor <> ''),
  at INTEGER NOT NULL,
  execution_id TEXT,
  limit_amount INTEGER,
  spent INTEGER NOT NULL,
  id TEXT,
  PRIMARY KEY (tenant, scope, meter, number)
) STRICT, WITHOUT ROWID;

-- A change that is sent again is taken once.
CREATE UNIQUE INDEX budget_event_once ON budget_event (tenant, id, scope, meter) WHERE id IS NOT NULL;

-- Executions that are suspended until a budget has room for what they need.
CREATE INDEX execution_over_budget ON execution (
  tenant, json_extract(detail, '$.budget.name'), json_extract(detail, '$.budget.need'), id)
  WHERE state = 'suspended' AND json_extract(detail, '$.budget.name') IS NOT NULL;

-- GUARD: what was charged stays charged.
CREATE TRIGGER budget_charged BEFORE UPDATE OF charged ON budget WHEN NEW.charged < OLD.charged
BEGIN
  SELECT RAISE(ABORT, 'guard: what was charged stays charged');
END;
