"""What an open execution still needs to come to its end, and nobody has sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from campaigns.simulation.actors.clients import make_message
from campaigns.simulation.rules.edges import is_held
from campaigns.simulation.tasks.programs import SORTS
from campaigns.simulation.tasks.small import goes_on
from outlast.engine.read.questions import open_questions
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import Message, MessageKind, State
from outlast.store.protocol import InboxEntry

_RESUME: Final = "resume-"


def is_out_of_budget(record: Record) -> bool:
    """Tell whether an execution is suspended as nothing is left for what it wants."""
    return record.state is State.SUSPENDED and (record.detail or {}).get("code") == "budget"


def is_misfit(record: Record) -> bool:
    """Tell whether an execution is suspended as the code is not the one that was recorded."""
    return record.state is State.SUSPENDED and (record.detail or {}).get("code") == "code_mismatch"


def nudges(record: Record, rows: Any, inbox: Sequence[InboxEntry]) -> list[Message]:
    """Give what an open execution still needs to come to its end, and nobody has sent.

    What was sent, to it or to those that it goes on from (``inbox``), is not sent again: if it was
    lost on the way, that must show.
    """
    if is_out_of_budget(record):
        return []  # a resume would be of no use
    sent = {(entry.message.kind, entry.message.key) for entry in inbox}
    if is_misfit(record) and any(one.message.id.startswith(_RESUME) for one in inbox):
        return [Message(f"give-up-{record.seq}", MessageKind.CANCEL, "nudge")]
    if record.state in (State.PAUSED, State.SUSPENDED) or is_held(record):
        return [Message(f"{_RESUME}{record.seq}", MessageKind.RESUME, "nudge")]
    sort, seed = SORTS[record.task], msgspec.json.decode(rows[0].payload)["seed"]
    found = [
        make_message(MessageKind.SIGNAL, f"final-{need.name}", need.name)
        for need in sort.needs(seed)
        if need.kind == "signal"
        and (MessageKind.SIGNAL, need.name) not in sent
        and (sort.task is not goes_on or is_wanted(record, need.name))
    ]
    for question in open_questions(record, rows):
        if (MessageKind.ANSWER, question.key) not in sent:
            name = f"final-{question.key}"
            found.append(make_message(MessageKind.ANSWER, name, question.key))
    return found


def is_wanted(record: Record, name: str) -> bool:
    """Tell whether an execution waits for a signal just now."""
    waits: Any = (record.detail or {}).get("waits") or ()
    return any(wait.get("title") == name for wait in waits)
