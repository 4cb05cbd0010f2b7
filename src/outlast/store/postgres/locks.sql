-- name: lock_executions
-- types: text
-- Heads first, in the order of ids, so that no two batches wait for each other in a circle
-- (docs/decisions/0023). One that is not there is nobody's.
SELECT count(*) FROM (
  SELECT 1 FROM execution
   WHERE tenant = {tenant} AND id = ANY (ARRAY(SELECT v.column1 FROM {rows}))
   ORDER BY id
     FOR NO KEY UPDATE) AS locked;

-- name: lock_schedules
-- types: text
-- By name, in order, and not by row: two who make the same schedule must not find none both.
SELECT count(pg_advisory_xact_lock(
         hashtextextended('outlast schedule {tenant} ' || current_schema() || ' ' || s.name, 1)))
  FROM (SELECT v.column1 AS name FROM {rows} ORDER BY v.column1) AS s;

-- name: lock_gates
-- Who changes a holder or a line has the same lock shared, by the triggers.
SELECT pg_advisory_xact_lock(hashtextextended('outlast gates {tenant} ' || current_schema(), 1));

-- name: lock_feed
-- Who has this row gives positions, and nobody else: so they are there in their order.
SELECT settled FROM feed_state WHERE tenant = {tenant} FOR UPDATE;

-- name: settle_feed
-- What can be seen, in the order it was written in: of one execution that is the order of its log,
-- as each of its rows was written after the one before it was committed.
UPDATE feed AS f
   SET position = :settled + n.place
  FROM (
    SELECT u.number, row_number() OVER (ORDER BY u.number) AS place
      FROM (
        SELECT number FROM feed
         WHERE tenant = {tenant} AND position IS NULL
         ORDER BY number
         LIMIT :limit) AS u) AS n
 WHERE f.tenant = {tenant} AND f.number = n.number;

-- name: note_settled
UPDATE feed_state SET settled = settled + :count WHERE tenant = {tenant};

-- name: lock_gates_shared
-- The same as the triggers take, but before budgets (docs/decisions/0023).
SELECT pg_advisory_xact_lock_shared(
         hashtextextended('outlast gates {tenant} ' || current_schema(), 1));

-- name: lock_queues
-- Who sets a queue waits for the claims that are under way, which have the same lock shared.
SELECT pg_advisory_xact_lock(hashtextextended('outlast queues {tenant} ' || current_schema(), 1));

-- name: lock_queues_shared
SELECT pg_advisory_xact_lock_shared(
         hashtextextended('outlast queues {tenant} ' || current_schema(), 1));

-- name: sleeping_guards
-- Triggers of this schema that somebody has turned off.
SELECT t.tgname
  FROM pg_trigger AS t
  JOIN pg_class AS c ON c.oid = t.tgrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = current_schema() AND NOT t.tgisinternal AND t.tgenabled = 'D'
 ORDER BY t.tgname;

-- name: whereabouts
-- Which tables these are: the same for two connections only where they lead to the same place.
SELECT EXTRACT(EPOCH FROM pg_postmaster_start_time())::text,
       (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())::bigint,
       to_regclass('execution')::oid::bigint;

-- name: lock_epoch
SELECT pg_advisory_xact_lock(hashtextextended('outlast epoch {tenant} ' || current_schema(), 1));

-- name: sight
-- Whose history this is: the cluster, its timeline (the control file tells it only from the next
-- checkpoint on), and the tables themselves, which a restored dump makes anew.
SELECT (SELECT c.system_identifier FROM pg_control_system() AS c)::text,
       substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
       (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())::bigint,
       to_regclass('execution')::oid::bigint, instant();

-- name: sight_without_control
-- The same for a role that may not read the control file.
SELECT NULL::text, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
       (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())::bigint,
       to_regclass('execution')::oid::bigint, instant();

-- name: sight_of_tables
-- The same for one that may not even ask for the timeline.
SELECT NULL::text, NULL::text,
       (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())::bigint,
       to_regclass('execution')::oid::bigint, instant();

-- name: keeping
-- What a commit waits for. Outlast turns off into on for each of its transactions.
SELECT current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
       (SELECT count(*) FROM pg_stat_replication AS r),
       (SELECT count(*) FROM pg_stat_replication AS r WHERE r.sync_state IN ('sync', 'quorum'));
