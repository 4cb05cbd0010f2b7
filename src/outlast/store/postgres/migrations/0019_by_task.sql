-- The newest executions of a task, also of one that has few among many, or none.

CREATE INDEX execution_by_task ON execution (task, tenant, id);
