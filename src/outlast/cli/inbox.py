"""The command that shows what waits for people: inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from outlast.cli.session import Cell, Session, shared
from outlast.cli.words import now_us, one_line, until
from outlast.duration import in_words

if TYPE_CHECKING:
    from outlast.engine.read.inbox import QuestionPage


@click.command()
@click.option("--to", metavar="NAME", help="Only what NAME has to answer now.")
@click.option("--oldest", is_flag=True, help="Those of the oldest executions first.")
@click.option(
    "--limit", default=50, type=click.IntRange(1, 10_000), show_default=True, help="How many."
)
@click.option("--cursor", metavar="CURSOR", help="The next page, as the one before it says.")
@shared
def inbox(session: Session, to: str | None, oldest: bool, limit: int, cursor: str | None) -> None:
    """List the open questions of all executions, those of the newest executions first."""
    with session.guest() as guest:
        page = guest.inbox(to, oldest_first=oldest, cursor=cursor, limit=limit)
    if session.as_json:
        from outlast.forms import question_form

        session.json({"items": [question_form(one) for one in page], "next": page.next})
    elif session.output == "ids":
        for id in dict.fromkeys(question.execution_id for question in page):
            session.out(id)
    elif not page.items:
        session.say("nothing waits for an answer" + (f" of {one_line(to)}" if to else ""))
    else:
        _list(session, page)


def _list(session: Session, page: QuestionPage) -> None:
    now = now_us()
    rows: list[list[Cell]] = [
        [
            (question.execution_id, "bold"),
            one_line(question.key, 40),
            one_line(question.to or "anybody", 40),
            one_line(question.title, 80),
            in_words(now - question.asked_at),
            "" if question.until is None else until(question.until, now),
        ]
        for question in page
    ]
    session.table(["ID", "QUESTION", "TO", "TITLE", "WAITS", "UNTIL"], rows)
    more = f" · next page: --cursor {page.next}" if page.next else ""
    hint = "outlast answer ID --question QUESTION"
    session.say(session.paint_remark(f"{len(page)} shown · {hint}{more}", "dim"))
