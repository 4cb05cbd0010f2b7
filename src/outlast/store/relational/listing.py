"""Lists of executions: which index a page goes along, and how far a look reaches.

Theory of operation. A page goes along an index in the order of ids, the narrowest that its filter
has, and passes over what does not fit. Where few fit, it would go to the end of it. So
:func:`part` looks at windows: the ids from where it begins down to a *floor*, the id so many rows
below. The floor is read first, so nothing that is there all the time is passed over, whatever is
born or deleted meanwhile. Windows grow: where many fit, the first one is enough.

Of a task, the ids of the window are read first, and then their rows: PostgreSQL's planner, asked
for both at once, takes a task for common and goes along the ids of all.

Several states in which executions end have an index each; what they give is merged down to the
highest floor. What has ended stays as it is, so nothing is missed between two statements. What is
open moves; so all open states are read by one statement, of the few that are open, before those
that have ended, or along a broader index, where more are open than may be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from outlast.lifecycle import FINAL, Execution, State
from outlast.store.protocol import Filter, Part
from outlast.store.relational.database import Database, json_of
from outlast.store.relational.rows import Value, execution_of

SINGLE: Final = frozenset(State) - FINAL - {State.QUEUED, State.STARTING, State.RUNNING}
"""States whose executions have an index in the order of ids."""
WINDOW: Final = 500
"""Rows that are looked at first; the next window is four times as large. Those of a task are not:
their ids are read before them."""
OPEN_MAX: Final = 10_000
"""Open executions that are read to find those of some states."""


@dataclass(frozen=True, slots=True)
class _Walk:
    """A way along an index.

    Attributes:
        page: the statement that gives what fits.
        floor: the one that says how far so many rows reach; None where all are looked at.
        state: the one state of the index.
    """

    page: str
    floor: str | None
    state: State | None = None


_ALL: Final = _Walk("executions_page", "executions_floor")
_TASK: Final = _Walk("picked_page", "task_floor")
_CHILDREN: Final = _Walk("children_page", "children_floor")
_LABELLED: Final = _Walk("labelled_page", "labelled_floor")
_OPEN: Final = _Walk("open_executions_page", None)


def page(database: Database, filter: Filter) -> list[Execution]:
    """List executions to the end."""
    walk = _walk(filter)
    if walk is _TASK:
        return _look(database, [walk], filter, None).found
    return _read(database, walk, filter)


def part(database: Database, filter: Filter, rows_max: int) -> Part:
    """List executions, looking at about so many rows at most; see the protocol."""
    return _look(database, _walks(database, filter, rows_max), filter, rows_max)


def _look(database: Database, walks: Sequence[_Walk], filter: Filter, rows_max: int | None) -> Part:
    """Look at windows until there is enough, or too much was looked at."""
    found: list[Execution] = []
    looked, size = 0, WINDOW if rows_max is None else min(WINDOW, rows_max)
    growth = 1 if walks == [_TASK] else 4
    while True:
        wanted = replace(filter, limit=filter.limit - len(found))
        come, floor = _window(database, walks, wanted, size)
        found += come
        if len(found) == filter.limit:
            return Part(found, found[-1].id)
        looked += size
        if floor is None or (rows_max is not None and looked >= rows_max):
            return Part(found, floor)
        filter, size = replace(filter, before_id=floor), growth * size
        if rows_max is not None:
            size = min(size, rows_max - looked)


def _window(
    database: Database, walks: Sequence[_Walk], filter: Filter, size: int
) -> tuple[list[Execution], str | None]:
    """Read what fits of the next so many rows; gives where they end, if there are more."""
    if walks == [_TASK]:
        bounds = {**_bounds(filter, None), "rows": size}
        ids = [str(id) for (id,) in database.read("task_ids", bounds)]
        rows = database.read("picked_page", {**bounds, "ids": json_of(ids)}) if ids else []
        return list(map(execution_of, rows)), ids[-1] if len(ids) == size else None
    floor = _floor(database, walks, filter, size)
    window = filter if floor is None else replace(filter, from_id=floor)
    return _merged(database, walks, window), floor


def _walk(filter: Filter) -> _Walk:
    """Choose the one index to go along."""
    if filter.labels:
        return _LABELLED
    if filter.parent_id is not None:
        return _CHILDREN
    states = set(filter.states)
    if len(states) == 1 and states <= FINAL | SINGLE:
        return _of_state(filter.states[0])
    if states and not states & FINAL:
        return _OPEN
    return _ALL if filter.task is None else _TASK


def _walks(database: Database, filter: Filter, rows_max: int) -> Sequence[_Walk]:
    """Choose the indexes to go along, where a look must end."""
    if filter.labels or filter.parent_id is not None or not filter.states:
        return [_walk(filter)]
    broad = _ALL if filter.task is None else _TASK
    if filter.task is not None and _floor(database, [_TASK], filter, rows_max) is None:
        return [_TASK]  # the whole task is looked through
    ended = [_of_state(state) for state in dict.fromkeys(filter.states) if state in FINAL]
    if len(ended) == len(set(filter.states)):
        return ended
    if set(filter.states) <= SINGLE and len(set(filter.states)) == 1:
        return [_of_state(filter.states[0])]
    if database.read("many_open", {"rows": OPEN_MAX}):
        return [broad]
    return [_OPEN, *ended]


def _of_state(state: State) -> _Walk:
    if state in FINAL:
        return _Walk("ended_page", "ended_floor", state)
    return _Walk("parked_page", "parked_floor", state)


def _floor(database: Database, walks: Sequence[_Walk], filter: Filter, rows: int) -> str | None:
    """Say how far all of them reach in so many rows; None: to their ends."""
    reached = ""
    for walk in walks:
        if walk.floor is not None and _passes_over(walk, filter):
            bounds = {**_bounds(filter, walk.state), "rows": rows - 1}
            for (id,) in database.read(walk.floor, bounds):
                reached = max(reached, str(id))
    return reached or None


def _passes_over(walk: _Walk, filter: Filter) -> bool:
    """Tell whether anything along an index may not fit."""
    rest = (filter.origin, filter.input_digest, filter.created_after, filter.created_before)
    if filter.roots or any(one is not None for one in rest):
        return True
    if walk.state is not None or walk is _ALL:
        return filter.task is not None or (walk is _ALL and bool(filter.states))
    if walk is _TASK:
        return True  # whether it is short is asked, not what fits
    is_plain = len(filter.labels) == (walk is _LABELLED)
    parent = None if walk is _CHILDREN else filter.parent_id
    return bool(filter.states) or filter.task is not None or parent is not None or not is_plain


def _merged(database: Database, walks: Sequence[_Walk], filter: Filter) -> list[Execution]:
    """Read a page along each, and give the newest of them all."""
    if len(walks) == 1:
        return _read(database, walks[0], filter)
    found = {one.id: one for walk in walks for one in _read(database, walk, filter)}
    return [found[id] for id in sorted(found, reverse=True)[: filter.limit]]


def _read(database: Database, walk: _Walk, filter: Filter) -> list[Execution]:
    return list(map(execution_of, database.read(walk.page, _bounds(filter, walk.state))))


def _bounds(filter: Filter, state: State | None) -> dict[str, Value]:
    label, value = next(iter(filter.labels.items()), ("", ""))
    return {
        "parent_id": filter.parent_id,
        "roots": filter.roots,
        "before_id": filter.before_id or "~",
        "from_id": filter.from_id or "",
        "states": json_of(filter.states) if filter.states else None,
        "state": state,
        "task": filter.task,
        "origin": filter.origin,
        "input_digest": filter.input_digest,
        "created_after": filter.created_after,
        "created_before": filter.created_before,
        "label": label,
        "label_value": value,
        "labels": json_of(filter.labels),
        "limit": filter.limit,
    }


__all__ = ["SINGLE", "page", "part"]
