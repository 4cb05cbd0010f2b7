"""What an execution may still spend: asked before a body starts, told when it has ended.

Theory of operation. The store's budgets are the truth; a :class:`Ledger` is what this process has
last heard of them, for all its executions. A :class:`Purse` is one execution's; most have none.

Before a body whose step has a cost starts, its purse sets the cost aside by an item of its own
(:class:`~outlast.store.protocol.Reserve`), which changes no log: a refused row would take with it
all that the code ran ahead. Only a stored reservation lets the body start. What does not fit is not
asked for: the call stays with its driver, and once nothing else is under way the execution is
suspended. The ledger may be wrong about that, as others spend and raise meanwhile: the suspension
names the budget it waits for, and the store sees at once whether there is room.

What a body has spent goes into the row of its outcome, and the reservation ends with that row. A
row that gives the lease up ends what is left; what nobody came to tell about is taken for spent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct

from outlast.budget import (
    SECONDS,
    data_of_charge,
    is_shared,
    limits_at_birth,
    name_of,
    parts_of,
    shown,
)
from outlast.engine.replay.scope import Call
from outlast.engine.write.journal import Journal
from outlast.engine.write.pace import Pace
from outlast.errors import OverBudget, StepTimeout
from outlast.lifecycle import Event, Execution, Kind, Transition
from outlast.store.protocol import Answer, BudgetRow, Charge, Reserve

if TYPE_CHECKING:
    from outlast.engine.steps.body import Body

_OUTCOMES: Final = frozenset({Kind.STEP, Kind.ATTEMPT_FAILED, Kind.CALL_ABANDONED})
_ENDS_OF_BODIES: Final = _OUTCOMES | {Kind.ANNOTATION}
_GIVES_UP: Final = frozenset({Kind.RELEASE, Kind.WAIT, Kind.PAUSE, Kind.SUSPEND})
_ENDS: Final = frozenset({Kind.RETRY, Kind.FINISH, Kind.ERROR, Kind.CANCEL, Kind.DEADLINE})
"""The rows with which a history ends, so that its code's reservations end as well."""


class ReserveCall:
    """What task code sets aside, as a durable call of kind ``reserve``."""

    __slots__ = ("amounts",)

    def __init__(self, amounts: Mapping[str, int]) -> None:
        self.amounts = amounts


class Short(Struct, frozen=True):
    """A call that has to wait for a budget.

    Attributes:
        key: the call.
        name: the budget.
        need, left: what is needed of it, and what is left, in millionths.
        limit, spent: of the budget.
    """

    key: str
    name: str
    need: int
    left: int
    limit: int
    spent: int

    def as_data(self) -> dict[str, object]:
        """Give it as a suspension records it."""
        return {
            "name": self.name,
            "need": self.need,
            "missing": self.need - self.left,
            "limit": self.limit,
            "spent": self.spent,
            "call": self.key,
        }

    def text(self) -> str:
        """Say it in a sentence, without the execution's name."""
        meter = parts_of(self.name)[1]
        return (
            f"budget {self.name} has {shown(max(self.left, 0))} of {shown(self.limit)} {meter} "
            f"left; {self.key} needs {shown(self.need - min(self.left, 0))}"
        )

    def hint(self) -> str:
        """Say what to do about it."""
        scope, meter = parts_of(self.name)
        kind, _, id = scope.partition(":")
        whose = id if kind in ("execution", "tree") else scope
        return (
            f"outlast budget raise {whose} {meter}={shown(self.need - self.left).replace(',', '')}"
        )


class Ledger:
    """What this process has last heard of the budgets that its executions charge."""

    def __init__(self) -> None:
        self._known: dict[str, BudgetRow] = {}
        self._users: Counter[str] = Counter()
        self._shared: dict[str, tuple[str, ...]] = {}
        self.pace = Pace()

    @property
    def has_shared(self) -> bool:
        """Whether there is any budget of a task or of the tenant."""
        return bool(self._shared)

    def shared_by(self, task: str) -> tuple[str, ...]:
        """Name the shared budgets that executions of this task charge."""
        if not self._shared:
            return ()
        return self._shared.get(f"task:{task}", ()) + self._shared.get("tenant", ())

    def is_spent_up(self, task: str) -> bool:
        """Tell whether nothing is left of a budget that this task shares."""
        shared = self.shared_by(task)
        return any(self._known[name].spent_up_at is not None for name in shared)

    def learn(self, budgets: Iterable[BudgetRow]) -> None:
        """Hear of budgets as they are now."""
        for budget in budgets:
            name = budget.name
            if name not in self._known and is_shared(budget.scope):
                self._shared[budget.scope] = (*self._shared.get(budget.scope, ()), name)
            self._known[name] = budget

    def use(self, names: Iterable[str]) -> None:
        """Keep what is heard of these budgets, until they are let go as often."""
        self._users.update(names)

    def let_go(self, names: Iterable[str]) -> None:
        """Forget budgets of executions that are gone."""
        for name in names:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name]
                self._known.pop(name, None)

    def limited(self, names: Iterable[str], priced: Container[str]) -> dict[str, int]:
        """Give what is left of those of these budgets that are limited, by name.

        Args:
            names: the budgets.
            priced: meters that do not count; the engine's own never does.
        """
        found = {}
        for name in names:
            left = None if name not in self._known else self._known[name].left
            meter = parts_of(name)[1]
            if left is not None and meter != SECONDS and meter not in priced:
                found[name] = left
        return found

    def will_be_overdrawn(self, names: Iterable[str]) -> bool:
        """Tell whether charges on their way to the store take more than one of these has left."""
        pending = self.pace.pending
        for name in names if pending else ():
            budget = self._known.get(name)
            if budget is not None and budget.left is not None and pending[name] > budget.left:
                return True
        return False

    def short(self, key: str, names: Iterable[str], amounts: Mapping[str, int]) -> Short | None:
        """Find the first of these budgets that has no room for what a call needs.

        A body that costs nothing needs none, but may not start once more than there is was spent.
        What is charged for time comes of every body, so some of it must be left.
        """
        for name in names:
            budget = self._known.get(name)
            if budget is None or budget.left is None or budget.limit is None:
                continue
            need = amounts.get(name, 1 if budget.meter == SECONDS else 0)
            if need > budget.left:
                return Short(key, name, need, budget.left, budget.limit, budget.spent)
        return None


class Holder(Protocol):
    """What a purse needs of its driver."""

    @property
    def record(self) -> Execution:
        """The execution as its last row has left it."""

    @property
    def is_over(self) -> bool:
        """Whether it does nothing any more."""

    def wake(self) -> None:
        """See, a little later, whether something can go on now."""

    def again(self, call: Call) -> None:
        """Take a call back, and see whether it can go on now."""

    def forsaken(self, answer: Answer) -> None:
        """Hear that its lease is gone."""


class Purse:
    """What one leased execution may spend.

    Attributes:
        short: the first call, of those that were looked at last, that has to wait for a budget.
        is_asking: whether an answer of the store is awaited.
    """

    def __init__(
        self, holder: Holder, journal: Journal, ledger: Ledger, own: tuple[str, ...]
    ) -> None:
        self._holder = holder
        self._journal = journal
        self._ledger = ledger
        self._own = own
        self._asked: dict[str, Any] = {}
        self._granted: dict[str, str] = {}
        self._of_code: dict[str, Mapping[str, int]] = {}
        self._loose: list[str] = []
        self._dropped: set[str] = set()
        self._wanted: dict[str, Mapping[str, int]] = {}
        self._has_past = False
        self._paced: dict[str, tuple[str, ...]] = {}
        self.short: Short | None = None
        ledger.use(own)

    @property
    def names(self) -> tuple[str, ...]:
        """The budgets that it charges."""
        return self._own + self._ledger.shared_by(self._holder.record.task)

    @property
    def own(self) -> tuple[str, ...]:
        """Those of them that not everybody shares."""
        return self._own

    @property
    def is_asking(self) -> bool:
        """Whether an answer of the store is awaited."""
        return bool(self._asked)

    def close(self) -> None:
        """Forget it."""
        self._ledger.let_go(self._own)
        for key in list(self._paced):
            self._off_pace(key, None)

    def see(self, rows: Iterable[Transition]) -> None:
        """See the rows of the current history: what its code has set aside.

        An owner before may have set aside what the code never heard of; it ends with the execution.
        """
        self._has_past = True
        for row in rows:
            data: Any = row.data or {}
            if row.kind is Kind.STEP and "reserved" in data and row.key is not None:
                self._of_code[row.key] = data["reserved"]
            elif row.kind is Kind.ANNOTATION and "settles" in data:
                self._of_code.pop(data["settles"], None)

    def adopt(self, names: Iterable[str]) -> None:
        """Charge these budgets as well from now on; it was given them while it was open."""
        fresh = tuple(name for name in names if name not in self._own)
        self._own += fresh
        self._ledger.use(fresh)
        unknown = [name for name in fresh if name not in self._ledger._known]
        self._ledger.learn(BudgetRow(*parts_of(name)) for name in unknown)

    def hear(self, data: Mapping[str, object]) -> None:
        """Hear of a change of a budget of its own."""
        scope, meters = f"{data.get('scope')}:{self._holder.record.id}", data.get("meters")
        if isinstance(meters, Mapping):
            known = self._ledger._known
            for meter, said in meters.items():
                budget = known.get(f"{scope}:{meter}")
                if budget is not None:
                    budget.limit = said["limit"]

    # Before

    def look(self) -> None:
        """Begin to look at calls anew."""
        self.short = None

    def admits(self, call: Call) -> bool | None:
        """Tell whether a call may go on; None: the store was asked, and the call comes again."""
        key = call.key
        if key in self._granted or self._holder.record.cancel_at is not None:
            return True  # nothing holds up a clean-up
        needed = call.payload.amounts if call.kind == "reserve" else call.payload.step.cost or {}
        amounts = wanted = self._by_name(needed)
        if key in self._wanted:  # its body did not get this the last time
            more = dict(needed)
            add(more, self._wanted[key])
            wanted = self._by_name(more)
        short = self._ledger.short(key, self.names, wanted)
        if short is None and call.kind == "step":
            short = self._out_of(call, needed)
        if short is not None:
            self.short = self.short or short
            return False
        if call.kind == "step":
            if not amounts and self._ledger.will_be_overdrawn(self.names):
                self._ledger.pace.wait(self._holder)  # the store is about to say so
                return False
            if not self._keeps_pace(call, needed):
                return False
        self._wanted.pop(key, None)
        if not amounts:
            return True
        self._ask(key, call, amounts, outlives=call.kind == "reserve")
        return None

    def _out_of(self, call: Call, priced: Container[str]) -> Short | None:
        """Find a budget of which nothing is left, where the step is known to spend of it."""
        step = call.payload.step.name
        for name, left in self._ledger.limited(self.names, priced).items():
            if self._ledger.pace.is_out(step, name, left):
                budget = self._ledger._known[name]
                return Short(call.key, name, 1, left, budget.limit or 0, budget.spent)
        return None

    def _keeps_pace(self, call: Call, priced: Container[str]) -> bool:
        """Tell whether a body may start whose cost is not known; else it is woken for its turn."""
        budgets = self._ledger.limited(self.names, priced)
        if not budgets:
            return True
        pace, body = self._ledger.pace, (self._holder.record.id, call.key)
        if not pace.admits(body, call.payload.step.name, budgets):
            pace.wait(self._holder)
            return False
        self._paced[call.key] = tuple(budgets)
        return True

    def _off_pace(self, key: str, spent: Mapping[str, int] | None) -> None:
        names = self._paced.pop(key, None)
        if names is not None:
            self._ledger.pace.ended((self._holder.record.id, key), names, spent)

    def sent(self, charge: Charge) -> None:
        """Hear that a charge is on its way to the store; :meth:`stored` follows."""
        self._ledger.pace.charged(charge.amounts)

    def stored(self, charge: Charge) -> None:
        """Hear that a charge is stored, or never will be."""
        self._ledger.pace.stored(charge.amounts)

    def _by_name(self, amounts: Mapping[str, int]) -> dict[str, int]:
        if not amounts:
            return {}
        named = ((name, amounts.get(parts_of(name)[1], 0)) for name in self.names)
        return {name: amount for name, amount in named if amount}

    def _ask(self, key: str, asker: Any, amounts: Mapping[str, int], *, outlives: bool) -> None:
        self._asked[key] = asker
        record = self._holder.record
        item = Reserve(record.id, record.fence, record.nonce, key, amounts, outlives)
        self._journal.submit(item, self)

    def ask_for(self, body: Body, key: str, amounts: Mapping[str, int], hears: Any) -> None:
        """Set more aside for a body that runs; ``hears`` is called with an error, or None."""
        named = self._by_name(amounts)
        if not named or self._holder.record.cancel_at is not None:
            hears(None)
            return
        self._ask(key, (body, amounts, hears), named, outlives=False)

    def settled(self, item: Reserve, answer: Answer) -> None:
        """Hear from the journal what became of a reservation."""
        asker = self._asked.pop(item.key)
        self._ledger.learn(answer.budgets)
        if self._holder.is_over:
            return
        if answer.refused not in (None, "over_budget"):
            self._holder.forsaken(answer)
        elif isinstance(asker, tuple):
            self._settled_for_body(item, answer, *asker)
        elif asker.key in self._dropped:
            self._dropped.discard(asker.key)
            if answer.refused is None:
                self._loose.append(asker.key)
            self._holder.again(asker)
        else:
            if answer.refused is None:
                self._granted[asker.key] = asker.key
            self._holder.again(asker)

    def _settled_for_body(
        self, item: Reserve, answer: Answer, body: Body, amounts: Mapping[str, int], hears: Any
    ) -> None:
        if answer.refused is None:
            self._granted[item.key] = body.call.key
            hears(None)
            return
        self._wanted[body.call.key] = amounts
        short = self._ledger.short(body.call.key, self.names, item.amounts)
        what = "a reservation does not fit" if short is None else short.text()
        do = "" if short is None else short.hint()
        hears(OverBudget(what, where=item.execution_id, do=do))

    def drop(self, call: Call) -> None:
        """Nobody awaits this call any more, and its body has not started."""
        self._off_pace(call.key, None)
        if call.key in self._asked:
            self._dropped.add(call.key)
        elif self._granted.pop(call.key, None) is not None:
            self._loose.append(call.key)

    def granted_to_code(self, call: Call) -> None:
        """Note that task code has what it asked for."""
        self._granted.pop(call.key, None)
        self._of_code[call.key] = call.payload.amounts

    # After

    def charge_for(self, event: Event, bodies: Mapping[str, Body]) -> Charge | None:
        """Give the charge of a row that is about to be decided, and make it say so."""
        kind, data = event.kind, event.data
        ends = "all" if kind in _ENDS else "bodies" if kind in _GIVES_UP else None
        if ends is not None:
            data = self._last_words(event, bodies, ends)
        spent: Any = data.get("spent") if data is not None else None
        settled = self._settled_by(event)
        amounts: dict[str, int] = {}
        if spent:
            amounts = self._by_name(spent)
            event.data = {**(data or {}), **data_of_charge(spent, amounts)}
        if self._paced and event.key is not None and kind in _ENDS_OF_BODIES:
            self._off_pace(event.key, None if kind is Kind.CALL_ABANDONED else spent or {})
        awaits: Any = None
        if kind is Kind.SUSPEND and data is not None and "budget" in data:
            awaits = data["budget"]["name"]  # type: ignore[index]
        has_more = ends is not None and bool(self._granted or self._of_code or self._asked)
        has_more = has_more or (ends == "all" and self._has_past)
        if not (amounts or settled or awaits or has_more):
            return None
        return Charge(amounts, settled, ends, awaits)

    def _last_words(
        self, event: Event, bodies: Mapping[str, Body], ends: str
    ) -> Mapping[str, object] | None:
        """Take for spent what bodies under way, and code that is at its end, have set aside."""
        spent: dict[str, int] = {}
        for body in bodies.values():
            add(spent, self.spent_by(body, lost=True) or {})
        if ends == "all":
            for reserved in self._of_code.values():
                add(spent, reserved)
        kept = {
            name: value
            for name, value in (event.data or {}).items()
            if name not in ("spent", "charged")
        }
        if spent:
            kept["spent"] = spent
        event.data = kept or (event.data and {})
        return event.data

    def _settled_by(self, event: Event) -> list[str]:
        settled, self._loose = self._loose, []
        if event.kind in _OUTCOMES or (event.data is not None and "over_budget" in event.data):
            ended = [key for key, of in self._granted.items() if of == event.key]
            for key in ended:
                del self._granted[key]
            settled += ended
        elif event.data is not None and "settles" in event.data:
            key = str(event.data["settles"])
            self._of_code.pop(key, None)
            settled.append(key)
        return settled

    def spent_by(
        self, body: Body, error: BaseException | None = None, *, lost: bool = False
    ) -> dict[str, int]:
        """Give what a body has spent: what it said, else what its step costs, and its time."""
        spent = spent_by(body, lost=lost or isinstance(error, StepTimeout))
        if SECONDS not in spent and any(parts_of(name)[1] == SECONDS for name in self.names):
            spent[SECONDS] = body.run_us()
        return {meter: amount for meter, amount in spent.items() if amount}


def spent_by(body: Body, *, lost: bool = False) -> dict[str, int]:
    """Give what a body has spent: what it said, else what its step costs.

    One that is lost may have spent all it was meant to before it could say so.
    """
    spent = dict(body.spent or {})
    for meter, amount in (body.step.cost or {}).items():
        said = spent.get(meter)
        spent[meter] = amount if said is None else max(said, amount) if lost else said
    if lost:
        for reserved in (body.reserved or {}).values():
            add(spent, reserved)
    return spent


def add(total: dict[str, int], amounts: Mapping[str, int]) -> None:
    """Add amounts to a total."""
    for meter, amount in amounts.items():
        total[meter] = total.get(meter, 0) + amount


def purse_of(
    holder: Holder,
    journal: Journal,
    ledger: Ledger,
    birth: Transition,
    later: Sequence[str] = (),
) -> Purse | None:
    """Give an execution its purse; None where it charges no budget.

    Args:
        holder: its driver.
        journal: where it asks.
        ledger: what is known of budgets.
        birth: the first row of its log.
        later: the budgets that it was given since.
    """
    data: Any = birth.data or {}
    if not (ledger.has_shared or "budget" in data or "charges" in data or later):
        return None
    mine = (name_of(scope, meter) for scope, meter, _, _ in limits_at_birth(birth))
    own = (*mine, *data.get("charges", ()))
    if not (own or later or ledger.shared_by(holder.record.task)):
        return None
    purse = Purse(holder, journal, ledger, own)
    purse.adopt(later)
    return purse


def given_later(id: str, rows: Iterable[Transition]) -> list[str]:
    """Name the budgets that an execution was given while it was open, from its log."""
    told = (row for row in rows if row.kind is Kind.BUDGET_CHANGED)
    return [name for row in told for name in given_by(id, row)]


def given_by(id: str, row: Transition) -> list[str]:
    """Name the budgets of its own that a row tells an execution of, which may be new."""
    data: Any = row.data
    if row.kind is not Kind.BUDGET_CHANGED or data is None:
        return []
    if data.get("what") != "set" or data.get("scope") != "execution":
        return []
    return [name_of(f"execution:{id}", meter) for meter in data["meters"]]


def inherited(birth: Transition) -> list[str]:
    """Name the budgets that a child of an execution charges besides its own: those of its trees."""
    data: Any = birth.data or {}
    if "budget" not in data:
        return [*data.get("charges", ())]
    trees = [
        name_of(scope, meter)
        for scope, meter, _, _ in limits_at_birth(birth)
        if scope.startswith("tree:")
    ]
    return [*data.get("charges", ()), *trees]


__all__ = [
    "Ledger",
    "Purse",
    "ReserveCall",
    "Short",
    "given_by",
    "given_later",
    "inherited",
    "purse_of",
    "spent_by",
]
