-- Who may do what: users, their sessions, tokens and grants; and the audit of every change.

CREATE TABLE account (
  tenant INTEGER NOT NULL,
  name TEXT NOT NULL CHECK (name <> ''),
  password TEXT NOT NULL CHECK (password LIKE '$argon2id$%'),
  created_at INTEGER NOT NULL,
  disabled_at INTEGER,
  PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

-- How often somebody failed to sign in under a name, which need be nobody's.
CREATE TABLE sign_in (
  tenant INTEGER NOT NULL,
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  failures INTEGER NOT NULL CHECK (failures >= 1),
  next_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX sign_in_next ON sign_in (tenant, next_at);

CREATE TABLE session (
  tenant INTEGER NOT NULL,
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  account TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  seen_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL CHECK (expires_at > created_at),
  PRIMARY KEY (tenant, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX session_of_account ON session (tenant, account);
CREATE INDEX session_expires ON session (tenant, expires_at);

-- GUARD: only who is there, and may sign in, has a session.
CREATE TRIGGER session_of_somebody BEFORE INSERT ON session
WHEN NOT EXISTS (
  SELECT 1 FROM account AS a
   WHERE a.tenant = NEW.tenant AND a.name = NEW.account AND a.disabled_at IS NULL)
BEGIN
  SELECT RAISE(ABORT, 'guard: a session is that of a user who may sign in');
END;

CREATE TRIGGER session_frozen BEFORE UPDATE OF tenant, digest, account, created_at, expires_at
ON session
BEGIN
  SELECT RAISE(ABORT, 'guard: a session never changes hands');
END;

-- A text by which a program shows who it is; grants are a list of role, task and tenant, as JSON.
CREATE TABLE token (
  tenant INTEGER NOT NULL,
  id TEXT NOT NULL CHECK (length(id) = 10),
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  name TEXT NOT NULL CHECK (name <> ''),
  owner TEXT,
  grants TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  created_by TEXT NOT NULL CHECK (created_by <> ''),
  expires_at INTEGER,
  used_at INTEGER,
  revoked_at INTEGER,
  PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

-- GUARD: what a token permits never changes; once revoked, it stays so.
CREATE TRIGGER token_frozen BEFORE UPDATE OF tenant, id, digest, name, owner, grants, created_at,
  created_by, expires_at ON token
BEGIN
  SELECT RAISE(ABORT, 'guard: what a token permits never changes');
END;

CREATE TRIGGER token_revoked BEFORE UPDATE OF revoked_at ON token
WHEN OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS NOT OLD.revoked_at
BEGIN
  SELECT RAISE(ABORT, 'guard: a revoked token stays revoked');
END;

CREATE TRIGGER token_kept BEFORE DELETE ON token
BEGIN
  SELECT RAISE(ABORT, 'guard: a token is revoked, never deleted');
END;

CREATE TABLE role_grant (
  tenant INTEGER NOT NULL,
  subject TEXT NOT NULL CHECK (subject LIKE 'user:_%' OR subject LIKE 'group:_%'),
  role TEXT NOT NULL CHECK (role IN ('viewer', 'payload-reader', 'operator', 'submitter', 'author',
                                     'worker', 'monitor', 'auditor', 'admin')),
  task TEXT NOT NULL,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL CHECK (actor <> ''),
  PRIMARY KEY (tenant, subject, role, task)
) STRICT, WITHOUT ROWID;

-- Who changed what; each row's digest covers the one before.
CREATE TABLE audit (
  tenant INTEGER NOT NULL,
  number INTEGER NOT NULL,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL CHECK (actor <> ''),
  via TEXT NOT NULL CHECK (via <> ''),
  what TEXT NOT NULL CHECK (what <> ''),
  target TEXT NOT NULL,
  detail TEXT NOT NULL,
  previous BLOB NOT NULL CHECK (length(previous) = 32),
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  PRIMARY KEY (tenant, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_of_target ON audit (tenant, target, number);

-- The last row of the audit; a cut tail shows here.
CREATE TABLE audit_head (
  tenant INTEGER NOT NULL PRIMARY KEY,
  number INTEGER NOT NULL,
  digest BLOB NOT NULL CHECK (length(digest) = 32)
) STRICT, WITHOUT ROWID;

INSERT INTO audit_head (tenant, number, digest) SELECT number, 0, zeroblob(32) FROM tenant;

-- Each tenant has an audit of its own.
CREATE TRIGGER tenant_audited AFTER INSERT ON tenant
BEGIN
  INSERT INTO audit_head (tenant, number, digest) VALUES (NEW.number, 0, zeroblob(32));
END;

-- GUARD: the audit only grows, row by row, each following from the one before.
CREATE TRIGGER audit_grows BEFORE INSERT ON audit
WHEN NOT EXISTS (
  SELECT 1 FROM audit_head AS h
   WHERE h.tenant = NEW.tenant AND h.number = NEW.number - 1 AND h.digest = NEW.previous)
BEGIN
  SELECT RAISE(ABORT, 'guard: a row of the audit follows from the one before');
END;

CREATE TRIGGER audit_headed AFTER INSERT ON audit
BEGIN
  UPDATE audit_head SET number = NEW.number, digest = NEW.digest WHERE tenant = NEW.tenant;
END;

CREATE TRIGGER audit_frozen BEFORE UPDATE ON audit
BEGIN
  SELECT RAISE(ABORT, 'guard: the audit never changes');
END;

CREATE TRIGGER audit_kept BEFORE DELETE ON audit
BEGIN
  SELECT RAISE(ABORT, 'guard: the audit is never deleted');
END;

CREATE TRIGGER audit_head_follows BEFORE UPDATE ON audit_head
WHEN NEW.tenant IS NOT OLD.tenant OR NEW.number IS NOT OLD.number + 1
  OR NOT EXISTS (SELECT 1 FROM audit AS a
                  WHERE a.tenant = NEW.tenant AND a.number = NEW.number AND a.digest = NEW.digest)
BEGIN
  SELECT RAISE(ABORT, 'guard: the head of the audit is its last row');
END;

CREATE TRIGGER audit_head_kept BEFORE DELETE ON audit_head
BEGIN
  SELECT RAISE(ABORT, 'guard: the head of the audit is its last row');
END;
