"""What the dialects share: the shape of their tables, and the one projection that reads them.

Theory of operation. A dialect sees four things of an execution: its state, and the registers
``high_water``, ``cause`` and ``paused_from``. All four are functions of the log, and the lifecycle
computes them: a projection decides the log again row by row, it keeps no registers of its own.

For each row of the log the first fitting line gives a word. Where the word is the same as before,
nothing is told, unless the system has an edge from the word to itself for rows of that kind. Where
it differs, the change is told as the system's own edge, or, where it has none, as the way its table
names: words on it, which our execution was never in, are marked synthetic. Either ends in the word
of the row, so what was told last is always the projection of what is. Hence a whole history is
legal if each single step is, and the tests try every step there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Final

from outlast.lifecycle import (
    OPEN,
    BrokenLog,
    Execution,
    Kind,
    Refusal,
    State,
    Transition,
    apply,
    create,
    decide,
)
from outlast.lifecycle.record import event_of

DEADLINE: Final = "deadline"
"""Why a system without a fitting timeout shows a cancel."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One transition that the other system knows.

    Attributes:
        source: the word it leaves; None for birth.
        target: the word it enters.
        name: what that system calls it; None where it has no name for it.
        origin: where its document says so.
        kinds: the rows of our log that it is for; empty for all.
        is_repair: the document lacks it, and without it an execution could never end.
    """

    source: StrEnum | None
    target: StrEnum
    name: str | None
    origin: str
    kinds: frozenset[Kind] = frozenset()
    is_repair: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """How a change is told for which the other system has no edge.

    Attributes:
        words: a shortest path of its edges, both ends included; what lies between is synthetic.
        when: what of ours it is for, in words.
    """

    words: tuple[StrEnum | None, ...]
    when: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a projection: the open executions it is for, and their word.

    Attributes:
        word: what the other system calls them.
        states: the states it is for.
        high_water: how far they ever came.
        causes: why they are dispatched; None for any reason, or none.
        held_from: the states they were paused in; None for all, paused or not.
    """

    word: StrEnum
    states: Sequence[State] = OPEN
    high_water: Sequence[int] = (0, 1, 2, 3)
    causes: Sequence[str] | None = None
    held_from: Sequence[State] | None = None

    def fits(self, record: Execution) -> bool:
        """Tell whether an open execution is shown by this line."""
        return (
            record.state in self.states
            and record.high_water in self.high_water
            and (self.causes is None or record.cause in self.causes)
            and (self.held_from is None or record.paused_from in self.held_from)
        )


@dataclass(frozen=True, slots=True)
class DialectTransition:
    """One transition as the other system would have written it.

    Attributes:
        seq: the row of our log that it tells; a path of several has the same.
        at: when, in microseconds since 1970.
        kind: what the row of our log is.
        source: the word it leaves; None for birth.
        target: the word it enters.
        name: what that system calls the transition, if it has a name for it.
        is_synthetic: it enters a word that our execution was never in, for the sake of the path.
        reason: why, where the word alone would mislead.
        action: which of its parts, in a system where an execution has several.
    """

    seq: int
    at: int
    kind: Kind
    source: StrEnum | None
    target: StrEnum
    name: str | None
    is_synthetic: bool = False
    reason: str | None = None
    action: str = ""


Beside = Callable[[Sequence[Transition]], list[DialectTransition]]
"""Gives the transitions of the parts that a system has beside the execution itself."""


@dataclass(frozen=True, eq=False)
class Dialect:
    """Another system's vocabulary and law, and how ours is told in it.

    Attributes:
        name: as ``--as`` takes it.
        title: the system.
        document: what its words and edges are taken from.
        words: its states, in its order; the value is what it puts into JSON.
        initial: the word of a new execution.
        finals: the words of our final states; that of ``timed_out`` where it has the edge.
        lines: the projection of open executions; the first that fits.
        edges: its transitions, in its order.
        ways: what it has no edge for, and how that is told.
        silences: what it cannot express.
        labels: how it writes its words to people, where that differs.
        numbers: its words on the wire, where they are numbers.
        aliases: other names of its transitions that it accepts.
        root: the part that is the execution itself, in a system with several.
        beside: the parts beside it.
    """

    name: str
    title: str
    document: str
    words: type[StrEnum]
    initial: StrEnum
    finals: Mapping[State, StrEnum]
    lines: Sequence[Line]
    edges: Sequence[Edge]
    ways: Sequence[Way]
    silences: Sequence[str]
    labels: Mapping[StrEnum, str] = field(default_factory=dict)
    numbers: Mapping[StrEnum, int] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    root: str = ""
    beside: Beside | None = None

    def label(self, word: StrEnum | None) -> str:
        """Write a word for people."""
        return "–" if word is None else self.labels.get(word, word)


def project(dialect: Dialect, rows: Iterable[Transition]) -> list[DialectTransition]:
    """Tell a log in the words of another system.

    Raises:
        BrokenLog: the lifecycle could not have written it.
    """
    log = list(rows)
    told: list[DialectTransition] = []
    word: StrEnum | None = None
    for row, record in _walk(log):
        source, (word, reason) = word, word_of(dialect, record, word)
        told += [
            DialectTransition(
                row.seq,
                row.at,
                row.kind,
                edge.source,
                edge.target,
                edge.name,
                edge.target is not word,
                reason if edge.target is word else None,
                dialect.root,
            )
            for edge in path(dialect, source, word, row.kind)
        ]
    if dialect.beside is not None:
        told = sorted([*told, *dialect.beside(log)], key=lambda one: _place(dialect, one))
    return told


def status_of(dialect: Dialect, rows: Iterable[Transition]) -> StrEnum:
    """Give an execution's status in the words of another system.

    It takes the log, not the row: how a deadline is shown depends on what it ended.
    """
    word: StrEnum | None = None
    for _, record in _walk(rows):
        word, _ = word_of(dialect, record, word)
    assert word is not None, "a log has a first row"
    return word


def is_final(dialect: Dialect, word: StrEnum) -> bool:
    """Tell whether a word is final in the other system: it has no edge out of it."""
    return not any(edge.source is word for edge in dialect.edges)


def missing_edges(
    dialect: Dialect, rows: Iterable[Transition]
) -> list[tuple[int, StrEnum | None, StrEnum]]:
    """Give every change for which the system has no edge of its own, with its row's seq.

    A strict view refuses the command behind such a change and names the edge.
    """
    missing = []
    hops: list[DialectTransition] = []
    for one in project(dialect, rows):
        hops.append(one)
        if not one.is_synthetic:
            if len(hops) > 1:
                missing.append((one.seq, hops[0].source, one.target))
            hops = []
    return missing


def word_of(
    dialect: Dialect, record: Execution, before: StrEnum | None
) -> tuple[StrEnum, str | None]:
    """Give an execution's word, and a reason where the word alone would mislead.

    Args:
        dialect: the system.
        record: the execution as it is.
        before: the word it had before the last row of its log; None at birth.
    """
    if not record.is_final:
        return next(line.word for line in dialect.lines if line.fits(record)), None
    word = dialect.finals[record.state]
    pairs = {(edge.source, edge.target) for edge in dialect.edges}
    if record.state is State.TIMED_OUT and (before, word) not in pairs:
        return dialect.finals[State.CANCELLED], DEADLINE
    return word, None


def path(dialect: Dialect, source: StrEnum | None, target: StrEnum, kind: Kind) -> tuple[Edge, ...]:
    """Give the edges by which a change is told: one, or those of a way, or none if it is silent."""
    direct = _edges(dialect, source, target, kind)
    if direct or source is target:
        return direct
    for way in dialect.ways:
        if (way.words[0], way.words[-1]) == (source, target):
            return tuple(
                edge
                for one, other in pairwise(way.words)
                if other is not None
                for edge in _edges(dialect, one, other, kind)
            )
    raise AssertionError(f"{dialect.title} has no way from {source} to {target}")


def _edges(
    dialect: Dialect, source: StrEnum | None, target: StrEnum, kind: Kind
) -> tuple[Edge, ...]:
    return tuple(
        edge
        for edge in dialect.edges
        if edge.source is source
        and edge.target is target
        and (not edge.kinds or kind in edge.kinds)
    )


def _walk(rows: Iterable[Transition]) -> Iterator[tuple[Transition, Execution]]:
    """Give each row with the execution as it is after it: one record, changed in place."""
    record: Execution | None = None
    for row in rows:
        event = event_of(row)
        if record is None:
            if row.kind is not Kind.CREATE:
                raise BrokenLog(f"the first row is {row.kind}, not create")
            record, _ = create(row.tenant, row.execution_id, event, row.at)
        else:
            if row.data is not None and "inbox" in row.data:
                record.inbox_count = max(record.inbox_count, int(str(row.data["inbox"])))
            decision = decide(record, event, row.at)
            if isinstance(decision, Refusal):
                raise BrokenLog(
                    f"row {row.seq}: {row.kind} in {record.state} is refused: {decision.code}"
                )
            apply(record, decision)
        yield row, record
    if record is None:
        raise BrokenLog("the log is empty")


def _place(dialect: Dialect, one: DialectTransition) -> tuple[int, int]:
    """Parts are born after what the execution itself does in a row, and end before it."""
    own = one.action == dialect.root
    return one.seq, 1 if own else 0 if is_final(dialect, one.target) else 2
