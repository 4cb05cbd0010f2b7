"""All verbs of the protocol, by named statements.

A batch goes out as a few statements of many rows each. The first one compares what the owners knew
with what is stored and returns only what differs, so an expected refusal is an answer, never an
error.

A guard of the database that fires is a bug above it: the transaction is rolled back whole and the
batch is run again item by item, so that only the guilty item is refused, with ``internal_error``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import count
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from outlast.errors import InternalError
from outlast.lifecycle import (
    FINAL,
    Event,
    Execution,
    Kind,
    Message,
    MessageKind,
    Refusal,
    State,
    Transition,
    applied,
    decide,
)
from outlast.lifecycle.gate import BUDGET
from outlast.lifecycle.record import COLUMNS, continued_as
from outlast.store.auditing import Said, deeds_of, purged
from outlast.store.books import Paying, budgets_of, tell, that_fit
from outlast.store.decisions import (
    Errand,
    claim_of,
    crash_loop,
    deliver,
    descent_of,
    due_events,
    edges_of,
    orphan_events,
    take_as_owner,
    take_backlog,
    taken_answer,
    unclaimed,
)
from outlast.store.protocol import (
    ENDS_MAX,
    LOGS,
    STORED,
    Access,
    Answer,
    BudgetEvent,
    BudgetRow,
    Census,
    Claimed,
    Claims,
    Create,
    CreateMany,
    Deliver,
    Descent,
    Ended,
    Feed,
    Filter,
    Health,
    Heard,
    Hints,
    InboxEntry,
    Item,
    Lease,
    Part,
    ProgressRow,
    QueueCount,
    Renewal,
    Reservation,
    Schedules,
    Sealing,
    StreamHead,
    StreamItem,
    Tenants,
    Verdict,
    WorkerRow,
    Write,
)
from outlast.store.relational import listing, members
from outlast.store.relational.alike import rows_of
from outlast.store.relational.apart import FAULTS, Apart
from outlast.store.relational.budgets import (
    any_stirred,
    budget_of,
    event_of,
    lock_money,
    read_books,
    read_reservations,
    reservation_of,
    take_charges,
    take_money,
    values_of,
    write_books,
)
from outlast.store.relational.capacity import RelationalCapacity
from outlast.store.relational.database import Database, json_of
from outlast.store.relational.epochs import RelationalEpochs
from outlast.store.relational.errands import conclude, run_errands
from outlast.store.relational.going_on import go_on
from outlast.store.relational.hearing import Hearing
from outlast.store.relational.pending import Pending, lock_heads, moved, take_chain
from outlast.store.relational.purge import purge
from outlast.store.relational.rows import (
    Value,
    changed_values_of,
    claimed_values_of,
    entry_of,
    execution_of,
    key_of,
    transition_of,
    values_of_message,
    values_of_transition,
)
from outlast.store.relational.streams import item_of, progress_of, write_emissions, write_progress
from outlast.store.relational.verify import verify
from outlast.store.tenants import EVERY, Every
from outlast.store.webhooks import Webhooks

if TYPE_CHECKING:
    from outlast.access.audit import Deed

_WIDTH: Final = len(COLUMNS)
_LOG_AT_ONCE: Final = 500
SOMEBODYS_US: Final = 50_000
"""When to look again at what is due and somebody else has locked."""


class _TwoLeases(Exception):
    """A batch has writes of two leases of one execution: they are judged item by item."""


class RelationalStore:
    """All verbs of the protocol on one database.

    The writing verbs are for one thread; the reading ones may be called from any.
    """

    def __init__(self, database: Database) -> None:
        """Serve what is in a database, which is open and has this code's schema."""
        self.url, self.tenant = database.url, database.tenant
        self.is_shared = database.is_shared
        self.database = database
        self.faults = (*FAULTS, *database.faults)
        self.capacity = RelationalCapacity(self)

    @cached_property
    def schedules(self) -> Schedules:
        """See the protocol."""
        from outlast.store.relational.schedules import RelationalSchedules

        return RelationalSchedules(self)

    @cached_property
    def tenants(self) -> Tenants:
        """See the protocol."""
        from outlast.store.relational.tenants import RelationalTenants

        return RelationalTenants(self)

    @cached_property
    def epochs(self) -> RelationalEpochs:
        """See the protocol."""
        return RelationalEpochs(self)

    @property
    def sealing(self) -> Sealing | None:
        """See the protocol."""
        from outlast.store.relational.sealed import SealedDatabase

        return self.database if isinstance(self.database, SealedDatabase) else None

    @cached_property
    def webhooks(self) -> Webhooks:
        """The verbs on webhooks."""
        from outlast.store.relational.webhooks import RelationalWebhooks

        return RelationalWebhooks(self)

    @cached_property
    def feed(self) -> Feed:
        """See the protocol."""
        from outlast.store.relational.feed import RelationalFeed

        return RelationalFeed(self)

    @cached_property
    def access(self) -> Access:
        """See the protocol."""
        from outlast.store.relational.access import RelationalAccess

        return RelationalAccess(self)

    # Writing

    def commit(self, batch: Sequence[Item]) -> list[Answer]:
        """See the protocol."""
        database = self.database
        with database.translated():
            try:
                return database.transact(lambda: self._audit(batch, self._write_batch(batch)))
            except _TwoLeases:
                pass
            except self.faults:
                pass  # the guilty item is found apart
            tries = count(1)
            return database.transact(
                lambda: self._audit(batch, Apart(self, batch, tries=next(tries)).write())
            )

    def _audit(self, batch: Sequence[Item], answers: list[Answer]) -> list[Answer]:
        """Write the deeds of a batch, the last thing in its transaction."""
        if any(not isinstance(item, Write) and item.deed is not None for item in batch):
            self.audit(deeds_of(batch, answers))
        return answers

    def audit(self, said: Sequence[Said]) -> None:
        """Append to the audit, inside the open transaction and as the last thing in it."""
        from outlast.store.relational.access import append

        append(self.database, said)

    def _write_batch(self, batch: Sequence[Item]) -> list[Answer]:
        """Write a batch inside the open transaction: heads first, deliveries last."""
        lock_heads(self.database, batch)
        answers = [STORED] * len(batch)
        pending = Pending()
        creates: list[tuple[int, Create]] = []
        alike: list[tuple[int, CreateMany]] = []
        chains: dict[str, list[tuple[int, Write]]] = {}
        deliveries: list[tuple[int, Deliver]] = []
        paying: list[tuple[int, Paying]] = []
        for place, item in enumerate(batch):
            if isinstance(item, Write):
                if item.charge is not None:
                    paying.append((place, item))
                if item.id in chains:
                    if chains[item.id][0][1].fence != item.fence:
                        raise _TwoLeases  # the refusal of one must not fall on the other
                    chains[item.id].append((place, item))
                else:
                    chains[item.id] = [(place, item)]
            elif isinstance(item, Create):
                creates.append((place, item))
            elif isinstance(item, CreateMany):
                alike.append((place, item))
            elif isinstance(item, Deliver):
                deliveries.append((place, item))
            else:
                paying.append((place, item))
        lock_money(self.database, paying)
        if alike:
            self._take_alike(alike, answers, pending)
        self._take_owned(creates, chains, batch, answers, pending)
        ended = pending.ended
        senders = [place for place, _ in pending.sends]
        first_send = len(answers)
        for _, send in pending.sends:
            deliveries.append((len(answers), send))
            answers.append(STORED)  # nobody asks what became of it
        words = take_money(self, paying, answers) if paying else ()
        for place, (_, word) in enumerate(words, len(answers)):
            deliveries.append((place, word))
        told = len(answers)
        answers += [STORED] * len(words)
        if deliveries:
            pending = Pending()
            self._take_deliveries(deliveries, answers, pending, may_go_on=True)
            self._flush(pending)
            origins = [*senders, *(origin for origin, _ in words)]
            for end in pending.ended:
                if end.place >= first_send:
                    end.place = origins[end.place - first_send]
            ended += pending.ended
        for place, (origin, _) in enumerate(words, told):
            tell(answers[origin], answers[place])
        if ended:
            conclude(self, ended, answers)
        return answers[: len(batch)]

    def _take_owned(
        self,
        creates: list[tuple[int, Create]],
        chains: dict[str, list[tuple[int, Write]]],
        batch: Sequence[Item],
        answers: list[Answer],
        pending: Pending,
    ) -> None:
        """Write what owners wrote."""
        if creates:
            self._take_creates(creates, chains, answers, pending)
        births = len(pending.sends)
        if chains:
            self._take_writes(chains, answers, pending)
        if pending.births:
            self._take_births(batch, answers, pending)
        self._flush(pending)
        # What comes of them comes in their order, whatever belongs to one execution.
        pending.sends[births:] = sorted(pending.sends[births:], key=itemgetter(0))
        pending.ended.sort(key=attrgetter("place"))

    def _take_creates(
        self,
        creates: list[tuple[int, Create]],
        chains: dict[str, list[tuple[int, Write]]],
        answers: list[Answer],
        pending: Pending,
    ) -> None:
        keys = [item.after.key for _, item in creates if item.after.key is not None]
        holders = {record.key: record for record in self._with_keys(keys)} if keys else {}
        ids = [item.after.id for _, item in creates]
        taken, controlled = self._taken(ids)
        records = self._records(taken)
        upstream = self._upstream(creates)
        for place, sent in creates:
            item = sent if sent.after.worker is None else unclaimed(sent, controlled)
            record, birth = item.after, item.rows[0]
            facts = birth.data or {}
            holder = holders.get(record.key) if record.key is not None else None
            if holder is not None:
                answers[place] = taken_answer(holder, item)
            elif record.id in records:
                answers[place] = Answer("already_exists", records[record.id])
            elif controlled is EVERY:
                answers[place] = Answer("tenant_closed")
            elif "waits_on" in facts and not self._depend(place, item, upstream, records, pending):
                answers[place] = Answer("no_upstream")
            else:
                answers[place] = Answer(None, record, unclaimed=() if item is sent else [record.id])
            if record.id in records:
                continue  # what follows is judged by what is stored
            followers = chains.pop(record.id, ()) if chains else ()
            refused = answers[place].refused
            if refused is not None:
                for late, write in followers:
                    same = write.fence == sent.after.fence
                    answers[late] = Answer(refused if same else "no_execution")
                continue
            records[record.id] = record
            if record.key is not None:
                holders[record.key] = record
            pending.transitions += item.rows
            descent = descent_of(birth) if "from" in facts else None
            if descent is not None:
                pending.descents.append((descent.id, descent.source_id, descent.mode, descent.step))
            if "budget" in facts:
                pending.budgets += budgets_of(birth)
            if followers:  # it was born and moved on within one batch
                head = (record.fence, record.nonce, record.seq, 0)
                after, position = take_chain(followers, head, answers, pending)
                if position is not None:
                    record = moved(after or record, position)
            pending.bear(record)

    def _take_alike(
        self, alike: list[tuple[int, CreateMany]], answers: list[Answer], pending: Pending
    ) -> None:
        """Write births that are alike, each item as a whole; before all else, which sees them."""
        ids = [id for _, item in alike for id in item.ids]
        # They are drawn one after the other, so that hardly anything is ever between them.
        bounds: dict[str, Value] = {"first": min(ids), "last": max(ids)}
        ((near, closed_at),) = self.database.ask_all("first_between", bounds)
        taken = set() if near is None else self._taken(ids)[0]
        for place, item in alike:
            fresh = set(item.ids)
            if len(fresh) < len(item.ids) or not taken.isdisjoint(fresh):
                answers[place] = Answer("already_exists")
            elif closed_at is not None:
                answers[place] = Answer("tenant_closed")
            else:
                taken |= fresh
                self.database.bear(item)
                pending.alike.append(item)

    def _bear(self, place: int, item: CreateMany, answers: list[Answer]) -> None:
        """Take births that are alike, by themselves."""
        pending = Pending()
        self._take_alike([(place, item)], answers, pending)
        self._flush(pending)

    def _take_births(self, batch: Sequence[Item], answers: list[Answer], pending: Pending) -> None:
        """See whether what is born with other executions' rows may be born with its claim."""
        _, controlled = self._taken([birth.after.id for birth in pending.births])
        changed: set[str] = set()
        for place, birth in enumerate(pending.births):
            pending.births[place] = unclaimed(birth, controlled)
            if pending.births[place] is not birth:
                changed.add(birth.after.id)
        for place, item in enumerate(batch):
            if changed and isinstance(item, Write) and answers[place].refused is None:
                ids = [birth.after.id for birth in item.births if birth.after.id in changed]
                answers[place] = Answer(unclaimed=ids) if ids else answers[place]

    def _taken(self, ids: Sequence[str]) -> tuple[set[str], set[str] | Every]:
        """Give which executions exist already, and which queues have rules: all, where closed."""
        found = self.database.ask_rare("taken_ids", ids)
        rules = [one for one in found if one[1] is not None or one[2] is not None]
        queues = {str(name) for name, *_ in rules}
        taken = {str(id) for id, *rule in found if rule == [None, None]}
        return taken, EVERY if "" in queues else queues

    def _upstream(self, creates: list[tuple[int, Create]]) -> dict[str, Execution]:
        """Read the executions that new ones depend on, and those as which they went on."""
        births = (item.rows[0] for _, item in creates)
        wanted = {
            id for birth in births if "waits_on" in (birth.data or ()) for id in edges_of(birth)
        }
        found: dict[str, Execution] = {}
        while wanted:
            self.database.lock("executions", wanted)
            records = self._records(wanted)
            found.update(records)
            wanted = {name for record in records.values() if (name := continued_as(record))}
            wanted -= found.keys()
        return found

    def _depend(
        self,
        place: int,
        item: Create,
        upstream: Mapping[str, Execution],
        born: Mapping[str, Execution],
        pending: Pending,
    ) -> bool:
        """Note whom a new execution waits for; gives whether all of them are there."""
        edges: list[tuple[Value, ...]] = []
        sends: list[tuple[int, Deliver]] = []
        for id in edges_of(item.rows[0]):
            watched = upstream.get(id) or born.get(id)
            if watched is None:
                return False
            # As what it goes on may be purged before it; then its own end counts.
            while (name := continued_as(watched)) is not None and name in upstream:
                watched = upstream[name]
            if watched.is_final:
                errand = Errand(item.after.id, "upstream", id, watched.state)
                sends.append((place, errand.delivery(item.rows[0].at)))
            else:
                edges.append((item.after.id, id, watched.id))
        pending.edges += edges
        pending.sends += sends
        return True

    def _take_writes(
        self, chains: dict[str, list[tuple[int, Write]]], answers: list[Answer], pending: Pending
    ) -> None:
        heads: list[Value] = []
        for id, chain in chains.items():
            item = chain[0][1]
            seen = item.inbox_seen
            if len(chain) > 1:
                seen = next((i.inbox_seen for _, i in chain if i.inbox_seen is not None), None)
            heads += (id, item.fence, item.nonce, item.seq, seen)
        counts: dict[str, int] = {}
        for found in self.database.ask_rare("refused_heads", heads):
            refused_id, state, fence, nonce, seq, count = found
            chain = chains[str(refused_id)]
            item = chain[0][1]
            if (fence, nonce, seq) == (item.fence, item.nonce, item.seq) and state not in FINAL:
                counts[item.id] = int(
                    str(count)
                )  # what came before the item that gives up may stay
                continue
            refused = (
                "no_execution" if state is None else "already_final" if state in FINAL else "fenced"
            )
            for place, _ in chain:
                answers[place] = Answer(refused)
            del chains[item.id]
        for name, chain in chains.items():
            item = chain[0][1]
            head = (item.fence, item.nonce, item.seq, counts.get(name))
            after, position = take_chain(chain, head, answers, pending)
            if after is not None and position is not None:
                pending.saved.append(changed_values_of(moved(after, position)))
            elif position is not None:
                pending.moved.append((name, *position))

    def _take_deliveries(
        self,
        deliveries: list[tuple[int, Deliver]],
        answers: list[Answer],
        pending: Pending,
        *,
        may_go_on: bool = False,
    ) -> None:
        receivers = {item.execution_id for _, item in deliveries}
        self.database.lock("executions", receivers)
        records = self._records(receivers)
        earlier = self._earlier(deliveries)
        moved: dict[str, bool] = {}
        for place, item in deliveries:
            record = records.get(item.execution_id)
            if record is None:
                answers[place] = Answer("no_execution")
                continue
            known = earlier.setdefault(record.id, [])
            # An owner's inbox is its own; nobody's has been taken in, but for a lost owner's.
            backlog = [] if record.is_leased else self._unseen(record)
            delivery = deliver(record, item, known, backlog, self.log)
            answers[place] = Answer(delivery.refused, delivery.after, entry=delivery.entry)
            pending.end(delivery.after, delivery.rows, place)
            records[record.id] = delivery.after
            pending.transitions += delivery.rows
            if delivery.entry is not None:
                known.append(item.message)
                pending.messages.append(values_of_message(self.tenant, record.id, delivery.entry))
            if delivery.rows or delivery.entry is not None:
                moved[record.id] = moved.get(record.id, False) or bool(delivery.rows)
        if may_go_on:
            go_on(self, deliveries, records, answers, pending)
        ending = {id for id, changed in moved.items() if changed and records[id].is_final}
        if ending:
            pending.losses.look(read_reservations(self, ending))
            pending.losses.see(row for row in pending.transitions if row.execution_id in ending)
        for id, changed in moved.items():
            record = records[id]
            if changed:
                pending.told.append((*changed_values_of(record), record.inbox_count))
            else:
                pending.counted.append((id, record.inbox_count))

    def _earlier(self, deliveries: list[tuple[int, Deliver]]) -> dict[str, list[Message]]:
        """Find the messages that have the id of one to come, or answer its question."""
        wanted: list[Value] = []
        for _, item in deliveries:
            wanted += (item.execution_id, item.message.id, item.message.key)
        earlier: dict[str, list[Message]] = {}
        for execution_id, id, kind, key in self.database.ask("earlier_messages", wanted):
            message = Message(str(id), MessageKind(str(kind)), "", key)  # type: ignore[arg-type]
            earlier.setdefault(str(execution_id), []).append(message)
        return earlier

    def claim(
        self,
        lease: Lease,
        tasks: Collection[str],
        limit: int,
        now: int,
        nonces: Sequence[bytes],
        versions: Collection[tuple[str, str]] = (),
    ) -> Claims:
        """See the protocol."""
        limit = min(limit, len(nonces))
        return self.database.write(lambda: self._claim(lease, tasks, versions, limit, now, nonces))

    def _claim(
        self,
        lease: Lease,
        tasks: Collection[str],
        versions: Collection[tuple[str, str]],
        limit: int,
        now: int,
        nonces: Sequence[bytes],
    ) -> Claims:
        claims = Claims()
        pending = Pending()
        part = self.capacity.claim(lease, now)
        waiting = part.candidates(limit, tasks, versions)
        drawn = iter(nonces)
        for record, events in part.desk.admit(waiting, limit):
            if events:
                after = self._append(record, events, now, pending)
                part.blocked(after)
                pending.saved.append(changed_values_of(after))
                continue
            event = claim_of(record, lease.worker, next(drawn), part.floor)
            after = self._decide(record, event, now, pending)
            unseen = self._unseen(after)
            if crash_loop(after, lease) is not None:
                after, rows = take_as_owner(after, unseen, now)
                pending.transitions += rows
                loop = crash_loop(after, lease)
                assert loop is not None
                after = self._decide(after, loop, now, pending)
                part.desk.left(after)
                pending.saved.append(changed_values_of(after))
            else:
                claims.append(Claimed(after, transition_of(part.births[record.id]), unseen))
                pending.claimed.append(claimed_values_of(after))
        self._flush(pending)
        part.leave()
        part.tell(claims)
        return claims

    def _unseen(self, record: Execution) -> list[InboxEntry]:
        if record.inbox_count == record.inbox_seen:
            return []
        bounds: dict[str, Value] = {"id": record.id, "after": record.inbox_seen}
        return list(map(entry_of, self.database.ask_all("inbox", bounds)))

    def sweep(self, now: int, limit: int) -> tuple[int, int | None]:
        """See the protocol."""
        with self.database.translated():
            next_at = self._next_due(now)
            if next_at is None or next_at > now:
                return 0, next_at
            moved = 0
            while moved < limit and (some := self._sweep_once(now, limit - moved)):
                moved += some  # what an errand lets go may be due at once
            next_at = self._next_due(now)
            if self.is_shared and not moved and next_at is not None and next_at <= now:
                next_at = now + SOMEBODYS_US
            return moved, next_at

    def _sweep_once(self, now: int, limit: int) -> int:
        """Move what is due; budgets apart from executions, as their locks come in another order."""
        moved, has_budgets = self.database.transact(lambda: self._sweep_some(now, limit))
        if not has_budgets:
            return moved
        return moved + self.database.transact(lambda: self._sweep_budgets(now, limit - moved))

    def _sweep_some(self, now: int, limit: int) -> tuple[int, bool]:
        run = run_errands(self, now, limit)
        found: list[Execution] = []
        for name in ("overdue_executions", "unstarted_executions", "due_executions"):
            bounds = {"now": now, "limit": limit - run - len(found)}
            found += map(execution_of, self.database.ask_all(name, bounds))
        pending = Pending()
        overdue = {record.id for record in found if _is_overdue(record, now)}
        pending.losses.look(read_reservations(self, overdue))
        for record in found:
            after = self._append(record, due_events(record, now), now, pending)
            pending.saved.append(changed_values_of(after))
        self._flush(pending)
        conclude(self, pending.ended, [])
        one: dict[str, Value] = {"now": now, "limit": 1}
        has_budgets = any_stirred(self) or bool(self.database.ask_all("turning_budgets", one))
        return run + len(found), has_budgets

    def _sweep_budgets(self, now: int, limit: int) -> int:
        """Begin periods anew, and resume whoever waits for a budget that has room again."""
        self.database.lock("gates")
        bounds: dict[str, Value] = {"now": now, "limit": max(limit, 0)}
        turning = list(map(budget_of, self.database.ask_all("turning_budgets", bounds)))
        if turning:
            books = read_books(self, [budget.name for budget in turning], ())
            for budget in turning:
                row = books.budgets.get(budget.name)  # somebody may have turned or purged it
                if row is not None and row.turns_at is not None and row.turns_at <= now:
                    books.turn(row, now)
            write_books(self, books)
            for budget in turning:
                self._look_at_gate(BUDGET + budget.name)
        moved = len(turning)
        for budget in map(budget_of, self.database.ask_all("stirred_budgets", bounds)):
            if moved >= limit:
                break
            left = 2**63 - 1 if budget.left is None else budget.left
            limits = limit - moved
            room: dict[str, Value] = {"name": budget.name, "left": left, "limit": limits}
            waiting = list(map(execution_of, self.database.ask_all("waiting_for_budget", room)))
            pending = Pending()
            for record in that_fit(budget, waiting):
                resume = Event(Kind.RESUME, "engine", data={"cause": "budget"})
                pending.saved.append(changed_values_of(self._decide(record, resume, now, pending)))
            self._flush(pending)
            moved += len(pending.saved)
            # Who needs least comes first: where one did not fit, nobody behind it does; but on a
            # shared store the one that does may be locked just now.
            seen = waiting if self.is_shared else pending.saved
            if len(seen) == limits or self._passed_over(room, len(pending.saved), len(waiting)):
                continue  # it is looked at again
            names: dict[str, Value] = {"scope": budget.scope, "meter": budget.meter}
            self.database.run("calm_budget", names)
            moved += not pending.saved
        return moved

    def _passed_over(self, room: Mapping[str, Value], resumed: int, found: int) -> bool:
        """Tell whether somebody has locked one that waits for a budget, so that it was not seen.

        Who comes to wait for it has to wait for the budget's row, and stirs it again.
        """
        if not self.is_shared:
            return False
        bounds = {"name": room["name"], "left": room["left"]}
        ((count,),) = self.database.ask_all("waiting_at_budget", bounds)
        return int(str(count)) != found - resumed

    def _next_due(self, now: int) -> int | None:
        (instants,) = self.database.ask_all("next_due", {"now": now})
        return min((int(str(at)) for at in instants if at is not None), default=None)

    def recover(self, dead: Collection[str] | None, alive: str, now: int, limit: int) -> int:
        """See the protocol."""
        return self.database.write(lambda: self._recover(dead, alive, now, limit))

    def _recover(self, dead: Collection[str] | None, alive: str, now: int, limit: int) -> int:
        names = members.takeable(self.database, dead, alive, now)
        bounds: dict[str, Value] = {"alive": alive, "dead": json_of(names), "limit": limit}
        found = self.database.ask_all("leased_executions", bounds)
        pending = Pending()
        orphans = list(map(execution_of, found))
        pending.losses.look(read_reservations(self, [record.id for record in orphans]))
        for record in orphans:
            after = self._append(record, orphan_events(record), now, pending)
            after, rows = take_backlog(after, self._unseen(after), now)
            pending.losses.see(rows)
            pending.transitions += rows
            pending.saved.append(changed_values_of(after))
            pending.end(after, rows)
        self._flush(pending)
        conclude(self, pending.ended, [])
        return len(found)

    def register(self, worker: WorkerRow) -> int:
        """See the protocol."""
        return members.register(self.database, worker)

    def renew(
        self, worker: str, lease_us: int, now: int, *, draining: bool = False
    ) -> Renewal | None:
        """See the protocol."""
        return members.renew(self.database, worker, lease_us, now, draining=draining)

    def leave(self, worker: str, now: int) -> None:
        """See the protocol."""
        bounds: dict[str, Value] = {"id": worker, "now": now}
        self.database.write(lambda: self.database.run("leave_worker", bounds))

    def forget_workers(self, before: int) -> int:
        """See the protocol."""
        return self.database.write(lambda: self.database.run("forget_workers", {"before": before}))

    def _append(
        self, record: Execution, events: Iterable[Event], now: int, pending: Pending
    ) -> Execution:
        for event in events:
            record = self._decide(record, event, now, pending)
        return record

    def _decide(self, record: Execution, event: Event, now: int, pending: Pending) -> Execution:
        decision = decide(record, event, now)
        if isinstance(decision, Refusal):
            raise InternalError(f"{event.kind} was refused: {decision.code}", where=record.id)
        pending.losses.see([decision.transition])
        pending.transitions.append(decision.transition)
        after = applied(record, decision)
        pending.end(after, [decision.transition])
        return after

    def _flush(self, pending: Pending) -> None:
        """Send what a transaction has gathered: rows of logs first, as the guards look at them.

        Before them what comes into inboxes, as a row that only counts is to equal its log still.
        """

        def send(name: str, rows: Sequence[Sequence[Value]]) -> None:
            if rows:
                self.database.send(name, rows)

        send("insert_messages", pending.messages)
        send("count_messages", pending.counted)
        for birth in pending.births:
            pending.transitions += birth.rows
            pending.budgets += budgets_of(birth.rows[0])
        send("insert_transitions", list(map(values_of_transition, pending.transitions)))
        for birth in pending.births:
            pending.bear(birth.after)
        send("insert_plain_executions", pending.plain)
        if self.is_shared and len(pending.born) > 1:
            pending.born.sort(key=key_of)  # who makes the same ones waits, and never in a circle
        send("insert_executions", pending.born)
        send("insert_descents", pending.descents)
        send("insert_dependencies", pending.edges)
        send("move_executions", pending.moved)
        send("claim_executions", pending.claimed)
        send("save_executions", pending.saved)
        send("save_told_executions", pending.told)
        send("save_budgets", list(map(values_of, pending.budgets)))
        if pending.emits:
            write_emissions(self.database, pending.emits)
        if pending.progress:
            write_progress(self.database, pending.progress)
        hearing = self.database.hearing
        if hearing is not None:
            rows = pending.transitions
            if pending.alike:
                alike = [row for item in pending.alike for row in rows_of(item, self.tenant)]
                rows = [*alike, *rows]
            hearing.take(rows, [end.record for end in pending.ended])
        if pending.losses.charges:
            take_charges(self, pending.losses.charges)  # whom it would tell has no owner, or ended

    def _look_at_gate(self, gate: str) -> None:
        """Let the next claim look at those that wait at a gate."""
        self.database.lock("gates")
        self.database.run("look_at_gate", {"gate": gate})

    def _lease_of(self, ids: Collection[str]) -> dict[str, tuple[int, bytes | None]]:
        """Give the leases of executions that are leased."""
        return {
            id: (record.fence, record.nonce)
            for id, record in self._records(sorted(ids)).items()
            if record.is_leased
        }

    def _records(self, ids: Iterable[str]) -> dict[str, Execution]:
        rows = self.database.ask("executions_by_id", list(ids))
        return {record.id: record for record in map(execution_of, rows)}

    def _with_keys(self, keys: Sequence[str]) -> list[Execution]:
        return list(map(execution_of, self.database.ask("executions_by_key", keys)))

    # Reading

    def workers(self, limit: int = 100) -> list[WorkerRow]:
        """See the protocol."""
        return list(map(members.worker_of, self.database.read("workers", {"limit": limit})))

    def expired(self, now: int, *, thorough: bool = False) -> list[str]:
        """See the protocol."""
        return members.expired(self.database, now, thorough=thorough)

    def hurry(self, is_on: bool) -> None:
        """See the protocol."""
        self.database.hurry(is_on)

    def hints(self, heard: Callable[[str], None]) -> Hints | None:
        """See the protocol."""
        return self.database.hints(heard)

    def get(self, ids: Sequence[str]) -> list[Execution | None]:
        """See the protocol."""
        rows = self.database.read_many("executions_by_id", ids)
        found = {record.id: record for record in map(execution_of, rows)}
        return [found.get(id) for id in ids]

    def find(self, text: str, limit: int) -> list[str]:
        """See the protocol."""
        bounds: dict[str, Value] = {"text": text, "limit": limit}
        rows = self.database.read("ids_beginning", bounds)
        if not rows:
            rows = self.database.read("ids_ending", {**bounds, "among": ENDS_MAX})
        return [str(row[0]) for row in rows]

    def with_key(self, key: str) -> Execution | None:
        """See the protocol."""
        rows = self.database.read_many("executions_by_key", [key])
        return execution_of(rows[0]) if rows else None

    def page(self, filter: Filter) -> list[Execution]:
        """See the protocol."""
        return listing.page(self.database, filter)

    def part(self, filter: Filter, rows_max: int) -> Part:
        """See the protocol."""
        return listing.part(self.database, filter, rows_max)

    def descents(self, ids: Sequence[str]) -> list[Descent]:
        """See the protocol."""
        rows = self.database.read("descents", {"ids": json_of(ids)})
        told = {str(row[0]): Descent(*row) for row in rows}  # type: ignore[arg-type]
        return [told[id] for id in sorted(told)]

    def counts(self) -> dict[State, int]:
        """See the protocol."""
        return {
            State(str(state)): int(str(count))
            for state, count in self.database.read("open_counts", {})
        }

    def census(self) -> Census:
        """See the protocol. On a connection of its own: no other reading waits for it."""
        states: dict[State, int] = {}
        queues: dict[str, QueueCount] = {}
        with self.database.reader() as reader:
            for name in ("open_counts", "ended_counts"):
                for state, many in reader.ask_all(name, {}):
                    states[State(str(state))] = int(str(many))
            for queue, queued, leased, turn_at in reader.ask_all("queue_census", {}):
                turn = None if turn_at is None else int(str(turn_at))
                queues[str(queue)] = QueueCount(int(str(queued)), int(str(leased)), turn)
        return Census(states, queues)

    def health(self, before: int) -> Health:
        """See the protocol."""
        facts = {
            str(name): int(str(value)) if str(value).isdecimal() else str(value)
            for name, value in self.database.read("store_settings", {})
            if value is not None
        }
        ((count, since),) = self.database.read("overdue", {"before": before})
        return Health(
            {**facts, **self.database.facts()},
            int(str(count)),
            None if since is None else int(str(since)),
        )

    def hear(self, heard: Heard | None) -> None:
        """See the protocol."""
        self.database.hearing = None if heard is None else Hearing(heard)

    def logs(self, ids: Sequence[str]) -> list[list[Transition]]:
        """See the protocol."""
        if len(ids) == 1:
            return [self.log(ids[0])]
        found = self.database.read_many("logs", ids)
        rows: dict[str, list[Transition]] = {id: [] for id in ids}
        for row in map(transition_of, found):
            rows[row.execution_id].append(row)
        return [sorted(rows[id], key=lambda row: row.seq) for id in ids]

    def log(self, id: str, after_seq: int = 0, limit: int = -1) -> list[Transition]:
        """See the protocol."""
        rows: list[Transition] = []
        while limit < 0 or len(rows) < limit:
            size = _LOG_AT_ONCE if limit < 0 else min(_LOG_AT_ONCE, limit - len(rows))
            bounds: dict[str, Value] = {"id": id, "after": after_seq, "limit": size}
            part = self.database.read("log", bounds)
            rows += map(transition_of, part)
            if len(part) < size:
                break
            after_seq = rows[-1].seq
        return rows

    def inbox(self, id: str, after: int = 0) -> list[InboxEntry]:
        """See the protocol."""
        return list(map(entry_of, self.database.read("inbox", {"id": id, "after": after})))

    def unread(self, worker: str) -> list[str]:
        """See the protocol."""
        return [str(row[0]) for row in self.database.read("unread_executions", {"worker": worker})]

    def asking(self, to: str | None, after_id: str, limit: int, *, newest: bool) -> list[str]:
        """See the protocol."""
        bounds: dict[str, Value] = {
            "to": to,
            "after": after_id or ("~" if newest else ""),
            "limit": limit,
        }
        rows = self.database.read("asking_newest" if newest else "asking_oldest", bounds)
        return [str(id) for (id,) in rows]

    def dependents(self, id: str, limit: int) -> list[str]:
        """See the protocol."""
        rows = self.database.read("dependents", {"id": id, "limit": limit})
        return [str(dependent) for (dependent,) in rows]

    def stream(self, id: str, name: str, after: int = 0, limit: int = -1) -> list[StreamItem]:
        """See the protocol."""
        bounds: dict[str, Value] = {"id": id, "name": name, "after": after, "limit": limit}
        return [item_of(name, columns) for columns in self.database.read("stream_items", bounds)]

    def streams(self, id: str) -> list[StreamHead]:
        """See the protocol."""
        heads = [StreamHead(*row) for row in self.database.read("stream_heads", {"id": id})]  # type: ignore[arg-type]
        return [head for head in heads if head.name != LOGS]

    def progress(self, ids: Collection[str]) -> dict[str, ProgressRow]:
        """See the protocol."""
        return dict(
            map(progress_of, self.database.read("progress_of", {"ids": json_of(sorted(ids))}))
        )

    def secret(self, name: str, drawn: bytes) -> bytes:
        """See the protocol."""
        return self.database.write(lambda: self._keep_secret(name, drawn))

    def _keep_secret(self, name: str, drawn: bytes) -> bytes:
        self.database.run("keep_secret", {"name": f"secret:{name}", "value": drawn})
        ((kept,),) = self.database.ask_all("secret", {"name": f"secret:{name}"})
        assert isinstance(kept, bytes)
        return kept

    def budgets(
        self, scopes: Collection[str] | None = None, *, after: str = "", limit: int = -1
    ) -> list[BudgetRow]:
        """See the protocol."""
        bounds: dict[str, Value] = {"after": after, "limit": limit}
        if scopes is None:
            return list(map(budget_of, self.database.read("shared_budgets", bounds)))
        bounds["scopes"] = json_of(sorted(scopes))
        return list(map(budget_of, self.database.read("budgets_of_scopes", bounds)))

    def budget_events(self, scope: str, meter: str) -> list[BudgetEvent]:
        """See the protocol."""
        rows = self.database.read("budget_events", {"scope": scope, "meter": meter})
        return [event_of(f"{scope}:{meter}", columns) for columns in rows]

    def spending(self, execution_id: str) -> Mapping[str, int]:
        """See the protocol."""
        rows = self.database.read("spending_of", {"id": execution_id})
        return {f"{scope}:{meter}": int(str(amount)) for scope, meter, amount in rows}

    def reservations(self, execution_id: str) -> list[Reservation]:
        """See the protocol."""
        return list(map(reservation_of, self.database.read_many("reservations_of", [execution_id])))

    def ended(self, after_id: str, before_id: str, before: int, limit: int) -> list[Ended]:
        """See the protocol."""
        bounds: dict[str, Value] = {
            "after_id": after_id,
            "before_id": before_id,
            "before": before,
            "limit": limit,
        }
        return [
            Ended(str(id), str(task), State(str(state)), int(str(at)))
            for id, task, state, at in self.database.read("ended_executions", bounds)
        ]

    def purge(self, ids: Sequence[str], deed: Deed | None = None) -> int:
        """See the protocol."""

        def act() -> int:
            deleted = purge(self.database, ids)
            if deed is not None and deleted:
                self.audit([(deed, "executions", purged(ids, deleted))])
            return deleted

        return self.database.write(act)

    def verify(self) -> Verdict:
        """See the protocol."""
        return verify(self)

    def backup(self, path: Path) -> None:
        """See the protocol."""
        self.database.backup(path)

    def instant(self, now: int) -> int:
        """See the protocol."""
        return members.instant(self.database, now)

    def changed(self) -> bool:
        """See the protocol. For the writing thread."""
        return self.database.changed()

    def close(self) -> None:
        """See the protocol."""
        self.database.close()


def _is_overdue(record: Execution, now: int) -> bool:
    """Tell whether the clock ends it."""
    return any(at is not None and at <= now for at in (record.deadline_at, record.start_by))
