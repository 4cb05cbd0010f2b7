-- The store's own keys, by which payloads are sealed; each wrapped by a key that is not in here.

-- whole: nothing in the store is plain any more, so that what is plain is refused.
CREATE TABLE data_key (
  tenant INTEGER NOT NULL,
  number INTEGER NOT NULL CHECK (number >= 1),
  key_id TEXT NOT NULL CHECK (key_id <> ''),
  wrapped BLOB NOT NULL CHECK (length(wrapped) = 60),
  whole INTEGER NOT NULL CHECK (whole IN (0, 1)),
  created_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, number)
) STRICT, WITHOUT ROWID;

-- GUARD: what is sealed by a data key is lost without it.
CREATE TRIGGER data_key_kept BEFORE DELETE ON data_key
BEGIN
  SELECT RAISE(ABORT, 'guard: a data key is kept for good');
END;

CREATE TRIGGER data_key_frozen BEFORE UPDATE OF tenant, number, created_at ON data_key
BEGIN
  SELECT RAISE(ABORT, 'guard: a data key is wrapped anew, and stays the same');
END;

CREATE TRIGGER data_key_next BEFORE INSERT ON data_key
WHEN NEW.number <> 1 + coalesce((SELECT max(k.number) FROM data_key AS k WHERE k.tenant = NEW.tenant), 0)
BEGIN
  SELECT RAISE(ABORT, 'guard: data keys are numbered without a gap');
END;
