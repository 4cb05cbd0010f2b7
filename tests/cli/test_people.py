"""The inbox, answers in every form, schemas, and tokens, from a terminal."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from outlast import Engine, State, ask, task, wait_for

from .conftest import Terminal, until


@dataclass
class Release:
    ok: bool
    on: datetime.date
    note: str | None = None


@task(name="people_release")
async def release(order: int) -> str:
    said = await ask(f"Release {order}?", Release, to="role:ops", timeout="2d", escalate_to="boss")
    return f"{said.ok} {said.on} {said.note}"


@task(name="people_name")
async def name() -> str:
    return await ask("Who?", str)


@task(name="people_packed")
async def packed() -> Any:
    return await wait_for("packed", match={"order": 7, "to": {"country": "NL"}})


Start = Callable[..., str]


@pytest.fixture
def start(terminal: Terminal) -> Start:
    """Start an execution and wait until it waits; no engine runs afterwards."""

    def started(what: Any, *args: Any) -> str:
        with Engine(terminal.url, tasks=[release, name, packed]) as engine:
            handle = engine.start(what, *args)
            until(lambda: handle.status() is State.AWAITING_INPUT)
            return handle.id

    return started


def result(terminal: Terminal, id: str) -> Any:
    with Engine(terminal.url, tasks=[release, name, packed]) as engine:
        return engine.execution(id).result("100s")


def test_the_inbox(terminal: Terminal, start: Start) -> None:
    empty = terminal.here("inbox")
    assert empty.code == 7  # there is no store yet
    first, second, third = start(release, 1), start(name), start(release, 3)
    done = terminal.here("inbox")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["ID", "QUESTION", "TO", "TITLE", "WAITS", "UNTIL"]
    assert [line.split()[0] for line in lines[1:]] == [third, second, first]
    assert "role:ops" in lines[1] and '"' not in lines[1] and "anybody" in lines[2]
    assert terminal.here("inbox", "--to", "role:ops", "--oldest", "-o", "ids").out.split() == [
        first,
        third,
    ]
    page = json.loads(terminal.here("inbox", "--limit", "2", "-o", "json").out)
    assert [one["title"] for one in page["items"]] == ["Release 3?", "Who?"]
    assert page["items"][0]["schema"]["$defs"]["Release"]["required"] == ["ok", "on"]
    rest = json.loads(terminal.here("inbox", "--cursor", page["next"], "-o", "json").out)
    assert [one["id"] for one in rest["items"]] == [first] and rest["next"] is None
    assert "--cursor" in terminal.here("inbox", "--limit", "1").err
    assert "nothing waits for an answer of nobody" in terminal.here("inbox", "--to", "nobody").err
    assert terminal.here("inbox", "--cursor", "nonsense").code == 2


def test_the_form_is_shown_and_a_wrong_field_named(terminal: Terminal, start: Start) -> None:
    id = start(release, 1)
    schema = json.loads(terminal.here("answer", id, "--schema").out)
    assert schema["$defs"]["Release"]["properties"]["on"] == {"type": "string", "format": "date"}
    wrong = terminal.here("answer", id, '{"ok": true, "on": "soon"}')
    assert wrong.code == 2
    assert "answer.on: does not fit" in wrong.err and "it is not a 'date'" in wrong.err
    assert "soon" not in wrong.err, "what was sent may be a secret"
    assert terminal.here("answer", id, "yes").code == 2
    fine = terminal.here("answer", id, '{"ok": true, "on": "2026-12-31"}')
    assert fine.code == 0 and 'answered "Release 1?"' in fine.out
    again = terminal.here("answer", id, "--question", "ask#1", '{"ok": true, "on": "2026-12-31"}')
    assert again.code == 5 and "already_answered" in again.err
    assert result(terminal, id) == "True 2026-12-31 None"


@pytest.mark.parametrize(
    ("words", "stdin", "expected"),
    [
        (("5",), "", "5"),
        (("--json", '"5"'), "", "5"),
        (("-",), "of several\nlines\n", "of several\nlines"),
        (("--json", "-"), '"text"\n', "text"),
        (("",), "", ""),
    ],
)
def test_where_an_answer_comes_from(
    terminal: Terminal, start: Start, words: tuple[str, ...], stdin: str, expected: str
) -> None:
    id = start(name)
    assert terminal.run("answer", id, *words, stdin=stdin).code == 0
    assert result(terminal, id) == expected


def test_without_a_terminal_a_value_is_needed(terminal: Terminal, start: Start) -> None:
    id = start(name)
    done = terminal.run("answer", id)
    assert done.code == 2 and "needs a value" in done.err and "string" in done.err


def test_tokens(terminal: Terminal, start: Start, tmp_path: Path) -> None:
    id = start(name)
    given = terminal.here("answer", id, "--give-token", "--expires", "1h", "--for", "bob")
    token = given.out.strip()
    assert given.code == 0 and token.startswith("ot1.")
    form = json.loads(terminal.here("answer", id, "--give-token", "-o", "json").out)
    assert form["id"] == id and form["question"] == "ask#1" and form["token"] != token
    assert json.loads(terminal.here("answer", "--token", token, "--schema").out) == {
        "type": "string"
    }
    assert terminal.here("answer", "--token", token, "Ada").code == 0
    used = terminal.here("answer", "--token", token, "Bob")
    assert used.code == 5 and "token_used" in used.err
    late = terminal.here("answer", "--token", form["token"], "Bob")
    assert late.code == 5 and "already_answered" in late.err
    forged = terminal.here("answer", "--token", token[:-1] + "_", "Bob")
    assert forged.code == 3 and "token_invalid" in forged.err
    assert result(terminal, id) == "Ada"
    (row,) = [
        line
        for line in terminal.here("events", id, "-o", "json").out.splitlines()
        if json.loads(line)["kind"] == "input_received"
    ]
    assert json.loads(row)["actor"] == "bob"

    other = str(tmp_path / "other.db")
    assert terminal.here("db", "init", "--store", other).code == 0
    foreign = terminal.here("answer", "--store", other, "--token", token, "Bob")
    assert foreign.code == 3 and "token_foreign" in foreign.err


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--give-token",),
        ("last", "--expires", "1h"),
        ("last", "x", "--token", "ot1.a.b.c"),
        ("last", "--give-token", "--expires", "soon"),
        ("last", "--give-token", "--expires", "0s"),
    ],
)
def test_what_makes_no_sense_is_refused(
    terminal: Terminal, start: Start, words: tuple[str, ...]
) -> None:
    start(name)
    assert terminal.here("answer", *words).code == 2


def test_why_and_show_tell_who_and_what(terminal: Terminal, start: Start) -> None:
    id = start(release, 1)
    assert 'role:ops must answer "Release 1?"' in terminal.here("why", id).out
    shown = terminal.here("show", id).out
    assert 'ask#1 "Release 1?" to role:ops' in shown and "asks of role:ops" in shown
    id = start(packed)
    why = terminal.here("why", id).out
    assert 'waits for the signal packed with {"order": 7, "to": {"country": "NL"}}' in why
    assert f"outlast signal {id} packed" in why
    assert terminal.here("signal", id, "packed", '{"order": 8}').code == 0
    assert json.loads(terminal.here("show", id, "-o", "json").out)["state"] == "awaiting_input"
    value = {"order": 7, "to": {"country": "NL", "zip": 1}}
    assert terminal.here("signal", id, "packed", json.dumps(value)).code == 0
    assert result(terminal, id) == value
