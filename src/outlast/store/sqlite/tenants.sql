-- name: tenants
-- Like the next three, it knows no tenant: tenants are what all else belongs to.
SELECT number, name, created_at, closed_at FROM tenant ORDER BY number;

-- name: tenant_by_name
SELECT number, name, created_at, closed_at FROM tenant WHERE name = :name;

-- name: insert_tenant
INSERT INTO tenant (number, name, created_at)
SELECT max(number) + 1, :name, :created_at FROM tenant WHERE TRUE
    ON CONFLICT (name) DO NOTHING;

-- name: set_closed
UPDATE tenant SET closed_at = :at
 WHERE name = :name AND number > 1 AND (closed_at IS NULL) <> (:at IS NULL);
