-- Row-level security is PostgreSQL's; a file has no roles. The number is the same in both.
SELECT 1;
