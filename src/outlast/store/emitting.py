"""Give what executions emit its place in their streams; every store does it alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from msgspec.structs import replace

from outlast.errors import InternalError
from outlast.store.protocol import LOG_LINES_MAX, LOGS, Emission, StreamItem


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
CUT: Final = b'{"level":"WARNING","logger":"outlast","message":"more was logged","cut":true}'
"""The last line that is kept of an execution."""


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
        for emission in emissions:
            source = try_of(id, emission)
            known = parts.get(source, _NOTHING)
            if emission.part <= known:
                continue
            one = emission
            if one.name == LOGS:
                length = ends.get((id, LOGS), _NOTHING)
                if length >= LOG_LINES_MAX:
                    continue
                if length == LOG_LINES_MAX - 1:
                    one = replace(emission, payload=CUT)
            elif one.part > known + 1:
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
