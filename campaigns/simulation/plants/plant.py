"""Planted bugs: known mistakes, each put into the engine for as long as one simulation runs.

None of them is in the code of production: a plant replaces one function by a faulty one, and puts
the right one back. ``rules`` are the invariants that have to catch it, by their first words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

decide_module: Final[Any] = import_module("outlast.lifecycle.decide")
Patch = tuple[Any, str, Any]


@dataclass(frozen=True)
class Plant:
    """A planted bug.

    Attributes:
        says: the mistake, as somebody could make it.
        rules: the rules of which one must catch it.
        patches: gives what is replaced: object, name, the faulty one.
        seeds: in how many seeds it must have been caught.
    """

    says: str
    rules: tuple[str, ...]
    patches: Callable[[], list[Patch]]
    seeds: int = 600
