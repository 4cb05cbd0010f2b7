-- What the store last saw of itself: by what it knows that it has gone back.
CREATE TABLE sight (
  tenant INTEGER NOT NULL,
  identity BLOB NOT NULL,
  PRIMARY KEY (tenant)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER sight_stays BEFORE UPDATE OF tenant ON sight
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER sight_belongs BEFORE INSERT ON sight
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

-- Which history of the store this is. A standby that was promoted, or a backup that was restored,
-- begins an epoch: its fences are above its floor, which is above all that was given out before.

CREATE TABLE epoch (
  tenant INTEGER NOT NULL,
  number INTEGER NOT NULL CHECK (number >= 1),
  id TEXT NOT NULL CHECK (id <> ''),
  cause TEXT NOT NULL CHECK (cause <> ''),
  began_at INTEGER NOT NULL,
  floor INTEGER NOT NULL CHECK (floor >= 1),
  executions INTEGER NOT NULL CHECK (executions >= 0),
  workers INTEGER NOT NULL CHECK (workers >= 0),
  detail TEXT NOT NULL,
  PRIMARY KEY (tenant, number)
) STRICT, WITHOUT ROWID;

-- What those who lived through it knew to be acknowledged, and did not find again.
CREATE TABLE epoch_loss (
  tenant INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  worker TEXT NOT NULL,
  at INTEGER NOT NULL,
  known INTEGER NOT NULL CHECK (known >= 0),
  missing INTEGER NOT NULL CHECK (missing >= 0),
  behind INTEGER NOT NULL CHECK (behind >= 0),
  rows_lost INTEGER NOT NULL CHECK (rows_lost >= 0),
  messages INTEGER NOT NULL CHECK (messages >= 0),
  examples TEXT NOT NULL,
  PRIMARY KEY (tenant, epoch, worker)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER epoch_belongs BEFORE INSERT ON epoch
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER epoch_loss_belongs BEFORE INSERT ON epoch_loss
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

-- GUARD: epochs are numbered without a gap, and each has a higher floor.
CREATE TRIGGER epoch_next BEFORE INSERT ON epoch
WHEN EXISTS (
  SELECT 1 FROM (SELECT max(p.number) AS number, max(p.floor) AS floor FROM epoch AS p
         WHERE p.tenant = NEW.tenant) AS p
   WHERE NEW.number <> coalesce(p.number, 0) + 1 OR NEW.floor <= coalesce(p.floor, 0))
BEGIN
  SELECT RAISE(ABORT, 'guard: each epoch follows the last one, with a higher floor');
END;

CREATE TRIGGER epoch_frozen BEFORE UPDATE ON epoch
BEGIN
  SELECT RAISE(ABORT, 'guard: epochs never change');
END;

CREATE TRIGGER epoch_kept BEFORE DELETE ON epoch
BEGIN
  SELECT RAISE(ABORT, 'guard: epochs never change');
END;

CREATE TRIGGER epoch_loss_frozen BEFORE UPDATE ON epoch_loss
BEGIN
  SELECT RAISE(ABORT, 'guard: epochs never change');
END;

CREATE TRIGGER epoch_loss_kept BEFORE DELETE ON epoch_loss
BEGIN
  SELECT RAISE(ABORT, 'guard: epochs never change');
END;
