"""The store in a PostgreSQL database, for any number of processes on any number of machines."""

from outlast.store.postgres.address import Address
from outlast.store.postgres.borrowed import inside_of
from outlast.store.postgres.migrate import place_in, prepare, script_of
from outlast.store.postgres.side import PostgresSide
from outlast.store.postgres.store import PostgresStore

__all__ = [
    "Address",
    "PostgresSide",
    "PostgresStore",
    "inside_of",
    "place_in",
    "prepare",
    "script_of",
]
