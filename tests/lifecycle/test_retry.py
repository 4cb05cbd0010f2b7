"""Retry arithmetic, as tables and as properties."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.lifecycle import NO_RETRY, RetryPolicy

SECOND = 1_000_000

# base factor cap jitter roll at_least  ->  delays of the retries 1, 2, 3, … in seconds
DELAYS = """
1    1    300  0    0     0    -> 1 1 1 1
1    2    300  0    0     0    -> 1 2 4 8 16 32 64 128 256 300 300
1    2    5    0    0     0    -> 1 2 4 5 5
2    3    300  0    0.9   0    -> 2 6 18 54 162 300
10   2    300  0.5  0     0    -> 10 20 40
10   2    300  0.5  0.5   0    -> 7.5 15 30
10   2    300  1    0.75  0    -> 2.5 5 10
10   2    300  1    0     0    -> 10 20 40
10   2    300  0.5  0.5   12   -> 12 15 30
10   1    300  0    0     900  -> 900 900
0    2    300  0.5  0.5   0    -> 0 0 0
0    2    300  0    0     3    -> 3 3
600  2    300  0    0     0    -> 300 300
"""


@pytest.mark.parametrize("line", DELAYS.strip().splitlines())
def test_delays(line: str) -> None:
    given_, _, wanted = line.partition("->")
    base, factor, cap, jitter, roll, at_least = map(float, given_.split())
    policy = RetryPolicy(
        retries=99,
        base_us=round(base * SECOND),
        factor=factor,
        cap_us=round(cap * SECOND),
        jitter=jitter,
    )
    delays = [
        policy.delay_us(retry, roll, at_least_us=round(at_least * SECOND)) / SECOND
        for retry in range(1, len(wanted.split()) + 1)
    ]
    assert delays == list(map(float, wanted.split()))


class Flaky(Exception):
    pass


class Worse(Flaky):
    pass


# retries give_up_on only_on  error   ->  may an attempt follow after 0, 1, 2, 3 counted failures?
ALLOWED = """
0  -      -      Flaky -> n n n n
1  -      -      Flaky -> y n n n
3  -      -      Flaky -> y y y n
3  Worse  -      Flaky -> y y y n
3  Worse  -      Worse -> n n n n
3  Flaky  -      Worse -> n n n n
3  -      Flaky  Flaky -> y y y n
3  -      Flaky  Worse -> y y y n
3  -      Worse  Flaky -> n n n n
3  Worse  Flaky  Worse -> n n n n
"""


@pytest.mark.parametrize("line", ALLOWED.strip().splitlines())
def test_allowed(line: str) -> None:
    given_, _, wanted = line.partition("->")
    retries, give_up, only, raised = given_.split()
    classes: dict[str, tuple[type[Exception], ...]] = {
        "-": (),
        "Flaky": (Flaky,),
        "Worse": (Worse,),
    }
    policy = RetryPolicy(retries=int(retries), give_up_on=classes[give_up], only_on=classes[only])
    error = classes[raised][0]("it")
    assert ["y" if policy.allows(n, error) else "n" for n in range(4)] == wanted.split()


def test_nothing_is_retried_unless_asked_for() -> None:
    assert not NO_RETRY.allows(0, Flaky())


@pytest.mark.parametrize(
    "wrong",
    [
        {"retries": -1},
        {"base_us": -1},
        {"cap_us": -1},
        {"factor": 0.5},
        {"factor": math.inf},
        {"factor": math.nan},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"jitter": math.nan},
    ],
)
def test_impossible_policies_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"cannot be negative|factor is at least 1"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


policies = st.builds(
    RetryPolicy,
    retries=st.integers(0, 100),
    base_us=st.integers(0, 10**12),
    factor=st.floats(1, 1e300),
    cap_us=st.integers(0, 10**13),
    jitter=st.floats(0, 1),
)
rolls = st.floats(0, 1, exclude_max=True)


@given(policies, st.integers(1, 100_000), rolls, st.integers(0, 10**14))
def test_bounds(policy: RetryPolicy, retry: int, roll: float, at_least: int) -> None:
    delay = policy.delay_us(retry, roll, at_least_us=at_least)
    assert at_least <= delay <= max(policy.cap_us, at_least)
    assert isinstance(delay, int)


@given(policies, st.integers(1, 1_000), rolls)
def test_never_shorter_with_the_next_retry(policy: RetryPolicy, retry: int, roll: float) -> None:
    assert policy.delay_us(retry, roll) <= policy.delay_us(retry + 1, roll)


@given(policies, st.integers(1, 1_000), rolls)
def test_jitter_takes_away_its_share_at_most(policy: RetryPolicy, retry: int, roll: float) -> None:
    full = policy.delay_us(retry, 0.0)
    least = full * (1 - policy.jitter)
    assert math.floor(least) - 1 <= policy.delay_us(retry, roll) <= full


@given(st.integers(1, 10**9), st.floats(1.001, 10))
def test_every_growing_delay_comes_to_its_cap(base: int, factor: float) -> None:
    policy = RetryPolicy(retries=1, base_us=base, factor=factor, cap_us=10**10, jitter=0)
    assert policy.delay_us(1_000_000, 0) == 10**10
