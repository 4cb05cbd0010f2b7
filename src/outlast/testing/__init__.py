"""For tests of programs that use Outlast: an engine in memory, on a clock that tests move.

::

    def test_reminder(outlast_engine):                # a pytest fixture; an ordinary test
        h = outlast_engine.start(fulfil, ORDER)
        outlast_engine.advance("3d")                  # passes in milliseconds
        assert [q.title for q in outlast_engine.pending(h)] == ["Release parcel?"]
        outlast_engine.answer(h, True)
        assert h.result() == "sent"

The design, in short; ``docs/guides/testing.md`` shows how to use it.

*The real engine.* Driver, scopes, lifecycle and store are those of production; a test double would
test itself. Three things are other: the clock, the event loop, and the thread of the journal.

*One thread, and it is yours.* The engine has an event loop of its own, which runs in the thread of
the test, and only while one of the engine's methods is called. Such a call runs everything there
is to run, and returns when all is quiet: no callback ready, nothing to commit, no thread under
way. So between two calls the engine stands still, and what a test sees is settled and the same in
every run. There is nothing to wait for, hence no sleeping and no polling, in tests or here.

*Time is a number.* It begins on January 1st, 2026, and passes only in ``advance()``: the loop goes
from timer to timer, in order, and runs whatever each leads to before it goes on. A call that could
only end with time, or with an answer, does not hang: it raises ``WaitTimeout``, which says what
the execution waits for and what would bring it.

*Threads are real.* ``def`` steps and tasks run in threads as ever, and are waited for in real
time; so are sockets that a body talks to. What takes longer than ``patience`` is left alone:
virtual time may then pass it by, and so its timeout can be tested.

*Chance is fixed.* Ids are numbered, and ``random`` is seeded while an engine is open (the jitter of
back-offs is drawn from it), so that a failure can be repeated.

*From async code.* ``async with engine() as e`` works on any loop: that one stands still while the
engine's runs. Bodies of steps run on the engine's loop, so what they use must be made there, too.

Crashes (:func:`crash_everywhere`, the marker ``outlast_crash_everywhere``) are played in
:mod:`outlast.testing.crash`, old logs are replayed in :mod:`outlast.testing.history`; each says
how.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from outlast.testing.crash import CrashPoint, CrashReport, crash_everywhere
    from outlast.testing.history import Replayed, load_history, replay, save_history
    from outlast.testing.rehearsal import Checked, assert_fits, check
    from outlast.testing.virtual import VirtualEngine, engine

_HOMES: Final = {
    "CrashPoint": "outlast.testing.crash",
    "CrashReport": "outlast.testing.crash",
    "Checked": "outlast.testing.rehearsal",
    "Replayed": "outlast.testing.history",
    "assert_fits": "outlast.testing.rehearsal",
    "check": "outlast.testing.rehearsal",
    "VirtualEngine": "outlast.testing.virtual",
    "crash_everywhere": "outlast.testing.crash",
    "engine": "outlast.testing.virtual",
    "load_history": "outlast.testing.history",
    "replay": "outlast.testing.history",
    "save_history": "outlast.testing.history",
}

# fmt: off
__all__ = [  # noqa: RUF022 - in the order a newcomer meets them
    "engine", "VirtualEngine",
    "crash_everywhere", "CrashReport", "CrashPoint",
    "save_history", "load_history", "replay", "Replayed",
    "check", "assert_fits", "Checked",
]
# fmt: on


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module outlast.testing has no attribute {name}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
