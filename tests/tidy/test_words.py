"""The words that lost (``docs/glossary.md``) occur in no public name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import apsw
import click

import outlast
from outlast import blocking, errors
from outlast.cli.app import outlast as command_line
from outlast.cli.commands import COMMANDS
from outlast.lifecycle import Kind, State
from outlast.store.sql import migrations

from . import ROOT

GLOSSARY: Final = ROOT / "docs" / "glossary.md"


def rows(page: str) -> Iterator[tuple[str, str, list[str]]]:
    """Give each word of the glossary, its meaning, and the words it stands in for."""
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and cells[0] not in ("word", "---"):
            words = [re.sub(r"\(.*?\)", "", word).strip() for word in cells[2].split(",")]
            yield cells[0], cells[1], [word for word in words if word]


def parts(name: str) -> list[str]:
    """Take a name apart: ``StepInfo``, ``step_info`` and ``--step-info`` have the same words."""
    return (
        re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().replace("-", "_").strip("_").split("_")
    )


def uses(name: str, banned: str) -> bool:
    """Tell whether a banned word, or its plural, is in a name."""
    words, lost = parts(name), parts(banned)
    places = range(len(words) - len(lost) + 1)
    return any(
        words[place : place + len(lost) - 1] == lost[:-1]
        and words[place + len(lost) - 1] in (lost[-1], lost[-1] + "s")
        for place in places
    )


def public_names() -> Iterator[str]:
    """Give every name that users, operators and readers of the database meet."""
    for module in (outlast, blocking):
        yield from module.__all__
    yield from (name for name in vars(errors) if name[0].isupper())
    for kind in (outlast.Engine, outlast.Execution, outlast.StepInfo, outlast.Reason):
        yield from (name for name in dir(kind) if not name.startswith("_"))
    yield from (*State, *Kind)
    context = click.Context(command_line)
    for name in COMMANDS:
        command = command_line.get_command(context, name)
        assert command is not None
        yield from _of_command(name, command)
    connection = apsw.Connection(":memory:")
    for _, text in migrations("outlast.store.sqlite"):
        connection.execute(text)
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    for (table,) in tables:
        yield str(table)
        for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,)):
            yield str(row[0])


def _of_command(name: str, command: click.Command) -> Iterator[str]:
    yield name
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    if isinstance(command, click.Group):
        for inner, child in command.commands.items():
            yield from _of_command(inner, child)


def faults(names: Iterator[str]) -> set[tuple[str, str]]:
    """Give each name with the banned word in it."""
    banned = [word for _, _, words in rows(GLOSSARY.read_text("utf-8")) for word in words]
    return {(name, word) for name in names for word in banned if uses(name, word)}


def test_no_public_name_uses_a_word_that_lost() -> None:
    names = list(public_names())
    assert len(names) > 200 and {"ask", "--store", "inbox_count", "transition"} <= set(names)
    assert faults(iter(names)) == set()


def test_the_glossary_is_at_one_with_itself() -> None:
    entries = list(rows(GLOSSARY.read_text("utf-8")))
    words = [word for word, _, _ in entries]
    assert len(words) == len(set(words)) > 40
    lost = [word for _, _, losers in entries for word in losers]
    assert len(lost) == len(set(lost))
    assert not set(words) & set(lost)


def test_faults_are_seen() -> None:
    found = faults(iter(["WorkflowId", "job_count", "--canceled-by", "execution", "jobless"]))
    assert {name for name, _ in found} == {"WorkflowId", "job_count", "--canceled-by"}
    assert uses("running_jobs", "job") and not uses("history", "story")
