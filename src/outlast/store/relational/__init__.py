"""The verbs of the protocol for any SQL database; what is a backend's own is behind a seam.

``database.py`` is the seam. A backend has a :class:`Database`, a file of named statements for each
topic, with the same names in every backend, and its migrations.
"""

from outlast.store.relational.database import Database, Reader, Rows
from outlast.store.relational.store import RelationalStore

__all__ = ["Database", "Reader", "RelationalStore", "Rows"]
