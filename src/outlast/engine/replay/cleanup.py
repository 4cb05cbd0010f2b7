"""Would a cancel run anything where code stands: an ``except``, a ``finally``, a ``with`` block?

A cancel of an execution that is parked ends it at once, without its code, unless the code stands
inside such a block: then it is woken to see ``CancelledError``. CPython keeps for each code object
a table of the ranges that a handler covers (``Objects/exception_handling_notes.txt`` of CPython);
where it cannot be told, the answer is yes, which is never wrong, only slower.
"""

from __future__ import annotations

import asyncio
import opcode
from collections.abc import Iterator
from functools import lru_cache
from os.path import dirname
from types import CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final

_NOT_USERS: Final = (dirname(asyncio.__file__), dirname(dirname(__file__)))
"""Code whose clean-up is its own affair: the standard library's loop, and this engine."""
_TRIVIAL: Final = frozenset(
    opcode.opmap[name] for name in ("CLEANUP_THROW", "CALL_INTRINSIC_1") if name in opcode.opmap
)
"""What handlers begin with that the compiler adds to every ``await`` and every coroutine, from
Python 3.12 on; behind that of an ``await`` comes the author's own, if there is one."""


def has_clean_up(coroutine: Any) -> bool:
    """Tell whether a suspended coroutine stands in a block that a cancel would run."""
    awaited = coroutine
    while awaited is not None:
        frame: FrameType | None
        if isinstance(awaited, CoroutineType):
            frame, awaited = awaited.cr_frame, awaited.cr_await
        elif isinstance(awaited, GeneratorType):
            frame, awaited = awaited.gi_frame, awaited.gi_yieldfrom
        else:
            # A future is where it ends; what else can be awaited may stand anywhere.
            return not isinstance(awaited, asyncio.Future) and type(awaited).__name__ not in (
                "FutureIter",
                "DurableCall",
            )
        if frame is not None and _is_covered(frame):
            return True
    return False


def has_clean_up_above(frame: FrameType | None, last: CodeType) -> bool:
    """Tell whether a blocked thread stands in a block that a cancel would run.

    Args:
        frame: where it stands.
        last: the code that called the user's; what is above it is not looked at.
    """
    while frame is not None and frame.f_code is not last:
        if not frame.f_code.co_filename.endswith("threading.py") and _is_covered(frame):
            return True
        frame = frame.f_back
    return False


def _is_covered(frame: FrameType) -> bool:
    code, place = frame.f_code, frame.f_lasti
    if code.co_filename.startswith(_NOT_USERS):
        return False
    return _is_handled(code, place)


@lru_cache(maxsize=4096)
def _is_handled(code: CodeType, place: int) -> bool:
    """Tell whether a handler of its author covers a place of a code object."""
    text = code.co_code
    for start, end, target in _entries(code.co_exceptiontable):
        if start <= place < end:
            if target < len(text) and text[target] in _TRIVIAL:
                return target != place and _is_handled(code, target)
            return True
    return False


def _entries(table: bytes) -> Iterator[tuple[int, int, int]]:
    """Read a table of exceptions: start, end and target of each entry, in bytes."""
    numbers = iter(table)
    while (first := next(numbers, None)) is not None:
        start, length, target, _ = (
            _number(first, numbers),
            *(_number(next(numbers), numbers) for _ in range(3)),
        )
        yield start * 2, (start + length) * 2, target * 2


def _number(first: int, numbers: Iterator[int]) -> int:
    """Read a number of six bits a byte, the highest first; bit 6 says that more follow."""
    value = first & 63
    while first & 64:
        first = next(numbers)
        value = value << 6 | first & 63
    return value
