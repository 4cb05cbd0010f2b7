"""Facts whose free texts are sealed: what the database has to look at stays, as a skeleton.

The facts of a row (why it waits, what it failed with, who said what) are JSON that statements and
guards look into, at a few names, and that holds texts of errors, reasons, patterns of signals and
questions besides. Where there is anything that no statement asks for, the whole is sealed under
``sealed``, beside those few. So a new fact is sealed unless it is named here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from outlast.lifecycle.record import COLUMNS
from outlast.store.keys import MARK, Place, Vault

Row = Sequence[Any]
Bounds = Mapping[str, Any]
Learn = Callable[[], None]

SEALED: Final = "sealed"
_MARKS: Final = f'"{SEALED}":"'
_TEXT: Final = f"{SEALED}:"
PLAIN: Final = frozenset({
    "child", "gate", "worker", "version", "task", "queue", "kind", "code", "cause", "key", "name",
    "by", "actor", "state", "scope", "mode", "origin", "outcome",
})  # fmt: skip
"""Names, which are public: their texts stay."""
INSIDE: Final = frozenset({"budget", "waits", "waits_on", "from"})
"""What statements look into: of the things inside, names and numbers stay."""
_INNER: Final = frozenset({"id", "key", "to", "kind", "ended", "name", "need", "mode", "step"})
_GUESSABLE: Final = frozenset({"input_digest", "digest"})
"""Numbers that tell of a payload."""
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def skeleton(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Give what may stay of facts."""
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if name in _GUESSABLE:
            continue
        if value is None or isinstance(value, int | float) or name in PLAIN:
            if not isinstance(value, dict | list):
                found[name] = value
        elif name in INSIDE:
            found[name] = _shown(value)
        elif name == "question":
            found[name] = True  # that there is one
    return found


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(one) for one in value]
    if isinstance(value, dict):
        return {
            name: one
            for name, one in value.items()
            if name in _INNER and not isinstance(one, dict | list)
        }
    return value


def hidden(vault: Vault, text: str, place: Place) -> str:
    """Seal the facts of a row, as far as no statement looks at them."""
    facts = _decode(text)
    if not isinstance(facts, dict):
        return text
    left = skeleton(facts)
    if left == facts:
        return text
    left[SEALED] = _written(vault.seal(text.encode(errors="surrogatepass"), place, is_fixed=True))
    return _encode(left).decode()


def shown(vault: Vault, text: str, place: Place, learn: Learn) -> str:
    """Give the facts of a row as they were."""
    if _MARKS not in text:
        return text
    facts = _decode(text)
    data = facts.get(SEALED) if isinstance(facts, dict) else None
    if not isinstance(data, str):
        return text  # somebody's own word
    return _opened(vault, base64.b64decode(data), place, learn)


def hidden_text(vault: Vault, text: str, place: Place) -> str:
    """Seal a text."""
    return _TEXT + _written(vault.seal(text.encode(errors="surrogatepass"), place))


def shown_text(vault: Vault, text: str, place: Place, learn: Learn) -> str:
    """Give a text as it was; one that was written before there was a key is given as it is."""
    if not text.startswith(_TEXT):
        return text
    try:
        data = base64.b64decode(text[len(_TEXT) :], validate=True)
    except (binascii.Error, ValueError):
        return text
    return _opened(vault, data, place, learn) if data.startswith(MARK) else text


def _written(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _opened(vault: Vault, data: bytes, place: Place, learn: Learn) -> str:
    if not vault.knows(data):
        learn()
    return vault.open(data, place).decode(errors="surrogatepass")


Hide = Callable[[Vault, str, Place], str]
Show = Callable[[Vault, str, Place, Learn], str]
_DETAIL: Final = len(COLUMNS) - 1


def _row(row: Row, _: int) -> Place:
    return Place("detail", row[0], row[1], 0)


def _of_log(at: int) -> Callable[[Row, Bounds], Place]:
    return lambda row, _: Place("facts", row[at], row[at + 1], row[at + 2])


TEXT_WRITES: Final[Mapping[str, tuple[int, Hide, Callable[[Row, int], Place]]]] = {
    "insert_transitions": (12, hidden, lambda row, _: Place("facts", row[0], row[1], row[2])),
    "insert_executions": (_DETAIL, hidden, _row),
    "save_executions": (27, hidden, lambda row, tenant: Place("detail", tenant, row[0], 0)),
    "save_told_executions": (27, hidden, lambda row, tenant: Place("detail", tenant, row[0], 0)),
    "insert_messages": (7, hidden, lambda row, _: Place("said", row[0], row[1], row[2])),
    "insert_webhook": (4, hidden_text, lambda row, _: Place("webhook", row[0], row[1], 0)),
    "save_webhook": (3, hidden_text, lambda row, tenant: Place("webhook", tenant, row[0], 0)),
    "save_progress": (5, hidden_text, lambda row, _: Place("progress", row[0], row[1], 0)),
}
"""Statements that write facts or a text: the column, how it is sealed, what it belongs to."""

_DETAILS: Final = ((_DETAIL, shown, lambda row, _: Place("detail", row[0], row[1], 0)),)
_LOG: Final = ((12, shown, _of_log(0)),)
_CLAIMED: Final = (*_DETAILS, (_DETAIL + 13, shown, _of_log(_DETAIL + 1)))
TEXT_READS: Final[Mapping[str, tuple[tuple[int, Show, Callable[[Row, Bounds], Place]], ...]]] = {
    **dict.fromkeys(
        (
            *("executions_by_id", "executions_by_key", "due_executions", "overdue_executions"),
            *("unstarted_executions", "leased_executions", "executions_page", "children_page"),
            *(
                "open_executions_page",
                "labelled_page",
                "waiting_for_budget",
                "parked_page",
                "ended_page",
                "picked_page",
            ),
        ),
        _DETAILS,
    ),
    **dict.fromkeys(("log", "logs", "feed_rows"), _LOG),
    **dict.fromkeys(("queued_executions", "blocked_executions"), _CLAIMED),
    "inbox": (
        (5, shown, lambda row, bounds: Place("said", bounds["tenant"], bounds["id"], row[0])),
    ),
    "inboxes": ((5, shown, lambda row, bounds: Place("said", bounds["tenant"], row[8], row[0])),),
    **dict.fromkeys(
        ("webhooks", "webhook_by_id"),
        ((4, shown_text, lambda row, _: Place("webhook", row[0], row[1], 0)),),
    ),
    "progress_of": (
        (4, shown_text, lambda row, bounds: Place("progress", bounds["tenant"], row[0], 0)),
    ),
}
"""Statements that read some."""

__all__ = ["TEXT_READS", "TEXT_WRITES", "Show", "hidden", "shown", "skeleton"]
