-- The feed: every row of every log in one order, for those who follow all executions.
--
-- It is kept only while somebody asks for it: nobody else pays for it. It names rows of logs, and
-- is none: what it says is read there. Numbers come in the order of commits, as one writes at a time.

-- exporter is who hands all of it on, until when that is certain, and exported how far it has come.
-- name is drawn when it is begun; pruned is the last position that is kept no more. settled and
-- writer are for databases where several write.
CREATE TABLE feed_state (
  tenant INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  since INTEGER NOT NULL,
  read_at INTEGER NOT NULL,
  settled INTEGER NOT NULL,
  pruned INTEGER NOT NULL,
  writer INTEGER NOT NULL,
  exporter TEXT,
  exporter_until INTEGER,
  exported INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE feed (
  number INTEGER PRIMARY KEY,
  position INTEGER GENERATED ALWAYS AS (number) VIRTUAL,
  tenant INTEGER NOT NULL,
  execution_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  at INTEGER NOT NULL
) STRICT;

CREATE TRIGGER transition_fed AFTER INSERT ON transition
WHEN EXISTS (SELECT 1 FROM feed_state AS s WHERE s.tenant = NEW.tenant)
BEGIN
  INSERT INTO feed (tenant, execution_id, seq, at)
  VALUES (NEW.tenant, NEW.execution_id, NEW.seq, NEW.at);
END;
