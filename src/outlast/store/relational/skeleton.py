"""Facts whose free texts are sealed: what the database has to look at stays, as a skeleton.

The facts of a row (why it waits, what it failed with, who said what) are JSON that statements and
guards look into, at a few names, and that holds texts of errors, reasons, patterns of signals and
questions besides. Where there is anything that no statement asks for, the whole is sealed under
``sealed``, beside those few. So a new fact is sealed unless it is named here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from outlast.store.keys import MARK, Place, Vault

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
    """Give a text as it was; one that was written before there was a key is given as it is.

    Raises:
        StoreBroken: it was changed or moved, or put there in the clear.
    """
    data = b""
    if text.startswith(_TEXT):
        with suppress(binascii.Error, ValueError):  # somebody's own word
            data = base64.b64decode(text[len(_TEXT) :], validate=True)
    if data.startswith(MARK):
        return _opened(vault, data, place, learn)
    return vault.open(text.encode(errors="surrogatepass"), place).decode(errors="surrogatepass")


def _written(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _opened(vault: Vault, data: bytes, place: Place, learn: Learn) -> str:
    if not vault.knows(data):
        learn()
    return vault.open(data, place).decode(errors="surrogatepass")


__all__ = ["hidden", "hidden_text", "shown", "shown_text", "skeleton"]
