-- GUARD: once a tenant has a data key, no payload of it is written in the clear: also not by whoever
-- had opened the store before, without keys.
CREATE FUNCTION written_sealed() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM data_key) AND EXISTS (
    SELECT 1 FROM new_row AS n
     WHERE n.payload IS NOT NULL AND substr(n.payload, 1, 1) <> E'\\xc1'
       AND EXISTS (SELECT 1 FROM data_key AS k WHERE k.tenant = n.tenant))
  THEN
    RAISE EXCEPTION USING ERRCODE = 'OL002', MESSAGE = 'payloads of this store are sealed';
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER transition_sealed AFTER INSERT ON transition
  REFERENCING NEW TABLE AS new_row
  FOR EACH STATEMENT EXECUTE FUNCTION written_sealed();

CREATE TRIGGER inbox_sealed AFTER INSERT ON inbox
  REFERENCING NEW TABLE AS new_row
  FOR EACH STATEMENT EXECUTE FUNCTION written_sealed();

CREATE TRIGGER stream_item_sealed AFTER INSERT ON stream_item
  REFERENCING NEW TABLE AS new_row
  FOR EACH STATEMENT EXECUTE FUNCTION written_sealed();
