"""Ids of executions: they rise strictly, sort by time, and are written in one way."""

from __future__ import annotations

import random
from itertools import pairwise

from outlast.engine.write.identity import IdMaker, first_id

NOW = 1_790_000_000_000_000
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def number_of(id: str) -> int:
    number = 0
    for digit in id.removeprefix("ex_"):
        number = number * 32 + ALPHABET.index(digit)
    return number


def test_ids_rise_strictly_within_a_millisecond_and_beyond() -> None:
    maker, dice = IdMaker(), random.Random(1)
    now, ids = NOW, []
    for _ in range(20_000):
        now += dice.choice([0, 0, 0, 7, 1_000])
        ids.append(maker.make(now))
    assert ids == sorted(set(ids))
    assert {len(id) for id in ids} == {len("ex_") + 20}
    numbers = [number_of(id) for id in ids]
    assert numbers == sorted(numbers), "what stands before the last digits is the number's own"
    assert all(first_id(now) <= id for id in [maker.make(now)])
    assert ids[0] >= first_id(NOW) > first_id(NOW - 1_000)


def test_ids_that_are_made_together_rise_like_any_other() -> None:
    maker = IdMaker()
    before = maker.make(NOW)
    ids = [*maker.make_many(NOW, 5_000), *maker.make_many(NOW, 1), maker.make(NOW)]
    numbers = [number_of(id) for id in (before, *ids)]
    assert numbers == sorted(set(numbers)) and len(ids) == 5_002
    assert {len(id) for id in ids} == {len(before)}
    steps = {after - then for then, after in pairwise(numbers[1:5_000])}
    assert len(steps) > 4_000 and max(steps) > 60_000, "nobody can tell the next one"


def test_ids_of_one_millisecond_keep_its_digits() -> None:
    maker = IdMaker()
    ids = [maker.make(NOW) for _ in range(5_000)]
    assert {number_of(id) >> 55 for id in ids} == {NOW // 1_000}
