-- Webhooks by filter: URLs that are told of what happens, how far that was done, each delivery.
--
-- terms are what people say of one: the URL, what it is about, what it is for; sealed where payloads
-- are. It has come to a position of a feed. Deliveries name rows of logs, and have none of their text.

CREATE TABLE webhook (
  tenant bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  revision bigint NOT NULL CHECK (revision >= 1),
  state text COLLATE "C" NOT NULL CHECK (state IN ('active', 'paused', 'disabled')),
  terms text NOT NULL,
  secret_version bigint NOT NULL CHECK (secret_version >= 1),
  former_until bigint,
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL,
  feed text COLLATE "C" NOT NULL,
  position bigint NOT NULL,
  numbered bigint NOT NULL DEFAULT 0,
  failing_since bigint,
  PRIMARY KEY (tenant, id)
);

CREATE TABLE webhook_delivery (
  tenant bigint NOT NULL,
  webhook_id text COLLATE "C" NOT NULL,
  number bigint NOT NULL CHECK (number >= 1),
  kind text COLLATE "C" NOT NULL CHECK (kind IN ('transition', 'gap', 'ping')),
  execution_id text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  state text COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
  attempts bigint NOT NULL DEFAULT 0,
  created_at bigint NOT NULL,
  next_at bigint NOT NULL,
  tried_at bigint,
  status bigint,
  error text,
  PRIMARY KEY (tenant, webhook_id, number)
);

CREATE INDEX webhook_delivery_pending ON webhook_delivery (tenant, webhook_id, execution_id, number)
  WHERE state = 'pending';

CREATE INDEX webhook_delivery_over ON webhook_delivery (tenant, created_at) WHERE state <> 'pending';

-- Who delivers, and until when nobody else does.
CREATE TABLE webhook_sender (
  tenant bigint PRIMARY KEY,
  holder text COLLATE "C" NOT NULL,
  until bigint NOT NULL
);

CREATE TRIGGER webhook_stays BEFORE UPDATE ON webhook FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER webhook_delivery_stays BEFORE UPDATE ON webhook_delivery FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER webhook_sender_stays BEFORE UPDATE ON webhook_sender FOR EACH ROW
  WHEN (NEW.tenant <> OLD.tenant)
  EXECUTE FUNCTION refuse('a row stays with its tenant');

CREATE TRIGGER webhook_belongs BEFORE INSERT ON webhook
  FOR EACH ROW EXECUTE FUNCTION belongs();

CREATE TRIGGER webhook_sender_belongs BEFORE INSERT ON webhook_sender
  FOR EACH ROW EXECUTE FUNCTION belongs();

-- GUARD: what is delivered is a webhook's of the same tenant.
CREATE FUNCTION webhook_delivery_inside() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF NEW.number > coalesce(
    (SELECT w.numbered FROM webhook AS w WHERE w.tenant = NEW.tenant AND w.id = NEW.webhook_id), 0)
  THEN
    PERFORM refuse('a delivery is numbered by its webhook');
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER webhook_delivery_inside BEFORE INSERT ON webhook_delivery
  FOR EACH ROW EXECUTE FUNCTION webhook_delivery_inside();

-- The second wall (0015_walls.sql).
ALTER TABLE webhook ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON webhook USING (tenant = (
  SELECT nullif(current_setting('outlast.tenant', true), '')::bigint));
ALTER TABLE webhook_delivery ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON webhook_delivery USING (tenant = (
  SELECT nullif(current_setting('outlast.tenant', true), '')::bigint));
ALTER TABLE webhook_sender ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON webhook_sender USING (tenant = (
  SELECT nullif(current_setting('outlast.tenant', true), '')::bigint));
