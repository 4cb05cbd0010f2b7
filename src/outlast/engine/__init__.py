"""The engine: it claims executions, runs their code, and writes what comes of it."""
