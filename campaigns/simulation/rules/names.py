"""What must be true after each write and at each start of a body, and who checks it.

The numbers are those of ``docs/reliability.md``. A rule that was never applied is no rule, so each
counts how often it was; the campaign fails where one of them was not.
"""

from __future__ import annotations

from typing import Final

RULES: Final = {
    "INV-1 log": "an execution's log is numbered 1, 2, 3, …, and its row counts it",
    "INV-2 append-only": "rows of the log and of the inbox never change and never go",
    "INV-3 final": "what has ended never changes again",
    "INV-4 one end": "an execution ends once, by the last row of its log",
    "INV-5 fence": "each claim and takeover raises the fence, each claim draws a new nonce",
    "INV-6 owner": "only the owner of a lease writes: what a stale one sends is refused",
    "INV-7 edges": "a state follows on another only as the lifecycle allows",
    "INV-8 recorded": "a step with a recorded result never starts again, nor has a second one",
    "INV-9 acknowledged": "what was acknowledged is there; what was refused has left no trace",
    "INV-10 reason": "every open execution has a reason, and something that can move it",
    "reasons": "at rest, what `why` says of an execution is so, and what it asks for moves it",
    "INV-10 liveness": "once faults stop, everything comes to an end",
    "INV-11 claims": "every claim is counted; too many without progress suspend",
    "INV-12 fold": "the log folds to the row",
    "INV-13 replay": "a replay asks for what is recorded",
    "INV-15 attempts": "a body is told the attempt that the log says, once a lease",
    "INV-15 output commit": "no body starts before what its execution has learned is durable",
    "INV-17 policy": "no step and no task is tried more often than its policy allows",
    "INV-18 messages": "a message is taken once, in order; a question has one answer",
    "INV-19 inert": "who has given a lease up starts nothing: parked, paused or ended",
    "INV-20 parked": "a parked execution ends by cancel or deadline only, and not without one",
    "INV-21 children": "a child is born with its parent's row; its end is told once, after it",
    "dependencies": "who waits for others begins when all have ended as needed, or is taken along",
    "descents": "what is made of another execution knows what that knew, and runs none of it again",
    "chains": "an execution goes on as one new one, which has its input and its unread signals",
    "slots": "a slot is decided once, in order, by its policies; what it fires is there, once",
    "lease taken": "nobody is taken over before the lease has run out, by the store's clock",
    "lease kept": "who is neither dead nor troubled keeps its lease",
    "lease watched": "no body starts after the lease of its worker has run out",
    "failover": "after a failover no lease of before is good, and each new fence is above all",
    "losses": "who lives through a failover says what is lost: no less than it knew, and no more",
    "batches": "births that are one item are all there, each with its input, or none is",
    "able": "nobody runs what it lacks the code, the version or a capability for",
    "purges": "what is deleted has ended, was kept long enough, and leaves nothing behind",
    "feed": "who follows is told each row once, in the order of its log, and misses none",
    "answers": "whoever asks a worker that lives hears of it",
    "turns": "who waits longer, or matters more, is taken first; a minute is a step of priority",
    "rates": "beginnings under a rate are as far apart as it says",
    "time limits": "a limit of time strikes when its time is over, and never before",
    "heartbeats": "a body is told how far it was, as it has said it",
    "code": "code that fits goes on; what does not fit is suspended; an edit is decided once",
    "capacity": "a limit is never held by more executions than it has places",
    "money": "a budget says what the log has charged, and what is priced never overruns it",
    "streams": "a stream is numbered 1, 2, 3, …; each part of a try is there, once and in order",
    "timers": "a timer fires once, and never early",
    "results": "an execution ends as its program can, with tokens of its own",
    "sound": "nothing goes wrong inside the engine",
}
"""The rules by name."""


class Violation(BaseException):
    """A rule is broken. Nothing on the way may take it for an error of its own.

    Attributes:
        rule: which.
    """

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        assert rule in RULES, rule
        self.rule = rule
