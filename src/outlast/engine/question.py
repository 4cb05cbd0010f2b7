"""A question to a person or an outside system: what ``ask`` asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from outlast.codec import Codec


@dataclass(slots=True)
class Question:
    """What is asked, of whom, and in what form the answer must come.

    Attributes:
        title: the question, for people.
        to: who shall answer, as free text; None for anybody.
        answer: reads the answer.
        until: when the wait for it ends, in microseconds since 1970, or None.
    """

    title: str
    to: str | None
    answer: Codec[Any]
    until: int | None = None

    def as_data(self) -> dict[str, Any]:
        """Write it for the log: everything that is needed to show it and to check an answer."""
        return {
            "title": self.title,
            "to": self.to,
            "schema": self.answer.json_schema(),
            "until": self.until,
        }

    def as_wait(self) -> dict[str, Any]:
        """Write it as one of the things an execution waits for."""
        return {"kind": "ask", **self.as_data()}
