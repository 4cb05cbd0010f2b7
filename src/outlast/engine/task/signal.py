"""A wait for a signal: its name, the form of its value, and which values it is for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from outlast.codec import as_pattern, codec_for, digest
from outlast.errors import BadPayload, UsageError
from outlast.lifecycle.matching import payload_contains
from outlast.naming import checked_name

Match = Mapping[str, Any] | Callable[[Any], bool]
"""Which signals a wait is for: a pattern that the value contains, or a pure test of it."""


class Signal:
    """What ``wait_for`` waits for.

    Attributes:
        name: of the signal.
        codec: reads the value.
        until: when the wait is over, in microseconds since 1970, or None.
    """

    def __init__(self, name: str, form: Any, match: Match | None) -> None:
        self.name = checked_name(name, "signal")
        self.codec = codec_for(form)
        self.until: int | None = None
        self._pattern: Any = None
        self._test: Callable[[Any], bool] | None = None
        if isinstance(match, Mapping):
            self._pattern = as_pattern(match, name="match")
        elif callable(match):
            self._test = match
        elif match is not None:
            raise UsageError(
                f"match is {type(match).__name__}, not a mapping or a function",
                do='match={"order": 7}, or match=lambda value: …',
            )

    @property
    def digest(self) -> int:
        """Stand for its arguments; a function has no value that could stand for it."""
        if self._pattern is None:
            return digest(self.name.encode())
        return digest(msgspec.json.encode([self.name, self._pattern], order="deterministic"))

    def match(self, payload: bytes) -> bool:
        """Tell whether a signal is for this wait.

        The test is asked about values that have the form only. A value that contains the pattern is
        for this wait whatever its form; reading it says what is wrong with it.
        """
        if self._pattern is not None:
            return payload_contains(payload, self._pattern)
        if self._test is None:
            return True
        try:
            value = self.read(payload)
        except BadPayload:
            return False
        return bool(self._test(value))

    def read(self, payload: bytes) -> Any:
        """Read a signal's value.

        Raises:
            BadPayload: it does not have the form.
        """
        return self.codec.decode(payload, name=f'signal "{self.name}"')

    def as_wait(self) -> dict[str, Any]:
        """Write it as one of the things an execution waits for."""
        wait: dict[str, Any] = {"kind": "event", "title": self.name}
        if self.until is not None:
            wait["until"] = self.until
        if self._pattern is not None:
            wait["match"] = self._pattern
        if self._test is not None:
            wait["test"] = _name_of(self._test)
        return wait


def _name_of(test: Callable[[Any], bool]) -> str:
    """Name a function for people: a lambda by where it stands."""
    name: str = getattr(test, "__qualname__", type(test).__qualname__)
    code = getattr(inspect.unwrap(test), "__code__", None)
    if _LAMBDA in name and code is not None:
        return f"the lambda in line {code.co_firstlineno} of {code.co_filename.rpartition('/')[2]}"
    return name


_LAMBDA: Final = "<lambda>"
