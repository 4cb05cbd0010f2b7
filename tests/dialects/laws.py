"""The laws of a dialect, as functions that say what is against them; tests show them faults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from outlast.dialects import Dialect, DialectTransition, project, status_of
from outlast.lifecycle import FINAL, Execution, Kind, State

from . import seeds
from .canonical import Life, Situation, births, situation, situations, steps

RESULTS = {
    "julep": ("succeeded", "failed", "failed", "cancelled"),
    "flyte": ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"),
    "flyte-action": ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"),
    "actionqueue": ("Completed", "Failed", "Failed", "Canceled"),
    "autopilotcx": ("completed", "failed", "failed", "cancelled"),
}
"""What succeeded, failed, timed_out and cancelled come to, where the system has the edge."""
MOVES_JULEP = (Kind.STEP, Kind.INIT_BRANCH, Kind.FINISH_BRANCH)
"""The rows that Julep tells though the status stays."""


def breaches(dialect: Dialect, life: Life) -> list[str]:
    """Tell a history and give everything in it that is against the system's law."""
    try:
        told = project(dialect, life.rows)
    except (AssertionError, StopIteration) as error:
        return [f"cannot be told: {error}"]
    found = list(against_the_law(dialect, told))
    status = status_of(dialect, life.rows)
    if [one.target for one in told if one.action == dialect.root][-1] is not status:
        found.append("the last transition does not lead to the status")
    found += _ends(dialect, life.record, told, status)
    if dialect.name == "julep":
        moves = {(row.seq, str(row.kind)) for row in life.rows if row.kind in MOVES_JULEP}
        silent = moves - {(one.seq, str(one.name)) for one in told}
        found += [f"row {seq} is a {kind} and not told" for seq, kind in silent]
    own = {(edge.source, edge.target, edge.name) for edge in dialect.edges}
    if any((one.source, one.target, one.name) not in own for one in told):
        found.append("it tells what its own table lacks")
    return found


def against_the_law(dialect: Dialect, told: Sequence[DialectTransition]) -> Iterator[str]:
    """Hold transitions to the document: chains from birth, edges that exist, one row a place."""
    legal = seeds.EDGES[dialect.name] | seeds.REPAIRS.get(dialect.name, set())
    at: dict[str, str | None] = {}
    if [one.seq for one in told] != sorted(one.seq for one in told):
        yield "out of order"
    for one in told:
        where = f"{one.seq} {one.action} {one.source} → {one.target}"
        if one.source != at.get(one.action):
            yield f"{where}: it was {at.get(one.action)}"
        if (one.source, one.target) not in legal:
            yield f"{where}: no edge"
        at[one.action] = one.target
    first = next((one for one in told if one.action == dialect.root), None)
    if first is None or first.source is not None or first.target != seeds.INITIAL[dialect.name]:
        yield "it does not begin at the beginning"


def _ends(
    dialect: Dialect, record: Execution, told: Sequence[DialectTransition], status: str
) -> Iterator[str]:
    finals = seeds.FINALS[dialect.name]
    if (status in finals) != (record.state in FINAL):
        yield f"{record.state} is shown as {status}"
    if record.state in FINAL:
        wanted, reason = _result(dialect.name, record.state, told)
        end = [one for one in told if one.action == dialect.root][-1]
        if (end.target, end.reason) != (wanted, reason):
            yield f"{record.state} came to {end.target} ({end.reason}), not {wanted} ({reason})"
        last = {one.action: one.target for one in told}
        left = {action for action, word in last.items() if word not in finals}
        if left:
            yield f"it has ended, and {left} have not"


def _result(name: str, state: State, told: Iterable[DialectTransition]) -> tuple[str, str | None]:
    """Say what an end must come to; a deadline that the system cannot show is a cancel."""
    succeeded, failed, timed_out, cancelled = RESULTS[name]
    if state is State.TIMED_OUT:
        own = [one for one in told if one.action in ("", "a0")]
        source = next(one.source for one in own if one.seq == own[-1].seq)
        edge = (source, timed_out) in seeds.EDGES[name]
        return (timed_out, None) if edge else (cancelled, "deadline")
    order = (State.SUCCEEDED, State.FAILED, State.CANCELLED)
    return (succeeded, failed, cancelled)[order.index(state)], None


def paths(
    told: Iterable[DialectTransition],
) -> dict[tuple[int, str], tuple[DialectTransition, ...]]:
    """Give the hops of each row and action."""
    found: dict[tuple[int, str], tuple[DialectTransition, ...]] = {}
    for one in told:
        found[one.seq, one.action] = (*found.get((one.seq, one.action), ()), one)
    return found


def synthetic_paths(dialect: Dialect, lives: Iterable[Life]) -> set[str]:
    """Give the paths for which the system has no edge of its own."""
    return {
        way_of(hops)
        for life in lives
        for hops in paths(project(dialect, life.rows)).values()
        if len(hops) > 1
    }


def witnessed(dialect: Dialect, lives: Iterable[Life]) -> set[tuple[str | None, str, str | None]]:
    """Give the edges that some row of ours takes in one hop, with the names they go by."""
    return {
        (hops[0].source, hops[0].target, hops[0].name)
        for life in lives
        for hops in paths(project(dialect, life.rows)).values()
        if len(hops) == 1
    }


def word_of(name: str, record: Execution) -> str | None:
    """Say by the design's sentences, not by the tables, how an open execution is shown."""
    state, water = str(record.state), record.high_water
    held = str(record.paused_from or "")
    if name == "julep":
        if state == "awaiting_input" or (state == "paused" and water == 3):
            return "awaiting_input"
        return ("queued", "queued", "starting", "running")[water]
    if name.startswith("flyte"):
        return ("QUEUED", "WAITING_FOR_RESOURCES", "INITIALIZING", "RUNNING")[water]
    if name == "actionqueue":
        shown = "suspended" if (state, held) == ("paused", "running") else held or state
        return {
            "scheduled": "Scheduled",
            "queued": "Ready",
            "blocked": "Ready",
            "starting": "Leased",
            "running": "Running",
            "retry_wait": "RetryWait",
        }.get(shown, "Suspended")
    if state in ("awaiting_input", "waiting"):
        return "waiting"
    if state in ("paused", "suspended") and water == 3:
        return "paused"
    again = record.cause in ("unpause", "budget", "operator")
    if again and state in ("queued", "blocked", "starting"):
        return "resumed"
    return "running" if water == 3 else "initialized"


def faults(dialect: Dialect, lives: Sequence[Life]) -> Iterator[str]:
    """Give everything that is wrong with a dialect, as far as these lives show it, one by one."""
    lacking = seeds.EDGES[dialect.name] | seeds.REPAIRS.get(dialect.name, set())
    for life in lives:
        found = breaches(dialect, life)
        yield from found
        if found:
            continue
        told = project(dialect, life.rows)
        if not life.record.is_final:
            wanted, status = word_of(dialect.name, life.record), status_of(dialect, life.rows)
            if wanted != status:
                yield f"{life.record.state} is {status}, not {wanted}"
        for hops in paths(told).values():
            lacking -= {(hops[0].source, hops[0].target)} if len(hops) == 1 else set()
            way = way_of(hops)
            if len(hops) > 1 and way not in WAYS[dialect.name].split():
                yield f"{way} is no way that the design knows"
    yield from (f"{source} → {target} never happens" for source, target in lacking)


def impossible_traces(dialect: Dialect) -> list[tuple[str, str]]:
    """Give the edges that some trace of the document's own edges cannot go on with.

    A set of situations stands for a trace: those in which an execution can be that is told by just
    these edges, one row each. From every set that can be reached, each edge of the document must
    lead to another set. There are finitely many, so traces of any length are tried.
    """
    moves: dict[Situation, dict[tuple[str, str] | None, set[Situation]]] = {}
    words: dict[Situation, str] = {}
    for here, life in situations().items():
        words[here] = status_of(dialect, life.rows)
        moves[here] = {}
        for after in steps(life):
            hops = [
                one
                for one in project(dialect, after.rows)
                if one.seq == after.rows[-1].seq and one.action == dialect.root
            ]
            if len(hops) < 2:
                edge = (str(hops[0].source), str(hops[0].target)) if hops else None
                moves[here].setdefault(edge, set()).add(situation(after.record))

    def silently(begun: set[Situation]) -> frozenset[Situation]:
        reached, front = set(begun), list(begun)
        for here in front:
            new = moves[here].get(None, set()) - reached
            reached |= new
            front += new
        return frozenset(reached)

    initial = dialect.initial
    born = {situation(life.record) for life in births() if len(project(dialect, life.rows)) == 1}
    sets = [silently({here for here in born if words[here] == initial})]
    missing: list[tuple[str, str]] = []
    legal = seeds.EDGES[dialect.name] | seeds.REPAIRS.get(dialect.name, set())
    for reached in sets:  # it grows while it is read
        word = words[next(iter(reached))]
        for source, target in legal:
            if source == word and word not in PARTS:
                following: set[Situation] = set()
                for here in reached:
                    following |= moves[here].get((source, target), set())
                if not following:
                    missing.append((source, target))
                elif (whole := silently(following)) not in sets:
                    sets.append(whole)
    return missing


PARTS = {"PAUSED"}
"""The words of actions beside the root."""


def way_of(hops: Sequence[DialectTransition]) -> str:
    """Write a path."""
    return ">".join(str(word) for word in (hops[0].source, *(one.target for one in hops)))


WAYS = {
    "julep": "",
    "flyte": """
        QUEUED>WAITING_FOR_RESOURCES>INITIALIZING
        INITIALIZING>RUNNING>SUCCEEDED INITIALIZING>RUNNING>FAILED
    """,
    "actionqueue": """
        None>Scheduled>Ready Running>RetryWait>Ready Leased>Running>Completed Leased>Running>Failed
        Leased>Running>RetryWait Leased>Running>Suspended
    """,
    "autopilotcx": """
        initialized>running>waiting initialized>running>paused initialized>running>completed
        initialized>running>failed initialized>running>cancelled
        waiting>running>paused waiting>running>cancelled waiting>running>paused>resumed
        paused>resumed>running paused>resumed>running>waiting paused>resumed>running>cancelled
        resumed>running>waiting resumed>running>paused resumed>running>completed
        resumed>running>failed resumed>running>cancelled
    """,
}
"""Every path of more than one hop that there is."""
WAYS["flyte-action"] = WAYS["flyte"]


def without_synthetic(told: Iterable[DialectTransition]) -> list[DialectTransition]:
    """Plant a fault: leave out the hops that our execution did not make."""
    return [one for one in told if not one.is_synthetic]
