"""The messages of PostgreSQL's protocol, version 3, as they go over a connection in the clear.

A message is a letter, a length, and a body; only a client's first one has no letter. What is asked
is known as far as it matters to a fault: which message is the ``COMMIT`` of a transaction that
writes, and which is the answer to it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

FRONT: Final = {
    "B": "Bind",
    "C": "Close",
    "D": "Describe",
    "E": "Execute",
    "H": "Flush",
    "P": "Parse",
    "Q": "Query",
    "S": "Sync",
    "X": "Terminate",
    "c": "CopyDone",
    "d": "CopyData",
    "f": "CopyFail",
    "p": "Password",
}
BACK: Final = {
    "1": "ParseComplete",
    "2": "BindComplete",
    "3": "CloseComplete",
    "A": "Notification",
    "C": "CommandComplete",
    "D": "DataRow",
    "E": "Error",
    "G": "CopyIn",
    "H": "CopyOut",
    "I": "EmptyQuery",
    "K": "BackendKey",
    "N": "Notice",
    "R": "Authentication",
    "S": "Parameter",
    "T": "RowDescription",
    "Z": "Ready",
    "c": "CopyDone",
    "d": "CopyData",
    "n": "NoData",
    "s": "PortalSuspended",
    "t": "ParameterDescription",
}
STARTUP: Final = "Startup"
CANCEL: Final = "CancelRequest"
ENCRYPTION: Final = "EncryptionRequest"
COMMIT: Final = "COMMIT"
"""The ``Execute`` (or ``Query``) of the ``COMMIT`` of a transaction that may write."""
COMMITTED: Final = "COMMIT done"
"""The ``CommandComplete`` that answers it."""
_CODES: Final = {80877102: CANCEL, 80877103: ENCRYPTION, 80877104: ENCRYPTION}


@dataclass(frozen=True, slots=True)
class Message:
    """One message, whole.

    Attributes:
        kind: its name, as in :data:`FRONT` and :data:`BACK`, or one of the names above.
        data: all its bytes.
    """

    kind: str
    data: bytes

    @property
    def body(self) -> bytes:
        """What comes after its letter and its length."""
        return self.data[5:]


class Frames:
    """Cuts what comes over a connection, in one direction, into messages."""

    def __init__(self, *, front: bool) -> None:
        self._front = front
        self._names = FRONT if front else BACK
        self._has_begun = not front
        self._rest = b""

    @property
    def rest(self) -> bytes:
        """The beginning of a message whose end has not come yet."""
        return self._rest

    def feed(self, data: bytes) -> Iterator[Message]:
        """Give the messages that are whole with these bytes."""
        data = self._rest + data if self._rest else data
        place, end = 0, len(data)
        try:
            while True:
                head = 1 if self._has_begun else 0
                if end - place < head + 4:
                    return
                (length,) = struct.unpack_from("!i", data, place + head)
                after = place + head + length
                if after > end:
                    return
                message, place = data[place:after], after
                yield Message(self._kind_of(message), message)
        finally:
            self._rest = data[place:]

    def _kind_of(self, message: bytes) -> str:
        if self._has_begun:
            letter = chr(message[0])
            return self._names.get(letter, letter)
        (code,) = struct.unpack_from("!i", message, 4)
        kind = _CODES.get(code, STARTUP)
        self._has_begun = kind != ENCRYPTION
        return kind


class Talk:
    """What is going on between a client and its server, from the messages that have passed.

    Attributes:
        in_doubt: whether a ``COMMIT`` was passed on, and its answer not, or not all of it.
    """

    def __init__(self) -> None:
        self.in_doubt = False
        self._texts: dict[bytes, bytes] = {}
        self._bound = b""
        self._writes = False
        self._commits = 0

    def name(self, message: Message, *, to_server: bool) -> str:
        """Name a message that is about to be passed on, by what it is in this talk."""
        kind = message.kind
        if not to_server:
            if kind == "CommandComplete" and self._commits and message.body == b"COMMIT\0":
                return COMMITTED
            return kind
        if kind == "Parse":
            name, text = message.body.split(b"\0", 2)[:2]
            self._texts[name] = text
        elif kind == "Bind":
            _, name = message.body.split(b"\0", 2)[:2]
            self._bound = self._texts.get(name, b"")
        elif kind == "Execute":
            return self._called(self._bound, kind)
        elif kind == "Query":
            return self._called(message.body.rstrip(b"\0"), kind)
        return kind

    def _called(self, text: bytes, kind: str) -> str:
        if text.startswith(b"BEGIN"):
            self._writes = b"READ ONLY" not in text
        return COMMIT if self._writes and text == b"COMMIT" else kind

    def passed(self, name: str) -> None:
        """Note that a message of this name was passed on, whole."""
        if name == COMMIT:
            self._commits += 1
            self.in_doubt = True
        elif name == "Ready":
            self._commits = 0
            self.in_doubt = False


__all__ = [
    "BACK",
    "CANCEL",
    "COMMIT",
    "COMMITTED",
    "ENCRYPTION",
    "FRONT",
    "STARTUP",
    "Frames",
    "Message",
    "Talk",
]
