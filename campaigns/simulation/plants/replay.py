"""Mistakes in replays, and in what executions made of others know."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from campaigns.simulation.plants.plant import Patch, Plant
from outlast.engine.drive.children import Children
from outlast.engine.drive.driver import Driver
from outlast.engine.drive.playback import Playback
from outlast.engine.replay.scope import Scope
from outlast.engine.replay.script import Script
from outlast.engine.task.change import Changes
from outlast.lifecycle import Kind


def _replay_delivers_at_once() -> list[Patch]:
    plain, run = Driver._deliver_recorded, Scope._run

    def deliver_recorded(self: Any, waiting: Any, history: Any) -> Any:
        scope = self.playback.scope
        if not isinstance(scope, Scope):
            return plain(self, waiting, history)
        started = [False]

        def once(one: Any) -> None:
            if one is not scope or not started[0]:
                run(one)
                started[0] = True

        Scope._run = once  # type: ignore[method-assign, assignment]
        try:
            return plain(self, waiting, history)
        finally:
            Scope._run = run  # type: ignore[method-assign]
            run(scope)

    return [(Driver, "_deliver_recorded", deliver_recorded)]


def _replay_forgets_last_step() -> list[Patch]:
    plain = Driver.replay

    def replay(self: Any, rows: Any, unseen: Any) -> None:
        last = max((n for n, row in enumerate(rows) if row.kind is Kind.STEP), default=None)
        plain(self, [row for n, row in enumerate(rows) if n != last], unseen)

    return [(Driver, "replay", replay)]


def _replays_say_nothing() -> list[Patch]:
    def vouched_for(self: Any) -> int:
        return max((row.seq for row in self._log), default=0)

    return [(Playback, "_vouched_for", vouched_for)]


def _known_steps_run_again() -> list[Patch]:
    return [(Script, "offer", lambda self, call: False)]


def _fork_knows_its_step() -> list[Patch]:
    descent: Any = import_module("outlast.engine.control.descent")
    plain = descent._copies

    def copies(source: Any, log: Any, wish: Any) -> Any:
        found, key = plain(source, log, wish)
        return (list(descent._learned(log)) if wish.step is not None else found), key

    return [(descent, "_copies", copies)]


def _unread_signals_lost() -> list[Patch]:
    plain = Children.continue_as

    def continue_as(self: Any, call: Any, birth: Any, left: Any, now: int) -> Any:
        return plain(self, call, birth, left[:-1], now)

    return [(Children, "continue_as", continue_as)]


def _edit_decided_anew() -> list[Patch]:
    plain = Changes.ask

    def ask(self: Any, name: str) -> bool:
        self.is_past = False
        return plain(self, name)

    return [(Changes, "ask", ask)]


PLANTS: Final[dict[str, Plant]] = {
    "replay_delivers_at_once": Plant(
        "a replay delivers all outcomes at once, and not each when the code is quiet",
        ("INV-13 replay",), _replay_delivers_at_once,
    ),
    "replay_forgets_last_step": Plant(
        "a replay overlooks the last recorded step",
        ("INV-8 recorded", "INV-13 replay"), _replay_forgets_last_step,
    ),
    "replays_say_nothing": Plant(
        "what code says where it was before is taken for stored, whoever wrote the rows behind it",
        ("streams",), _replays_say_nothing, seeds=600,
    ),
    "known_steps_run_again": Plant(
        "a recovery runs steps again that its source had finished",
        ("descents",), _known_steps_run_again,
    ),
    "fork_knows_its_step": Plant(
        "a fork brings along what came from its step on",
        ("descents",), _fork_knows_its_step,
    ),
    "unread_signals_lost": Plant(
        "what goes on as a new execution leaves the last signal behind that it has not read",
        ("chains", "reasons"), _unread_signals_lost,
    ),
    "edit_decided_anew": Plant(
        "an execution of before has the edit as soon as new code runs it",
        ("code",), _edit_decided_anew, seeds=400,
    ),
}  # fmt: skip
