"""The store on PostgreSQL, which many engines share."""
