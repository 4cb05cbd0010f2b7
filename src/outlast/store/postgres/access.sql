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
UPDATE account SET disabled_at = :at::bigint
 WHERE tenant = {tenant} AND name = :name AND (disabled_at IS NULL) <> (:at::bigint IS NULL);

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
 WHERE tenant = {tenant} AND subject IN (SELECT json_array_elements_text(:subjects::json))
 ORDER BY subject, role, task;

-- name: insert_token
INSERT INTO token (tenant, id, digest, name, owner, grants, created_at, created_by, expires_at)
VALUES ({tenant}, :id, :digest, :name, :owner::text, :grants, :created_at, :created_by, :expires_at::bigint)
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
DELETE FROM session WHERE tenant = {tenant} AND account = :account;

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
-- types: bigint bigint bigint text text text text text bytea bytea
-- In the order of their numbers: each must follow from the one before.
INSERT INTO audit (tenant, number, at, actor, via, what, target, detail, previous, digest)
SELECT CASE v.column1 WHEN {tenant} THEN v.column1 END, v.column2, v.column3, v.column4, v.column5,
       v.column6, v.column7, v.column8, v.column9, v.column10
  FROM {rows}
 ORDER BY v.column2;

-- name: audit_oldest
SELECT number, at, actor, via, what, target, detail, previous, digest FROM audit
 WHERE tenant = {tenant} AND number > :after AND (:target::text IS NULL OR target = :target::text)
   AND (:actor::text IS NULL OR actor = :actor::text)
 ORDER BY number
 LIMIT nullif(:limit, -1);

-- name: audit_newest
SELECT number, at, actor, via, what, target, detail, previous, digest FROM audit
 WHERE tenant = {tenant} AND number < :after AND (:target::text IS NULL OR target = :target::text)
   AND (:actor::text IS NULL OR actor = :actor::text)
 ORDER BY number DESC
 LIMIT nullif(:limit, -1);

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

-- name: lock_sign_ins
-- types: text
-- By name, as the first attempt finds no row that it could lock.
SELECT pg_advisory_xact_lock(
         hashtextextended('outlast sign_in {tenant} ' || current_schema() || ' ' || v.column1, 1))
  FROM {rows};

-- name: lock_audit
-- types: text
-- The head: who has it is the only one who appends.
SELECT h.number FROM audit_head AS h, {rows}
 WHERE h.tenant = {tenant}
   FOR UPDATE OF h;
