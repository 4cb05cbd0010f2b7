-- What executions hand out while they run: streams of values, and how far they are.
--
-- Neither is part of the log, as nothing is decided by it. An item is written with the next row of
-- its execution or before it, and never changes.

-- step '' is the task's own code, attempt the how-manieth try of the task or step, lease the fence
-- under which a step's body ran (0 for task code, which says the same again in every replay).
CREATE TABLE stream_item (
  tenant bigint NOT NULL,
  execution_id text COLLATE "C" NOT NULL,
  name text COLLATE "C" NOT NULL,
  number bigint NOT NULL CHECK (number >= 1),
  step text COLLATE "C" NOT NULL,
  attempt bigint NOT NULL CHECK (attempt >= 1),
  lease bigint NOT NULL CHECK (lease >= 0),
  part bigint NOT NULL CHECK (part >= 1),
  at bigint NOT NULL,
  payload bytea NOT NULL,
  PRIMARY KEY (tenant, execution_id, name, number)
);

-- What was said is there once, however often it is said again.
CREATE UNIQUE INDEX stream_item_once
    ON stream_item (tenant, execution_id, name, step, attempt, lease, part);

-- GUARD: a stream is numbered without a gap, and only grows.
CREATE FUNCTION stream_item_successor() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
  PERFORM refuse('a stream is numbered without a gap')
    FROM new_row AS n
   WHERE n.number > 1 AND (
    SELECT p.number FROM stream_item AS p
     WHERE p.tenant = n.tenant AND p.execution_id = n.execution_id AND p.name = n.name
       AND p.number = n.number - 1) IS NULL;
  RETURN NULL;
END
$$;

CREATE TRIGGER stream_item_successor AFTER INSERT ON stream_item
  REFERENCING NEW TABLE AS new_row
  FOR EACH STATEMENT EXECUTE FUNCTION stream_item_successor();

CREATE TRIGGER stream_item_frozen BEFORE UPDATE OR TRUNCATE ON stream_item
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('a stream only grows');

CREATE TRIGGER stream_item_kept AFTER DELETE ON stream_item
  REFERENCING OLD TABLE AS old_row
  FOR EACH STATEMENT EXECUTE FUNCTION kept('streams are deleted by a purge only');

-- The latest that an execution said of how far it is; step '' is the task's own code.
CREATE TABLE progress (
  tenant bigint NOT NULL,
  execution_id text COLLATE "C" NOT NULL,
  at bigint NOT NULL,
  done double precision NOT NULL,
  total double precision,
  text text,
  step text COLLATE "C" NOT NULL,
  PRIMARY KEY (tenant, execution_id)
) WITH (fillfactor = 50);
