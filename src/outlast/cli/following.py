"""Show what happens to all executions, a line an event, until somebody wants to stop."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from outlast.cli.exits import INTERRUPTED, OK
from outlast.cli.session import Session
from outlast.cli.signals import Signals
from outlast.cli.words import ICONS, clock, sentence
from outlast.engine.read.feed import EventFilter, FeedEvent, filter_of
from outlast.errors import UsageError


def follow_all(session: Session, wait_us: int | None, filters: Mapping[str, Any]) -> int:
    """Follow the feed; gives the exit code.

    Raises:
        FeedGap: what came behind the cursor is not all kept any more.
        UsageError: there is no such state or transition, a label is none, or it is no cursor.
    """
    wanted = _filter(filters)
    give_up_at = None if wait_us is None else time.monotonic() + wait_us / 1e6
    with Signals() as signals, session.guest() as guest:
        is_begun = False
        for cursor, events in guest.events(filters["after"], wanted):
            is_first, is_begun = not is_begun, True
            if is_first:
                if session.as_json:
                    session.json({"type": "begin", "cursor": cursor}, indent=False)
                session.say("following what happens; Ctrl-C stops looking")
            for event in events:
                _show(session, event)
            if signals.came():
                return INTERRUPTED
            is_idle = not events and not is_first
            if is_idle and give_up_at is not None and time.monotonic() > give_up_at:
                return OK  # what was there has been shown
    raise AssertionError("a feed has no end")


def _filter(filters: Mapping[str, Any]) -> EventFilter:
    return filter_of(
        filters["task"],
        filters["prefix"],
        _words(filters["state"]),
        _words(filters["transition"]),
        labels_of(filters["labels"]),
    )


def labels_of(words: Iterable[str]) -> dict[str, str]:
    """Read labels.

    Raises:
        UsageError: one is none.
    """
    labels = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"{word[:80]!a} is no label", where="--label", do="as team=ops")
        labels[name] = value
    return labels


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _show(session: Session, event: FeedEvent) -> None:
    row = event.transition
    if session.as_json:
        from outlast.forms import transition_form

        form = {"type": "gap", "id": event.execution_id} if row is None else transition_form(row)
        session.json({**form, "task": event.task, "cursor": event.cursor}, indent=False)
    elif session.output == "ids":
        session.out(event.execution_id)
    elif row is None:
        session.out(f"{'':8}  ? something that has been deleted since")
    else:
        said = f"{event.execution_id}  {event.task}  {sentence(row)}"
        session.out(f"{clock(row.at)}  {ICONS[row.to_state]} {said}")


__all__ = ["follow_all", "labels_of"]
