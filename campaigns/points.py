"""Named places to die at, put into the engine from outside, in the child that shall die there.

Nothing of this is in the package: a child that is to die at a point replaces a few functions before
it opens its engine. A function that is no longer there is an error, not a point that never comes.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

_armed: Final[dict[str, int]] = {}
_told: Final[list[Callable[[str], None]]] = []


def hit(name: str) -> None:
    """Die here, if this is the place and the time has come."""
    left = _armed.get(name)
    if left is None:
        return
    _armed[name] = left - 1
    if left == 1:
        _told[0](name)
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()


def arm(name: str, nth: int, tell: Callable[[str], None]) -> None:
    """Have this process die when it comes to a point for the nth time.

    Raises:
        KeyError: there is no such point.
    """
    _armed[name] = nth
    _told[:] = [tell]
    place = POINTS[name]
    if place is not None:
        place(name)


def _before(owner: str, method: str) -> Callable[[str], None]:
    return functools.partial(_wrap, owner, method, True)


def _after(owner: str, method: str) -> Callable[[str], None]:
    return functools.partial(_wrap, owner, method, False)


def _wrap(owner: str, method: str, before: bool, name: str) -> None:
    module, _, cls = owner.partition(":")
    home: Any = importlib.import_module(f"outlast.{module}")
    if cls:
        home = getattr(home, cls)
    original = getattr(home, method)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            hit(name)
        result = original(*args, **kwargs)
        if not before:
            hit(name)
        return result

    setattr(home, method, wrapped)


def _in_transaction(place: str) -> Callable[[str], None]:
    """Put the point right after BEGIN, right before COMMIT, or right after it."""

    def install(name: str) -> None:
        module: Any = importlib.import_module("outlast.store.sqlite.database")
        original = module.immediate

        @contextmanager
        def immediate(connection: Any) -> Iterator[None]:
            with original(connection):
                if place == "begun":
                    hit(name)
                yield
                if place == "ending":
                    hit(name)
            if place == "committed":
                hit(name)

        module.immediate = immediate

    return install


_STORE: Final = "store.sqlite.store:SqliteStore"
_DRIVER: Final = "engine.drive.driver:Driver"
_ATTEMPTS: Final = "engine.drive.attempts:Attempts"

POINTS: Final[dict[str, Callable[[str], None] | None]] = {
    "open.before_migrate": _before("store.sqlite.database", "migrate"),
    "open.after_migrate": _after("store.sqlite.database", "migrate"),
    "transaction.begun": _in_transaction("begun"),
    "transaction.between_statements": _after("store.sqlite.database:SqliteDatabase", "send"),
    "transaction.before_commit": _in_transaction("ending"),
    "transaction.committed": _in_transaction("committed"),
    "batch.before": _before("engine.write.journal:Journal", "_write_batch"),
    "batch.committed": _after(_STORE, "commit"),
    "batch.before_settle": _before("engine.write.journal:Journal", "_settle"),
    "batch.settled": _after("engine.write.journal:Journal", "_settle"),
    "recover.committed": _after(_STORE, "recover"),
    "sweep.done": _after(_STORE, "sweep"),
    "claim.committed": _after(_STORE, "claim"),
    "claim.before_start": _before("engine.drive.worker:Worker", "_take"),
    "replay.before": _before(_DRIVER, "replay"),
    "replay.after": _after(_DRIVER, "replay"),
    "birth.before_begin": _before(_DRIVER, "begin"),
    "body.before": _before(_ATTEMPTS, "_start"),
    "body.began": None,
    "body.ended": None,
    "body.before_row": _before(_ATTEMPTS, "body_done"),
    "retry.noted": _after(_ATTEMPTS, "_try_again"),
    "park.before": _before(_DRIVER, "_park"),
    "park.after": _after(_DRIVER, "_park"),
    "message.taken": _after(_DRIVER, "_take"),
    "end.before": _before(_DRIVER, "_end"),
    "end.after": _after(_DRIVER, "_end"),
    "stop.before_hand_back": _before(_DRIVER, "hand_back"),
    "stop.handed_back": _after(_DRIVER, "hand_back"),
}
"""Every point, and how it is put in place; those without one are in :mod:`campaigns.programs`."""
