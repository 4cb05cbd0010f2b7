"""The short form of the suite, for variants of a store: each verb at least once, by their list.

The verbs are those of the protocol; a test calls what its text names, or that of a helper beside
it. Of each verb the first test is taken that calls it: so a new one cannot be forgotten.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any, Final

from outlast.store import protocol

OFFICES: Final = {
    "access": protocol.Access,
    "capacity": protocol.Capacity,
    "epochs": protocol.Epochs,
    "feed": protocol.Feed,
    "schedules": protocol.Schedules,
    "tenants": protocol.Tenants,
    "webhooks": protocol.Webhooks,
}
"""The parts of a store that have verbs of their own; ``sealing`` is there where it is encrypted."""


def verbs() -> set[str]:
    """Name every verb: ``claim``, ``capacity.set_queue``."""
    own = set(_methods(protocol.Store))
    return own | {f"{office}.{name}" for office, one in OFFICES.items() for name in _methods(one)}


def _methods(of: type) -> list[str]:
    return [name for name, one in vars(of).items() if inspect.isfunction(one) and name[0] != "_"]


VERBS: Final = frozenset(verbs())
STORES: Final = ("store", "other", "one", "two", "beside", "twin")
"""How tests call stores."""
ALIASES: Final = {"hooks": "webhooks"}
"""And offices."""


def called_by(test: Callable[..., Any]) -> set[str]:
    """Name the verbs that a test calls, by itself or by helpers of its module."""
    module = vars(sys.modules[test.__module__])
    text = inspect.getsource(test)
    for name in sorted(set(re.findall(r"\b(\w+)\(", text))):
        helper = module.get(name)
        if inspect.isfunction(helper):
            text += inspect.getsource(helper)
    pairs = {(ALIASES.get(of, of), name) for of, name in re.findall(r"(\w+)\.(\w+)\(", text)}
    own = {name for of, name in pairs if of in STORES}
    return {verb for verb in VERBS if verb in own or tuple(verb.split(".")) in pairs}


def chosen(suite: type) -> dict[str, Callable[..., Any]]:
    """Choose tests of a suite that call all verbs that any of them calls."""
    found: dict[str, Callable[..., Any]] = {}
    left = set(VERBS)
    for part in suite.__mro__:
        for name, test in vars(part).items():
            if name.startswith("test_") and inspect.isfunction(test):
                called = called_by(test)
                if called & left:
                    left -= called
                    found[name] = test
    return found


def short(suite: type) -> type:
    """Make a class of the chosen tests, and what they call of their classes, for a variant."""
    beside = {
        name: one
        for part in reversed(suite.__mro__)
        for name, one in vars(part).items()
        if not name.startswith(("test_", "__"))
    }
    return type("Short", (), beside | chosen(suite))
