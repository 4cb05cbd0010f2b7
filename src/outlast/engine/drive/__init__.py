"""A leased execution, driven: between its code, its steps' bodies and the journal."""
