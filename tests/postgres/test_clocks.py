"""Machines whose clocks are wrong: what the clock moves is moved by the server's clock alone."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

import outlast
from outlast import Engine, Schedule, State, sleep, task, wait_for
from outlast.engine.guest import Guest
from outlast.engine.write.clock import StoreClock, WallClock
from outlast.store.memory import MemoryStore

HOUR_S = 3_600
LONG = 30
NEAR_US = 20_000_000


@task
async def brief() -> float:
    """Have the clock move something, so that whoever runs this has looked at what is due."""
    await sleep("0.3s")
    return outlast.now().timestamp()


@task
async def sleeper() -> str:
    await sleep("30m")
    return "slept"


@task(timeout="30m")
async def patient() -> str:
    return await wait_for("word", str)


@task
async def later() -> str:
    return "later"


@asynccontextmanager
async def wrong(monkeypatch: pytest.MonkeyPatch, skew_s: int) -> AsyncIterator[None]:
    """Set the clock of this machine."""
    plain_ns, plain = time.time_ns, time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: plain_ns() + skew_s * 10**9)
        patch.setattr(time, "time", lambda: plain() + skew_s)
        yield


async def prepared(url: str) -> dict[str, str]:
    """Leave everything there that the clock moves in half an hour; gives the ids."""
    async with Engine(url) as engine:
        started = {
            "delayed": await later.options(delay="30m").astart(),
            "asleep": await sleeper.astart(),
            "patient": await patient.astart(),
        }
        await engine.schedules.acreate("often", later, Schedule(every="30m"))
        async with asyncio.timeout(LONG):
            for name, state in (("asleep", State.WAITING), ("patient", State.AWAITING_INPUT)):
                while await started[name].astatus() is not state:
                    await asyncio.sleep(0)
        return {name: handle.id for name, handle in started.items()}


async def states(engine: Engine, ids: dict[str, str]) -> dict[str, State]:
    return {name: await engine.execution(id).astatus() for name, id in ids.items()}


@pytest.mark.parametrize("skew_s", [HOUR_S, -HOUR_S])
def test_a_wrong_clock_fires_nothing_early_and_nothing_late(
    postgres_url: str,
    skew_s: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def main() -> tuple[dict[str, State], int, float]:
        ids = await prepared(postgres_url)
        true = time.time
        begun = time.monotonic()
        async with wrong(monkeypatch, skew_s), Engine(postgres_url) as engine:
            said = await (await brief.astart()).aresult(timeout=LONG)
            assert abs(said - true()) < NEAR_US / 1e6, "task code is told the server's time"
            soon = await later.options(delay="0.3s").astart()
            assert await soon.aresult(timeout=LONG) == "later"
            took = time.monotonic() - begun
            with Guest(postgres_url) as guest:
                (id,) = guest.new_ids(1)
                assert abs(guest._clock.now() / 1e6 - true()) < NEAR_US / 1e6, id
            found = await states(engine, ids)
            (schedule,) = await engine.schedules.alist()
            return found, schedule.fired, took

    found, fired, took = asyncio.run(main())
    with capsys.disabled():
        print(
            f"\n  a clock {skew_s / HOUR_S:+g} h off: {len(found)} timers of half an hour and a "
            f"schedule stood still, two of 0.3 s fired; {took:.1f} s",
            file=sys.stderr,
            flush=True,
        )
    assert found == {
        "delayed": State.SCHEDULED,
        "asleep": State.WAITING,
        "patient": State.AWAITING_INPUT,
    }
    assert fired == 0


def test_a_clock_that_is_given_is_gone_by(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above can fail: an engine by its machine's clock ends what has time left."""

    async def main() -> dict[str, State]:
        ids = await prepared(postgres_url)
        async with (
            wrong(monkeypatch, HOUR_S),
            Engine(postgres_url, clock=WallClock()) as engine,
            asyncio.timeout(LONG),
        ):
            while (await states(engine, ids))["asleep"] is not State.SUCCEEDED:
                await asyncio.sleep(0)
            return await states(engine, ids)

    assert asyncio.run(main())["patient"] is State.TIMED_OUT


def test_the_time_moves_only_as_far_as_it_must() -> None:
    class Store(MemoryStore):
        at = 1_000_000_000

        def instant(self, now: int) -> int:
            return self.at

    clock = StoreClock(Store(is_shared=True))

    def ahead() -> int | None:
        return clock._ahead_us

    clock._ahead_us = 500
    clock.heard(1_600, 1_000, 1_200)  # between 400 and 600 ahead
    assert ahead() == 500
    clock.heard(1_600, 1_000, 1_050)  # 550 at least
    assert ahead() == 550
    clock.heard(1_400, 1_000, 9_000)  # somebody was stopped meanwhile: 400 at most
    assert ahead() == 400
    clock.heard(5_000, 1_000, 1_100)
    assert ahead() == 3_900, "the server's clock was set"


def test_the_servers_clock_is_the_servers(postgres_store: str) -> None:
    with Guest(postgres_store) as guest:
        said = guest.store.instant(1)
    assert abs(said / 1e6 - datetime.now(UTC).timestamp()) < NEAR_US / 1e6
