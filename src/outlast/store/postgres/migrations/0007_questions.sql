-- An index of what waits for people: the questions of parked executions, by recipient.
--
-- It says nothing that the executions' own rows do not say (detail.waits), and is kept by triggers,
-- so that no writer has to think of it. Only executions that park with a question, or leave such a
-- wait, touch it.

CREATE TABLE question (
  tenant bigint NOT NULL,
  execution_id text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  recipient text COLLATE "C",
  PRIMARY KEY (tenant, execution_id, key)
);

CREATE INDEX question_recipient ON question (tenant, recipient, execution_id)
  WHERE recipient IS NOT NULL;

CREATE FUNCTION question_asked() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.state = 'awaiting_input' THEN
    DELETE FROM question WHERE tenant = OLD.tenant AND execution_id = OLD.id;
  END IF;
  IF NEW.state = 'awaiting_input' THEN
    INSERT INTO question (tenant, execution_id, key, recipient)
    SELECT NEW.tenant, NEW.id, w ->> 'key', w ->> 'to'
      FROM json_array_elements(facts(NEW.detail) -> 'waits') AS w
     WHERE w ->> 'kind' = 'ask';
  END IF;
  RETURN NULL;
END
$$;

-- A row that is saved again may wait for something else.
CREATE TRIGGER question_asked AFTER UPDATE OF state, detail ON execution FOR EACH ROW
  WHEN ((NEW.state = 'awaiting_input' OR OLD.state = 'awaiting_input') AND NEW.seq <> OLD.seq)
  EXECUTE FUNCTION question_asked();

-- One that is born and parks in one batch is inserted as it is at the end.
CREATE TRIGGER question_asked_at_birth AFTER INSERT ON execution FOR EACH ROW
  WHEN (NEW.state = 'awaiting_input')
  EXECUTE FUNCTION question_asked();

-- What tokens are signed by, and the like; as safe as the store.
CREATE TABLE secret (
  tenant bigint NOT NULL,
  name text COLLATE "C" NOT NULL CHECK (name <> ''),
  value bytea NOT NULL,
  PRIMARY KEY (tenant, name)
);
