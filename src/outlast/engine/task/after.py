"""What an execution waits for before it begins: others that must have ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

from outlast.errors import UsageError
from outlast.naming import checked_name


class After(Struct, frozen=True):
    """One execution that another one waits for.

    Attributes:
        execution: its handle, or its id.
        need: what it must come to: ``success``, or ``end`` for any end.
        or_else: what happens where success is needed and it ends without: the one that waits is
            cancelled, or held until somebody resumes or cancels it.
    """

    execution: Any
    need: Literal["success", "end"] = "success"
    or_else: Literal["cancel", "hold"] = "cancel"

    def edge(self) -> dict[str, str]:
        """Write it for the log.

        Raises:
            UsageError: it names no execution, or has another need or policy.
        """
        id = self.execution if isinstance(self.execution, str) else self.execution.id
        for value, known in ((self.need, _NEEDS), (self.or_else, _POLICIES)):
            if value not in known:
                raise UsageError(f'no such dependency: "{value}"', do=" or ".join(known))
        return {"id": checked_name(id, "execution"), "need": self.need, "or_else": self.or_else}


_NEEDS = ("success", "end")
_POLICIES = ("cancel", "hold")


def edges(after: Iterable[Any]) -> tuple[After, ...]:
    """Take handles, ids and :class:`After` alike; the same execution twice counts once.

    Raises:
        UsageError: one of them names no execution.
    """
    found: dict[str, After] = {}
    for one in [after] if isinstance(after, str | After) or hasattr(after, "id") else after:
        made = one if isinstance(one, After) else After(one)
        found[made.edge()["id"]] = made
    return tuple(found.values())
