"""Events: a signal to every execution that is open, by an execution of ours that sends it.

Theory of operation. Publishing an event starts an execution of the task ``outlast.event``, and its
key is the event's: so it is durable when it is acknowledged, happens once however often it is
asked for, goes on after a kill, is listed, and is forgotten with other executions. It finds those
that it is for a page at a time (a recorded step each), and sends each page a signal (another one).
The signal's id is made of the event's own, so that a page that was sent by half before a kill is
sent again without anybody taking it twice.

Whom it reaches: each execution that was there before the event was published, and has not ended
when its page comes. It need not wait yet: as with any signal, the message stays until a wait takes
it, or the execution ends. Who is started after the event was published never gets it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from outlast.codec import as_json
from outlast.engine.primitives.calls import this_step
from outlast.engine.task.current import the_engine
from outlast.engine.task.registry import Retry, StartOptions, step, task
from outlast.errors import NotFound, TransitionRefused, WaitTimeout
from outlast.lifecycle import OPEN, Message, MessageKind
from outlast.naming import checked_name
from outlast.store.protocol import Filter

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

NAME: Final = "outlast.event"
OWN: Final = "outlast."
"""What the tasks' names begin with that are ours: their executions wait for no event."""
AT_ONCE: Final = 500


class Published(msgspec.Struct, frozen=True):
    """An event that was published.

    Attributes:
        id: the execution that sends it.
        name: what it is called.
        reached: how many executions it was sent to; None while it is on its way.
        is_new: whether it was published now, and not before under this key.
    """

    id: str
    name: str
    reached: int | None
    is_new: bool = True


@step(name="outlast.event.find")
async def find(task: str | None, labels: dict[str, str], after: str) -> list[str]:
    """Name the next of the executions that an event is for: the newest first."""
    engine, before = the_engine(), after or None
    while True:
        wanted = Filter(states=OPEN, task=task, labels=labels, before_id=before, limit=AT_ONCE)
        found = await engine.read_page(wanted)
        ids = [record.id for record in found if not record.task.startswith(OWN)]
        if ids or len(found) < AT_ONCE:
            return ids
        before = found[-1].id


@step(name="outlast.event.send", retries=Retry(10, base="100ms", cap="10s"))
async def send(ids: list[str], name: str, value: Any, actor: str) -> int:
    """Send executions a signal; gives how many of them have it."""
    engine = the_engine()
    payload = msgspec.json.encode(value)
    mark = f"{NAME}:{this_step().execution_id}"

    async def one(id: str) -> bool:
        message = Message(mark, MessageKind.SIGNAL, actor, name, payload=payload)
        try:
            await engine.asend(id, message)
        except NotFound:
            return False
        except TransitionRefused:  # it has ended: of this very event, perhaps
            inbox = await engine.worker.read(lambda: engine.store.inbox(id))
            return any(entry.message.id == mark for entry in inbox)
        return True

    return sum(await asyncio.gather(*map(one, ids)))


@task(name=NAME, queue=NAME)
async def event(name: str, value: Any, task: str | None, labels: dict[str, str], actor: str) -> int:
    """Send every open execution an event; gives how many it has reached."""
    reached, last = 0, ""
    while ids := await find(task, labels, last):
        reached += await send(ids, name, value, actor)
        last = ids[-1]
    return reached


def wish(
    name: str, value: Any, key: str | None, task: str | None, labels: Mapping[str, str] | None,
    actor: str, origin: str | None = None,
) -> tuple[StartOptions, tuple[Any, ...]]:  # fmt: skip
    """Give how the execution is started that sends an event.

    Raises:
        UsageError: the name is none.
    """
    plain = msgspec.json.decode(as_json(value, name="event"))
    options = StartOptions(
        key=None if key is None else f"{NAME}:{key}", actor=actor, origin=origin or NAME
    )
    return options, (checked_name(name, "event"), plain, task, dict(labels or {}), actor)


async def publish(
    engine: Engine,
    name: str,
    value: Any = None,
    *,
    key: str | None = None,
    task: str | None = None,
    labels: Mapping[str, str] | None = None,
    actor: str = "user",
    wait_seconds: float | None = None,
) -> Published:
    """Publish an event, see :meth:`outlast.Engine.apublish`; waits for its end at most so long."""
    engine.adopt(event)
    options, args = wish(name, value, key, task, labels, actor)
    record, is_new = await engine.astart_row(options, event, args, {})
    handle = engine.execution(record.id)
    reached: int | None = None
    with contextlib.suppress(WaitTimeout):
        reached = await handle.aresult(timeout=wait_seconds)
    return Published(record.id, name, reached, is_new)


__all__ = ["NAME", "OWN", "Published", "event", "publish", "wish"]
