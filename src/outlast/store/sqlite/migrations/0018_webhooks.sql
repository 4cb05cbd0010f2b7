-- Webhooks by filter: URLs that are told of what happens, how far that was done, each delivery.
--
-- terms are what people say of one: the URL, what it is about, what it is for; sealed where payloads
-- are. It has come to a position of a feed. Deliveries name rows of logs, and have none of their text.

CREATE TABLE webhook (
  tenant INTEGER NOT NULL,
  id TEXT NOT NULL,
  revision INTEGER NOT NULL CHECK (revision >= 1),
  state TEXT NOT NULL CHECK (state IN ('active', 'paused', 'disabled')),
  terms TEXT NOT NULL,
  secret_version INTEGER NOT NULL CHECK (secret_version >= 1),
  former_until INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  feed TEXT NOT NULL,
  position INTEGER NOT NULL,
  numbered INTEGER NOT NULL DEFAULT 0,
  failing_since INTEGER,
  PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE webhook_delivery (
  tenant INTEGER NOT NULL,
  webhook_id TEXT NOT NULL,
  number INTEGER NOT NULL CHECK (number >= 1),
  kind TEXT NOT NULL CHECK (kind IN ('transition', 'gap', 'ping')),
  execution_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
  attempts INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  next_at INTEGER NOT NULL,
  tried_at INTEGER,
  status INTEGER,
  error TEXT,
  PRIMARY KEY (tenant, webhook_id, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX webhook_delivery_pending ON webhook_delivery (tenant, webhook_id, execution_id, number)
  WHERE state = 'pending';

CREATE INDEX webhook_delivery_over ON webhook_delivery (tenant, created_at) WHERE state <> 'pending';

-- Who delivers, and until when nobody else does.
CREATE TABLE webhook_sender (
  tenant INTEGER PRIMARY KEY,
  holder TEXT NOT NULL,
  until INTEGER NOT NULL
) STRICT;

CREATE TRIGGER webhook_stays BEFORE UPDATE OF tenant ON webhook
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER webhook_delivery_stays BEFORE UPDATE OF tenant ON webhook_delivery
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER webhook_sender_stays BEFORE UPDATE OF tenant ON webhook_sender
WHEN NEW.tenant <> OLD.tenant
BEGIN SELECT RAISE(ABORT, 'guard: a row stays with its tenant'); END;

CREATE TRIGGER webhook_belongs BEFORE INSERT ON webhook
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

CREATE TRIGGER webhook_sender_belongs BEFORE INSERT ON webhook_sender
WHEN NOT EXISTS (SELECT 1 FROM tenant AS o WHERE o.number = NEW.tenant)
BEGIN SELECT RAISE(ABORT, 'guard: there is no such tenant'); END;

-- GUARD: what is delivered is a webhook's of the same tenant.
CREATE TRIGGER webhook_delivery_inside BEFORE INSERT ON webhook_delivery
WHEN NEW.number > coalesce(
  (SELECT w.numbered FROM webhook AS w WHERE w.tenant = NEW.tenant AND w.id = NEW.webhook_id), 0)
BEGIN SELECT RAISE(ABORT, 'guard: a delivery is numbered by its webhook'); END;
