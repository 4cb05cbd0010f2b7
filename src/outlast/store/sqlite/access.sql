-- name: insert_account
INSERT INTO account (tenant, name, password, created_at)
VALUES ({tenant}, :name, :password, :created_at)
    ON CONFLICT (tenant, name) DO NOTHING;

-- name: accounts
SELECT name, password, created_at, disabled_at FROM account
 WHERE tenant = {tenant}
 ORDER BY name;

-- name: account_by_name
SELECT name, password, created_at, disabled_at FROM account
 WHERE tenant = {tenant} AND name = :name;

-- name: set_password
UPDATE account SET password = :password WHERE tenant = {tenant} AND name = :name;

-- name: hold_account
-- Changes nothing, and lets nobody else change it until the transaction has ended.
UPDATE account SET password = password
 WHERE tenant = {tenant} AND name = :name AND password = :password AND disabled_at IS NULL;

-- name: set_disabled
UPDATE account SET disabled_at = :at
 WHERE tenant = {tenant} AND name = :name AND (disabled_at IS NULL) <> (:at IS NULL);

-- name: insert_grant
INSERT INTO role_grant (tenant, subject, role, task, at, actor)
VALUES ({tenant}, :subject, :role, :task, :at, :actor)
    ON CONFLICT (tenant, subject, role, task) DO NOTHING;

-- name: delete_grant
DELETE FROM role_grant
 WHERE tenant = {tenant} AND subject = :subject AND role = :role AND task = :task;

-- name: grants
SELECT subject, role, task, at, actor FROM role_grant
 WHERE tenant = {tenant}
 ORDER BY subject, role, task;

-- name: grants_of
SELECT subject, role, task, at, actor FROM role_grant
 WHERE tenant = {tenant} AND subject IN (SELECT value FROM json_each(:subjects))
 ORDER BY subject, role, task;

-- name: insert_token
INSERT INTO token (tenant, id, digest, name, owner, grants, created_at, created_by, expires_at)
VALUES ({tenant}, :id, :digest, :name, :owner, :grants, :created_at, :created_by, :expires_at)
    ON CONFLICT (tenant, id) DO NOTHING;

-- name: tokens
-- The newest first.
SELECT id, digest, name, owner, grants, created_at, created_by, expires_at, used_at, revoked_at
  FROM token
 WHERE tenant = {tenant}
 ORDER BY created_at DESC, id;

-- name: token_by_id
SELECT id, digest, name, owner, grants, created_at, created_by, expires_at, used_at, revoked_at
  FROM token
 WHERE tenant = {tenant} AND id = :id;

-- name: revoke_token
UPDATE token SET revoked_at = :at WHERE tenant = {tenant} AND id = :id AND revoked_at IS NULL;

-- name: use_token
UPDATE token SET used_at = :at WHERE tenant = {tenant} AND id = :id;

-- name: insert_session
INSERT INTO session (tenant, digest, account, created_at, seen_at, expires_at)
VALUES ({tenant}, :digest, :account, :created_at, :seen_at, :expires_at);

-- name: session_by_digest
SELECT digest, account, created_at, seen_at, expires_at FROM session
 WHERE tenant = {tenant} AND digest = :digest;

-- name: see_session
UPDATE session SET seen_at = :at WHERE tenant = {tenant} AND digest = :digest;

-- name: end_session
DELETE FROM session WHERE tenant = {tenant} AND digest = :digest;

-- name: end_sessions
DELETE FROM session INDEXED BY session_of_account WHERE tenant = {tenant} AND account = :account;

-- name: expire_sessions
DELETE FROM session WHERE tenant = {tenant} AND expires_at <= :now;

-- name: sign_in
SELECT failures, next_at FROM sign_in WHERE tenant = {tenant} AND digest = :digest;

-- name: save_sign_in
INSERT INTO sign_in (tenant, digest, failures, next_at)
VALUES ({tenant}, :digest, :failures, :next_at)
    ON CONFLICT (tenant, digest)
    DO UPDATE SET failures = excluded.failures, next_at = excluded.next_at;

-- name: forgive_sign_in
DELETE FROM sign_in WHERE tenant = {tenant} AND digest = :digest;

-- name: forget_sign_ins
DELETE FROM sign_in WHERE tenant = {tenant} AND next_at < :before;

-- name: audit_head
SELECT number, digest FROM audit_head WHERE tenant = {tenant};

-- name: insert_audit
-- columns: 10
INSERT INTO audit (tenant, number, at, actor, via, what, target, detail, previous, digest)
SELECT CASE column1 WHEN {tenant} THEN column1 END, column2, column3, column4, column5, column6,
       column7, column8, column9, column10
  FROM (VALUES {rows});

-- name: audit_oldest
SELECT number, at, actor, via, what, target, detail, previous, digest FROM audit
 WHERE tenant = {tenant} AND number > :after AND (:target IS NULL OR target = :target)
   AND (:actor IS NULL OR actor = :actor)
 ORDER BY number
 LIMIT :limit;

-- name: audit_newest
SELECT number, at, actor, via, what, target, detail, previous, digest FROM audit
 WHERE tenant = {tenant} AND number < :after AND (:target IS NULL OR target = :target)
   AND (:actor IS NULL OR actor = :actor)
 ORDER BY number DESC
 LIMIT :limit;

-- name: wrong_sessions
-- Like the next two, it reads whole tables, once a verify.
SELECT s.account, a.disabled_at FROM session AS s
  LEFT JOIN account AS a ON a.tenant = {tenant} AND a.name = s.account
 WHERE s.tenant = {tenant} AND (a.name IS NULL OR a.disabled_at IS NOT NULL)
 ORDER BY s.account
 LIMIT 100;

-- name: wrong_tokens
SELECT t.id, t.owner FROM token AS t
 WHERE t.tenant = {tenant} AND t.owner IS NOT NULL AND NOT EXISTS (
   SELECT 1 FROM account AS a WHERE a.tenant = {tenant} AND a.name = t.owner)
 ORDER BY t.id
 LIMIT 100;

-- name: wrong_grants
SELECT g.subject, g.role FROM role_grant AS g
 WHERE g.tenant = {tenant} AND g.subject LIKE 'user:%' AND NOT EXISTS (
   SELECT 1 FROM account AS a WHERE a.tenant = {tenant} AND a.name = substr(g.subject, 6))
 ORDER BY g.subject, g.role
 LIMIT 100;
