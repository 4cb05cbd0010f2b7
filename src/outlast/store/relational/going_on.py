"""Claim with its delivery what a message has woken, where no claim has to be asked.

Theory of operation. What a message wakes is queued, and a claim would take it with the next
transaction: read it, look at whose turn it is, and change its row again. Where the sender's engine
has offered a slot, and nobody could have been first, the claim is decided in the transaction of the
delivery: one more row of the log, the same change of the execution's row, and the log is read once,
with those of its neighbours. Who may go on so is decided by :func:`outlast.store.admission.at_once`
for every store; all others stay in their queues, and the next claim finds them there.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from outlast.lifecycle import Execution, Transition
from outlast.store.admission import at_once
from outlast.store.decisions import claim_of
from outlast.store.protocol import Answer, Claimed, Deliver
from outlast.store.relational.pending import Pending
from outlast.store.relational.rows import transition_of
from outlast.store.tenants import Every

if TYPE_CHECKING:
    from outlast.store.relational.store import RelationalStore


def go_on(
    store: RelationalStore,
    deliveries: Sequence[tuple[int, Deliver]],
    records: dict[str, Execution],
    answers: list[Answer],
    pending: Pending,
    asked: Container[str] | None = None,
) -> list[str]:
    """Claim what deliveries have woken, as far as their offers and the rules go.

    Args:
        store: inside its open transaction.
        deliveries: those of the transaction, with the places of their answers.
        records: whom messages came to, as they are now; gets those that are claimed.
        answers: gets what was claimed.
        pending: has what of the deliveries is not sent yet, and gets the claims' rows.
        asked: :func:`queues_that_ask`, where the deliveries are sent already.

    Returns:
        Who is claimed; whoever calls this saves their rows.
    """
    offered = {item.execution_id: (place, item) for place, item in deliveries if item.offer}
    fit = at_once({id: item.offer for id, (_, item) in offered.items() if item.offer}, records)
    if fit and asked is None:
        asked = queues_that_ask(store, fit[0])
    fit = [id for id in fit if records[id].queue not in (asked or ())]
    if not fit:
        return []
    logs: dict[str, list[Transition]] = {id: [] for id in fit}
    for row in sorted(map(transition_of, store.database.ask("logs", fit)), key=_place):
        logs[row.execution_id].append(row)
    for row in pending.transitions:
        if row.execution_id in logs:
            logs[row.execution_id].append(row)
    floor = store.epochs.floor()
    for id in fit:
        place, item = offered[id]
        assert item.offer is not None
        event = claim_of(records[id], item.offer.lease.worker, item.offer.nonce, floor)
        after = records[id] = store._decide(records[id], event, item.now, pending)
        log = [*logs[id], pending.transitions[-1]]
        answers[place].claimed = Claimed(after, log[0], log=log)
    return fit


def queues_that_ask(store: RelationalStore, id: str) -> Container[str]:
    """Name the queues in which a claim has to be asked: somebody waits there, or they have rules.

    All of them, where the tenant is closed.

    Args:
        store: inside its open transaction, in which nothing has been woken yet.
        id: of any execution, as rules are read together with some.
    """
    waiting = store.database.ask_all("waiting_queues", {})
    _, controlled = store._taken([id])
    if isinstance(controlled, Every):
        return controlled
    return {str(name) for name, has_lines, *_ in waiting if not has_lines} | controlled


def _place(row: Transition) -> int:
    return row.seq


__all__ = ["go_on", "queues_that_ask"]
