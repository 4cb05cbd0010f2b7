-- What ended badly is what people look for, and it is rare: a page of it is read along an index of its
-- own, whatever number has succeeded; and who succeeds pays nothing for it.
CREATE INDEX execution_unhappy ON execution (tenant, state, id)
  WHERE state = 'failed' OR state = 'timed_out' OR state = 'cancelled';
