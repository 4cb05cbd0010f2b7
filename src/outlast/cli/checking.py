"""The command that replays what is recorded against today's code: check."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from outlast.cli.session import Session, shared
from outlast.cli.words import one_line

GROUPS_MAX: Final = 10
EXAMPLES_MAX: Final = 3


@click.command()
@click.argument("apps", nargs=-1, required=True, metavar="APP…")
@click.option(
    "--saved",
    "history",
    type=click.Path(path_type=Path),
    help="Replay the logs saved in this folder or file instead of the store's executions.",
)
@click.option("--task", help="Only this task.")
@click.option("--limit", type=click.IntRange(1), help="At most so many, the newest first.")
@shared
def check(
    session: Session,
    apps: tuple[str, ...],
    history: Path | None,
    task: str | None,
    limit: int | None,
) -> int:
    """Say which open executions would go on with today's code: a gate before a deploy.

    APP is a file or module with the tasks. Each open execution is replayed from its log; nothing is
    written and no step runs. The exit code is 1 if one of them would not go on.
    """
    from outlast.cli.loading import load_module
    from outlast.engine.task.registry import TASKS
    from outlast.testing.rehearsal import Checked, Rehearsal, checks

    for app in apps:
        load_module(app)
    counts: dict[str, int] = {}
    groups: dict[tuple[str, str], list[Checked]] = {}
    sizes: dict[tuple[str, str], int] = {}
    with session.guest() as guest, Rehearsal(TASKS) as rehearsal:
        source: Any = history if history is not None else guest.store
        for one in checks(source, rehearsal, task=task, limit=limit):
            counts[one.verdict] = counts.get(one.verdict, 0) + 1
            if one.fits:
                continue
            kind = one.task, one.text
            sizes[kind] = sizes.get(kind, 0) + 1
            if len(groups.setdefault(kind, [])) < EXAMPLES_MAX:
                groups[kind].append(one)
            if session.as_json:
                session.json(_form(one), indent=False)
            elif session.output == "ids":
                session.out(one.execution_id)
    broken = sum(counts.values()) - counts.get("fits", 0)
    if session.as_json:
        session.json({"type": "summary", "checked": sum(counts.values()), **counts}, indent=False)
    elif session.output != "ids":
        _tell(session, groups, sizes)
        what = "histories" if history is not None else "open executions"
        session.out(
            f"{sum(counts.values())} {what}: {counts.get('fits', 0)} go on, "
            f"{counts.get('mismatch', 0)} would be suspended, "
            f"{counts.get('no_task', 0)} have no task"
            + (f", {counts['hangs']} did not come to rest" if "hangs" in counts else "")
        )
    return 1 if broken else 0


def _form(one: Any) -> dict[str, Any]:
    return {
        "type": "execution",
        "id": one.execution_id,
        "task": one.task,
        "state": one.state,
        "verdict": one.verdict,
        "text": one.text,
        "mismatch": one.facts,
        "source": None if one.source is None else str(one.source),
    }


def _tell(session: Session, groups: Any, sizes: Any) -> None:
    from outlast.cli.mismatch import codes, difference

    order = sorted(groups, key=lambda kind: -sizes[kind])
    for kind in order[:GROUPS_MAX]:
        first = groups[kind][0]
        names = ", ".join(str(one.source or one.execution_id) for one in groups[kind])
        more = f" and {sizes[kind] - len(groups[kind])} more" if sizes[kind] > EXAMPLES_MAX else ""
        session.out(f"✗ {one_line(first.task)}  {one_line(first.text, 400)}")
        lines = [("where", names + more), *difference(first.facts)]
        said = codes(first.facts)
        for label, line in [*lines, *([("why", said)] if said else [])]:
            session.out(f"  {label:<10}  {line}")
    if len(order) > GROUPS_MAX:
        session.out(f"… and {len(order) - GROUPS_MAX} differences more: -o json tells them all")
