"""The commands that decide: answer, signal."""

from __future__ import annotations

import getpass
import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from outlast.cli.prompting import prompt, read_json, read_value
from outlast.cli.session import Session, is_interactive, read_stdin, shared, span_of
from outlast.cli.words import now_us, one_line, state_of
from outlast.errors import UsageError
from outlast.forms import at
from outlast.lifecycle import Execution

if TYPE_CHECKING:
    from outlast.engine.guest import Guest
    from outlast.engine.read.questions import OpenQuestion

EXPIRES: Final = "7d"
"""As :data:`outlast.engine.control.token.EXPIRES`, which only --give-token has to import."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("id", required=False)
@click.argument("value", required=False)
@click.option("--question", metavar="KEY", help="Which question, where several are open.")
@click.option("--json", "is_json", is_flag=True, help="Read VALUE as JSON, whatever is asked for.")
@click.option("--schema", "is_schema", is_flag=True, help="Show the form, as JSON Schema.")
@click.option("--token", metavar="TOKEN", help="Answer with a token, instead of an ID.")
@click.option("--give-token", is_flag=True, help="Make a token with which somebody may answer.")
@click.option("--expires", metavar="DURATION", help="With --give-token: for how long. [7d]")
@click.option("--for", "recipient", metavar="NAME", help="With --give-token: who will answer.")
@shared
def answer(
    session: Session,
    id: str | None,
    value: str | None,
    question: str | None,
    is_json: bool,
    is_schema: bool,
    token: str | None,
    give_token: bool,
    expires: str | None,
    recipient: str | None,
) -> None:
    """Answer the question of an execution; the first answer wins.

    VALUE is read by the form that the question asks for: yes or no, a text, a number, JSON; a
    single - reads it from stdin. Without VALUE you are asked for it, field by field. An execution
    that no engine runs keeps the answer for the next.
    """
    if token is not None:
        id, value = None, _only(id, value)
    elif id is None:
        raise UsageError("which execution?", do="outlast answer ID, or --token TOKEN")
    if (expires or recipient) and not give_token:
        raise UsageError("--expires and --for are for --give-token")
    with session.guest() as guest:
        if token is not None:
            asked = guest.question_by_token(token)
            id = asked.execution_id
        else:
            assert id is not None
            id = guest.find(id)
            asked = guest.question(id, question)
        if is_schema:
            session.json(asked.schema)
        elif give_token:
            _give_token(session, guest, asked, expires, recipient)
        else:
            given = value_for(id, asked, value, is_json)
            if token is not None:
                record = guest.answer_by_token(token, given)
            else:
                record = guest.answer(id, given, key=asked.key, actor=actor())
            tell_done(session, guest, record, f'answered "{one_line(asked.title)}"')


def _only(id: str | None, value: str | None) -> str | None:
    """With a token there is no ID, and what stands in its place is the value.

    Raises:
        UsageError: there are two words.
    """
    if value is not None:
        raise UsageError(
            "a token says which question it is for", do="outlast answer --token TOKEN VALUE"
        )
    return id


def _give_token(
    session: Session, guest: Guest, asked: OpenQuestion, expires: str | None, to: str | None
) -> None:
    span_us = span_of("--expires", expires or EXPIRES)
    assert span_us is not None
    token = guest.answer_token(asked.execution_id, asked.key, span_us=span_us, actor=to)
    if session.as_json:
        form = {"token": token, "id": asked.execution_id, "question": asked.key}
        session.json({**form, "expires_at": at(now_us() + span_us)})
        return
    session.out(token)
    session.say(f'whoever has it may answer "{one_line(asked.title)}", once')


def value_for(id: str, asked: OpenQuestion, text: str | None, is_json: bool = False) -> Any:
    """Read an answer, or ask for it where a person sits at the terminal.

    Raises:
        UsageError: it cannot be read, or there is neither a value nor a terminal.
    """
    if text == "-":
        text = read_stdin("-").removesuffix("\n").removesuffix("\r")
    if text is not None:
        return read_json(text) if is_json else read_value(asked.schema, text)
    if not is_interactive(sys.stdin, sys.stderr):
        raise UsageError(
            f'"{one_line(asked.title)}" needs a value',
            where=f"{id}, {asked.key}",
            why=f"the form asked for is {json.dumps(asked.schema, ensure_ascii=False)}",
            do=f"outlast answer {id} VALUE",
        )
    if asked.refused:
        click.echo(f"an answer was not taken: {one_line(asked.refused)}", err=True)
    return prompt(asked.schema, one_line(asked.title))


@click.command()
@click.argument("id")
@click.argument("name")
@click.argument("value", required=False, metavar="[JSON]")
@click.option(
    "--id", "message_id", metavar="TEXT", help="Sent again under the same id, it is taken once."
)
@shared
def signal(session: Session, id: str, name: str, value: str | None, message_id: str | None) -> None:
    """Send an execution a signal; it is kept until the code waits for one of this name."""
    with session.guest() as guest:
        id = guest.find(id)
        payload = None if value is None else read_json(value)
        record = guest.signal(id, name, payload, message_id=message_id, actor=actor())
        tell_done(session, guest, record, f"signal {one_line(name)} sent")


def tell_done(session: Session, guest: Guest, record: Execution, said: str) -> None:
    """Tell what was done, and who will act on it."""
    if session.as_json:
        from outlast.forms import execution_form

        session.json(execution_form(record), indent=False)
        return
    if session.output == "ids":
        session.out(record.id)
        return
    session.out(f"{record.id}  {said}  ({state_of(record)})")
    if not record.is_final and guest.owner() is None:
        session.say("kept for the next engine: no engine runs on this store now")


def actor() -> str:
    """Say who sits at this terminal."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "user"
