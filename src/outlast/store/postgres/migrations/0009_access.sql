-- Who may do what: users, their sessions, tokens and grants; and the audit of every change.

CREATE TABLE account (
  tenant bigint NOT NULL,
  name text COLLATE "C" NOT NULL CHECK (name <> ''),
  password text COLLATE "C" NOT NULL CHECK (password LIKE '$argon2id$%'),
  created_at bigint NOT NULL,
  disabled_at bigint,
  PRIMARY KEY (tenant, name)
);

-- How often somebody failed to sign in under a name, which need be nobody's.
CREATE TABLE sign_in (
  tenant bigint NOT NULL,
  digest bytea NOT NULL CHECK (length(digest) = 32),
  failures bigint NOT NULL CHECK (failures >= 1),
  next_at bigint NOT NULL,
  PRIMARY KEY (tenant, digest)
);

CREATE INDEX sign_in_next ON sign_in (next_at, tenant);

CREATE TABLE session (
  tenant bigint NOT NULL,
  digest bytea NOT NULL CHECK (length(digest) = 32),
  account text COLLATE "C" NOT NULL,
  created_at bigint NOT NULL,
  seen_at bigint NOT NULL,
  expires_at bigint NOT NULL CHECK (expires_at > created_at),
  PRIMARY KEY (tenant, digest)
);

CREATE INDEX session_of_account ON session (account, tenant);
CREATE INDEX session_expires ON session (expires_at, tenant);

-- A text by which a program shows who it is; grants are a list of role, task and tenant, as JSON.
CREATE TABLE token (
  tenant bigint NOT NULL,
  id text COLLATE "C" NOT NULL CHECK (length(id) = 10),
  digest bytea NOT NULL CHECK (length(digest) = 32),
  name text COLLATE "C" NOT NULL CHECK (name <> ''),
  owner text COLLATE "C",
  grants text COLLATE "C" NOT NULL,
  created_at bigint NOT NULL,
  created_by text COLLATE "C" NOT NULL CHECK (created_by <> ''),
  expires_at bigint,
  used_at bigint,
  revoked_at bigint,
  PRIMARY KEY (tenant, id)
);

CREATE TABLE role_grant (
  tenant bigint NOT NULL,
  subject text COLLATE "C" NOT NULL CHECK (subject LIKE 'user:_%' OR subject LIKE 'group:_%'),
  role text COLLATE "C" NOT NULL CHECK (role IN ('viewer', 'payload-reader', 'operator', 'submitter', 'author',
                                     'worker', 'monitor', 'auditor', 'admin')),
  task text COLLATE "C" NOT NULL,
  at bigint NOT NULL,
  actor text COLLATE "C" NOT NULL CHECK (actor <> ''),
  PRIMARY KEY (tenant, subject, role, task)
);

-- Who changed what; each row's digest covers the one before.
CREATE TABLE audit (
  tenant bigint NOT NULL,
  number bigint NOT NULL,
  at bigint NOT NULL,
  actor text COLLATE "C" NOT NULL CHECK (actor <> ''),
  via text COLLATE "C" NOT NULL CHECK (via <> ''),
  what text COLLATE "C" NOT NULL CHECK (what <> ''),
  target text COLLATE "C" NOT NULL,
  detail text COLLATE "C" NOT NULL,
  previous bytea NOT NULL CHECK (length(previous) = 32),
  digest bytea NOT NULL CHECK (length(digest) = 32),
  PRIMARY KEY (tenant, number)
);

CREATE INDEX audit_of_target ON audit (tenant, target, number);

-- The last row of the audit; a cut tail shows here.
CREATE TABLE audit_head (
  tenant bigint NOT NULL PRIMARY KEY,
  number bigint NOT NULL,
  digest bytea NOT NULL CHECK (length(digest) = 32)
);

INSERT INTO audit_head (tenant, number, digest)
SELECT number, 0, decode(repeat('00', 32), 'hex') FROM tenant;

-- Each tenant has an audit of its own; made by the schema's owner, as the row is another tenant's than
-- the one who makes it.
CREATE FUNCTION tenant_audited() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO audit_head (tenant, number, digest)
  VALUES (NEW.number, 0, decode(repeat('00', 32), 'hex'));
  RETURN NULL;
END
$$;

CREATE TRIGGER tenant_audited AFTER INSERT ON tenant
  FOR EACH ROW EXECUTE FUNCTION tenant_audited();

-- GUARD: only who is there, and may sign in, has a session.
CREATE FUNCTION session_of_somebody() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF NOT EXISTS (
    SELECT 1 FROM account AS a
     WHERE a.tenant = NEW.tenant AND a.name = NEW.account AND a.disabled_at IS NULL) THEN
    PERFORM refuse('a session is that of a user who may sign in');
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER session_of_somebody BEFORE INSERT ON session
  FOR EACH ROW EXECUTE FUNCTION session_of_somebody();

CREATE TRIGGER session_frozen BEFORE UPDATE OF tenant, digest, account, created_at, expires_at
  ON session FOR EACH ROW EXECUTE FUNCTION refuse('a session never changes hands');

-- GUARD: what a token permits never changes; once revoked, it stays so.
CREATE TRIGGER token_frozen BEFORE UPDATE OF tenant, id, digest, name, owner, grants, created_at,
  created_by, expires_at
  ON token FOR EACH ROW EXECUTE FUNCTION refuse('what a token permits never changes');

CREATE TRIGGER token_revoked BEFORE UPDATE OF revoked_at ON token FOR EACH ROW
  WHEN (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
  EXECUTE FUNCTION refuse('a revoked token stays revoked');

CREATE TRIGGER token_kept BEFORE DELETE OR TRUNCATE ON token
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('a token is revoked, never deleted');

-- GUARD: the audit only grows, row by row, each following from the one before. The head goes with
-- it, and not by itself: what moves it is a row that has not been written yet.
CREATE FUNCTION audit_grows() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE audit_head SET number = NEW.number, digest = NEW.digest
   WHERE tenant = NEW.tenant AND number = NEW.number - 1 AND digest = NEW.previous;
  IF NOT FOUND THEN
    PERFORM refuse('a row of the audit follows from the one before');
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER audit_grows BEFORE INSERT ON audit
  FOR EACH ROW EXECUTE FUNCTION audit_grows();

CREATE TRIGGER audit_frozen BEFORE UPDATE ON audit
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('the audit never changes');

CREATE TRIGGER audit_kept BEFORE DELETE OR TRUNCATE ON audit
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('the audit is never deleted');

CREATE FUNCTION audit_head_follows() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF NOT EXISTS (
    SELECT 1 FROM audit AS a
     WHERE a.tenant = NEW.tenant AND a.number = NEW.number AND a.digest = NEW.digest) THEN
    PERFORM refuse('the head of the audit is its last row');
  END IF;
  RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER audit_head_follows AFTER UPDATE ON audit_head
  DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION audit_head_follows();

CREATE TRIGGER audit_head_onward BEFORE UPDATE ON audit_head FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant OR NEW.number <> OLD.number + 1)
  EXECUTE FUNCTION refuse('the head of the audit is its last row');

CREATE TRIGGER audit_head_kept BEFORE DELETE OR TRUNCATE ON audit_head
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('the head of the audit is its last row');
