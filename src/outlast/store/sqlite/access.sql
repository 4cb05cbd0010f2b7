-- name: insert_account
INSERT INTO account (tenant, name, password, created_at)
VALUES (1, :name, :password, :created_at)
    ON CONFLICT (tenant, name) DO NOTHING;

-- name: accounts
SELECT name, password, created_at, disabled_at FROM account
 WHERE tenant = 1
 ORDER BY name;

-- name: account_by_name
SELECT name, password, created_at, disabled_at FROM account
 WHERE tenant = 1 AND name = :name;

-- name: set_password
UPDATE account SET password = :password WHERE tenant = 1 AND name = :name;

-- name: hold_account
-- Changes nothing, and lets nobody else change it until the transaction has ended.
UPDATE account SET password = password
 WHERE tenant = 1 AND name = :name AND password = :password AND disabled_at IS NULL;

-- name: set_disabled
UPDATE account SET disabled_at = :at
 WHERE tenant = 1 AND name = :name AND (disabled_at IS NULL) <> (:at IS NULL);

-- name: insert_grant
INSERT INTO role_grant (tenant, subject, role, task, at, actor)
VALUES (1, :subject, :role, :task, :at, :actor)
    ON CONFLICT (tenant, subject, role, task) DO NOTHING;

-- name: delete_grant
DELETE FROM role_grant
 WHERE tenant = 1 AND subject = :subject AND role = :role AND task = :task;

-- name: grants
SELECT subject, role, task, at, actor FROM role_grant
 WHERE tenant = 1
 ORDER BY subject, role, task;

-- name: grants_of
SELECT subject, role, task, at, actor FROM role_grant
 WHERE tenant = 1 AND subject IN (SELECT value FROM json_each(:subjects))
 ORDER BY subject, role, task;

-- name: insert_token
INSERT INTO token (tenant, id, digest, name, owner, grants, created_at, created_by, expires_at)
VALUES (1, :id, :digest, :name, :owner, :grants, :created_at, :created_by, :expires_at)
    ON CONFLICT (tenant, id) DO NOTHING;

-- name: tokens
-- The newest first.
SELECT id, digest, name, owner, grants, created_at, created_by, expires_at, used_at, revoked_at
  FROM token
 WHERE tenant = 1
 ORDER BY created_at DESC, id;

-- name: token_by_id
SELECT id, digest, name, owner, grants, created_at, created_by, expires_at, used_at, revoked_at
  FROM token
 WHERE tenant = 1 AND id = :id;

-- name: revoke_token
UPDATE token SET revoked_at = :at WHERE tenant = 1 AND id = :id AND revoked_at IS NULL;

-- name: use_token
UPDATE token SET used_at = :at WHERE tenant = 1 AND id = :id;

-- name: insert_session
INSERT INTO session (tenant, digest, account, created_at, seen_at, expires_at)
VALUES (1, :digest, :account, :created_at, :seen_at, :expires_at);

-- name: session_by_digest
SELECT digest, account, created_at, seen_at, expires_at FROM session
 WHERE tenant = 1 AND digest = :digest;

-- name: see_session
UPDATE session SET seen_at = :at WHERE tenant = 1 AND digest = :digest;

-- name: end_session
DELETE FROM session WHERE tenant = 1 AND digest = :digest;

-- name: end_sessions
DELETE FROM session INDEXED BY session_of_account WHERE tenant = 1 AND account = :account;

-- name: expire_sessions
DELETE FROM session WHERE tenant = 1 AND expires_at <= :now;

-- name: sign_in
SELECT failures, next_at FROM sign_in WHERE tenant = 1 AND digest = :digest;

-- name: save_sign_in
INSERT INTO sign_in (tenant, digest, failures, next_at)
VALUES (1, :digest, :failures, :next_at)
    ON CONFLICT (tenant, digest)
    DO UPDATE SET failures = excluded.failures, next_at = excluded.next_at;

-- name: forgive_sign_in
DELETE FROM sign_in WHERE tenant = 1 AND digest = :digest;

-- name: forget_sign_ins
DELETE FROM sign_in WHERE tenant = 1 AND next_at < :before;

-- name: audit_head
SELECT number, digest FROM audit_head WHERE tenant = 1;

-- name: insert_audit
-- columns: 10
INSERT INTO audit (tenant, number, at, actor, via, what, target, detail, previous, digest)
VALUES {rows};

-- name: audit_oldest
SELECT number, at, actor, via, what, target, detail, previous, digest FROM audit
 WHERE tenant = 1 AND number > :after AND (:target IS NULL OR target = :target)
   AND (:actor IS NULL OR actor = :actor)
 ORDER BY number
 LIMIT :limit;

-- name: audit_newest
SELECT number, at, actor, via, what, target, detail, previous, digest FROM audit
 WHERE tenant = 1 AND number < :after AND (:target IS NULL OR target = :target)
   AND (:actor IS NULL OR actor = :actor)
 ORDER BY number DESC
 LIMIT :limit;

-- name: wrong_sessions
-- Like the next two, it reads whole tables, once a verify.
SELECT s.account, a.disabled_at FROM session AS s
  LEFT JOIN account AS a ON a.tenant = s.tenant AND a.name = s.account
 WHERE s.tenant <> 1 OR a.name IS NULL OR a.disabled_at IS NOT NULL
 ORDER BY s.account
 LIMIT 100;

-- name: wrong_tokens
SELECT t.id, t.owner FROM token AS t
 WHERE t.tenant <> 1 OR (t.owner IS NOT NULL AND NOT EXISTS (
   SELECT 1 FROM account AS a WHERE a.tenant = t.tenant AND a.name = t.owner))
 ORDER BY t.id
 LIMIT 100;

-- name: wrong_grants
SELECT g.subject, g.role FROM role_grant AS g
 WHERE g.tenant <> 1 OR (g.subject LIKE 'user:%' AND NOT EXISTS (
   SELECT 1 FROM account AS a WHERE a.tenant = g.tenant AND a.name = substr(g.subject, 6)))
 ORDER BY g.subject, g.role
 LIMIT 100;
