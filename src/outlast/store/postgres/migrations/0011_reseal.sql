-- What is sealed is sealed anew by another data key: within a transaction that says so, and with
-- nothing else of a row changed. Of facts, what stays readable was there before.

CREATE TABLE reseal_permit (
  tenant bigint PRIMARY KEY
);

-- A statement that changes rows is let through by the permit alone.
CREATE FUNCTION sealing_anew() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP = 'TRUNCATE' OR NOT EXISTS (SELECT 1 FROM reseal_permit) THEN
    PERFORM refuse(TG_ARGV[0]);
  END IF;
  RETURN NULL;
END
$$;

-- Whether a value was sealed: a payload, or facts, of which what stays readable was there before.
CREATE FUNCTION is_resealed(is_facts boolean, was text, now text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT
RETURN coalesce(CASE
  WHEN was IS NULL THEN FALSE
  WHEN is_facts THEN left(facts(now) ->> 'sealed', 4) = 'wQEA'
    AND facts(now)::jsonb - '{sealed,question}'::text[] <@ facts(was)::jsonb
  ELSE left(now, 6) = E'\\xc101'
END, FALSE);

-- What a guard against changes lets through then; its arguments are the complaint and the columns.
CREATE FUNCTION sealed_anew() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  was jsonb := to_jsonb(OLD);
  now jsonb := to_jsonb(NEW);
  sealed text[] := TG_ARGV[1:];
BEGIN
  IF NOT EXISTS (SELECT 1 FROM reseal_permit AS p WHERE p.tenant = OLD.tenant)
     OR now - sealed <> was - sealed
     OR EXISTS (
       SELECT 1 FROM unnest(sealed) AS c
        WHERE now ->> c IS DISTINCT FROM was ->> c
          AND NOT is_resealed(c = 'data', was ->> c, now ->> c)) THEN
    PERFORM refuse(TG_ARGV[0]);
  END IF;
  RETURN NEW;
END
$$;

DROP TRIGGER transition_frozen ON transition;

-- GUARD: the log is append-only, but for what it is sealed by.
CREATE TRIGGER transition_frozen BEFORE UPDATE OR TRUNCATE ON transition
  FOR EACH STATEMENT EXECUTE FUNCTION sealing_anew('the log is append-only');

CREATE TRIGGER transition_sealed_anew BEFORE UPDATE ON transition
  FOR EACH ROW EXECUTE FUNCTION sealed_anew('the log is append-only', 'payload', 'data');

DROP TRIGGER inbox_frozen ON inbox;

-- GUARD: messages never change, but for what it is sealed by.
CREATE TRIGGER inbox_frozen BEFORE UPDATE OR TRUNCATE ON inbox
  FOR EACH STATEMENT EXECUTE FUNCTION sealing_anew('messages never change');

CREATE TRIGGER inbox_sealed_anew BEFORE UPDATE ON inbox
  FOR EACH ROW EXECUTE FUNCTION sealed_anew('messages never change', 'payload', 'data');

DROP TRIGGER stream_item_frozen ON stream_item;

-- GUARD: a stream only grows, but for what it is sealed by.
CREATE TRIGGER stream_item_frozen BEFORE UPDATE OR TRUNCATE ON stream_item
  FOR EACH STATEMENT EXECUTE FUNCTION sealing_anew('a stream only grows');

CREATE TRIGGER stream_item_sealed_anew BEFORE UPDATE ON stream_item
  FOR EACH ROW EXECUTE FUNCTION sealed_anew('a stream only grows', 'payload');

DROP TRIGGER schedule_changed ON schedule;

CREATE TRIGGER schedule_changed BEFORE UPDATE ON schedule FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant OR NEW.name <> OLD.name OR NEW.seq <= OLD.seq
        OR NEW.updated_at < OLD.updated_at)
  EXECUTE FUNCTION sealed_anew('a schedule changes with its log only', 'input');

-- GUARD: a row changes with its log only, and never once it is final, but for what it is sealed by.
CREATE OR REPLACE FUNCTION execution_changed() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
  made text[] := '{detail,code,turn,gate,budget_name,budget_need}';
BEGIN
  IF is_resealed(TRUE, OLD.detail, NEW.detail) AND to_jsonb(NEW) - made = to_jsonb(OLD) - made
     AND EXISTS (SELECT 1 FROM reseal_permit AS p WHERE p.tenant = OLD.tenant) THEN
    RETURN NEW;
  END IF;
  PERFORM refuse(CASE
    WHEN OLD.state IN ('succeeded', 'failed', 'timed_out', 'cancelled')
    THEN 'a final execution never changes'
    WHEN NEW.seq < OLD.seq OR NEW.fence < OLD.fence OR NEW.claims < OLD.claims
      OR NEW.high_water < OLD.high_water OR NEW.attempt < OLD.attempt
      OR NEW.children < OLD.children
      OR NEW.failures < OLD.failures OR NEW.inbox_seen < OLD.inbox_seen
    THEN 'numbers, fences and counts never go down'
    WHEN NEW.seq = OLD.seq THEN 'a row changes with its log only'
    WHEN NEW.nonce IS NOT DISTINCT FROM OLD.nonce THEN 'a new owner draws a new nonce'
    ELSE 'a new lease raises the fence and is counted'
  END);
END
$$;
