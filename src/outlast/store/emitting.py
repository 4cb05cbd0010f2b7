"""Give what executions emit its place in their streams; every store does it alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from outlast.errors import InternalError
from outlast.store.protocol import Emission, StreamItem


class Try(NamedTuple):
    """Where a part of a stream comes from: one try of a task's code, or of a step's body."""

    execution_id: str
    name: str
    step: str
    attempt: int
    lease: int


Ends = dict[tuple[str, str], int]
"""How long streams are, by execution and name."""
Parts = dict[Try, int]
"""How many parts of each try are there."""
_NOTHING: Final = 0


def try_of(id: str, emission: Emission) -> Try:
    """Say where an emission comes from."""
    return Try(id, emission.name, emission.step, emission.attempt, emission.lease)


def placed(
    emitted: Iterable[tuple[str, Iterable[Emission]]], ends: Ends, parts: Parts
) -> list[tuple[str, StreamItem]]:
    """Number what is new; what is there already is passed over, as it is said again in replays.

    ``ends`` and ``parts`` say what is there, and afterwards what is there then.

    Raises:
        InternalError: something that was said before is missing.
    """
    rows = []
    for id, emissions in emitted:
        for one in emissions:
            source = try_of(id, one)
            known = parts.get(source, _NOTHING)
            if one.part <= known:
                continue
            if one.part > known + 1:
                said = f"part {known + 1} of stream {one.name} is missing before {one.part}"
                raise InternalError(said, where=id)
            parts[source] = one.part
            number = ends[id, one.name] = ends.get((id, one.name), _NOTHING) + 1
            rows.append(
                (
                    id,
                    StreamItem(
                        one.name, number, one.step, one.attempt, one.lease, one.part, one.at,
                        one.payload,
                    ),
                )
            )  # fmt: skip
    return rows
