-- An index of what waits for people: the questions of parked executions, by recipient.
--
-- It says nothing that the executions' own rows do not say (detail.waits), and is kept by triggers,
-- so that no writer has to think of it. Only executions that park with a question, or leave such a
-- wait, touch it.

CREATE TABLE question (
  tenant INTEGER NOT NULL,
  execution_id TEXT NOT NULL,
  key TEXT NOT NULL,
  recipient TEXT,
  PRIMARY KEY (tenant, execution_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX question_recipient ON question (tenant, recipient, execution_id)
  WHERE recipient IS NOT NULL;

-- One trigger for both ways, as each that is looked at costs every end of an execution a microsecond.
CREATE TRIGGER question_asked AFTER UPDATE OF state ON execution
WHEN NEW.state = 'awaiting_input' OR OLD.state = 'awaiting_input'
BEGIN
  DELETE FROM question WHERE tenant = NEW.tenant AND execution_id = NEW.id;
  INSERT INTO question (tenant, execution_id, key, recipient)
  SELECT NEW.tenant, NEW.id, w.value ->> '$.key', w.value ->> '$.to'
    FROM json_each(NEW.detail, '$.waits') AS w
   WHERE NEW.state = 'awaiting_input' AND w.value ->> '$.kind' = 'ask';
END;

-- One that is born and parks in one batch is inserted as it is at the end.
CREATE TRIGGER question_asked_at_birth AFTER INSERT ON execution
WHEN NEW.state = 'awaiting_input'
BEGIN
  INSERT INTO question (tenant, execution_id, key, recipient)
  SELECT NEW.tenant, NEW.id, w.value ->> '$.key', w.value ->> '$.to'
    FROM json_each(NEW.detail, '$.waits') AS w
   WHERE w.value ->> '$.kind' = 'ask';
END;

-- What tokens are signed by, and the like; as safe as the store.
CREATE TABLE secret (
  tenant INTEGER NOT NULL,
  name TEXT NOT NULL CHECK (name <> ''),
  value BLOB NOT NULL,
  PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
