"""Code that changes under open executions: each kind of edit is seen, none is guessed about."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from outlast import State, ask, blocking, changed, sleep, step, task, this_step, wait_for
from outlast.engine.control.handle import Execution
from outlast.engine.task.registry import TASKS, VERSIONS, Task
from outlast.lifecycle import Kind
from outlast.testing import VirtualEngine, crash_everywhere

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()


@step
async def charge(cents: int) -> int:
    ran.append(("charge", cents))
    return cents


@step
async def ship(order: str) -> str:
    ran.append(("ship", order))
    return f"{order} shipped"


@step
async def mail(to: str) -> str:
    ran.append(("mail", to))
    return f"mailed {to}"


@step
def weigh(order: str) -> int:
    ran.append(("weigh", order))
    return len(order)


def deploy(code: Callable[..., Any], **options: Any) -> Task[..., Any]:
    """Let the function be the task from now on, as another process would have it."""
    TASKS.pop("fulfil", None)
    for known in [known for known in VERSIONS if known[0] == "fulfil"]:
        del VERSIONS[known]
    return task(name="fulfil", **options)(code)


def facts(handle: Execution[Any]) -> dict[str, Any]:
    """Give what a suspended execution says about its code."""
    record = handle.record()
    assert record.state is State.SUSPENDED, record.state
    assert record.detail is not None and record.detail["code"] == "code_mismatch"
    return dict(record.detail)


async def old_async(order: str) -> str:
    paid = await charge(100)
    await sleep("1d")
    said = await ask("Release?", str)
    await wait_for("packed")
    return f"{paid} {said} {await ship(order)}"


def old_def(order: str) -> str:
    weight = weigh(order)
    blocking.sleep("1d")
    said = blocking.ask("Release?", str)
    blocking.wait_for("packed")
    return f"{weight} {said} {weigh(order + '!')}"


def until_asleep(engine: VirtualEngine, handle: Execution[Any]) -> None:
    assert handle.status() is State.WAITING


def until_asked(engine: VirtualEngine, handle: Execution[Any]) -> None:
    engine.advance("25h")
    assert handle.status() is State.AWAITING_INPUT


def until_answered(engine: VirtualEngine, handle: Execution[Any]) -> None:
    until_asked(engine, handle)
    engine.answer(handle, "yes")
    assert handle.status() is State.AWAITING_INPUT


def finish(engine: VirtualEngine, handle: Execution[Any]) -> Any:
    """Bring an execution of the old code to its end, wherever it was left."""
    handle.resume()
    engine.advance("2d")
    if engine.pending(handle):
        engine.answer(handle, "yes")
    handle.signal("packed")
    return handle.result()


# One edit of the code after the other


async def other_arguments(order: str) -> str:
    await charge(99)
    await sleep("1d")
    return ""


async def renamed(order: str) -> str:
    await mail(order)
    await sleep("1d")
    return ""


async def other_order(order: str) -> str:
    await sleep("1d")
    await charge(100)
    return ""


async def removed_step(order: str) -> str:
    await sleep("1d")
    return ""


async def ends_early(order: str) -> str:
    return "done"


async def ends_behind_the_step(order: str) -> str:
    await charge(100)
    return "done"


async def raises_early(order: str) -> str:
    raise ValueError("no such order")


async def other_deadline(order: str) -> str:
    await charge(100)
    await sleep("2d")
    return await ship(order)


async def new_step_in_between(order: str) -> str:
    await charge(100)
    await mail(order)
    await sleep("1d")
    return await ship(order)


async def other_form(order: str) -> str:
    await charge(100)
    await sleep("1d")
    return str(await ask("Release?", int))


async def other_question(order: str) -> str:
    await charge(100)
    await sleep("1d")
    return await ask("Really?", str)


async def question_became_a_step(order: str) -> str:
    @step(name="ask")
    async def decide() -> str:
        ran.append("decide")
        return "yes"

    await charge(100)
    await sleep("1d")
    return await decide()


async def question_is_gone(order: str) -> str:
    await charge(100)
    await sleep("1d")
    return await ship(order)


async def other_signal(order: str) -> str:
    await charge(100)
    await sleep("1d")
    await ask("Release?", str)
    await wait_for("sealed")
    return await ship(order)


async def step_became_a_question(order: str) -> str:
    @step(name="charge")
    async def charge_now(cents: int) -> str:
        return "0"

    await ask("Charge?")
    return await charge_now(100)


async def without_parameters() -> str:
    await charge(100)
    await sleep("1d")
    return ""


async def with_another_parameter(order: str, express: bool) -> str:
    return await ship(order)


async def other_result(order: str) -> str:
    @step(name="charge")
    async def charge_again(cents: int) -> list[str]:
        ran.append("again")
        return []

    await charge_again(100)
    await sleep("1d")
    return ""


def became_def(order: str) -> str:
    weigh(order)
    blocking.sleep("1d")
    return ""


EDITS = [
    (other_arguments, until_asleep, "other arguments", "charge#1"),
    (renamed, until_asleep, "does not ask for charge#1", "mail#1"),
    (other_order, until_asleep, "does not ask for charge#1", "timer#1"),
    (removed_step, until_asleep, "does not ask for charge#1", "timer#1"),
    (ends_early, until_asleep, "has ended, where charge#1", None),
    (ends_behind_the_step, until_asleep, "has ended, where timer#1", None),
    (raises_early, until_asleep, "has ended, where charge#1", None),
    (other_deadline, until_asleep, "another instant", "timer#1"),
    (other_deadline, until_asked, "another instant", "timer#1"),
    (new_step_in_between, until_asleep, "does not ask for timer#1", "mail#1"),
    (other_form, until_asked, "asks something else", "ask#1"),
    (other_question, until_answered, "asks something else", "ask#1"),
    (question_became_a_step, until_asked, "recorded as ask, and is now step", "ask#1"),
    (question_became_a_step, until_answered, "recorded as ask, and is now step", "ask#1"),
    (question_is_gone, until_asked, "does not ask for ask#1", "ship#1"),
    (other_signal, until_answered, "does not ask for packed#1", "sealed#1"),
    (step_became_a_question, until_asleep, "does not ask for charge#1", "ask#1"),
    (without_parameters, until_asleep, "cannot be read by the task's parameters", None),
    (with_another_parameter, until_asleep, "cannot be read by the task's parameters", None),
    (other_result, until_asleep, "cannot be read by its type of today", "charge#1"),
    (became_def, until_asleep, "does not ask for charge#1", "weigh#1"),
]


@pytest.mark.parametrize(("new", "bring", "text", "wanted"), EDITS)
def test_an_edit_that_does_not_fit_suspends_and_the_old_code_goes_on(
    outlast_engine: VirtualEngine,
    new: Callable[..., Any],
    bring: Callable[[VirtualEngine, Execution[Any]], None],
    text: str,
    wanted: str | None,
) -> None:
    handle = outlast_engine.start(deploy(old_async), "O-1")
    bring(outlast_engine, handle)
    before, rows = list(ran), len(handle.transitions())
    deploy(new)
    handle.resume()
    said = facts(handle)
    assert text in said["text"]
    if wanted is not None:
        assert wanted in [one["key"] for one in said["wanted"]]
        if not wanted.startswith("timer"):
            (place,) = [one["where"] for one in said["wanted"] if one["key"] == wanted]
            assert f"in {new.__name__}, {__file__}:" in place
    assert ran == before, "a body ran although the code does not fit"
    later = [row.kind for row in handle.transitions()[rows:]]
    assert set(later) <= {Kind.RESUME, Kind.CLAIM, Kind.START, Kind.SUSPEND}
    deploy(old_async)
    assert finish(outlast_engine, handle) == "100 yes O-1 shipped"
    assert ran == [("charge", 100), ("ship", "O-1")]
    assert outlast_engine.store.verify().defects == []


def def_other_arguments(order: str) -> str:
    weigh("other")
    return ""


def def_ends_early(order: str) -> str:
    return "done"


def def_other_deadline(order: str) -> str:
    weigh(order)
    blocking.sleep("2d")
    return ""


def def_question_is_gone(order: str) -> str:
    weigh(order)
    blocking.sleep("1d")
    blocking.wait_for("packed")
    return ""


def def_other_result(order: str) -> str:
    @step(name="weigh")
    def weigh_again(order: str) -> list[str]:
        ran.append("again")
        return []

    weigh_again(order)
    return ""


async def became_async(order: str) -> str:
    await charge(1)
    return ""


DEF_EDITS = [
    (def_other_arguments, until_asleep, "other arguments", "weigh#1"),
    (def_ends_early, until_asleep, "has ended, where weigh#1", None),
    (def_other_deadline, until_asleep, "another instant", "timer#1"),
    (def_question_is_gone, until_asked, "does not ask for ask#1", "packed#1"),
    (def_question_is_gone, until_answered, "does not ask for ask#1", "packed#1"),
    (def_other_result, until_asleep, "cannot be read by its type of today", "weigh#1"),
    (became_async, until_asleep, "does not ask for weigh#1", "charge#1"),
]


@pytest.mark.parametrize(("new", "bring", "text", "wanted"), DEF_EDITS)
def test_an_edit_of_a_def_task_suspends_as_well(
    outlast_engine: VirtualEngine,
    new: Callable[..., Any],
    bring: Callable[[VirtualEngine, Execution[Any]], None],
    text: str,
    wanted: str | None,
) -> None:
    handle = outlast_engine.start(deploy(old_def), "O-1")
    bring(outlast_engine, handle)
    before = list(ran)
    deploy(new)
    handle.resume()
    said = facts(handle)
    assert text in said["text"]
    if wanted is not None:
        (one,) = [one for one in said["wanted"] if one["key"] == wanted]
        assert wanted.startswith("timer") or f"in {new.__name__}, {__file__}:" in one["where"]
    assert ran == before
    deploy(old_def)
    assert finish(outlast_engine, handle) == "3 yes 4"
    assert ran == [("weigh", "O-1"), ("weigh", "O-1!")]
    assert outlast_engine.store.verify().defects == []


def test_the_facts_show_both_sides(outlast_engine: VirtualEngine) -> None:
    old = deploy(old_async, version="1")
    handle = outlast_engine.start(old, "O-1")
    until_answered(outlast_engine, handle)
    new = deploy(question_is_gone, version="2")
    handle.resume()
    said = facts(handle)
    assert said["before"] == ["charge#1", "timer#1"]
    assert said["recorded"]["key"] == "ask#1" and said["recorded"]["title"] == "Release?"
    assert said["then"]["version"] == "1" and said["then"]["code"] == old.code
    assert said["now"] == {"version": "2", "code": new.code}
    assert old.code != new.code and len(new.code) == 8


def test_what_fits_goes_on(outlast_engine: VirtualEngine) -> None:
    """Behind what is recorded everything may change, and so may the bodies of steps."""

    async def more_behind(order: str) -> str:
        paid = await charge(100)
        await sleep("1d")
        return f"{paid} {await mail(order)}"

    handle = outlast_engine.start(deploy(old_async), "O-1")
    until_asleep(outlast_engine, handle)
    deploy(more_behind)
    outlast_engine.advance("1d")
    assert handle.result() == "100 mailed O-1"


def test_a_reused_result_that_cannot_be_read_suspends(outlast_engine: VirtualEngine) -> None:
    @task(name="fulfil", retries=1)
    async def fails() -> str:
        await charge(100)
        raise ValueError("once")

    @task(name="fulfil", retries=1)
    async def reads_otherwise() -> str:
        @step(name="charge")
        async def charge_again(cents: int) -> list[str]:
            ran.append("again")
            return []

        return str(await charge_again(100))

    @task(name="fulfil", retries=1)
    async def mended() -> str:
        return f"{await charge(100)}"

    handle = outlast_engine.start(deploy(fails.fn, retries=1))
    deploy(reads_otherwise.fn, retries=1)
    outlast_engine.advance("1h")
    assert "cannot be read by its type of today" in facts(handle)["text"]
    deploy(mended.fn, retries=1)
    handle.resume()
    assert handle.result() == "100"
    assert ran == [("charge", 100)]


def test_a_failed_attempt_names_a_call_that_must_still_be_made(
    outlast_engine: VirtualEngine,
) -> None:
    @step(retries=3)
    async def flaky() -> int:
        ran.append("flaky")
        if len(ran) < 2:
            raise ValueError
        return 7

    async def old() -> int:
        return await flaky()

    async def new() -> int:
        return await charge(1)

    handle = outlast_engine.start(deploy(old))
    assert handle.status() is State.WAITING
    deploy(new)
    handle.resume()
    assert "does not ask for flaky#1" in facts(handle)["text"]
    assert ran == ["flaky"]
    deploy(old)
    handle.resume()
    outlast_engine.advance("1h")
    assert handle.result() == 7


def test_a_call_that_was_given_up_stays_so(outlast_engine: VirtualEngine) -> None:
    @step
    async def slow() -> int:
        ran.append("slow")
        await asyncio.Event().wait()
        return 0

    async def old() -> str:
        try:
            async with asyncio.timeout(60):
                await slow()
        except TimeoutError:
            pass
        return await ask("Go on?", str)

    async def new() -> str:
        loop = asyncio.get_running_loop()
        loop.call_later(60, print)
        _, said = await asyncio.gather(slow(), ask("Go on?", str))
        return said

    handle = outlast_engine.start(deploy(old))
    outlast_engine.advance("2m")
    assert handle.status() is State.AWAITING_INPUT
    deploy(new)
    handle.resume()
    assert "slow#1 was given up" in facts(handle)["text"]
    assert ran == ["slow"]
    deploy(old)
    handle.resume()
    outlast_engine.answer(handle, "yes")
    assert handle.result() == "yes"


# changed()


def test_a_new_execution_has_the_edit_and_its_marker(outlast_engine: VirtualEngine) -> None:
    @task
    async def fresh() -> str:
        first = changed("mailer")
        await sleep("1d")
        return f"{first} {changed('mailer')} {changed('other')}"

    handle = outlast_engine.start(fresh)
    outlast_engine.advance("1d")
    assert handle.result() == "True True True"
    markers = [row for row in handle.transitions() if row.kind is Kind.ANNOTATION]
    assert [(row.key, row.data) for row in markers] == [
        ("changed:mailer", {"changed": "mailer"}),
        ("changed:other", {"changed": "other"}),
    ]


async def edited(order: str) -> str:
    if changed("mail-first"):
        await mail(order)
    paid = await charge(100)
    if changed("mail-after-the-sleep"):
        await sleep("1d")
        await mail("late")
    else:
        await sleep("1d")
    said = "mailed" if changed("mail-behind") else "no"
    return f"{paid} {said} {changed('mail-first')} {changed('mail-after-the-sleep')}"


def edited_def(order: str) -> str:
    if changed("weigh-first"):
        weigh("first")
    weight = weigh(order)
    blocking.sleep("1d")
    said = "mailed" if changed("mail-behind") else "no"
    return f"{weight} {said} {changed('weigh-first')}"


def test_an_old_execution_goes_on_as_before_where_it_has_passed(
    outlast_engine: VirtualEngine,
) -> None:
    for old, new, result in (
        (old_async, edited, "100 mailed False False"),
        (old_def, edited_def, "3 mailed False"),
    ):
        handle = outlast_engine.start(deploy(old), "O-1")
        until_asleep(outlast_engine, handle)
        deploy(new)
        outlast_engine.advance("1d")
        assert handle.result() == result
        markers = [row.key for row in handle.transitions() if row.kind is Kind.ANNOTATION]
        assert markers == ["changed:mail-behind"]
    assert ran == [("charge", 100), ("weigh", "O-1")]


def test_a_new_execution_takes_all_edits(outlast_engine: VirtualEngine) -> None:
    for new, result in ((edited, "100 mailed True True"), (edited_def, "3 mailed True")):
        handle = outlast_engine.start(deploy(new), "O-1")
        outlast_engine.advance("1d")
        assert handle.result() == result


def test_one_decision_holds_in_loops_and_branches(outlast_engine: VirtualEngine) -> None:
    async def old() -> list[str]:
        done = []
        for number in range(3):
            done.append(f"{await charge(number)}")
            await sleep("1h")
        return done

    async def new() -> list[str]:
        async def branch() -> str:
            return "new" if changed("loop") else "old"

        done = []
        for number in range(3):
            if changed("loop"):
                done.append(await mail(str(number)))
            else:
                done.append(f"{await charge(number)}")
            await sleep("1h")
        return done + await asyncio.gather(branch(), branch())

    handle = outlast_engine.start(deploy(old))
    deploy(new)
    outlast_engine.advance("3h")
    assert handle.result() == ["0", "1", "2", "old", "old"]
    again = outlast_engine.start(deploy(new))
    outlast_engine.advance("3h")
    assert again.result() == ["mailed 0", "mailed 1", "mailed 2", "new", "new"]


def test_a_retry_of_the_whole_task_begins_with_the_new_code(outlast_engine: VirtualEngine) -> None:
    @task(name="fulfil", retries=1)
    async def old() -> str:
        await charge(1)
        raise ValueError

    handle = outlast_engine.start(old)

    @task(name="fulfil", retries=1)
    async def new() -> str:
        await charge(1)
        return f"{changed('x')}"

    outlast_engine.advance("1h")
    assert handle.result() == "True"
    assert ran == [("charge", 1)]


def test_the_marker_outlives_the_call(outlast_engine: VirtualEngine) -> None:
    """Once the old code is taken out, executions with the marker do not notice."""

    async def with_both() -> str:
        if changed("x"):
            await charge(1)
        await sleep("1d")
        return "both"

    async def cleaned_up() -> str:
        await charge(1)
        await sleep("1d")
        return "clean"

    handle = outlast_engine.start(deploy(with_both))
    deploy(cleaned_up)
    outlast_engine.advance("1d")
    assert handle.result() == "clean"


def test_a_crash_at_any_row_changes_no_decision() -> None:
    @task
    async def marked() -> str:
        said = []
        said.append(changed("a"))
        await charge(1)
        said.append(changed("b"))
        await asyncio.gather(charge(2), mail("x"))
        said.append(changed("c"))
        await sleep("1d")
        said.append(changed("d"))
        if changed("e"):
            said.append(bool(await ask("Go on?")))
        await charge(3)
        return str(said)

    @task
    def marked_def() -> str:
        said = [changed("a")]
        weigh("a")
        said += [changed("b"), changed("a")]
        blocking.sleep("1d")
        said.append(changed("c"))
        weigh("b")
        return str(said)

    def scenario(engine: VirtualEngine) -> Any:
        first, second = engine.start(marked), engine.start(marked_def)
        engine.advance("1d")
        engine.answer(first, True)
        return first.result(), second.result()

    report = crash_everywhere(scenario)
    assert report.result == (str([True] * 5), str([True] * 4))
    assert sum(point.kind is Kind.ANNOTATION for point in report.points) == 8


@pytest.mark.parametrize("deployed_at", range(1, 10))
def test_a_crash_and_a_deploy_at_any_row_come_to_one_of_both(deployed_at: int) -> None:
    """The engine dies at a row and comes back with the edit: nothing runs twice, nothing fails."""

    async def old() -> str:
        await charge(1)
        await sleep("1d")
        await charge(2)
        return "old"

    async def new() -> str:
        if changed("x"):
            await mail("x")
        else:
            await charge(1)
        await sleep("1d")
        if changed("y"):
            await ship("y")
        await charge(2)
        return f"new {changed('x')} {changed('y')}"

    from outlast.testing.crash import CrashingEngine

    ran.clear()
    deploy(old)
    with CrashingEngine(deployed_at) as engine:
        plain = engine._come_back

        async def with_the_edit() -> None:
            deploy(new)
            await plain()

        engine._come_back = with_the_edit  # type: ignore[method-assign]
        handle = engine.start(TASKS["fulfil"])
        engine.advance("1d")
        result = handle.result()
        assert engine.crash is not None
        assert engine.repeated == [] and engine.store.verify().defects == []
        assert engine.crash.kind is not Kind.CREATE
    assert result in {
        "old", "new False False", "new False True", "new True True"
    }  # fmt: skip
    assert ran.count(("charge", 1)) <= 2  # 2: it was under way
    assert ("mail", "x") not in ran or ("charge", 1) not in ran


# Random programs, random edits

NAMES = ("a", "b", "c")
Program = list[tuple[Any, ...]]


@step
async def act(name: str, number: int) -> str:
    ran.append((this_step().key, name, number))
    return f"{name}{number}"


@step
def act_in_thread(name: str, number: int) -> str:
    ran.append((this_step().key, name, number))
    return f"{name}{number}"


def drawn(dice: random.Random, *, is_async: bool) -> Program:
    return [drawn_part(dice, is_async=is_async) for _ in range(dice.randint(2, 7))]


def drawn_part(dice: random.Random, *, is_async: bool) -> tuple[Any, ...]:
    kind = dice.choice(("act", "act", "sleep", "ask", "event", *(["gather"] if is_async else [])))
    if kind == "gather":
        return kind, [drawn_part(dice, is_async=False) for _ in range(dice.randint(2, 3))]
    if kind == "act":
        return kind, dice.choice(NAMES), dice.randrange(3)
    if kind == "sleep":
        return kind, dice.randint(1, 4)
    return kind, dice.choice(NAMES)


def cut(dice: random.Random, program: Program, *, is_async: bool) -> Program:
    """Edit a program: leave a part out, put one in, replace one, or swap two."""
    new = list(program)
    place = dice.randrange(len(new))
    match dice.randrange(4):
        case 0:
            del new[place]
        case 1:
            new.insert(place, drawn_part(dice, is_async=is_async))
        case 2:
            new[place] = drawn_part(dice, is_async=is_async)
        case _:
            other = dice.randrange(len(new))
            new[place], new[other] = new[other], new[place]
    return new


def program_of(program: Program, *, is_async: bool) -> Callable[[], Any]:
    async def part(one: tuple[Any, ...]) -> Any:
        match one:
            case ("act", name, number):
                return await act(name, number)
            case ("sleep", hours):
                return await sleep(hours * 3600)
            case ("ask", title):
                return await ask(title, str)
            case ("event", name):
                return await wait_for(f"s-{name}", str)
            case ("gather", parts):
                return await asyncio.gather(*map(part, parts))
        raise AssertionError(one)

    def def_part(one: tuple[Any, ...]) -> Any:
        match one:
            case ("act", name, number):
                return act_in_thread(name, number)
            case ("sleep", hours):
                return blocking.sleep(hours * 3600)
            case ("ask", title):
                return blocking.ask(title, str)
            case ("event", name):
                return blocking.wait_for(f"s-{name}", str)
        raise AssertionError(one)

    async def run() -> list[Any]:
        return [await part(one) for one in program]

    def run_def() -> list[Any]:
        return [def_part(one) for one in program]

    return run if is_async else run_def


def expected(program: Program) -> list[Any]:
    def of(one: tuple[Any, ...]) -> Any:
        match one:
            case ("act", name, number):
                return f"{name}{number}"
            case ("sleep", _):
                return None
            case ("gather", parts):
                return [of(part) for part in parts]
        return f"{one[0]} {one[1]}"

    return [of(one) for one in program]


def acts(program: Program) -> list[tuple[str, int]]:
    parts = [part for one in program for part in (one[1] if one[0] == "gather" else [one])]
    return sorted((one[1], one[2]) for one in parts if one[0] == "act")


def nudge(engine: VirtualEngine, handle: Execution[Any], dice: random.Random) -> None:
    """Let something happen that the execution may wait for."""
    questions = engine.pending(handle)
    if questions and dice.random() < 0.6:
        question = dice.choice(questions)
        engine.answer(handle, f"ask {question.title}", key=question.key)
        return
    waits: Any = (handle.record().detail or {}).get("waits") or ()
    signals = [wait["title"] for wait in waits if wait["kind"] == "event"]
    if signals and dice.random() < 0.8:
        name = dice.choice(signals)
        handle.signal(name, f"event {name.removeprefix('s-')}")
    else:
        engine.advance("1h")


def drive(engine: VirtualEngine, handle: Execution[Any], dice: random.Random) -> State:
    for _ in range(300):
        state = handle.status()
        if handle.record().is_final or state is State.SUSPENDED:
            return state
        nudge(engine, handle, dice)
    raise AssertionError("it does not come to an end")


@pytest.mark.parametrize("is_async", [True, False])
def test_random_edits_of_random_programs_fit_or_suspend(is_async: bool) -> None:
    met = {State.SUCCEEDED: 0, State.SUSPENDED: 0}
    for seed in range(150 if is_async else 60):
        dice = random.Random(seed)
        ran.clear()
        old = drawn(dice, is_async=is_async)
        new = cut(dice, old, is_async=is_async)
        with VirtualEngine() as engine:
            handle = engine.start(deploy(program_of(old, is_async=is_async)))
            for _ in range(dice.randint(0, 8)):
                if not handle.record().is_final:
                    nudge(engine, handle, dice)
            if handle.record().is_final:
                continue
            deploy(program_of(new, is_async=is_async))
            handle.resume()
            state = drive(engine, handle, dice)
            program = new
            assert state in met, (seed, old, new, handle.transitions()[-1])
            met[state] += 1
            if state is State.SUSPENDED:
                program = old
                deploy(program_of(old, is_async=is_async))
                handle.resume()
                assert drive(engine, handle, dice) is State.SUCCEEDED, (seed, old, new)
            assert handle.result() == expected(program), (seed, old, new)
            assert sorted((name, number) for _, name, number in ran) == acts(program), (seed, old)
            assert len({key for key, *_ in ran}) == len(ran)
            assert engine.store.verify().defects == []
    assert min(met.values()) > 10, met
