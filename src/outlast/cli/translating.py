"""An execution in the words of another system: ``outlast show --as``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outlast.cli.session import Cell, Session
from outlast.cli.words import clock, one_line
from outlast.dialects import DIALECTS, Dialect, DialectTransition, is_final, project, status_of

if TYPE_CHECKING:
    from outlast.lifecycle import Execution, Transition


def tell(session: Session, name: str, record: Execution, log: list[Transition]) -> None:
    """Write an execution's status and transitions in the words of the dialect of this name."""
    dialect = DIALECTS[name]
    if session.as_json:
        session.json(dialect_form(dialect, record, log))
    elif session.output == "ids":
        session.out(record.id)
    else:
        status = dialect.label(status_of(dialect, log))
        session.out(f"{session.paint(record.id, 'bold')}  {one_line(record.task)}  {status}")
        heads = ["SEQ", "TIME", "FROM", "TO", "TRANSITION"]
        rows = [_cells(dialect, one) for one in project(dialect, log)]
        if dialect.root:
            heads.insert(2, "ACTION")
        session.table(heads, rows)


def _cells(dialect: Dialect, one: DialectTransition) -> list[Cell]:
    remarks = [word for word in (one.is_synthetic and "synthetic", one.reason) if word]
    said = " ".join([one.name or "–", *(f"({remark})" for remark in remarks)])
    style = "dim" if one.is_synthetic else ""
    action: list[Cell] = [(one_line(one.action, 40), style)] if dialect.root else []
    return [
        str(one.seq),
        clock(one.at),
        *action,
        (dialect.label(one.source), style),
        (dialect.label(one.target), style),
        (said, style),
    ]


def dialect_form(dialect: Dialect, record: Execution, log: list[Transition]) -> dict[str, Any]:
    """Write an execution in another system's words, as JSON."""
    from outlast.forms import told_form

    status = status_of(dialect, log)
    return {
        "id": record.id,
        "task": record.task,
        "as": dialect.name,
        "status": status,
        **({"number": dialect.numbers[status]} if dialect.numbers else {}),
        "is_final": is_final(dialect, status),
        "transitions": [told_form(dialect, one) for one in project(dialect, log)],
    }
