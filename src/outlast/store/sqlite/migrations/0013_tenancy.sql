-- What belongs to a tenant stays with it: guards for the tables that have no others that say so.
--
-- A reference is a name inside the tenant of the row that has it, so that none can lead into another
-- one. What is left to guard: that a row never changes hands, and that its tenant is there.

-- GUARD: a row never changes hands.
CREATE TRIGGER worker_stays BEFORE UPDATE OF tenant ON worker
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER purge_permit_stays BEFORE UPDATE OF tenant ON purge_permit
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER dependency_stays BEFORE UPDATE OF tenant ON dependency
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER errand_stays BEFORE UPDATE OF tenant ON errand
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER queue_setting_stays BEFORE UPDATE OF tenant ON queue_setting
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER gate_setting_stays BEFORE UPDATE OF tenant ON gate_setting
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER rate_stays BEFORE UPDATE OF tenant ON rate
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER holder_stays BEFORE UPDATE OF tenant ON holder
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER line_stays BEFORE UPDATE OF tenant ON line
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER budget_stays BEFORE UPDATE OF tenant ON budget
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER spending_stays BEFORE UPDATE OF tenant ON spending
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER reservation_stays BEFORE UPDATE OF tenant ON reservation
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER budget_event_stays BEFORE UPDATE OF tenant ON budget_event
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER progress_stays BEFORE UPDATE OF tenant ON progress
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER question_stays BEFORE UPDATE OF tenant ON question
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER label_stays BEFORE UPDATE OF tenant ON label
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER account_stays BEFORE UPDATE OF tenant ON account
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER sign_in_stays BEFORE UPDATE OF tenant ON sign_in
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER role_grant_stays BEFORE UPDATE OF tenant ON role_grant
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER secret_stays BEFORE UPDATE OF tenant ON secret
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER reseal_permit_stays BEFORE UPDATE OF tenant ON reseal_permit
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER feed_state_stays BEFORE UPDATE OF tenant ON feed_state
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER feed_stays BEFORE UPDATE OF tenant ON feed
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

-- GUARD: a row is of a tenant that is there; those of executions are by their first row.
CREATE TRIGGER worker_belongs BEFORE INSERT ON worker
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER queue_setting_belongs BEFORE INSERT ON queue_setting
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER gate_setting_belongs BEFORE INSERT ON gate_setting
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER rate_belongs BEFORE INSERT ON rate
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER line_belongs BEFORE INSERT ON line
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER budget_belongs BEFORE INSERT ON budget
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER account_belongs BEFORE INSERT ON account
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER sign_in_belongs BEFORE INSERT ON sign_in
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER token_belongs BEFORE INSERT ON token
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER role_grant_belongs BEFORE INSERT ON role_grant
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER data_key_belongs BEFORE INSERT ON data_key
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER secret_belongs BEFORE INSERT ON secret
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER feed_state_belongs BEFORE INSERT ON feed_state
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

-- GUARD: what is said of executions is said inside their tenant.
CREATE TRIGGER dependency_inside BEFORE INSERT ON dependency
WHEN NOT EXISTS (SELECT 1 FROM execution AS e WHERE e.tenant = NEW.tenant AND e.id = NEW.execution_id)
  OR NOT EXISTS (SELECT 1 FROM execution AS e WHERE e.tenant = NEW.tenant AND e.id = NEW.watched_id)
BEGIN SELECT RAISE(ABORT, 'guard: who depends, and on whom, are executions of one tenant'); END;

CREATE TRIGGER errand_inside BEFORE INSERT ON errand
WHEN NOT EXISTS (SELECT 1 FROM execution AS e WHERE e.tenant = NEW.tenant AND e.id = NEW.execution_id)
BEGIN SELECT RAISE(ABORT, 'guard: an errand is for an execution of the same tenant'); END;

CREATE TRIGGER reservation_inside BEFORE INSERT ON reservation
WHEN NOT EXISTS (SELECT 1 FROM execution AS e WHERE e.tenant = NEW.tenant AND e.id = NEW.execution_id)
BEGIN SELECT RAISE(ABORT, 'guard: who sets aside is an execution of the same tenant'); END;
