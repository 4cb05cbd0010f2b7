-- Payloads are sealed anew by another data key: within a transaction that says so, and with nothing
-- else of a row changed.

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

-- What a guard against changes lets through then; its arguments are the complaint and the column.
CREATE FUNCTION sealed_anew() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM reseal_permit AS p WHERE p.tenant = OLD.tenant)
     OR to_jsonb(NEW) ->> TG_ARGV[1] IS NULL OR to_jsonb(OLD) ->> TG_ARGV[1] IS NULL
     OR left(to_jsonb(NEW) ->> TG_ARGV[1], 6) <> '\xc101'
     OR to_jsonb(NEW) - TG_ARGV[1] <> to_jsonb(OLD) - TG_ARGV[1] THEN
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
  FOR EACH ROW EXECUTE FUNCTION sealed_anew('the log is append-only', 'payload');

DROP TRIGGER inbox_frozen ON inbox;

-- GUARD: messages never change, but for what it is sealed by.
CREATE TRIGGER inbox_frozen BEFORE UPDATE OR TRUNCATE ON inbox
  FOR EACH STATEMENT EXECUTE FUNCTION sealing_anew('messages never change');

CREATE TRIGGER inbox_sealed_anew BEFORE UPDATE ON inbox
  FOR EACH ROW EXECUTE FUNCTION sealed_anew('messages never change', 'payload');

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
