"""Who acts from outside: what is changed in somebody's name goes into the audit, with the change.

The command line and the server say who acts (:func:`acting`); where an engine or a guest makes an
item of it, the item is signed. Executions act in nobody's name: their logs tell what they do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.store.protocol import Adjust, Create, CreateMany, Deliver

    I = TypeVar("I", bound=Create | CreateMany | Deliver | Adjust)  # noqa: E741 - an item

_who: ContextVar[tuple[str, str, str] | None] = ContextVar("outlast_acting", default=None)


@contextmanager
def acting(by: str, via: str, what: str) -> Iterator[None]:
    """Sign what this block changes, and the coroutines and calls that it makes.

    Args:
        by: who acts.
        via: the door.
        what: the door's own word for it.
    """
    before = _who.set((by, via, what))
    try:
        yield
    finally:
        _who.reset(before)


def act(by: str, via: str, what: str) -> None:
    """Sign what this context changes from now on; for a process that does one thing."""
    _who.set((by, via, what))


def is_acting() -> bool:
    """Tell whether somebody acts from outside."""
    return _who.get() is not None


def deed() -> Deed | None:
    """Give the deed of whoever acts, or None."""
    who = _who.get()
    if who is None:
        return None
    from outlast.access.audit import Deed

    return Deed(*who, time.time_ns() // 1000)


def signed(item: I) -> I:
    """Give an item back, with the deed of whoever acts."""
    if _who.get() is not None:
        item.deed = deed()
    return item


__all__ = ["act", "acting", "deed", "is_acting", "signed"]
