"""Two processes at the same rows of PostgreSQL, as hard as they can: ``python -m campaigns.race``.

``turns``    one execution is there to be claimed, and both claim it in the same moment; the winner
             ends it, and makes the next one: each has one winner
``claims``   both claim one execution after the other from one queue, whose first one both want
``leases``   both hold the same lease (one is a copy, as of a process that was frozen) and write the
             same place of the same logs: one of them is stored, the other refused
``keys``     both start executions under the same keys: one each, and both are told which
``limits``   both claim what has a limit: never more than it allows hold it, and so many do
``batches``  both write batches of 500 items over the same executions, in an order of their own,
             steps of their own ones and messages to the other's, with one stale item in each: 499
             are stored, and nobody waits in a circle
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.synchronize import Barrier, Lock
from typing import Any, Final

import msgspec

from campaigns.load import deadlocks
from outlast.lifecycle import Kind, Message, MessageKind
from outlast.lifecycle.record import copy_of
from outlast.store.postgres import PostgresStore
from outlast.store.protocol import Create, Deliver, Item, Lease
from outlast.testing.conformance import Owner, T, begun, born, codes, nonces, replace
from outlast.testing.conformance_capacity import limited
from servers.postgres import Server

PROCESSES: Final = 2
CAPACITY: Final = 3
BATCH: Final = 500
MEMORY: Final = "?durability=off"
"""What allows a server that does not wait for its disk."""
PATIENCE_SECONDS: Final = 300.0
_FORK: Final = multiprocessing.get_context("fork")


class Counts(msgspec.Struct):
    """What a campaign did.

    Attributes:
        turns: races for the one queued execution there is; ``turns_won`` by process,
            ``turns_twice`` those with another number of winners than one.
        claims: races for the first of those that are queued, and so on.
        leases: races for one place in a log, and so on.
        keys: races for a key, and so on; ``keys_differ`` were told of different executions.
        limits: executions that went through a limit; ``limit_most`` held it at once.
        batches: batches of 500 with a stale item; ``stored`` says how many items of each were.
        deadlocks: by the server's count, in each of the races.
        again: transactions that were run again.
    """

    turns: int = 0
    turns_won: list[int] = []
    turns_twice: int = 0
    claims: int = 0
    claims_won: list[int] = []
    claims_twice: int = 0
    leases: int = 0
    leases_won: list[int] = []
    leases_twice: int = 0
    keys: int = 0
    keys_won: list[int] = []
    keys_differ: int = 0
    limits: int = 0
    limit_most: int = 0
    limits_twice: int = 0
    batches: int = 0
    stored: dict[int, int] = {}
    stale: dict[str, int] = {}
    deadlocks: dict[str, int] = {}
    again: int = 0
    defects: list[str] = []
    verified: int = 0
    seconds: dict[str, float] = {}

    def lines(self) -> str:
        """Write what matters most."""
        stored = ", ".join(f"{count} with {n} stored" for n, count in sorted(self.stored.items()))
        stale = ", ".join(f"{count} {why}" for why, count in sorted(self.stale.items()))
        return (
            f"{self.turns} races for the only row, won {_versus(self.turns_won)}, "
            f"{self.turns_twice} with another number of winners than one\n"
            f"{self.claims} races for the first row, won {_versus(self.claims_won)}, "
            f"{self.claims_twice} with another number of winners than one\n"
            f"{self.leases} races for one place in a log, won {_versus(self.leases_won)}, "
            f"{self.leases_twice} with another number of winners than one\n"
            f"{self.keys} races for a key, won {_versus(self.keys_won)}, {self.keys_differ} told "
            f"of different executions\n"
            f"{self.limits} executions through a limit of {CAPACITY}: at most {self.limit_most} at "
            f"once, {self.limits_twice} of them not exactly once\n"
            f"{self.batches} batches of {BATCH} over the same executions, one item of each stale: "
            f"{stored} (refused: {stale})\n"
            f"{sum(self.deadlocks.values())} deadlocks, {self.again} transactions run again; "
            f"verify: {self.verified} executions, {len(self.defects)} defects; "
            f"{sum(self.seconds.values()):.1f} s"
        )


def _versus(won: list[int]) -> str:
    return " to ".join(map(str, won))


class Racer:
    """One of the two processes: its store, and what it shares with the other one."""

    def __init__(self, number: int, url: str, barrier: Barrier) -> None:
        self.number = number
        self.name = f"w{number}"
        self.store = PostgresStore(url, owner=self.name, now=T)
        self.barrier = barrier
        self.seen: Counter[str] = Counter()
        self.said: list[Any] = []

    def together(self) -> None:
        """Wait until the other one has come as far."""
        self.barrier.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        """Let go of the store."""
        self.seen["again"] = self.store.server.retries
        self.store.close()


def race(url: str, act: Callable[..., None], *shared: Any) -> tuple[list[Counter[str]], list[Any]]:
    """Let two processes act; gives what each has counted and said.

    Raises:
        RuntimeError: one of them failed.
    """
    barrier = _FORK.Barrier(PROCESSES)
    queue = _FORK.SimpleQueue()

    def one(number: int) -> None:
        racer = Racer(number, url, barrier)
        try:
            act(racer, *shared)
        except BaseException:
            barrier.abort()
            raise
        finally:
            racer.close()
        queue.put((number, racer.seen, racer.said))

    processes = [_FORK.Process(target=one, args=(number,)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    told: dict[int, tuple[Counter[str], list[Any]]] = {}
    while len(told) < PROCESSES:
        if queue.empty():
            if any(process.exitcode for process in processes):
                raise RuntimeError("a racer failed; see its message above")
            time.sleep(0.01)
            continue
        number, seen, said = queue.get()
        told[number] = (seen, said)
    for process in processes:
        process.join(PATIENCE_SECONDS)
    ordered = [told[number] for number in range(PROCESSES)]
    return [seen for seen, _ in ordered], [said for _, said in ordered]


# The races


def claim_one(racer: Racer, rounds: int) -> None:
    """Race for one queued execution at a time; who wins ends it and makes the next one."""
    store, lease = racer.store, Lease(racer.name)
    for number in range(rounds):
        racer.together()
        drawn = nonces(1, 2 * number + racer.number + 1)
        claimed = store.claim(lease, ["t"], 1, T + 1, drawn)
        racer.together()
        if not claimed:
            continue
        (one,) = claimed
        assert one.execution.id == f"ex_c{number}", "there was no other"
        racer.said.append(number)
        owner = Owner(one.execution)
        batch: list[Item] = [owner.write(Kind.START), owner.write(Kind.FINISH)]
        if number + 1 < rounds:
            batch.append(born(f"ex_c{number + 1}"))
        refused = [code for code in codes(store.commit(batch)) if code is not None]
        racer.seen.update(refused)


def claim_first(racer: Racer) -> None:
    """Claim the first execution that is queued, again and again, as the other one does."""
    store, lease, number = racer.store, Lease(racer.name), 0
    racer.together()
    while True:
        number += 1
        claimed = store.claim(lease, ["t"], 1, T + 1, nonces(1, 2 * number + racer.number + 1))
        if not claimed:
            return
        racer.said.append(claimed[0].execution.id)


def write_one(racer: Racer, owners: list[Owner], step: int) -> None:
    """Write the same place of the same logs as the other one, under the same lease."""
    for begin in range(0, len(owners), step):
        some = [Owner(one.record) for one in owners[begin : begin + step]]
        random.Random(f"{racer.number} {begin}").shuffle(some)
        items = [one.write(Kind.STEP, key=f"by {racer.name}") for one in some]
        racer.together()
        answers = codes(racer.store.commit(items))
        racer.seen.update(code for code in answers if code is not None)
        won = [one.record.id for one, code in zip(some, answers, strict=True) if code is None]
        racer.said += won


def take_keys(racer: Racer, count: int, step: int) -> None:
    """Start executions under the same keys as the other one."""
    for begin in range(0, count, step):
        numbers = list(range(begin, begin + step))
        random.Random(f"{racer.number} {begin}").shuffle(numbers)
        items = [born(f"ex_k{n}_{racer.number}", key=f"key {n}") for n in numbers]
        racer.together()
        for number, answer in zip(numbers, racer.store.commit(items), strict=True):
            assert answer.refused in (None, "already_exists"), answer
            assert answer.execution is not None
            racer.said.append((number, answer.execution.id, answer.refused is None))


def pass_limit(racer: Racer, count: int, inside: Any, most: Any, left: Any, lock: Lock) -> None:
    """Claim what has a limit, until there is nothing left; who holds it is counted outside."""
    store, lease = racer.store, Lease(racer.name)
    turn = 0
    racer.together()
    while left.value > 0:
        turn += 1
        claimed = store.claim(lease, ["t"], 5, T + 1, nonces(5, 2 * turn + racer.number + 1))
        with lock:  # after the claim's commit, and before that of the end: no more than hold it
            inside.value += len(claimed)
            most.value = max(most.value, inside.value)
        for one in claimed:
            owner = Owner(one.execution)
            assert codes(store.commit([owner.write(Kind.START)])) == [None]
            with lock:
                inside.value -= 1
                left.value -= 1
            assert codes(store.commit([owner.write(Kind.FINISH)])) == [None]
            racer.said.append(one.execution.id)


def write_batches(racer: Racer, owners: list[Owner], rounds: int) -> None:
    """Write batches over all executions: steps of one's own, messages to the other's."""
    dice = random.Random(racer.number)
    half = len(owners) // PROCESSES
    mine = owners[racer.number * half : (racer.number + 1) * half]
    own = {one.record.id for one in mine}
    others = [one.record.id for one in owners if one.record.id not in own]
    for number in range(rounds):
        guilty = dice.choice(mine)
        items: list[Item] = []
        for one in mine:
            if one is guilty:  # an owner's copy that has fallen behind
                stale = Owner(one.record).write(Kind.STEP, key=f"stale {number}")
                items.append(replace(stale, fence=stale.fence - 1))
            else:
                items.append(one.write(Kind.STEP, key=f"step {number}"))
        told = f"{racer.name}.{number}"
        items += [
            Deliver(id, Message(told, MessageKind.SIGNAL, "a", "s", None, b"1"), T) for id in others
        ]
        dice.shuffle(items)
        racer.together()
        answers = codes(racer.store.commit(items))
        racer.said.append(answers.count(None))
        racer.seen.update(code for code in answers if code is not None)


# All of them


def run(
    server: Server, *, races: int, places: int, turns: int, limits: int, batches: int
) -> Counts:
    """Run all races, each on a database of its own."""
    counts = Counts()
    acts: dict[str, Callable[[str], None]] = {
        "turns": lambda url: _turns(counts, url, turns),
        "claims": lambda url: _claims(counts, url, races),
        "leases": lambda url: _leases(counts, url, places),
        "keys": lambda url: _keys(counts, url, places),
        "limits": lambda url: _limits(counts, url, limits),
        "batches": lambda url: _batches(counts, url, batches),
    }
    for name, act in acts.items():
        url = server.database(_make) + MEMORY
        began = time.monotonic()
        act(url)
        counts.deadlocks[name] = deadlocks(url.removesuffix(MEMORY))
        store = PostgresStore(url, owner=None, now=T)
        verdict = store.verify()
        counts.verified += verdict.executions
        counts.defects += verdict.defects
        store.close()
        counts.seconds[name] = round(time.monotonic() - began, 1)
    return counts


def _make(url: str) -> None:
    PostgresStore(url + MEMORY, owner="w0", now=T).close()


def _fill(url: str, items: list[Create]) -> None:
    store = PostgresStore(url, owner="w0", now=T)
    for begin in range(0, len(items), 1_000):
        assert set(codes(store.commit(items[begin : begin + 1_000]))) <= {None}
    store.close()


def _turns(counts: Counts, url: str, races: int) -> None:
    _fill(url, [born("ex_c0")])
    seen, said = race(url, claim_one, races)
    won = Counter(number for some in said for number in some)
    counts.turns, counts.turns_won = races, [len(some) for some in said]
    counts.turns_twice = sum(won[number] != 1 for number in range(races))
    counts.again += sum(one["again"] for one in seen)


def _claims(counts: Counts, url: str, races: int) -> None:
    _fill(url, [born(f"ex_{n:05}") for n in range(races)])
    seen, said = race(url, claim_first)
    won = Counter(id for some in said for id in some)
    counts.claims, counts.claims_won = races, [len(some) for some in said]
    counts.claims_twice = sum(won[f"ex_{n:05}"] != 1 for n in range(races))
    counts.again += sum(one["again"] for one in seen)


def _begun(url: str, count: int) -> list[Owner]:
    pairs = [begun(f"ex_{n:05}", nonce=(n + 1).to_bytes(16)) for n in range(count)]
    owners = [Owner(copy_of(item.after)) for _, item in pairs]
    _fill(url, [item for _, item in pairs])
    return owners


def _leases(counts: Counts, url: str, races: int) -> None:
    owners = _begun(url, races)
    seen, said = race(url, write_one, owners, 100)
    won = Counter(id for some in said for id in some)
    counts.leases, counts.leases_won = races, [len(some) for some in said]
    counts.leases_twice = sum(won[owner.record.id] != 1 for owner in owners)
    counts.again += sum(one["again"] for one in seen)


def _keys(counts: Counts, url: str, races: int) -> None:
    seen, said = race(url, take_keys, races, 100)
    one, other = ({number: id for number, id, _ in some} for some in said)
    counts.keys = races
    counts.keys_won = [sum(is_new for _, _, is_new in some) for some in said]
    counts.keys_differ = sum(one.get(n) != other.get(n) or n not in one for n in range(races))
    counts.again += sum(one["again"] for one in seen)


def _limits(counts: Counts, url: str, count: int) -> None:
    _fill(url, [born(f"ex_{n:04}", gates=limited(capacity=CAPACITY)) for n in range(count)])
    inside, most, left = (_FORK.Value("i", value, lock=False) for value in (0, 0, count))
    seen, said = race(url, pass_limit, count, inside, most, left, _FORK.Lock())
    passed = Counter(id for some in said for id in some)
    counts.limits, counts.limit_most = count, most.value
    counts.limits_twice = sum(passed[f"ex_{n:04}"] != 1 for n in range(count))
    counts.again += sum(one["again"] for one in seen)


def _batches(counts: Counts, url: str, batches: int) -> None:
    owners = _begun(url, BATCH)
    seen, said = race(url, write_batches, owners, batches)
    counts.stored = dict(Counter(stored for some in said for stored in some))
    counts.batches = sum(map(len, said))
    stale: Counter[str] = Counter()
    for one in seen:
        counts.again += one.pop("again")
        stale.update(one)
    counts.stale = dict(stale)


def main(arguments: list[str] | None = None) -> int:
    """Run all races as a command; the exit code is 1 where one was not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.race", description=__doc__)
    parser.add_argument("--races", type=int, default=10_000, help="for the first row of a queue")
    parser.add_argument("--places", type=int, default=3_000, help="for a place in a log, a key")
    parser.add_argument("--turns", type=int, default=500, help="for the only row there is")
    parser.add_argument("--limits", type=int, default=300, help="executions with a limit")
    parser.add_argument("--batches", type=int, default=20, help="batches of each process")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    with Server(settings={"fsync": "off"}) as server:  # nothing is killed here
        counts = run(
            server,
            races=given.races,
            places=given.places,
            turns=given.turns,
            limits=given.limits,
            batches=given.batches,
        )
    print(json.dumps(msgspec.to_builtins(counts)) if given.json else counts.lines())
    wrong = counts.turns_twice + counts.claims_twice + counts.leases_twice
    wrong += counts.keys_differ + counts.limits_twice
    good = not wrong and counts.limit_most <= CAPACITY and counts.stored.keys() == {BATCH - 1}
    return 0 if good and not sum(counts.deadlocks.values()) and not counts.defects else 1


if __name__ == "__main__":
    sys.exit(main())
