-- What has ended is counted, for whoever looks at numbers, and a page of one state in which it ended is
-- read; by an index, never by the rows.

CREATE INDEX execution_ended ON execution (tenant, state, id)
  WHERE state = 'succeeded' OR state = 'failed' OR state = 'timed_out' OR state = 'cancelled';
