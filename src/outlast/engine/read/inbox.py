"""The questions of all executions that somebody can still answer, a page at a time.

What waits for an answer has its questions in its row, so a page of them costs a page of rows,
however many wait. Only of executions that are between two waits (running, queued, held) is the log
read as well, and only where it has a question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from outlast.engine.read.questions import OpenQuestion, asked_by, open_questions
from outlast.errors import UsageError
from outlast.naming import checked_name
from outlast.store.protocol import Store

LIMIT_MAX: Final = 10_000


class QuestionPage(Struct, frozen=True):
    """A page of open questions.

    Attributes:
        items: the questions.
        next: the cursor of the next page; None where this is the last.
    """

    items: Sequence[OpenQuestion]
    next: str | None

    def __iter__(self) -> Iterator[OpenQuestion]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class Wanted(Struct, frozen=True):
    """Which questions to list.

    Attributes:
        to: whose; None: everybody's.
        oldest_first: in the order in which their executions were started; else in the other.
        cursor: of the page, as the one before it gave it; None: the first.
        limit: how many.
    """

    to: str | None = None
    oldest_first: bool = False
    cursor: str | None = None
    limit: int = 50

    def check(self) -> None:
        """See that it can be asked for.

        Raises:
            UsageError: it cannot.
        """
        if self.to is not None:
            checked_name(self.to, "recipient")
        if not 1 <= self.limit <= LIMIT_MAX:
            raise UsageError(f"no page has {self.limit} questions", why=f"1 to {LIMIT_MAX:,} do")
        if self.cursor is not None:
            checked_name(self.cursor, "cursor")
            if "/" not in self.cursor:
                raise UsageError(
                    f'"{self.cursor}" is no cursor', do="give what the page before has as next"
                )


def read_page(store: Store, wanted: Wanted) -> QuestionPage:
    """Read a page; blocks."""
    found: list[OpenQuestion] = []
    for question in _all(store, wanted):
        if len(found) == wanted.limit:
            last = found[-1]
            return QuestionPage(found, f"{last.execution_id}/{last.key}")
        found.append(question)
    return QuestionPage(found, None)


def _all(store: Store, wanted: Wanted) -> Iterator[OpenQuestion]:
    after = ""
    if wanted.cursor is not None:
        after, _, key = wanted.cursor.partition("/")
        yield from (one for one in _of(store, [after], wanted.to) if one.key > key)
    while True:
        size = min(wanted.limit + 1, 500)
        ids = store.asking(wanted.to, after, size, newest=not wanted.oldest_first)
        yield from _of(store, ids, wanted.to)
        if len(ids) < size:
            return
        after = ids[-1]


def _of(store: Store, ids: Sequence[str], to: str | None) -> Iterator[OpenQuestion]:
    """Give the questions of executions; those of each by key, as a cursor needs a fixed order."""
    for record in store.get(ids):
        if record is None:
            continue
        questions = asked_by(record)
        if questions is None:
            questions = open_questions(record, store.log(record.id))
        for question in sorted(questions, key=lambda one: one.key):
            if to is None or question.to == to:
                yield question
