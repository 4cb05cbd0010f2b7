"""The command tree, and what show says of an execution's relations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from outlast.cli.session import Session, shared
from outlast.cli.words import COLOURS, ICONS, now_us, one_line, state_of
from outlast.duration import in_words
from outlast.lifecycle import Execution, Transition, reason_of
from outlast.lifecycle.record import continued_as

if TYPE_CHECKING:
    from outlast.store.protocol import ProgressRow, Store, StreamHead

SHOWN_MAX: Final = 5
"""Children, streams and dependents that show names one by one."""


@dataclass(slots=True)
class Node:
    """An execution in a tree.

    Attributes:
        record: its row.
        children: the newest of its children, in the order of their birth.
        more: how many older ones there are besides, at least.
    """

    record: Execution
    children: list[Node] = field(default_factory=list)
    more: int = 0


@click.command()
@click.argument("id")
@click.option(
    "--limit",
    default=20,
    type=click.IntRange(1, 10_000),
    show_default=True,
    help="How many children of each, the newest ones.",
)
@click.option("--depth", type=click.IntRange(0), help="How many levels below it. [all]")
@shared
def tree(session: Session, id: str, limit: int, depth: int | None) -> None:
    """Show an execution and its children of all levels: state, reason, age.

    ID is a whole id, at least three characters of its beginning or end, or the word last.
    """
    with session.guest() as guest:
        root = grown(guest.store, guest.record(guest.find(id)), limit, depth)
    if session.as_json:
        session.json(node_form(root))
    elif session.output == "ids":
        for node in walk(root):
            session.out(node.record.id)
    else:
        for line in drawn(session, root):
            session.out(line)


def grown(store: Store, root: Execution, limit: int, depth: int | None) -> Node:
    """Read a tree, level by level; it has no cycles, as a child is younger than its parent."""
    from outlast.store.protocol import Filter

    top = Node(root)
    level, left = [top], depth
    while level and (left is None or left > 0):
        below = []
        for node in level:
            if node.record.children or continued_as(node.record) is not None:
                found = store.page(Filter(parent_id=node.record.id, limit=limit))
                node.children = [Node(record) for record in reversed(found)]
                node.more = max(0, node.record.children - len(found))
                below += node.children
        level = below
        left = None if left is None else left - 1
    return top


def walk(node: Node) -> Iterator[Node]:
    """Give the executions of a tree, each before its children."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += reversed(one.children)


def node_form(root: Node) -> dict[str, Any]:
    """Write a tree as JSON."""
    from outlast.forms import execution_form

    forms: dict[str, dict[str, Any]] = {}
    for node in reversed(list(walk(root))):
        forms[node.record.id] = {
            **execution_form(node.record),
            "children": [forms[child.record.id] for child in node.children],
            "more": node.more,
        }
    return forms[root.record.id]


def drawn(session: Session, root: Node) -> Iterator[str]:
    """Draw a tree, a line for each execution."""
    waiting: list[tuple[Node | int, str, str]] = [(root, "", "")]
    while waiting:
        node, stem, below = waiting.pop()
        if isinstance(node, int):
            yield f"{stem}… {node} older ones: --limit shows more"
            continue
        yield stem + node_line(session, node.record)
        parts: list[Node | int] = [*([node.more] if node.more else []), *node.children]
        for place, part in enumerate(reversed(parts)):
            is_last = place == 0
            waiting.append(
                (part, below + ("└─ " if is_last else "├─ "), below + ("   " if is_last else "│  "))
            )


def node_line(session: Session, record: Execution) -> str:
    """Tell an execution in one line: what it is, its state, why, and how old it is."""
    state = session.paint(f"{ICONS[record.state]} {state_of(record)}", COLOURS[record.state])
    called = f" as {one_line(record.parent_key, 40)}" if record.parent_key else ""
    reason = reason_of(record)
    error: Any = (record.detail or {}).get("error")
    said = ""
    if continued_as(record) is not None:
        said = f"goes on as {continued_as(record)}"
    elif reason is not None and reason.code != "running":
        said = reason.text
    elif isinstance(error, dict):
        said = str(error.get("message", ""))
    tail = f"  {one_line(said, 80)}" if said else ""
    age = in_words(now_us() - record.created_at)
    id = session.paint(record.id, "bold")
    return f"{id}  {one_line(record.task, 40)}{called}  {state}  {age}{tail}"


@dataclass(slots=True)
class Relations:
    """What belongs to an execution besides its own row and log."""

    parent: Execution | None
    children: list[Execution]
    upstream: list[Execution]
    dependents: list[str]
    streams: list[StreamHead]
    progress: ProgressRow | None


def relations_of(store: Store, record: Execution, log: list[Transition]) -> Relations:
    """Read what belongs to an execution."""
    from outlast.store.protocol import Filter

    waits_on: Any = (log[0].data or {}).get("waits_on") or ()
    edges = [str(edge["id"]) for edge in waits_on]
    wanted = [*([record.parent_id] if record.parent_id else []), *edges]
    found = {one.id: one for one in store.get(wanted) if one is not None}
    children = store.page(Filter(parent_id=record.id, limit=SHOWN_MAX)) if record.children else []
    return Relations(
        found.get(record.parent_id or ""),
        children[::-1],
        [found[id] for id in edges if id in found],
        store.dependents(record.id, SHOWN_MAX + 1),
        store.streams(record.id),
        store.progress([record.id]).get(record.id),
    )


def relation_lines(
    session: Session, record: Execution, relations: Relations, birth: Transition
) -> Iterator[str]:
    """Say where an execution stands among others, and what it hands out."""
    if record.parent_id is not None:
        called = f", as {one_line(record.parent_key, 60)}" if record.parent_key else ""
        parent = relations.parent
        known = "" if parent is None else f"  {one_line(parent.task, 40)} ({parent.state})"
        yield f"parent   {record.parent_id}{known}{called}"
    source = (birth.data or {}).get("continued_from")
    if source is not None:
        yield f"goes on  from {source}"
    if continued_as(record) is not None:
        yield f"goes on  as {continued_as(record)}"
    for one in relations.upstream[:SHOWN_MAX]:
        yield f"after    {one.id}  {one_line(one.task, 40)} ({one.state})"
    if relations.dependents:
        more = " and more" if len(relations.dependents) > SHOWN_MAX else ""
        yield f"before   {', '.join(relations.dependents[:SHOWN_MAX])}{more}"
    if record.children:
        left = record.children - len(relations.children)
        more = f", the newest of them here; all: outlast tree {record.id}" if left > 0 else ""
        yield f"children {record.children}{more}"
        yield from (f"  {node_line(session, child)}" for child in relations.children)
    if relations.progress is not None:
        yield f"progress {progress_text(relations.progress)}"
    if relations.streams:
        named = [f"{one_line(one.name, 40)} ({one.count})" for one in relations.streams]
        more = f" and {len(named) - SHOWN_MAX} more" if len(named) > SHOWN_MAX else ""
        yield f"streams  {', '.join(named[:SHOWN_MAX])}{more}  →  outlast stream {record.id}"


def progress_text(row: ProgressRow) -> str:
    """Say how far an execution is."""
    said = f"{row.done:g}"
    if row.total is not None:
        said += f" of {row.total:g}"
        if row.total > 0:
            said += f" ({100 * row.done / row.total:.0f} %)"
    if row.text:
        said += f", {one_line(row.text, 80)}"
    where = f" in {one_line(row.step, 40)}" if row.step else ""
    return f"{said}{where}, {in_words(now_us() - row.at)} ago"


def relations_form(record: Execution, relations: Relations, birth: Transition) -> dict[str, Any]:
    """Write what belongs to an execution as JSON."""
    from outlast.forms import at, progress_form

    row = relations.progress
    return {
        "parent": record.parent_id,
        "parent_key": record.parent_key,
        "root": record.root_id,
        "children_count": record.children,
        "children": [
            {"id": one.id, "task": one.task, "state": one.state, "key": one.parent_key}
            for one in relations.children
        ],
        "continued_from": (birth.data or {}).get("continued_from"),
        "continued_as": continued_as(record),
        "after": [{"id": one.id, "state": one.state} for one in relations.upstream],
        "before": relations.dependents,
        "streams": [
            {"name": one.name, "count": one.count, "at": at(one.at)} for one in relations.streams
        ],
        "progress": progress_form(row),
    }
