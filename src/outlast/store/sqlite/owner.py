"""One engine for each tenant of a file: the lock that says which process owns it.

A POSIX record lock on a file beside the database: it dies with its process, whatever kills it, and
no forked child inherits it (a ``flock`` would live on in one). Having it proves that every earlier
lease is dead. Its one weakness: the kernel drops it when this process closes *any* descriptor of
that file, so the file is opened in this module only, and never twice by one process.

What an owner has seen of the database stands in that file too, as a *witness*: where an older copy
was put in the place of the database, the next owner finds that it has gone back.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from outlast.errors import StoreOwned, StoreReadOnly

_held: Final[dict[str, int]] = {}
"""The locks held here, with the process that took them: a forked child has none of them."""
_held_lock: Final = threading.Lock()


class OwnerLock:
    """The exclusive right to run executions of one tenant in one database file."""

    def __init__(self, database: Path, tenant: int = 1) -> None:
        self._path = _path_of(database, tenant)
        self._descriptor: int | None = None
        self._said: dict[str, Any] = {}

    def acquire(self, worker: str) -> None:
        """Take the lock.

        Raises:
            StoreOwned: another engine has it; the text says which process.
        """
        with _held_lock:
            if _held.get(self._path) == os.getpid():
                raise _owned(self._path, "this very process")
            try:
                descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except PermissionError as error:
                raise StoreReadOnly(f"no right to write {self._path}", why=str(error)) from error
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                said = os.pread(descriptor, 4096, 0)
                os.close(descriptor)
                raise _owned(self._path, _describe(said)) from error
            self._said = {
                "pid": os.getpid(),
                "host": os.uname().nodename,
                "worker": worker,
                "since": round(time.time()),
                "witness": _witness(os.pread(descriptor, 4096, 0)),
            }
            _held[self._path] = os.getpid()
            self._descriptor = descriptor
            self._write(self._said)

    @property
    def witness(self) -> dict[str, Any] | None:
        """What the last owner has seen of the database; None where that is not known."""
        witness: dict[str, Any] | None = self._said.get("witness")
        return witness

    def keep(self, witness: Mapping[str, Any]) -> None:
        """Keep what is seen of the database for the next owner."""
        self._said["witness"] = dict(witness)
        self._write(self._said)

    def _write(self, said: Mapping[str, Any]) -> None:
        if self._descriptor is not None:
            text = json.dumps(said).encode()
            os.pwrite(self._descriptor, text, 0)
            os.ftruncate(self._descriptor, len(text))

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        with _held_lock:
            if self._descriptor is not None and _held.get(self._path) == os.getpid():
                self._write({"witness": self.witness})
                os.close(self._descriptor)
                del _held[self._path]
            self._descriptor = None


@contextmanager
def all_locks(database: Path, tenants: Iterable[int], worker: str) -> Iterator[None]:
    """Have the locks of several tenants: nobody runs executions of any of them.

    Raises:
        StoreOwned: an engine has one of them.
    """
    with ExitStack() as stack:
        for tenant in sorted(tenants):
            lock = OwnerLock(database, tenant)
            lock.acquire(worker)
            stack.callback(lock.release)
        yield


def _path_of(database: Path, tenant: int) -> str:
    return f"{database.resolve()}.owner" + ("" if tenant == 1 else f"-{tenant}")


def owner_of(database: Path, tenant: int = 1) -> str | None:
    """Say which process owns a tenant of a database, as a phrase, or None when no engine does."""
    path = _path_of(database, tenant)
    with _held_lock:
        if _held.get(path) == os.getpid():
            return "this very process"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return _describe(os.pread(descriptor, 4096, 0))
        finally:
            os.close(descriptor)
        return None


def _witness(said: bytes) -> dict[str, Any] | None:
    """Read what the last owner has seen, however it ended."""
    try:
        witness = json.loads(said)["witness"]
    except (ValueError, KeyError, TypeError):
        return None
    return witness if isinstance(witness, dict) else None


def _describe(said: bytes) -> str:
    try:
        owner = json.loads(said)
        minutes = max(0, round((time.time() - owner["since"]) / 60))
        return f"process {owner['pid']} on {owner['host']}, since {minutes} min"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _owned(path: str, who: str) -> StoreOwned:
    return StoreOwned(
        f"another engine owns {path.rpartition('.owner')[0]}",
        why=f"its lock is held by {who}",
        do="use that engine (outlast start, watch, answer and cancel work beside it), or stop it",
    )
