-- The store's own keys, by which payloads are sealed; each wrapped by a key that is not in here.

-- whole: nothing in the store is plain any more, so that what is plain is refused.
CREATE TABLE data_key (
  tenant bigint NOT NULL,
  number bigint NOT NULL CHECK (number >= 1),
  key_id text COLLATE "C" NOT NULL CHECK (key_id <> ''),
  wrapped bytea NOT NULL CHECK (length(wrapped) = 60),
  whole bigint NOT NULL CHECK (whole IN (0, 1)),
  created_at bigint NOT NULL,
  PRIMARY KEY (tenant, number)
);

-- GUARD: what is sealed by a data key is lost without it.
CREATE TRIGGER data_key_kept BEFORE DELETE OR TRUNCATE ON data_key
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('a data key is kept for good');

CREATE TRIGGER data_key_frozen BEFORE UPDATE OF tenant, number, created_at ON data_key
  FOR EACH STATEMENT EXECUTE FUNCTION refuse('a data key is wrapped anew, and stays the same');

CREATE FUNCTION data_key_next() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF NEW.number <> 1 + coalesce((SELECT max(k.number) FROM data_key AS k
                                  WHERE k.tenant = NEW.tenant), 0) THEN
    PERFORM refuse('data keys are numbered without a gap');
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER data_key_next BEFORE INSERT ON data_key
  FOR EACH ROW EXECUTE FUNCTION data_key_next();
