-- What the store last saw of itself: by what it knows that it has gone back.
CREATE TABLE sight (
  tenant bigint NOT NULL,
  identity bytea NOT NULL,
  PRIMARY KEY (tenant)
);

CREATE TRIGGER sight_stays BEFORE UPDATE ON sight FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER sight_belongs BEFORE INSERT ON sight
  FOR EACH ROW EXECUTE FUNCTION belongs();

-- Which history of the store this is. A standby that was promoted, or a backup that was restored,
-- begins an epoch: its fences are above its floor, which is above all that was given out before.

CREATE TABLE epoch (
  tenant bigint NOT NULL,
  number bigint NOT NULL CHECK (number >= 1),
  id text COLLATE "C" NOT NULL CHECK (id <> ''),
  cause text COLLATE "C" NOT NULL CHECK (cause <> ''),
  began_at bigint NOT NULL,
  floor bigint NOT NULL CHECK (floor >= 1),
  executions bigint NOT NULL CHECK (executions >= 0),
  workers bigint NOT NULL CHECK (workers >= 0),
  detail text NOT NULL,
  PRIMARY KEY (tenant, number)
);

-- What those who lived through it knew to be acknowledged, and did not find again.
CREATE TABLE epoch_loss (
  tenant bigint NOT NULL,
  epoch bigint NOT NULL,
  worker text COLLATE "C" NOT NULL,
  at bigint NOT NULL,
  known bigint NOT NULL CHECK (known >= 0),
  missing bigint NOT NULL CHECK (missing >= 0),
  behind bigint NOT NULL CHECK (behind >= 0),
  rows_lost bigint NOT NULL CHECK (rows_lost >= 0),
  messages bigint NOT NULL CHECK (messages >= 0),
  examples text NOT NULL,
  PRIMARY KEY (tenant, epoch, worker)
);

CREATE TRIGGER epoch_belongs BEFORE INSERT ON epoch
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER epoch_loss_belongs BEFORE INSERT ON epoch_loss
  FOR EACH ROW EXECUTE FUNCTION belongs();

-- GUARD: epochs are numbered without a gap, and each has a higher floor.
CREATE FUNCTION epoch_next() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF EXISTS (
    SELECT 1 FROM (SELECT max(p.number) AS number, max(p.floor) AS floor FROM epoch AS p
         WHERE p.tenant = NEW.tenant) AS p
     WHERE NEW.number <> coalesce(p.number, 0) + 1 OR NEW.floor <= coalesce(p.floor, 0))
  THEN
    PERFORM refuse('each epoch follows the last one, with a higher floor');
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER epoch_next BEFORE INSERT ON epoch
  FOR EACH ROW EXECUTE FUNCTION epoch_next();

CREATE TRIGGER epoch_frozen BEFORE UPDATE OR DELETE OR TRUNCATE ON epoch
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('epochs never change');

CREATE TRIGGER epoch_loss_frozen BEFORE UPDATE OR DELETE OR TRUNCATE ON epoch_loss
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('epochs never change');
