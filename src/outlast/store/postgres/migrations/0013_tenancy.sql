-- What belongs to a tenant stays with it: guards for the tables that have no others that say so.
--
-- A reference is a name inside the tenant of the row that has it, so that none can lead into another
-- one. What is left to guard: that a row never changes hands, and that its tenant is there.

-- GUARD: a row never changes hands.
CREATE TRIGGER worker_stays BEFORE UPDATE ON worker FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER purge_permit_stays BEFORE UPDATE ON purge_permit FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER dependency_stays BEFORE UPDATE ON dependency FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER errand_stays BEFORE UPDATE ON errand FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER queue_setting_stays BEFORE UPDATE ON queue_setting FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER gate_setting_stays BEFORE UPDATE ON gate_setting FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER rate_stays BEFORE UPDATE ON rate FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER holder_stays BEFORE UPDATE ON holder FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER line_stays BEFORE UPDATE ON line FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER budget_stays BEFORE UPDATE ON budget FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER spending_stays BEFORE UPDATE ON spending FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER reservation_stays BEFORE UPDATE ON reservation FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER budget_event_stays BEFORE UPDATE ON budget_event FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER progress_stays BEFORE UPDATE ON progress FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER question_stays BEFORE UPDATE ON question FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER label_stays BEFORE UPDATE ON label FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER account_stays BEFORE UPDATE ON account FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER sign_in_stays BEFORE UPDATE ON sign_in FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER role_grant_stays BEFORE UPDATE ON role_grant FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER secret_stays BEFORE UPDATE ON secret FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER reseal_permit_stays BEFORE UPDATE ON reseal_permit FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER feed_state_stays BEFORE UPDATE ON feed_state FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER feed_stays BEFORE UPDATE ON feed FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

-- GUARD: a row is of a tenant that is there; those of executions are by their first row.
CREATE FUNCTION belongs() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant) THEN
    PERFORM refuse('there is no such tenant');
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER worker_belongs BEFORE INSERT ON worker
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER queue_setting_belongs BEFORE INSERT ON queue_setting
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER gate_setting_belongs BEFORE INSERT ON gate_setting
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER rate_belongs BEFORE INSERT ON rate
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER line_belongs BEFORE INSERT ON line
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER budget_belongs BEFORE INSERT ON budget
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER account_belongs BEFORE INSERT ON account
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER sign_in_belongs BEFORE INSERT ON sign_in
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER token_belongs BEFORE INSERT ON token
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER role_grant_belongs BEFORE INSERT ON role_grant
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER data_key_belongs BEFORE INSERT ON data_key
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER secret_belongs BEFORE INSERT ON secret
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER feed_state_belongs BEFORE INSERT ON feed_state
  FOR EACH ROW EXECUTE FUNCTION belongs();

-- GUARD: what is said of executions is said inside their tenant.
CREATE FUNCTION dependency_inside() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF (SELECT e.seq FROM execution AS e WHERE e.tenant = NEW.tenant AND e.id = NEW.execution_id) IS NULL
    OR (SELECT e.seq FROM execution AS e WHERE e.tenant = NEW.tenant AND e.id = NEW.watched_id) IS NULL
  THEN
    PERFORM refuse('who depends, and on whom, are executions of one tenant');
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER dependency_inside BEFORE INSERT ON dependency
  FOR EACH ROW EXECUTE FUNCTION dependency_inside();

CREATE FUNCTION errand_inside() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF (SELECT e.seq FROM execution AS e WHERE e.tenant = NEW.tenant AND e.id = NEW.execution_id) IS NULL
  THEN
    PERFORM refuse('an errand is for an execution of the same tenant');
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER errand_inside BEFORE INSERT ON errand
  FOR EACH ROW EXECUTE FUNCTION errand_inside();

CREATE FUNCTION reservation_inside() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF (SELECT e.seq FROM execution AS e WHERE e.tenant = NEW.tenant AND e.id = NEW.execution_id) IS NULL
  THEN
    PERFORM refuse('who sets aside is an execution of the same tenant');
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER reservation_inside BEFORE INSERT ON reservation
  FOR EACH ROW EXECUTE FUNCTION reservation_inside();
