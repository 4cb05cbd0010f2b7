"""What those who use the engines have of their world: workers to ask, a store to look into, time.

Whoever asks a worker hears of it, or learns that it was lost with the worker's process.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from campaigns.simulation.rules.names import Violation
from campaigns.simulation.tasks.steps import PRICE
from campaigns.simulation.world.clockwork import EPOCH_US, Process
from campaigns.simulation.world.node import SimEngine, request
from outlast.budget import UNIT
from outlast.lifecycle import Execution, Message
from outlast.store.protocol import Adjust, Answer, Deliver, Item

if TYPE_CHECKING:
    from random import Random

    from campaigns.simulation.actors.clients import Client
    from campaigns.simulation.rules.auditor import Auditor
    from campaigns.simulation.world.world import World


class Market:
    """Where those who use the engines meet them.

    Attributes:
        dice: what they leave to luck.
        answering: the process whose answer is being heard; None: none.
        guest: a process beside the engines, which writes to the store itself.
    """

    def __init__(self, world: World, dice: Random) -> None:
        self._world = world
        self.dice = dice
        self.note, self.count, self.later = world.note, world.count, world.later
        self.answering: Process | None = None
        self._asked: dict[Process, dict[int, Callable[[], None]]] = {}
        self._ask_count = 0
        self._clients: dict[str, Client] = {}
        self.guest = Process(world.clockwork, 0, 0)

    @property
    def auditor(self) -> Auditor:
        """Who sees all that is written."""
        return self._world.auditor

    @property
    def reader(self) -> Any:
        """The store, to look into."""
        return self._world.reader

    @property
    def kept_us(self) -> int | None:
        """How long executions are kept after their end; None: for ever."""
        return self._world.plan.kept_us

    @property
    def horizon_us(self) -> int:
        """For how long there is weather."""
        return self._world.horizon_us

    def ask(
        self,
        make: Callable[[SimEngine], Coroutine[Any, Any, Any]],
        heard: Callable[[Any, BaseException | None], None],
        lost: Callable[[], None],
    ) -> None:
        """Ask some worker that is open; what its process dies with is lost."""
        able = self._world.workers.open_engines()
        if not able:
            self.later(50_000, lambda: self.ask(make, heard, lost))
            return
        engine = able[int(self.dice.random() * len(able))]
        self._ask_count += 1
        number = self._ask_count
        asked = self._asked.setdefault(engine.process, {})
        asked[number] = lost
        standby = self._world.standby
        history = standby.history

        def answered(result: Any, error: BaseException | None) -> None:
            if asked.pop(number, None) is not None:
                self.answering = engine.process
                try:
                    if history == standby.history:
                        heard(result, error)
                    else:
                        lost()  # what it says may be of another history
                except Violation as violation:
                    self._world.errors.append(violation)
                finally:
                    self.answering = None

        request(engine, lambda: make(engine), answered)

    def died(self, process: Process) -> None:
        """Let all who asked a process know that it is dead."""
        for lost in self._asked.pop(process, {}).values():
            lost()

    def check_answered(self) -> None:
        """See that all who asked a worker that lives have heard of it, now that all rests."""
        for process, asked in self._asked.items():
            waiting = [] if process.is_dead else list(asked)
            self.auditor.check("answers", not waiting, len(waiting), "wait for", process.number)

    # Who has started what

    def cares(self, client: Client, id: str) -> None:
        """Hear which execution a client has started."""
        self._clients[id] = client

    def client_of(self, id: str) -> Client | None:
        """Give who has started an execution."""
        return self._clients.get(id)

    def id_of(self, number: int) -> str | None:
        """Give the execution that is known to be that of an order, if it is there still."""
        ids = [id for id, client in self._clients.items() if client.order.number == number]
        return ids[0] if ids and not self.auditor.seen[ids[0]].is_purged else None

    def forget_lost(self) -> None:
        """Have clients begin anew where what they had started is lost."""
        for id, client in list(self._clients.items()):
            if id not in self.auditor.seen:
                del self._clients[id]
                client.has_lost()

    # Writes of a process beside the engines

    def write(self, *batch: Item) -> list[Answer]:
        """Write as a process beside the engines does."""
        answers: list[Answer] = self.reader.commit(batch)
        self.count("guest_writes")
        self._world.applied(self.guest, "commit", (batch,), answers)
        return answers

    def apply(self, verb: str, *args: Any) -> Any:
        """Call a verb of the store as a process beside the engines does."""
        result = getattr(self.reader, verb)(*args)
        self._world.applied(self.guest, verb, args, result)
        return result

    def deliver_as_guest(self, id: str, message: Message) -> str | None:
        """Send a message; gives the refusal."""
        return self.write(Deliver(id, message, self.now()))[0].refused

    def raise_budget(self, record: Execution) -> None:
        """Let an execution spend more."""
        self.count("raised")
        scope, id = f"execution:{record.id}", f"raise-{record.id}-{record.seq}"
        self.write(Adjust(scope, "raised", {"usd": 10 * PRICE * UNIT}, "client", self.now(), id))

    def now(self) -> int:
        """Give the true time."""
        return EPOCH_US + self._world.clockwork.now_us
