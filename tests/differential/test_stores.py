"""Memory and a database side by side: random operations, the same answers, the same rows each time.

The memory store is built from ``decide`` alone and is the oracle. Writers are real owners and bad
ones: with an old fence, another's nonce, a number they do not have, messages they have not seen.
The run ends by coverage: every verb and every refusal a store gives was seen. What chance may miss
a directed story makes, through the same two stores.

Each run draws its stories anew. ``OUTLAST_SEED`` repeats one, ``OUTLAST_EXAMPLES`` says how many
stories; a story that goes wrong is made short within half a minute, and told. PostgreSQL gets a
fifth of them, as each of its answers comes over a socket, and need not see everything.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from functools import partial

import pytest

from outlast.lifecycle import (
    Decision,
    Event,
    Kind,
    MessageKind,
    State,
    apply,
    decide,
)
from outlast.store import open_store
from outlast.store.memory import MemoryStore
from outlast.store.postgres.address import Address
from outlast.store.postgres.migrate import ready
from outlast.store.protocol import Adjust, Deliver, Reserve
from outlast.testing.conformance import ASK, Owner, T, begun, born, message, replace
from tests.differential.machine import WEIGHTS, Story, new_story, shortest, tell
from tests.differential.pair import Open, Opened, Pair, open_sqlite, twice
from tests.postgres.emptying import empty_postgres

pytestmark = pytest.mark.timeout(600)

VERBS = {
    *("commit", "claim", "sweep", "recover", "register", "workers", "get", "find", "with_key"),
    *("page", "counts", "log", "inbox", "unread", "verify", "changed", "descents", "secret"),
    *("budgets", "ended", "purge", "set_queue", "set_gate", "reset_gate"),
    *("schedules.apply", "schedules.apply_all", "schedules.due", "schedules.fate"),
    "schedules.prune",
}
REFUSALS = {
    *("fenced", "moved", "already_exists", "key_conflict", "already_final", "already_answered"),
    *("no_execution", "internal_error", "already_paused", "no_upstream", "over_budget"),
    "no_budget",
}
HAPPENED = {
    "told",
    "owes",
    "asking",
    "blocked",
    "unclaimed",
    "claimed with a message",
    "fired",
    "schedule: granted",
    "emitted",
}
"""What must have come about as well, or a comparison has compared nothing."""
LENGTH = 60
SECONDS = 30
"""For how long a story is made shorter."""


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def open(request: pytest.FixtureRequest) -> Open:
    """How the other store is opened."""
    if request.param == "sqlite":
        return open_sqlite
    return partial(open_postgres, request.getfixturevalue("postgres").database(prepare))


def prepare(url: str) -> None:
    """Make the schema alone: no store has seen itself here, so that a clone is no other one."""
    ready(Address.of(url), 1, owner=True, upgrade=False)


def open_postgres(url: str) -> Opened:
    """Open a database that stories use one after another."""
    empty_postgres(url)
    store = open_store(url, owner="w0", now=1)
    return Opened("postgres", store, store.close, has_own_clock=True)


@pytest.fixture(scope="module")
def seen(open: Open) -> Counter[str]:
    """What the random part has seen."""
    counts: Counter[str] = Counter()
    first = int(os.environ.get("OUTLAST_SEED", random.randrange(2**32)))
    stories = int(os.environ.get("OUTLAST_EXAMPLES", "60"))
    if open is not open_sqlite:
        stories = stories // 5 + 1
    for seed in range(first, first + stories):
        story = new_story(seed, LENGTH)
        error = tell(story, counts, open)
        if error is not None:
            found = shortest(story, error, SECONDS, partial(tell, open=open))
            told = "\n".join(f"    {one!r}," for one in found.story)
            pytest.fail(f"OUTLAST_SEED={seed}: {found.error}\nSTORY = [\n{told}\n]")
    return counts


def test_the_stores_agree(seen: Counter[str], open: Open) -> None:
    """By the fixture; here: it was not an idle run."""
    assert seen["stored"] > 50
    missed = {name for name in HAPPENED if not seen[name]}
    assert missed == set() or (open is not open_sqlite and len(missed) < 3)


def directed(open: Open) -> Pair:
    """Every verb and every refusal once, whatever chance did."""
    pair = Pair(open)
    pair.ids = ["ex_1", "ex_2", "ex_3", "ex_4"]
    owner, item = begun("ex_1", "w0", key="k", input_digest=1)
    bad, item2 = begun("ex_2", "w0", nonce=b"b" * 16)
    pair.commit(
        twice([item, item2, born("ex_3"), born("ex_3"), born("ex_4", key="k", input_digest=2)])
    )
    pair.commit(twice([born("ex_4", key="k", input_digest=1)]))
    nobody = {"id": "ex_no", "need": "end", "or_else": "hold"}
    pair.commit(twice([born("ex_4", waits_on=[nobody])]))
    signal = message("m1", MessageKind.ANSWER, key="q#1")
    again = message("m2", MessageKind.ANSWER, key="q#1")
    pair.commit(
        twice([Deliver("ex_1", signal, T), Deliver("ex_1", again, T), Deliver("no", again, T)])
    )
    pair.commit(twice([Owner(owner.record).park(Kind.WAIT, data=ASK)]))
    pair.commit(twice([replace(Owner(owner.record).write(Kind.STEP), fence=9)]))
    wrong = bad.write(Kind.STEP)
    wrong.rows = [replace(wrong.rows[0], to_state=State.FAILED)]
    pair.commit(twice([wrong]))
    held = [Deliver("ex_3", message(f"p{n}", MessageKind.PAUSE), T) for n in range(2)]
    pair.commit(twice([*held]))
    raised = Adjust("task:t", "raised", {"usd": 5}, "ann", T, "c1")
    pair.commit(twice([raised, replace(raised, what="set", id="c2")]))
    record = owner.record
    pair.commit(twice([Reserve("ex_1", record.fence, record.nonce, "k", {"task:t:usd": 9})]))
    pair.commit(twice([owner.write(Kind.FINISH)]))
    pair.commit(twice([Deliver("ex_1", message("m9", MessageKind.CANCEL), T)]))
    pair.check(T)
    pair.close(T)
    return pair


def test_every_verb_and_every_refusal_was_seen(seen: Counter[str], open: Open) -> None:
    missed = {name for name in VERBS if not seen[name]}
    assert missed == set() or (open is not open_sqlite and len(missed) < 3)
    every = seen + directed(open).refused
    assert {name for name in REFUSALS if not every[name]} == set()


def test_the_directed_part_alone_sees_every_refusal(open: Open) -> None:
    assert directed(open).refused.keys() == REFUSALS | {"stored"}


def test_a_story_is_made_short() -> None:
    """Of all that happens, what matters is left, in its order."""
    story: Story = [(name, number) for number, name in enumerate([*WEIGHTS] * 5)]
    wanted = [story[3], story[17], story[40]]

    def happen(told: Story) -> Exception | None:
        return ValueError() if [one for one in told if one in wanted] == wanted else None

    assert shortest(story, ValueError(), 10, happen).story == wanted


def test_the_pair_can_disagree() -> None:
    """The comparison is a comparison."""
    pair = Pair()
    pair.ids = ["ex_1"]
    pair.commit(twice([born("ex_1")]))
    (record,) = pair.memory.get(["ex_1"])
    assert record is not None
    decision = decide(record, Event(Kind.PAUSE, "ann"), T)
    assert isinstance(decision, Decision)
    apply(record, decision)
    memory = pair.memory
    assert isinstance(memory, MemoryStore)
    memory._records["ex_1"] = record
    with pytest.raises(AssertionError):
        pair.check(T)
    with pytest.raises(AssertionError):
        pair.call("counts", lambda store: store.counts())
    pair.drop()
