"""Bad input at every door: each gets a clear error with a stable code, and nothing is lost.

Every case ends in one of two ways: a refusal at the call, which has written nothing, or an
execution in a final state whose error says what was wrong. None may hang, and the engine goes on
serving others; each test asks it to afterwards.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import types
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from outlast import Engine, Fatal, State, ask, sleep, step, task, wait_for
from outlast.engine.control.handle import Execution
from outlast.errors import NoEngine, OutlastError, StoreFull, StoreUnavailable
from outlast.lifecycle import Kind
from outlast.store.protocol import Filter

from .conftest import in_state, until
from .conftest import run as run_plainly

NUL, SURROGATE = "a\x00b", "a\ud800b"
HUGE = 100 * 1024 * 1024


class Odd:
    """A class that JSON knows nothing of."""


class Text(str):
    """A subclass: it would come back as its base class."""


def _cycle() -> list[object]:
    loop: list[object] = []
    loop.append(loop)
    return loop


def _deep() -> list[object]:
    deep: list[object] = []
    for _ in range(300):
        deep = [deep]
    return deep


def _generator() -> Iterator[int]:
    yield 1


async def _coroutine() -> int:
    return 1


def _closed_coroutine() -> Any:
    coroutine = _coroutine()
    coroutine.close()
    return coroutine


UNSTORABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "nan": (lambda: float("nan"), "bad_payload"),
    "infinity": (lambda: [1.0, float("inf")], "bad_payload"),
    "surrogate": (lambda: SURROGATE, "bad_payload"),
    "surrogate as a key": (lambda: {SURROGATE: 1}, "bad_payload"),
    "surrogate deep inside": (lambda: {"a": [{"b": SURROGATE}]}, "bad_payload"),
    "cycle": (_cycle, "bad_payload"),
    "too deep": (_deep, "bad_payload"),
    "huge int": (lambda: 1 << 100_000, "bad_payload"),
    "object": (Odd, "bad_payload"),
    "class": (lambda: Odd, "bad_payload"),
    "subclass of str": (lambda: Text("x"), "bad_payload"),
    "bytes": (lambda: b"raw", "bad_payload"),
    "tuple": (lambda: (1, 2), "bad_payload"),
    "set": (lambda: {1, 2}, "bad_payload"),
    "int keys": (lambda: {1: 2}, "bad_payload"),
    "function": (lambda: _cycle, "bad_payload"),
    "module": (lambda: sys, "bad_payload"),
    "generator": (_generator, "bad_payload"),
    "coroutine": (_closed_coroutine, "bad_payload"),
    "exception": (lambda: ValueError("x"), "bad_payload"),
    "100 MB of text": (lambda: "x" * HUGE, "payload_too_large"),
    "100 MB of parts": (lambda: ["x" * 1024 * 1024] * 100, "payload_too_large"),
}
"""Values that cannot be stored where nothing is annotated, and the code that says so."""

STORABLE: dict[str, Any] = {
    "nul": NUL,
    "nul as a key": {NUL: NUL},
    "empty": "",
    "controls": "\x1b[31m\r\n\t\x7f\u2028\ufffe",
    "beyond the BMP": "\U0001f600",
    "big int": 1 << 80,
    "negative zero": -0.0,
}
"""Odd values that come back as they are."""


def run(main: Callable[[Engine], Awaitable[Any]], url: str, **options: Any) -> Any:
    """Run a coroutine with an open engine, which code that it runs must not bring down."""
    try:
        return run_plainly(main, url, **options)
    except (KeyboardInterrupt, SystemExit) as error:
        raise AssertionError(f"{error!r} of a step ended the engine") from None


made: list[Callable[[], Any]] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    made.clear()


@task
async def takes(value: Any) -> Any:
    return value


@task
async def gives() -> Any:
    return made[0]()


@task
def gives_def() -> Any:
    return made[0]()


@step
async def give() -> Any:
    return made[0]()


@step
def give_def() -> Any:
    return made[0]()


@step
async def take(value: Any) -> Any:
    return value


@task
async def step_gives() -> Any:
    return await give()


@task
async def step_gives_def() -> Any:
    return await give_def.aio()


@task
async def step_takes() -> Any:
    return await take(made[0]())


@task
async def survives() -> str:
    """Meet the error of a step, and go on."""
    try:
        await give()
    except OutlastError as error:
        return error.code
    return "nothing was raised"


@task
async def asks() -> Any:
    return await ask("What?", Any)


@task
async def listens() -> Any:
    return await wait_for("news")


@task
async def echo(value: int) -> int:
    return int(await take(value))


@task
async def sleeps_long() -> None:
    await sleep("30d")


async def _goes_on(engine: Engine) -> None:
    """The engine serves others as before, and the file is sound."""
    assert await (await engine.astart(echo, 7)).aresult("100s") == 7
    assert engine.store.verify().defects == []


async def _code_of(awaitable: Awaitable[Any]) -> str:
    """Give the code of the error that this raises, having looked that its text is whole."""
    try:
        await awaitable
    except OutlastError as error:
        text = str(error)
        assert error.what and text.encode() and len(text) < 20_000
        return error.code
    return "nothing was raised"


@pytest.mark.parametrize("name", UNSTORABLE)
def test_unstorable_input_is_refused_and_writes_nothing(url: str, name: str) -> None:
    value, code = UNSTORABLE[name]

    async def main(engine: Engine) -> None:
        assert await _code_of(engine.astart(takes, value())) == code
        assert engine.store.page(Filter()) == []
        await _goes_on(engine)

    run(main, url)


@pytest.mark.parametrize("giver", [gives, gives_def, step_gives, step_gives_def, step_takes])
@pytest.mark.parametrize("name", UNSTORABLE)
def test_unstorable_results_and_arguments_fail_the_execution(
    url: str, name: str, giver: Any
) -> None:
    value, code = UNSTORABLE[name]
    made.append(value)

    async def main(engine: Engine) -> None:
        handle = await engine.astart(giver)
        assert await _code_of(handle.aresult("100s")) == code
        assert await handle.astatus() is State.FAILED
        await _goes_on(engine)

    run(main, url)


def test_task_code_may_handle_an_unstorable_result(url: str) -> None:
    made.append(Odd)

    async def main(engine: Engine) -> None:
        assert await (await engine.astart(survives)).aresult("100s") == "bad_payload"

    run(main, url)


@pytest.mark.parametrize("name", UNSTORABLE)
def test_unstorable_answers_and_signals_are_refused(url: str, name: str) -> None:
    value, code = UNSTORABLE[name]

    async def main(engine: Engine) -> None:
        asking, listening = await engine.astart(asks), await engine.astart(listens)
        await in_state(asking, State.AWAITING_INPUT)
        await in_state(listening, State.AWAITING_INPUT)
        assert await _code_of(asking.aanswer(value())) == code
        assert await _code_of(listening.asignal("news", value())) == code
        assert engine.store.inbox(asking.id) == engine.store.inbox(listening.id) == []
        await asking.aanswer("fine")
        await listening.asignal("news", "fine")
        assert await asking.aresult("100s") == await listening.aresult("100s") == "fine"
        await _goes_on(engine)

    run(main, url)


@pytest.mark.parametrize("name", STORABLE)
def test_odd_values_come_back_as_they_are(url: str, name: str) -> None:
    value = STORABLE[name]
    made.append(lambda: value)

    async def main(engine: Engine) -> None:
        for giver in (gives, gives_def, step_gives, step_takes):
            assert await (await engine.astart(giver)).aresult("100s") == value
        asking, listening = await engine.astart(asks), await engine.astart(listens)
        await in_state(asking, State.AWAITING_INPUT)
        await asking.aanswer(value)
        await listening.asignal("news", value)
        assert await asking.aresult("100s") == await listening.aresult("100s") == value
        assert await (await engine.astart(takes, value)).aresult("100s") == value
        await _goes_on(engine)

    run(main, url)


def test_a_larger_limit_takes_what_fits_under_it(url: str) -> None:
    made.append(lambda: "x" * (20 * 1024 * 1024))

    async def main(engine: Engine) -> None:
        handle = await engine.astart(step_gives)
        assert await handle.aresult("100s") == made[0]()
        await _goes_on(engine)

    run(main, url, payload_bytes_max=HUGE)


# Arguments and names

WRONG_CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "too many": ((1, 2), {}, "wrong_arguments"),
    "too few": ((), {}, "wrong_arguments"),
    "unknown": ((), {"other": 1}, "wrong_arguments"),
    "twice": ((1,), {"value": 1}, "wrong_arguments"),
    "another type": (("seven",), {}, "bad_payload"),
    "nothing": ((None,), {}, "bad_payload"),
    "a bool for an int": ((True,), {}, "bad_payload"),
    "a name with a surrogate": ((), {SURROGATE: 1}, "wrong_arguments"),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_arguments(url: str, name: str) -> None:
    args, kwargs, code = WRONG_CALLS[name]

    async def main(engine: Engine) -> None:
        assert await _code_of(engine.astart(echo, *args, **kwargs)) == code
        assert engine.store.page(Filter()) == []
        await _goes_on(engine)

    run(main, url)


NAMES: dict[str, str] = {
    "nul": NUL,
    "surrogate": SURROGATE,
    "empty": "",
    "line breaks": "a\nb\tc",
    "slash and hash": "1.2/x#3",
    "long": "k" * 200,
    "quotes": "'; DROP TABLE execution; --",
}
"""Names that people give. They may be taken, or refused as wrong: never anything else."""


async def _taken_or_refused(awaitable: Awaitable[Any]) -> Any:
    """Give what was taken; a refusal must be a usage error, and nothing else may come."""
    try:
        return await awaitable
    except OutlastError as error:
        assert error.code in ("usage", "bad_payload", "payload_too_large"), error
        return None


@pytest.mark.parametrize("name", NAMES)
def test_names_of_keys_queues_and_actors(url: str, name: str) -> None:
    text = NAMES[name]

    async def main(engine: Engine) -> None:
        for options in ({"key": text}, {"queue": text}, {"actor": text}, {"origin": text}):
            handle = await _taken_or_refused(
                echo.options(**options).astart(3)  # type: ignore[arg-type]
            )
            if handle is None:
                continue
            assert await handle.aresult("100s") == 3
            if "key" in options and text:
                again = await echo.options(key=text).astart(3)
                assert again.id == handle.id
        await _goes_on(engine)

    run(main, url)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_signals_reasons_and_senders(url: str, name: str) -> None:
    text = NAMES[name]

    @task
    async def waits_for() -> Any:
        return await wait_for(text)

    async def main(engine: Engine) -> None:
        handle = await engine.astart(waits_for)
        await until(lambda: _is_one_of(handle, State.AWAITING_INPUT, State.FAILED))
        if await handle.astatus() is State.AWAITING_INPUT:
            taken = await _taken_or_refused(_done(handle.asignal(text, 5)))
            if taken:
                assert await handle.aresult("100s") == 5
        sendings: list[Callable[[Execution[Any]], Awaitable[None]]] = [
            lambda one: one.acancel(text),
            lambda one: one.acancel("why", actor=text),
            lambda one: one.asignal("news", 1, id=text),
            lambda one: one.apause(text),
        ]
        for sending in sendings:
            other = await engine.astart(asks)
            await in_state(other, State.AWAITING_INPUT)
            await _taken_or_refused(sending(other))
            await _end(other)
        await _goes_on(engine)

    run(main, url)


async def _done(awaitable: Awaitable[Any]) -> bool:
    await awaitable
    return True


async def _is_one_of(handle: Execution[Any], *states: State) -> bool:
    return await handle.astatus() in states


async def _end(handle: Execution[Any]) -> None:
    """It is still a good execution: it can be cancelled."""
    try:
        await handle.acancel("the test is over")
    except OutlastError as error:
        assert error.code == "transition_refused"
    assert await handle.await_("100s") is not State.RUNNING


@pytest.mark.parametrize("name", NAMES)
def test_names_of_steps_and_questions(url: str, name: str) -> None:
    text = NAMES[name]

    @task
    async def keyed() -> Any:
        return await take.key(text)(5)

    @task
    async def titled() -> Any:
        return await ask(text, int, to=text)

    async def main(engine: Engine) -> None:
        code = await _code_of((await engine.astart(keyed)).aresult("100s"))
        assert code in ("nothing was raised", "usage", "bad_payload")
        handle = await engine.astart(titled)
        await until(lambda: _is_one_of(handle, State.AWAITING_INPUT, State.FAILED))
        if await handle.astatus() is State.AWAITING_INPUT:
            await handle.aanswer(5)
            assert await handle.aresult("100s") == 5
        else:
            assert await _code_of(handle.aresult("100s")) in ("usage", "bad_payload")
        await _goes_on(engine)

    run(main, url)


def test_a_key_of_10_mb(url: str) -> None:
    async def main(engine: Engine) -> None:
        await _taken_or_refused(echo.options(key="k" * 10_000_000).astart(3))
        await _goes_on(engine)

    run(main, url)


def test_a_task_that_no_engine_here_knows_waits_and_says_so(url: str) -> None:
    async def main(engine: Engine) -> None:
        handle = await engine.astart(takes, 1)
        reason = await handle.areason()
        assert await handle.astatus() is State.QUEUED
        assert reason is not None and reason.code == "no_worker" and "takes" in reason.hint
        await handle.acancel("nobody knows it")
        await _goes_on(engine)

    run(main, url, tasks=[echo])


# Errors


class SaysNothing(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Hostile(Exception):
    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise RuntimeError("no attributes")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


class NeedsTwo(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def _raise(error: BaseException) -> Any:
    raise error


def _recurse() -> Any:
    return _recurse()


def _huge_error() -> Any:
    raise ValueError("x" * HUGE)


def _chain() -> Any:
    error: BaseException = ValueError("first")
    for _ in range(500):
        following = ValueError("next")
        following.__cause__ = error
        error = following
    raise error


def _unpicklable() -> Any:
    raise ValueError(Odd(), _coroutine, SURROGATE, b"\xff")


ERRORS: dict[str, Callable[[], Any]] = {
    "nul": lambda: _raise(ValueError(NUL)),
    "surrogate": lambda: _raise(ValueError(SURROGATE)),
    "no text": lambda: _raise(SaysNothing()),
    "hostile": lambda: _raise(Hostile("x")),
    "two arguments": lambda: _raise(NeedsTwo(1, 2)),
    "100 MB": _huge_error,
    "long chain": _chain,
    "odd arguments": _unpicklable,
    "recursion": _recurse,
    "memory": lambda: _raise(MemoryError()),
    "system exit": lambda: _raise(SystemExit(3)),
    "generator exit": lambda: _raise(GeneratorExit()),
    "base exception": lambda: _raise(BaseException("bare")),
    "stop iteration": lambda: _raise(StopIteration(1)),
    "stop async iteration": lambda: _raise(StopAsyncIteration()),
    "cancelled": lambda: _raise(asyncio.CancelledError()),
    "timeout": lambda: _raise(TimeoutError()),
    "group": lambda: _raise(ExceptionGroup("g", [ValueError(SURROGATE), KeyError(NUL)])),
    "base group": lambda: _raise(BaseExceptionGroup("g", [SystemExit(1), KeyboardInterrupt()])),
    "fatal": lambda: _raise(Fatal("no")),
    "an error of ours": lambda: _raise(StoreFull("not the disk, the user's code")),
    "assertion": lambda: _raise(AssertionError()),
}
"""What code may raise."""


@pytest.mark.parametrize("giver", [step_gives, step_gives_def, gives, gives_def])
@pytest.mark.parametrize("name", ERRORS)
def test_whatever_code_raises_ends_its_execution_alone(url: str, name: str, giver: Any) -> None:
    made.append(ERRORS[name])

    async def main(engine: Engine) -> None:
        handle = await engine.astart(giver)
        assert await handle.await_("100s") in (State.FAILED, State.CANCELLED)
        try:
            await handle.aresult("100s")
        except Exception as error:
            assert error.__traceback__ is not None
        else:
            raise AssertionError("it gave a result")
        last = (await handle.atransitions())[-1]
        assert last.kind in (Kind.ERROR, Kind.CANCEL) and len(last.payload or b"") < 1024 * 1024
        await _goes_on(engine)

    run(main, url)


@pytest.mark.parametrize("name", ["system exit", "cancelled", "recursion"])
def test_the_same_error_comes_in_every_replay(url: str, name: str) -> None:
    """Task code that catches a step's error must catch it again after a park."""
    made.append(ERRORS[name])
    caught: list[str] = []

    @task
    async def catches() -> str:
        try:
            await give()
        except BaseException as error:
            if type(error).__name__ == "_Parked":
                raise
            caught.append(type(error).__name__)
        await ask("?", bool)
        return "went on"

    async def main(engine: Engine) -> None:
        handle = await engine.astart(catches)
        await in_state(handle, State.AWAITING_INPUT)
        await handle.aanswer(True)
        assert await handle.aresult("100s") == "went on"
        assert len(caught) == 2 and caught[0] == caught[1]
        await _goes_on(engine)

    run(main, url)


@pytest.mark.parametrize("giver", [step_gives, gives])
def test_ctrl_c_ends_the_process_and_is_no_outcome(url: str, giver: Any) -> None:
    """It means the process, whatever code it happens to hit."""
    made.append(lambda: _raise(KeyboardInterrupt()))
    ids: list[str] = []

    async def interrupted(engine: Engine) -> None:
        handle = await engine.astart(giver)
        ids.append(handle.id)
        await handle.aresult("100s")

    with pytest.raises(KeyboardInterrupt):
        run_plainly(interrupted, url, patience="10ms")
    made[0] = lambda: 7

    async def again(engine: Engine) -> None:
        (record,) = engine.store.page(Filter())
        assert await engine.execution(record.id).aresult("100s") == 7
        await _goes_on(engine)

    run(again, url)


@pytest.mark.parametrize("giver", [step_gives, gives])
def test_a_keyboard_interrupt_of_an_engine_in_the_background(url: str, giver: Any) -> None:
    made.append(lambda: _raise(KeyboardInterrupt()))
    with Engine(url) as engine:
        assert engine.start(giver).wait("100s") is State.FAILED
        assert engine.start(echo, 7).result("100s") == 7
        assert engine.store.verify().defects == []


def test_who_waits_hears_that_the_thread_of_the_engine_has_ended(url: str) -> None:
    with Engine(url) as engine:
        handle = engine.start(asks)
        assert engine._thread is not None
        engine.loop.call_soon_threadsafe(engine.loop.stop)
        for _ in range(2):  # as the thread ends, and once it has ended
            with pytest.raises(NoEngine):
                handle.result()
    with Engine(url) as engine:  # the file was given back
        engine.execution(handle.id).answer(True)
        assert engine.execution(handle.id).result("100s") is True


@pytest.mark.parametrize("giver", [step_gives_def, gives_def])
def test_a_keyboard_interrupt_in_a_thread_is_the_codes_own(url: str, giver: Any) -> None:
    """Signals only ever interrupt the main thread."""
    made.append(lambda: _raise(KeyboardInterrupt()))

    async def main(engine: Engine) -> None:
        assert await (await engine.astart(giver)).await_("100s") is State.FAILED
        await _goes_on(engine)

    run(main, url)


# What is returned in place of a value


def test_an_async_step_that_is_a_generator(url: str) -> None:
    async def numbers() -> Any:
        yield 1

    @task
    async def uses() -> Any:
        return await step(numbers)()

    async def main(engine: Engine) -> None:
        handle = await engine.astart(uses)
        assert await handle.await_("100s") is State.FAILED
        await _goes_on(engine)

    run(main, url)


def test_a_step_without_return_in_a_typed_task(url: str) -> None:
    @step
    async def forgets() -> int:
        return None  # type: ignore[return-value]

    @task
    async def uses() -> int:
        return await forgets()

    async def main(engine: Engine) -> None:
        assert await _code_of((await engine.astart(uses)).aresult("100s")) == "bad_payload"
        await _goes_on(engine)

    run(main, url)


def test_a_step_awaited_twice_and_one_never_awaited(url: str) -> None:
    @task
    async def twice() -> Any:
        call = take(1)
        await call
        return await call

    @task
    async def never() -> str:
        _ = take(1)
        return "done"

    async def main(engine: Engine) -> None:
        assert await _code_of((await engine.astart(twice)).aresult("100s")) == "usage"
        assert await (await engine.astart(never)).aresult("100s") == "done"
        await _goes_on(engine)

    run(main, url)


def test_closed_and_unopened_engines_say_so(url: str) -> None:
    async def main() -> None:
        unopened = Engine(url)
        assert await _code_of(_call(lambda: unopened.store)) == "no_engine"
        engine = await Engine(url).open()
        handle = await engine.astart(asks)
        waiting = asyncio.ensure_future(handle.aresult())
        await in_state(handle, State.AWAITING_INPUT)
        await engine.aclose()
        assert await _code_of(waiting) == "no_engine"
        for late in (
            handle.astatus,
            handle.aresult,
            handle.atransitions,
            handle.acancel,
            lambda: handle.aanswer(1),
            lambda: engine.astart(echo, 1),
        ):
            async with asyncio.timeout(100):
                assert await _code_of(late()) == "no_engine"
        assert await engine.aclose() == 0

    asyncio.run(main())


async def _call(function: Callable[[], Any]) -> Any:
    return function()


# The file


def _nothing(path: Path) -> None:
    pass


def _rubbish(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def _text(path: Path) -> None:
    path.write_text("Dear diary, this is no database. " * 500)


def _foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE diary (day TEXT)")
    connection.commit()
    connection.close()


def _mixed_up(path: Path) -> None:
    """An Outlast file with the pages of its second half overwritten."""
    run(lambda engine: engine.astart_many(echo, [(n,) for n in range(200)]), f"sqlite:///{path}")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xde\xad" * ((size - 4096) // 2))


def _cut_short(path: Path) -> None:
    run(lambda engine: engine.astart_many(echo, [(n,) for n in range(200)]), f"sqlite:///{path}")
    os.truncate(path, 4096 * 3)


def _newer(path: Path) -> None:
    run(lambda engine: engine.astart(echo, 1), f"sqlite:///{path}")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 9999")
    connection.commit()
    connection.close()


def _directory(path: Path) -> None:
    path.mkdir()


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "random bytes": (_rubbish, "store_broken"),
    "a text": (_text, "store_broken"),
    "another program's": (_foreign, "store_broken"),
    "overwritten": (_mixed_up, "store_broken"),
    "cut short": (_cut_short, "store_broken"),
    "of a newer version": (_newer, "schema_mismatch"),
    "a directory": (_directory, "cannot_load"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_none_of_ours(tmp_path: Path, name: str) -> None:
    spoil, code = FILES[name]
    path = tmp_path / "given.db"
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""

    async def main() -> None:
        async with asyncio.timeout(100):
            assert await _code_of(Engine(f"sqlite:///{path}").open()) == code
            assert await _code_of(Engine(f"sqlite:///{path}").open()) == code  # nor the second time

    asyncio.run(main())
    assert not path.is_file() or path.read_bytes() == before


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("mysql://nowhere", "cannot_load"),
        ("sqlite:///", "cannot_load"),
        ("sqlite:///no/such/directory/x.db", "cannot_load"),
        ("", "cannot_load"),
        (f"sqlite:///{NUL}", "cannot_load"),
        (f"sqlite:///{SURROGATE}/x.db", "cannot_load"),
        ("sqlite:///" + "x" * 5_000, "cannot_load"),
    ],
)
def test_addresses_that_name_no_store(
    url: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTLAST_STORE", "nonsense")
    assert asyncio.run(_code_of(Engine(url).open())) == code


def test_a_second_engine_is_told_who_owns_the_file(url: str) -> None:
    async def main(engine: Engine) -> None:
        assert await _code_of(Engine(url).open()) == "store_owned"
        await _goes_on(engine)

    run(main, url)
    run(_goes_on, url)


# The disk


def _limit_pages(engine: Engine, more: int) -> Awaitable[None]:
    """Let the file grow by so many pages at most, and no more than it has as yet with 0."""
    writer = engine.store.file.writer  # type: ignore[attr-defined]

    def limit() -> None:
        ((count,),) = writer.execute("PRAGMA page_count").fetchall()
        writer.execute(f"PRAGMA max_page_count = {count + more}").fetchall()

    return engine.journal.call(limit)


def _new_limits(engine: Engine) -> Awaitable[None]:
    """There is room again."""
    writer = engine.store.file.writer  # type: ignore[attr-defined]
    return engine.journal.call(
        lambda: writer.execute("PRAGMA max_page_count = 1000000000").fetchall() and None
    )


@step
async def fills(number: int) -> str:
    return f"{number:06}" * 2_000


@task
async def filler(count: int) -> int:
    total = 0
    for number in range(count):
        total += len(await fills(number))
    return total


def test_a_full_disk_under_load_loses_nothing(url: str) -> None:
    async def main(engine: Engine) -> None:
        began: list[Execution[int]] = []
        await _limit_pages(engine, 200)
        codes: set[str] = set()
        async with asyncio.timeout(100):
            while not codes:
                try:
                    began.append(await engine.astart(filler, 5))
                except OutlastError as error:
                    codes.add(error.code)
        assert codes == {"store_full"}
        assert await _code_of(engine.astart(filler, 5)) in ("store_full", "nothing was raised")
        assert engine.store.verify().defects == []  # it is still read
        states = engine.store.get([one.id for one in began])
        assert None not in states  # what was acknowledged is there
        await _new_limits(engine)
        for handle in began:
            assert await handle.aresult("100s") == 5 * 12_000
        await _goes_on(engine)
        for record in engine.store.page(Filter(limit=1000)):
            await engine.execution(record.id).await_("100s")
        assert engine.store.verify().defects == []

    run(main, url)


def test_a_full_disk_while_everything_is_parked(url: str) -> None:
    async def main(engine: Engine) -> None:
        asking = await engine.astart(asks)
        sleeper = await engine.astart(sleeps)
        await in_state(asking, State.AWAITING_INPUT)
        await in_state(sleeper, State.WAITING)
        await _limit_pages(engine, 0)
        large = "x" * 1_000_000
        assert await _code_of(asking.aanswer(large)) == "store_full"
        await _new_limits(engine)

        async def is_taken() -> bool:
            return await _code_of(asking.aanswer(large)) in ("nothing was raised", "not_found")

        await until(is_taken)
        assert await asking.aresult("100s") == large
        assert await sleeper.aresult("100s") == "woken"
        await _goes_on(engine)

    run(main, url)


@task
async def sleeps() -> str:
    await sleep("400ms")
    return "woken"


def test_a_full_disk_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from outlast.store.sqlite import connect

    original = connect.settle

    def small(connection: Any, *, owner: bool) -> None:
        original(connection, owner=owner)
        connection.execute("PRAGMA max_page_count = 5").fetchall()

    url = f"sqlite:///{tmp_path / 'small.db'}"
    with monkeypatch.context() as patch:
        patch.setattr("outlast.store.sqlite.database.settle", small)
        assert asyncio.run(_code_of(Engine(url).open())) == "store_full"
    run(_goes_on, url)


def test_an_i_o_error_is_survived(url: str) -> None:
    """A commit fails in an unforeseen way: nobody is told a lie, and the work goes on."""

    async def main(engine: Engine) -> None:
        original = engine.store.commit
        fail = [True]

        def commit(batch: Any) -> Any:
            if fail[0]:
                raise StoreUnavailable("the disk is gone")
            return original(batch)

        handle = await engine.astart(asks)
        await in_state(handle, State.AWAITING_INPUT)
        engine.store.commit = commit  # type: ignore[method-assign]
        assert await _code_of(engine.astart(echo, 1)) == "store_unavailable"
        assert await _code_of(handle.aanswer(1)) == "store_unavailable"
        fail[0] = False
        await handle.aanswer(2)
        assert await handle.aresult("100s") == 2
        await _goes_on(engine)

    run(main, url)


_AS_NOBODY = """
import asyncio, os, sys
import outlast.engine.engine, outlast.store.sqlite
from outlast.errors import OutlastError
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    asyncio.run(outlast.Engine(sys.argv[1]).open())
except OutlastError as error:
    print(error.code)
"""


@pytest.mark.parametrize("what", ["directory", "file"])
def test_a_user_without_the_right_to_write(what: str, request: pytest.FixtureRequest) -> None:
    """In a process of its own: where this user is root, that one gives its rights up."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(directory))
    path = directory / "x.db"
    if what == "file":
        run(lambda engine: engine.astart(echo, 1), f"sqlite:///{path}")
        path.chmod(0o444)
        directory.chmod(0o777)
    else:
        directory.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, f"sqlite:///{path}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=100,
        check=False,
    )
    assert done.stdout.strip() == "store_read_only", done.stderr


def test_a_file_deleted_under_a_running_engine(tmp_path: Path) -> None:
    """Nothing is acknowledged that nobody could find; a new engine begins with a new file."""
    path = tmp_path / "gone.db"

    async def main() -> None:
        engine = await Engine(f"sqlite:///{path}").open()
        handle = await engine.astart(echo, 1)
        assert await handle.aresult("100s") == 1
        for name in ("gone.db", "gone.db-wal", "gone.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        async with asyncio.timeout(100):
            assert await _code_of(engine.astart(echo, 2)) == "store_broken"
            await engine.aclose()

    asyncio.run(main())
    run(_goes_on, f"sqlite:///{path}")


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_an_engine_that_only_waits_sees_that_its_file_is_gone(tmp_path: Path, how: str) -> None:
    """It says so once, stops, and tells those who wait; nobody has written anything."""
    path = tmp_path / "gone.db"
    said: list[str] = []

    async def main() -> None:
        engine = await Engine(f"sqlite:///{path}").open()
        engine.loop.set_exception_handler(lambda loop, context: said.append(context["message"]))
        lost = asyncio.Event()
        engine.on_lost = lost.set
        handle = await engine.astart(sleeps_long)
        await in_state(handle, State.WAITING)
        waits = asyncio.create_task(_code_of(handle.aresult("100s")))
        await asyncio.sleep(0)
        path.unlink()
        if how == "replaced":
            path.write_bytes(b"")
        async with asyncio.timeout(100):
            await lost.wait()
            assert await waits == "store_broken"
            assert await _code_of(handle.aresult("100s")) == "store_broken"
            assert await _code_of(engine.astart(echo, 2)) == "store_broken"
            await engine.aclose()
        assert said == ["outlast has lost its store"]

    asyncio.run(main())


@dataclass
class Broken:
    """A dataclass whose own code raises when it is made again."""

    value: int

    def __post_init__(self) -> None:
        if made:
            raise RuntimeError("not again")


def test_a_result_whose_class_refuses_to_be_made_again(url: str) -> None:
    @step
    async def breaks() -> Broken:
        one = types.SimpleNamespace()
        broken = Broken.__new__(Broken)
        broken.value = 1
        made.append(lambda: one)
        return broken

    @task
    async def uses() -> int:
        return (await breaks()).value

    async def main(engine: Engine) -> None:
        handle = await engine.astart(uses)
        assert await handle.await_("100s") is State.FAILED
        assert await _code_of(handle.aresult("100s")) == "bad_payload"
        made.clear()
        await _goes_on(engine)

    run(main, url)
