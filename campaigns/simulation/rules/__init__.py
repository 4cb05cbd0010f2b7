"""What must be true of every write and every start of a body, by topic."""
