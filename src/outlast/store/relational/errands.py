"""What the end of an execution means for others: words to parents, and errands for a later sweep.

Theory of operation. Whoever ends an execution, in whatever transaction, leaves an ``End``. Before
that transaction commits, its parent is told, those that depend on it are made to watch the
execution as which it goes on, and what it owes is noted, one row for each: so that nothing is
forgotten, and no end is longer than a statement or two. A sweep runs the errands, a few at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from outlast.lifecycle.record import continued_as
from outlast.store.decisions import Errand, word_to_parent
from outlast.store.protocol import STORED, Answer
from outlast.store.relational.pending import End, Pending
from outlast.store.relational.rows import Value

if TYPE_CHECKING:
    from outlast.store.relational.store import RelationalStore


def conclude(store: RelationalStore, ended: Sequence[End], answers: list[Answer]) -> None:
    """Tell the parents of what has ended, and note what it owes to others."""
    while ended:
        more = _tell_parents(store, ended, answers)
        for end in ended:
            _hand_over(store, end, answers)
        _note_errands(store, ended, answers)
        ended = more


def _tell_parents(store: RelationalStore, ended: Sequence[End], answers: list[Answer]) -> list[End]:
    """Deliver the words; gives who has ended by that, as a cancel was in its inbox before."""
    words = [(end, word) for end in ended if (word := word_to_parent(end.record, end.last))]
    if not words:
        return []
    told = [STORED] * len(words)
    pending = Pending()
    store._take_deliveries([(place, word) for place, (_, word) in enumerate(words)], told, pending)
    store._flush(pending)
    for (end, _), answer in zip(words, told, strict=True):
        if answer.entry is not None and answer.execution is not None:
            said = end.answer(answers)
            said.told = [*said.told, (answer.execution, answer.entry)]
    for end in pending.ended:
        end.place = words[end.place][0].place
    return pending.ended


def _hand_over(store: RelationalStore, end: End, answers: list[Answer]) -> None:
    """Let what others owe to one that goes on as another come to that one."""
    record, successor = end.record, continued_as(end.record)
    if successor is None:
        return
    bounds: dict[str, Value] = {"id": record.id, "successor": successor}
    store.database.run("watch_successor", bounds)
    if record.parent_key is not None:
        bounds = {"parent": record.parent_id, "successor": successor}
        if store.database.run("owe_successor", bounds):
            end.answer(answers).owes = True


def _note_errands(store: RelationalStore, ended: Sequence[End], answers: list[Answer]) -> None:
    rows = [(end.record.id, end.record.state, end.record.children) for end in ended]
    if len(rows) == 1:
        store.database.send_counted("insert_errands", rows, partial(_owe, ended[0].answer(answers)))
        return
    count = store.database.sent("insert_errands", rows)
    if not count:
        return
    owing = {ended[0].record.id}
    if len(ended) > 1:
        found = store.database.ask_all("owing", {"count": count})
        owing = {str(id) for (id,) in found}
    for end in ended:
        if end.record.id in owing:
            end.answer(answers).owes = True


def _owe(answer: Answer, count: int) -> None:
    if count:
        answer.owes = True


def run_errands(store: RelationalStore, now: int, limit: int) -> int:
    """Deliver what executions that have ended owe; gives how many errands were run."""
    found = store.database.ask_all("errands", {"limit": limit})
    if not found:
        return 0
    errands = [Errand(*map(str, columns[1:])).delivery(now) for columns in found]
    pending = Pending()
    answers = [STORED] * len(errands)
    store._take_deliveries(list(enumerate(errands)), answers, pending)
    store._flush(pending)
    conclude(store, pending.ended, answers)
    store.database.send("end_errands", [(int(str(columns[0])),) for columns in found])
    return len(found)
