"""The store in memory: the oracle that the others are compared with."""

from outlast.store.memory.store import MemoryStore

__all__ = ["MemoryStore"]
