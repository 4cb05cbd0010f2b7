"""Who uses the simulated engines: starts executions, sends messages, and waits for ends.

A client asks a worker that is open, or writes to the store itself, as a process beside it does. Of
what it has not heard about it asks again, under the same key or message id; sometimes it gives up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from campaigns.simulation.actors.descends import Descends
from campaigns.simulation.actors.orders import Order
from campaigns.simulation.tasks.action import Need
from outlast.engine.read.questions import open_questions
from outlast.engine.task.after import After
from outlast.engine.task.registry import StartOptions
from outlast.errors import NoEngine, NotFound, OutlastError, StoreBusy, StoreFull, StoreUnavailable
from outlast.lifecycle import FINAL, Kind, Message, MessageKind, Transition

if TYPE_CHECKING:
    from campaigns.simulation.world.market import Market
    from campaigns.simulation.world.node import SimEngine

AGAIN_US: Final = 40_000
_UNKNOWN: Final = (StoreUnavailable, StoreBusy, StoreFull, NoEngine)


class Client:
    """Wants one execution, and cares for it."""

    def __init__(self, market: Market, order: Order) -> None:
        self.market = market
        self.order = order
        self.id: str | None = None
        self._messages = self._descents = 0
        self._after: tuple[After, ...] | None = None
        market.later(order.at_us, self.start)

    def start(self) -> None:
        """Start it; where nothing is heard, start it again under the same key."""
        order = self.order
        if self._after is None:
            self._after = tuple(
                After(id, need, or_else)  # type: ignore[arg-type]
                for number, need, or_else in order.after
                if (id := self.market.id_of(number)) is not None
            )
        options = StartOptions(
            key=order.key,
            deadline_us=order.deadline_us,
            delay_us=order.delay_us,
            after=self._after,
            priority=order.priority,
        )

        async def make(engine: SimEngine) -> str:
            task = engine.tasks.get(order.sort.task.name, order.sort.task)
            handle = await engine.astart_with(options, task, (order.seed,), {})
            return handle.id

        self.market.ask(make, self._started, self._start_lost)

    def _start_lost(self) -> None:
        if self.order.key is not None:
            self.market.count("starts_repeated")
            self.market.later(AGAIN_US, self.start)
        else:
            self.market.count("starts_unknown")

    def _started(self, id: Any, error: BaseException | None) -> None:
        if error is not None:
            _expected(error)
            if isinstance(error, NotFound):
                self._after = None  # what it was to wait for is lost
            self._start_lost()
            return
        market, order, dice = self.market, self.order, self.market.dice
        market.note("started", id, order.key)
        market.count("acknowledged")
        market.auditor.promises.started(id, order.key)
        if market.answering is not None:
            market.auditor.failovers.started(market.answering, id)
        if self.id is not None:
            market.auditor.check("INV-9 acknowledged", id == self.id, order.key, "is", self.id, id)
            return
        self.id = id
        market.cares(self, id)
        if dice.random() < 0.06:
            market.later(int(market.horizon_us * dice.random() ** 2), self.descend)
        for delay, kind in order.ops:
            market.later(delay, lambda kind=kind: self.send(kind))  # type: ignore[misc]
        for need in order.sort.needs(order.seed):
            if need.kind != "answer" and dice.random() < 0.7:
                delay = int(market.horizon_us * dice.random() ** 3)
                market.later(delay, lambda need=need: self.signal(need))  # type: ignore[misc]
        for _ in range(3):
            market.later(int(market.horizon_us * dice.random()), self.answer)
        if dice.random() < 0.5:
            market.later(int(market.horizon_us * dice.random()), self.wait)

    def has_lost(self) -> None:
        """What was started is lost with the history it was in: start it again, under its key."""
        self.id = self._after = None
        if self.order.key is not None:
            self.market.later(AGAIN_US, self.start)

    def react(self, row: Transition) -> None:
        """Do something just after a row was stored: that is when an execution may be parking."""
        dice = self.market.dice
        if row.to_state in FINAL:
            if dice.random() < 0.25:
                self.market.later(int(30_000 * dice.random()), self.descend)
            return
        delay = int(3_000 * dice.random() ** 2)
        if row.kind is Kind.STEP_ANNOUNCED and dice.random() < 0.3:
            self.market.later(delay, self.answer)
        elif row.kind in (Kind.STEP, Kind.TIMER_FIRED, Kind.START) and dice.random() < 0.15:
            needs = [one for one in self.order.sort.needs(self.order.seed) if one.kind != "answer"]
            if needs:
                need = needs[int(dice.random() * len(needs))]
                self.market.later(delay, lambda: self.signal(need))

    def descend(self) -> None:
        """Make another execution of it."""
        if self.id is not None:
            self._descents += 1
            Descends(self.market, self.id, f"d{self.order.number}.{self._descents}")

    def signal(self, need: Need) -> None:
        """Send a signal, now and then two."""
        for _ in range(2 if self.market.dice.random() < 0.15 else 1):
            self.send(MessageKind.SIGNAL, need.name)

    def answer(self) -> None:
        """Answer what it asks, now and then twice."""
        if self.id is None:
            return
        (record,) = self.market.reader.get([self.id])
        if record is None or record.is_final:
            return
        for question in open_questions(record, self.market.reader.log(self.id)):
            for _ in range(2 if self.market.dice.random() < 0.3 else 1):
                self.send(MessageKind.ANSWER, question.key)

    def send(self, kind: MessageKind, key: str | None = None) -> None:
        """Send a message, with an id of its own."""
        if self.id is None:
            return
        self._messages += 1
        send(
            self.market, self.id, make_message(kind, f"m{self.order.number}.{self._messages}", key)
        )

    def wait(self) -> None:
        """Wait for its end, with some worker."""
        id = self.id
        if id is None:
            return
        self.market.ask(lambda engine: engine.wait_final(id), self._ended, lambda: None)

    def _ended(self, ended: Any, error: BaseException | None) -> None:
        if error is not None:
            _expected(error)
            return
        self.market.count("ends_told")
        self.market.note("told", self.id, ended[1].kind)
        self.market.auditor.promises.ended(*ended)


def make_message(kind: MessageKind, message_id: str, key: str | None) -> Message:
    """Make a message; answers and signals carry a token that only they have."""
    payload = None
    if kind in (MessageKind.SIGNAL, MessageKind.ANSWER):
        payload = msgspec.json.encode(f"Ts{message_id}")
    return Message(message_id, kind, "client", key, None, payload)


def send(market: Market, id: str, message: Message, *, as_guest: bool | None = None) -> None:
    """Send a message until it is heard what became of it; now and then twice, or give up."""
    dice = market.dice

    def heard(_: Any, error: BaseException | None) -> None:
        if isinstance(error, _UNKNOWN):
            lost()
        elif error is not None:
            _expected(error)
            refused()
        else:
            accepted()

    def accepted() -> None:
        market.count("acknowledged")
        market.note("accepted", id, message.id, message.kind)
        market.auditor.promises.accepted(id, message.id, message.kind)
        if market.answering is not None:
            market.auditor.failovers.accepted(market.answering, id, message.id)

    def refused() -> None:
        market.count("refusals")
        market.note("refused", id, message.id, message.kind)
        market.auditor.promises.refused(id, message.id)

    def lost() -> None:
        if dice.random() < 0.9:
            market.count("messages_repeated")
            market.later(AGAIN_US, go)
        else:
            market.count("messages_unknown")

    def go() -> None:
        if as_guest is True or (as_guest is None and dice.random() < 0.25):
            try:
                refusal = market.deliver_as_guest(id, message)
            except _UNKNOWN:
                lost()
                return
            if refusal is None:
                accepted()
            elif message.kind is not MessageKind.PAUSE:
                refused()
            return
        market.ask(lambda engine: engine.asend(id, message), heard, lost)

    go()
    if dice.random() < 0.1:
        market.count("messages_doubled")
        market.later(int(100_000 * dice.random()), go)


def _expected(error: BaseException) -> None:
    """What an engine may tell its caller is an error of Outlast's; anything else is a bug."""
    if not isinstance(error, OutlastError):
        raise error
