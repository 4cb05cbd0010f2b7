"""Answer tokens: what they permit, for how long, and everything that they do not."""

from __future__ import annotations

import asyncio
import base64
import string
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast import Engine, State, ask, task
from outlast.engine.control import token as tokens
from outlast.engine.guest import Guest
from outlast.errors import (
    AlreadyAnswered,
    BadPayload,
    NotFound,
    TokenExpired,
    TokenForeign,
    TokenInvalid,
    TokenRefused,
    TokenUsed,
    TransitionRefused,
    UsageError,
)
from outlast.lifecycle import Kind
from outlast.testing import VirtualEngine, crash_everywhere
from outlast.testing import engine as virtual

SECRET = b"s" * 32
NOW = 1_700_000_000_000_000


@task
async def asks(form: str = "text") -> Any:
    return await ask("Ship it?", int if form == "number" else str, to="role:ops")


@task
async def asks_twice() -> list[str]:
    return [await ask("First?", str), await ask("Second?", str)]


@task
async def asks_both() -> list[str]:
    return list(await asyncio.gather(ask("Left?", str), ask("Right?", str)))


def permitted(**changes: Any) -> tokens.Permit:
    plain = tokens.permit("ex_1", "ask#1", "Ship it?", "role:ops", "ann", NOW + 10)
    return msgspec.structs.replace(plain, **changes)


# The text


def test_a_token_comes_back_and_needs_no_quoting_in_a_url() -> None:
    permit = permitted(actor="ann ☃ /?&", to=None)
    token = tokens.sign(SECRET, permit)
    assert tokens.read(SECRET, token, NOW) == permit
    assert set(token) <= set(string.ascii_letters + string.digits + "-_.")
    assert tokens.read(SECRET, f"  {token}\n", NOW) == permit


@given(st.data())
def test_no_changed_token_is_taken(data: Any) -> None:
    token = tokens.sign(SECRET, permitted())
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from(string.ascii_letters + string.digits + "-_.=~ \0é"))
    changed = token[:place] + letter + token[place + 1 :]
    if changed.strip() == token:
        return
    with pytest.raises((TokenInvalid, TokenForeign)):
        tokens.read(SECRET, changed, NOW)


@given(st.text() | st.binary() | st.none() | st.integers())
def test_what_is_no_token_is_refused_by_name(token: object) -> None:
    with pytest.raises(TokenInvalid):
        tokens.read(SECRET, token, NOW)


def test_no_second_spelling_of_a_token_is_taken() -> None:
    """Base64 has spare bits at its end, and padding; neither makes another token."""
    token = tokens.sign(SECRET, permitted())
    said, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "=")
    spellings = {
        signature[:-1] + letter
        for letter in string.ascii_letters + string.digits + "-_"
        if base64.urlsafe_b64decode(signature[:-1] + letter + "=") == raw
    } | {signature + "="}
    assert len(spellings) > 2
    for other in spellings - {signature}:
        with pytest.raises(TokenInvalid):
            tokens.read(SECRET, f"{said}.{other}", NOW)


def test_a_permit_cannot_be_signed_by_another_key_or_for_another_use() -> None:
    token = tokens.sign(SECRET, permitted())
    with pytest.raises(TokenForeign, match="for another store"):
        tokens.read(b"t" * 32, token, NOW)
    ours = token.split(".")
    theirs = tokens.sign(b"t" * 32, permitted()).split(".")
    with pytest.raises(TokenInvalid, match="signature"):
        tokens.read(SECRET, ".".join([*ours[:2], theirs[2], theirs[3]]), NOW)
    with pytest.raises(TokenInvalid, match="signature"):
        tokens.read(SECRET, ".".join([*ours[:2], theirs[2], ours[3]]), NOW)


def test_a_token_ends_at_its_instant_and_is_of_its_tenant() -> None:
    token = tokens.sign(SECRET, permitted(expires_at=NOW))
    assert tokens.read(SECRET, token, NOW - 1)
    with pytest.raises(TokenExpired):
        tokens.read(SECRET, token, NOW)
    with pytest.raises(TokenInvalid, match="tenant"):
        tokens.read(SECRET, tokens.sign(SECRET, permitted(tenant=2)), NOW)
    said = f"ot1.{tokens._mark(SECRET)}.{tokens._text(b'[1]')}"
    signed = f"{said}.{tokens._signature(SECRET, said)}"
    with pytest.raises(TokenInvalid):  # of a form that this version does not know
        tokens.read(SECRET, signed, NOW)


# Answers


def test_a_token_permits_one_answer() -> None:
    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks)
        token, other = h.answer_token(), h.answer_token(actor="bob")
        assert token != other
        assert engine.question_by_token(token).title == "Ship it?"
        assert engine.answer_by_token(token, "yes").id == h.id
        assert h.result() == "yes"
        (row,) = [row for row in h.transitions() if row.kind is Kind.INPUT_RECEIVED]
        assert (
            row.actor == "role:ops" and row.data is not None and len(str(row.data["token"])) == 16
        )
        for use in (engine.question_by_token, lambda token: engine.answer_by_token(token, "no")):
            with pytest.raises(TokenUsed):
                use(token)
            with pytest.raises(AlreadyAnswered) as refused:
                use(other)
            assert refused.value.code == "already_answered"
        assert engine.store.verify().defects == []


def test_the_answer_is_noted_for_the_actor() -> None:
    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks)
        engine.answer_by_token(h.answer_token(actor="bob"), "yes")
        assert [row.actor for row in h.transitions() if row.kind is Kind.INPUT_RECEIVED] == ["bob"]


def test_a_bad_answer_leaves_the_token_good() -> None:
    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks, "number")
        token = h.answer_token()
        with pytest.raises(BadPayload):
            engine.answer_by_token(token, "seven")
        engine.answer_by_token(token, 7)
        assert h.result() == 7


def test_a_token_is_for_its_question_only() -> None:
    with virtual(tasks=[asks_both, asks_twice]) as engine:
        both = engine.start(asks_both)
        with pytest.raises(UsageError):
            both.answer_token()
        engine.answer_by_token(both.answer_token("ask#2"), "r")
        assert [question.key for question in both.questions()] == ["ask#1"]
        twice = engine.start(asks_twice)
        token = twice.answer_token()
        twice.answer("by hand")
        with pytest.raises(AlreadyAnswered):
            engine.answer_by_token(token, "late")
        assert [question.key for question in twice.questions()] == ["ask#2"]
        with pytest.raises(NotFound):
            twice.answer_token("ask#7")


def test_a_token_expires_by_the_engines_clock() -> None:
    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks)
        token = h.answer_token(expires="1h")
        engine.advance("59m")
        assert engine.question_by_token(token).key == "ask#1"
        engine.advance("1m")
        with pytest.raises(TokenExpired):
            engine.answer_by_token(token, "late")
        for expires in ("0s", "4000d"):
            with pytest.raises(UsageError):
                h.answer_token(expires=expires)


def test_a_token_outlives_an_escalation_but_not_its_question() -> None:
    @task
    async def escalates() -> str:
        return await ask("Who?", str, to="ops", timeout="1h", escalate_to="boss", default="nobody")

    with virtual(tasks=[escalates]) as engine:
        h = engine.start(escalates)
        token = h.answer_token()
        engine.advance("90m")
        engine.answer_by_token(token, "ops, late")
        assert h.result() == "ops, late"
        h = engine.start(escalates)
        token = h.answer_token()
        engine.advance("2h")
        assert h.result() == "nobody"
        with pytest.raises(NotFound):
            engine.answer_by_token(token, "too late")


def test_a_token_is_not_for_another_question_of_the_same_key() -> None:
    secret = SECRET
    permit = tokens.permit("ex_1", "ask#1", "Delete it?", None, "ann", NOW + 10)
    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks)
        secret = engine.run(engine.read_secret())
        forged = msgspec.structs.replace(permit, execution_id=h.id, expires_at=2**60)
        with pytest.raises(NotFound, match="asks another question"):
            engine.answer_by_token(tokens.sign(secret, forged), "yes")


def test_a_token_of_another_store_or_of_nothing() -> None:
    with virtual(tasks=[asks]) as engine:
        token = engine.start(asks).answer_token()
    with virtual(tasks=[asks]) as engine:
        engine.start(asks)
        with pytest.raises(TokenForeign):
            engine.answer_by_token(token, "yes")
        for text in ("", "ot1", "ot1...", "ot1.a.b.c", "x" * 20_000):
            with pytest.raises(TokenRefused):
                engine.answer_by_token(text, "yes")


def test_a_token_survives_crashes_and_a_retired_engine() -> None:
    def scenario(engine: VirtualEngine) -> Any:
        h = engine.start(asks)
        token = h.answer_token()
        engine.advance("1h")
        engine.answer_by_token(token, "yes")
        return h.result()

    assert crash_everywhere(scenario, tasks=[asks]).result == "yes"


def test_the_secret_survives_restart_and_backup_and_is_shown_nowhere(tmp_path: Path) -> None:
    url, copy = f"sqlite:///{tmp_path / 'a.db'}", f"sqlite:///{tmp_path / 'b.db'}"

    async def begin() -> tuple[str, str]:
        async with Engine(url, tasks=[asks]) as engine:
            handle = await engine.astart(asks)
            while await handle.astatus() is not State.AWAITING_INPUT:
                await engine.next_change(handle.id)
            return handle.id, await handle.aanswer_token()

    async def end(url: str, token: str) -> str:
        async with Engine(url, tasks=[asks]) as engine:
            handle = await engine.aanswer_by_token(token, url)
            return str(await handle.aresult("100s"))

    id, token = asyncio.run(begin())
    with Guest(url) as guest:
        guest.store.backup(tmp_path / "b.db")
        assert guest.question_by_token(token).title == "Ship it?"
        second = guest.answer_token(id, span_us=10**9)
    assert asyncio.run(end(copy, token)) == copy
    assert asyncio.run(end(url, second)) == url
    with Guest(url) as guest:
        with pytest.raises(TokenUsed):
            guest.answer_by_token(second, "again")
        secret = guest.store.secret(tokens.SECRET_NAME, b"another")
        assert secret != b"another" and len(secret) == 32
        assert secret.hex() not in repr(guest.log(id)) + token


def test_a_token_used_by_many_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"

    async def main() -> tuple[list[str], str]:
        async with Engine(url, tasks=[asks]) as engine:
            handle = await engine.astart(asks)
            while await handle.astatus() is not State.AWAITING_INPUT:
                await engine.next_change(handle.id)
            token = await handle.aanswer_token()

            def use(name: str) -> str:
                with Guest(url) as guest:
                    try:
                        guest.answer_by_token(token, name)
                    except (TokenUsed, TransitionRefused) as error:
                        return error.code
                    return name

            said = await asyncio.gather(*(asyncio.to_thread(use, f"p{n}") for n in range(6)))
            return said, await handle.aresult("100s")

    said, result = asyncio.run(main())
    assert [one for one in said if one.startswith("p")] == [result]
    assert set(said) - {result} <= {"token_used", "transition_refused"}
