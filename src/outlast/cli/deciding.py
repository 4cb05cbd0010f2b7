"""The commands that decide: answer, signal, cancel, pause, resume."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from outlast.cli.session import Session, is_interactive, read_stdin, shared
from outlast.cli.words import one_line, state_of
from outlast.errors import OutlastError, UsageError
from outlast.lifecycle import Execution

if TYPE_CHECKING:
    from outlast.engine.guest import Guest
    from outlast.engine.questions import OpenQuestion

_YES = ("true", "yes", "y", "on", "1", "ok")
_NO = ("false", "no", "n", "off", "0")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("id")
@click.argument("value", required=False)
@click.option("--question", metavar="KEY", help="Which question, where several are open.")
@click.option("--json", "is_json", is_flag=True, help="Read VALUE as JSON, whatever is asked for.")
@shared
def answer(
    session: Session, id: str, value: str | None, question: str | None, is_json: bool
) -> None:
    """Answer the question of an execution; the first answer wins.

    VALUE is read by the form that the question asks for: yes or no, a text, a number, JSON. Without
    VALUE you are asked for it. An execution that no engine runs keeps the answer for the next.
    """
    with session.guest() as guest:
        id = guest.find(id)
        asked = guest.question(id, question)
        given = value_for(id, asked, value, is_json)
        record = guest.answer(id, given, key=asked.key, actor=actor())
        tell_done(session, guest, record, f'answered "{one_line(asked.title)}"')


def value_for(id: str, asked: OpenQuestion, text: str | None, is_json: bool = False) -> Any:
    """Read an answer, or ask for it where a person sits at the terminal.

    Raises:
        UsageError: it cannot be read, or there is neither a value nor a terminal.
    """
    if text is not None:
        return read_json(text) if is_json else read_value(asked.schema, text)
    if not is_interactive(sys.stdin, sys.stderr):
        raise UsageError(
            f'"{one_line(asked.title)}" needs a value',
            where=f"{id}, {asked.key}",
            why=f"the form asked for is {json.dumps(asked.schema, ensure_ascii=False)}",
            do=f"outlast answer {id} VALUE",
        )
    return prompt(asked.schema, one_line(asked.title))


def read_value(schema: Mapping[str, Any], text: str) -> Any:
    """Read a value by a form: text where text is asked for, words for yes and no, else JSON."""
    schema = _resolved(schema, schema)
    kinds = _kinds(schema)
    if "boolean" in kinds and text.lower() in _YES + _NO:
        return text.lower() in _YES
    if "null" in kinds and text.lower() in ("null", "none"):
        return None
    if "string" in kinds or text in schema.get("enum", ()):
        return text
    return read_json(text)


def read_json(text: str) -> Any:
    """Read JSON.

    Raises:
        UsageError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{one_line(text, 60)} is no JSON",
            why=str(error),
            do="write JSON, as in 5, true, '\"text\"' or '{\"name\": 1}'",
        ) from None


def prompt(schema: Mapping[str, Any], title: str, root: Mapping[str, Any] | None = None) -> Any:
    """Ask for a value of a form at the terminal, field by field."""
    root = root or schema
    schema = _resolved(schema, root)
    kinds = _kinds(schema)
    if kinds == {"boolean"}:
        return click.confirm(title, err=True, default=schema.get("default"))
    if "enum" in schema:
        choices = [str(choice) for choice in schema["enum"]]
        chosen = click.prompt(title, type=click.Choice(choices), err=True)
        return schema["enum"][choices.index(chosen)]
    if "object" in kinds and schema.get("properties"):
        click.echo(title, err=True)
        return {
            name: prompt(field, f"  {name}", root)
            for name, field in schema["properties"].items()
            if name in schema.get("required", ())
            or click.confirm(f"  give {name}?", err=True, default=False)
        }
    if kinds == {"integer"}:
        return click.prompt(title, type=int, err=True)
    if kinds == {"number"}:
        return click.prompt(title, type=float, err=True)
    if "string" in kinds:
        return click.prompt(title, err=True)
    return read_json(click.prompt(f"{title} (JSON)", err=True))


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference within a form."""
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/$defs/"):
        return schema
    found = root.get("$defs", {}).get(reference.removeprefix("#/$defs/"))
    return found if isinstance(found, Mapping) else schema


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """Say which kinds of JSON value a form takes."""
    kind = schema.get("type")
    kinds = set(kind) if isinstance(kind, list) else {kind} if isinstance(kind, str) else set()
    for part in schema.get("anyOf", ()):
        kinds |= _kinds(part)
    for value in schema.get("enum", ()):
        kinds.add("string" if isinstance(value, str) else "other")
    return kinds


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


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@click.option("--why", help="Kept in the log, and shown to everybody who looks.")
@shared
def cancel(session: Session, ids: Sequence[str], why: str | None) -> int:
    """Ask executions to end; their code sees CancelledError and may clean up.

    A single - reads ids from stdin, as in: outlast ls --state queued -o ids | outlast cancel -
    """
    return _each(
        session, ids, "cancel asked for", lambda guest, id: guest.cancel(id, why, actor=actor())
    )


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@click.option("--why", help="Kept in the log, and shown to everybody who looks.")
@shared
def pause(session: Session, ids: Sequence[str], why: str | None) -> int:
    """Hold executions at their next safe point; a step under way ends first."""
    return _each(
        session, ids, "pause asked for", lambda guest, id: guest.pause(id, why, actor=actor())
    )


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@shared
def resume(session: Session, ids: Sequence[str]) -> int:
    """Let executions go on: after a pause, a suspension, or before their time has come."""
    return _each(session, ids, "resumed", lambda guest, id: guest.resume(id, actor=actor()))


def _each(
    session: Session, ids: Sequence[str], said: str, act: Callable[[Guest, str], Execution]
) -> int:
    """Do something to each execution; all are tried, and the first error gives the exit code."""
    from outlast.cli.problems import tell

    if list(ids) == ["-"]:
        ids = read_stdin("-").split()
    code = 0
    with session.guest() as guest:
        for id in ids:
            try:
                id = guest.find(id)
                tell_done(session, guest, act(guest, id), said)
            except OutlastError as error:
                if len(ids) == 1:
                    raise
                code = code or tell(session, error)
    return code


def tell_done(session: Session, guest: Guest, record: Execution, said: str) -> None:
    """Tell what was done, and who will act on it."""
    if session.as_json:
        from outlast.cli.forms import execution_form

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
