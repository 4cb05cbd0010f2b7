"""The open questions of all executions, page by page."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast import Engine, ask, step, task
from outlast.engine.guest import Guest
from outlast.engine.read.inbox import QuestionPage
from outlast.errors import UsageError
from outlast.testing import engine as virtual


@task
async def asks_of(to: list[str]) -> list[bool]:
    return list(await asyncio.gather(*(ask(f"May {one}?", to=one or None) for one in to)))


def paged(engine: Any, **wanted: Any) -> list[tuple[str, str]]:
    """Read all pages."""
    found: list[tuple[str, str]] = []
    cursor = None
    while True:
        page = engine.questions(cursor=cursor, **wanted)
        assert len(page) <= wanted["limit"] and (page.next is None or len(page) == wanted["limit"])
        found += [(one.execution_id, one.key) for one in page]
        if page.next is None:
            return found
        cursor = page.next


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=3), max_size=6),
    st.sampled_from([None, "a", "b", "c"]),
    st.integers(1, 5),
)
def test_pages_have_every_question_once(asked: list[list[str]], to: str | None, limit: int) -> None:
    with virtual(tasks=[asks_of]) as engine:
        expected = []
        for names in asked:
            h = engine.start(asks_of, names)
            keys = sorted((f"ask#{n}", name) for n, name in enumerate(names, 1))
            expected.append([(h.id, key) for key, name in keys if to in (None, name)])
        oldest = [one for of_one in expected for one in of_one]
        newest = [one for of_one in reversed(expected) for one in of_one]
        assert paged(engine, to=to, limit=limit, oldest_first=True) == oldest
        assert paged(engine, to=to, limit=limit) == newest


def test_what_changes_between_pages_is_neither_lost_nor_repeated() -> None:
    with virtual(tasks=[asks_of]) as engine:
        handles = [engine.start(asks_of, ["a", "a"]) for _ in range(3)]
        page = engine.questions(limit=3, oldest_first=True)
        assert [(q.execution_id, q.key) for q in page] == [
            (handles[0].id, "ask#1"),
            (handles[0].id, "ask#2"),
            (handles[1].id, "ask#1"),
        ]
        handles[1].answer(True, key="ask#1")  # the cursor's own question is gone
        handles[0].cancel()
        handles.append(engine.start(asks_of, ["a"]))
        rest = engine.questions(limit=50, oldest_first=True, cursor=page.next)
        assert [(q.execution_id, q.key) for q in rest] == [
            (handles[1].id, "ask#2"),
            (handles[2].id, "ask#1"),
            (handles[2].id, "ask#2"),
            (handles[3].id, "ask#1"),
        ]


def test_what_runs_and_what_is_held_still_asks() -> None:
    release = asyncio.Event()

    @step
    async def works() -> None:
        await release.wait()

    @task
    async def busy() -> bool:
        return (await asyncio.gather(ask("Now?", to="ops"), works()))[0]

    @task
    async def silent() -> None:
        await works()

    with virtual(tasks=[busy, asks_of, silent]) as engine:
        running, held, answered = (
            engine.start(busy),
            engine.start(asks_of, ["ops"]),
            engine.start(asks_of, ["ops"]),
        )
        engine.start(silent)
        held.pause()
        answered.pause()
        answered.answer(True)
        found = engine.questions(to="ops")
        assert {one.execution_id for one in found} == {running.id, held.id}
        running.answer(True)
        assert {one.execution_id for one in engine.questions()} == {held.id}


def test_an_escalated_question_is_in_the_next_ones_inbox() -> None:
    @task
    async def escalates() -> bool:
        return await ask("Sure?", to="ops", timeout="1h", escalate_to="boss")

    with virtual(tasks=[escalates]) as engine:
        engine.start(escalates)
        assert len(engine.questions("ops")) == 1 and len(engine.questions("boss")) == 0
        engine.advance("1h")
        (question,) = engine.questions("boss")
        assert len(engine.questions("ops")) == 0
        assert (question.title, question.late, question.task) == ("Sure?", "ops", "escalates")


def test_pages_that_there_are_not() -> None:
    with virtual(tasks=[asks_of]) as engine:
        for wanted in (
            {"limit": 0},
            {"limit": 10_001},
            {"cursor": "x"},
            {"cursor": ""},
            {"to": ""},
        ):
            with pytest.raises(UsageError):
                engine.questions(**wanted)  # type: ignore[arg-type]


def test_a_guest_reads_the_same(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"

    async def main() -> QuestionPage:
        async with Engine(url, tasks=[asks_of]) as engine:
            handles = [await engine.astart(asks_of, ["a", "b"]) for _ in range(5)]
            while len(page := await engine.aquestions(oldest_first=True)) < 10:
                await engine.next_change(handles[-1].id)
            return page

    page = asyncio.run(main())
    with Guest(url) as guest:
        assert list(guest.inbox(oldest_first=True)) == list(page)
        assert [q.to for q in guest.inbox("b")] == ["b"] * 5
        first = guest.inbox("b", limit=2)
        assert len(guest.inbox("b", cursor=first.next)) == 3
        verdict = guest.store.verify()
        assert verdict.defects == []
