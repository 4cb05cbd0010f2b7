"""From a wish to a durable row: requests, the owner's side of a log, and the journal."""
