-- Who depends on whom, and what executions that have ended owe to others.

-- An edge of a dependency, from the birth of the one that waits until one of the two is purged.
-- watched_id is whose end counts: upstream_id, or the execution as which that one goes on.
CREATE TABLE dependency (
  tenant INTEGER NOT NULL,
  execution_id TEXT NOT NULL,
  upstream_id TEXT NOT NULL,
  watched_id TEXT NOT NULL,
  PRIMARY KEY (tenant, execution_id, upstream_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX dependency_watched ON dependency (tenant, watched_id);

-- Written in the transaction that ends the source; run, and deleted, by a later sweep.
CREATE TABLE errand (
  number INTEGER PRIMARY KEY,
  tenant INTEGER NOT NULL,
  execution_id TEXT NOT NULL,
  what TEXT NOT NULL CHECK (what IN ('upstream', 'parent')),
  source_id TEXT NOT NULL,
  source_state TEXT NOT NULL CHECK (
    source_state IN ('succeeded', 'failed', 'timed_out', 'cancelled'))
) STRICT;

CREATE INDEX errand_next ON errand (tenant, number);
