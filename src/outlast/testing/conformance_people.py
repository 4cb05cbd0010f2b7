"""What every store does for people: it names who asks, and keeps secrets."""

from __future__ import annotations

from typing import Any

from outlast.lifecycle import Kind, MessageKind
from outlast.store.protocol import Deliver, Lease, Store
from outlast.testing.conformance import (
    Owner,
    T,
    answer_to,
    begun,
    born,
    claim_one,
    message,
    nonces,
    one,
    state,
)


def ask(key: str = "q#1", to: str | None = None) -> dict[str, Any]:
    """Make the description of a question."""
    return {"kind": "ask", "key": key, "title": "Ship it?", "to": to, "outside": True}


def announced(owner: Owner, store: Store, key: str = "q#1", to: str | None = None) -> None:
    """Note a question in the log."""
    item = owner.write(Kind.STEP_ANNOUNCED, key=key, data={"question": ask(key, to)})
    assert one(store, item).refused is None


def parked(store: Store, id: str, *waits: dict[str, Any]) -> Owner:
    """Store an execution that asks and waits."""
    owner, item = begun(id)
    assert one(store, item).refused is None
    for wait in waits:
        if wait["kind"] == "ask":
            announced(owner, store, wait["key"], wait["to"])
    answer = one(store, owner.park(Kind.WAIT, data={"waits": list(waits), "due_at": None}))
    assert answer.refused is None
    return owner


def oldest(store: Store, to: str | None = None, after: str = "", limit: int = 100) -> list[str]:
    """Name those who ask, the oldest first; the other order must say the same."""
    found = store.asking(to, after, limit, newest=False)
    if not after and len(found) < limit:
        assert store.asking(to, "", limit, newest=True) == found[::-1]
    return found


class PeopleConformance:
    """What a store does for people."""

    def test_a_question_that_has_ended_takes_no_answer_until_it_is_asked_anew(
        self, store: Store
    ) -> None:
        owner, item = begun("ex_1")
        one(store, item)
        announced(owner, store)
        assert one(store, Deliver("ex_1", answer_to("q#2", "m0"), T)).refused is None, "it is early"
        one(store, owner.write(Kind.CALL_ABANDONED, key="q#1"))
        late = Deliver("ex_1", answer_to("q#1"), T + 1)
        assert one(store, late).refused == "not_asked"
        assert [entry.message.id for entry in store.inbox("ex_1")] == ["m0"]
        announced(owner, store)
        assert one(store, late).refused is None

    def test_what_is_parked_takes_answers_to_what_it_asks_still(self, store: Store) -> None:
        owner, item = begun("ex_1")
        one(store, item)
        for key in ("q#1", "q#2"):
            announced(owner, store, key)
        one(store, owner.write(Kind.CALL_ABANDONED, key="q#1"))
        waits = {"waits": [ask("q#2")], "due_at": None}
        assert one(store, owner.park(Kind.WAIT, data=waits)).refused is None
        assert one(store, Deliver("ex_1", answer_to("q#1"), T + 1)).refused == "not_asked"
        assert one(store, Deliver("ex_1", answer_to("q#2", "m2"), T + 1)).refused is None

    def test_who_waits_is_named_by_recipient(self, store: Store) -> None:
        """Each execution once, however many questions it asks."""
        parked(store, "ex_1", ask(to="ops"), ask("q#2", to="ops"))
        parked(store, "ex_2", ask(to="boss"))
        parked(store, "ex_3", ask(), {"kind": "timer", "until": T})
        parked(store, "ex_4", {"kind": "event", "key": "e#1", "title": "paid", "outside": True})
        store.commit([born("ex_5")])
        assert oldest(store) == ["ex_1", "ex_2", "ex_3"]
        assert oldest(store, "ops") == ["ex_1"]
        assert oldest(store, "boss") == ["ex_2"]
        assert oldest(store, "nobody") == []

    def test_who_is_born_and_waits_in_one_batch_is_named(self, store: Store) -> None:
        """As the engine writes it where code asks at once."""
        owner, item = begun("ex_1")
        announcement = owner.write(Kind.STEP_ANNOUNCED, key="q#1", data={"question": ask(to="ops")})
        park = owner.park(Kind.WAIT, data={"waits": [ask(to="ops")], "due_at": None})
        assert [answer.refused for answer in store.commit([item, announcement, park])] == [None] * 3
        assert oldest(store) == oldest(store, "ops") == ["ex_1"]
        assert one(store, Deliver("ex_1", answer_to("q#1"), T)).refused is None
        claim_one(store, "ex_1")
        assert oldest(store, "boss") == ["ex_1"]  # it runs: only its log tells

    def test_pages_of_those_who_ask(self, store: Store) -> None:
        """A page begins behind the one before it, in both orders."""
        ids = [f"ex_{number}" for number in range(5)]
        for id in ids:
            parked(store, id, ask(to="ops"))
        assert oldest(store, None, "ex_1", 2) == oldest(store, "ops", "ex_1", 2) == ids[2:4]
        assert oldest(store, None, "ex_4") == []
        assert store.asking(None, "", 2, newest=True) == ids[:2:-1]
        assert store.asking("ops", "ex_3", 2, newest=True) == ids[2:0:-1]

    def test_who_has_its_answer_is_named_no_more_once_it_has_gone_on(self, store: Store) -> None:
        """While it is queued, running or held, only its log tells."""
        parked(store, "ex_1", ask(to="ops"))
        assert one(store, Deliver("ex_1", message("m1", MessageKind.PAUSE), T)).refused is None
        assert oldest(store, "ops") == ["ex_1"]
        resume = message("m2", MessageKind.RESUME)
        assert one(store, Deliver("ex_1", resume, T)).refused is None
        assert state(store, "ex_1").state == "queued" and oldest(store) == ["ex_1"]
        owner = claim_one(store, "ex_1")
        assert oldest(store) == ["ex_1"]
        assert one(store, owner.write(Kind.FINISH, payload=b"1")).refused is None
        assert oldest(store) == []

    def test_an_answer_takes_it_out_of_the_wait(self, store: Store) -> None:
        """It may still ask something else, which its log tells."""
        parked(store, "ex_1", ask(to="ops"), ask("q#2", to="boss"))
        assert one(store, Deliver("ex_1", answer_to("q#1"), T)).refused is None
        assert oldest(store, "boss") == ["ex_1"]
        owner = claim_one(store, "ex_1")
        waits = [ask("q#2", to="ceo")]
        park = owner.park(Kind.WAIT, data={"waits": waits, "due_at": None})
        assert one(store, park).refused is None
        assert oldest(store, "ceo") == ["ex_1"] and oldest(store, "boss") == []

    def test_a_running_one_that_has_asked_nothing_is_not_named(self, store: Store) -> None:
        """Nor one that was never claimed."""
        owner, item = begun("ex_1")
        store.commit([item, born("ex_2")])
        assert oldest(store) == []
        announced(owner, store)
        assert oldest(store) == ["ex_1"]
        store.recover(None, "w2", T, 10)
        assert oldest(store) == ["ex_1"]
        assert store.claim(Lease("w2"), ["t"], 10, T, nonces(10))
        assert oldest(store) == ["ex_1"]

    def test_the_first_secret_of_a_name_stays(self, store: Store) -> None:
        """Whoever comes later gets the same."""
        first = store.secret("tokens", b"a" * 32)
        assert first == b"a" * 32 == store.secret("tokens", b"b" * 32)
        assert store.secret("others", b"c" * 32) == b"c" * 32
        assert store.verify().defects == []
