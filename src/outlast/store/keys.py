"""Keys for encryption at rest: where they come from, and what they are wrapped and sealed with.

Theory of operation. A *key* is yours: 32 bytes with a name, from a file, the environment or a
command. It seals nothing itself but *data keys*, which the store draws and keeps, wrapped by a key.
So another key means to wrap a few data keys anew, and no payload. Each execution's payloads are
sealed by a key of their own, made of the data key and the execution's id, so that no key ever seals
more than fits below what random nonces bear. What a payload belongs to (tenant, execution, place,
field) is bound into its seal: moved elsewhere, it cannot be opened.

A data key that cannot be unwrapped is found when the store is opened, before the first write.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from outlast.errors import CannotLoad, KeyMissing, KeyWrong, StoreBroken
from outlast.extras import needed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
COMMAND_SECONDS: Final = 30
MARK: Final = b"\xc1\x01"
"""What something sealed begins with: no JSON begins so, nor any text in UTF-8. Then the version."""
HEAD_BYTES: Final = len(MARK) + 4 + NONCE_BYTES
_LINE: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})[ \t:]+([A-Za-z0-9+/_=-]+)")


@dataclass(frozen=True)
class Keys:
    """Your keys, by name.

    Attributes:
        current: the name of the one that wraps from now on.
        known: all of them.
    """

    current: str
    known: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"Keys({self.current!r}, {sorted(self.known)})"


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key of the store's own, as it is kept.

    Attributes:
        number: from 1; the newest seals.
        key_id: the name of the key that wraps it.
        wrapped: nonce and what is wrapped.
        whole: whether nothing in the store is plain any more, so that what is plain is refused.
        created_at: when it was drawn.
    """

    number: int
    key_id: str
    wrapped: bytes
    whole: bool
    created_at: int


def keys_of(environment: Mapping[str, str] = os.environ) -> Keys | None:
    """Read the keys that the environment names; None where it names none.

    ``OUTLAST_KEYS_FILE`` names a file that only its owner can read, ``OUTLAST_KEYS_COMMAND`` a
    command that prints what such a file holds, ``OUTLAST_KEYS`` holds it. A line is a key: its name
    and 32 bytes in base64. The first one wraps; the others open what they have wrapped.

    Raises:
        CannotLoad: they cannot be read.
    """
    ways = ("OUTLAST_KEYS_FILE", "OUTLAST_KEYS_COMMAND", "OUTLAST_KEYS")
    named = [way for way in ways if environment.get(way)]
    if not named:
        return None
    if len(named) > 1:
        raise CannotLoad(f"keys come from one place, not from {' and '.join(named)}")
    (way,) = named
    if way == "OUTLAST_KEYS_FILE":
        text = _file(Path(environment[way]))
    elif way == "OUTLAST_KEYS_COMMAND":
        text = _command(environment[way])
    else:
        text = environment[way].replace(",", "\n")
    return parsed(text, way)


def parsed(text: str, where: str) -> Keys:
    """Read keys, one a line; an error never says what it has read.

    Raises:
        CannotLoad: a line is none.
    """
    known: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        try:
            key = base64.urlsafe_b64decode(found[2].translate(_URL)) if found else b""
        except (binascii.Error, ValueError):
            key = b""
        if found is None or len(key) != KEY_BYTES or found[1] in known:
            raise CannotLoad(
                f"line {number} of the keys is none",
                where=where,
                why=f"a line is a name of its own and {KEY_BYTES} bytes in base64",
                do="outlast db new-key",
            )
        known[found[1]] = key
    if not known:
        raise CannotLoad("there is no key", where=where, do="outlast db new-key")
    return Keys(next(iter(known)), known)


_URL: Final = str.maketrans("+/", "-_")


def _file(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise CannotLoad(
                "others can read the file of the keys", where=str(path), do=f"chmod 600 {path}"
            )
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotLoad(
            "the file of the keys cannot be read", where=str(path), why=type(error).__name__
        ) from None


def _command(command: str) -> str:
    try:
        done = subprocess.run(
            shlex.split(command),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise CannotLoad(
            "the command for the keys has failed",
            where="OUTLAST_KEYS_COMMAND",
            why=type(error).__name__,
        ) from None
    return done.stdout


def drawn_line(name: str) -> str:
    """Draw a key; gives its line."""
    return f"{name} {base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"


def _aead(key: bytes) -> AESGCM:
    with needed("encryption", "encryption"):
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    return AESGCM(key)


def _bound(number: int, key_id: str, whole: bool) -> bytes:
    return f"outlast data key 1|{number}|{key_id}|{int(whole)}".encode()


def wrapped(keys: Keys, number: int, secret: bytes, *, whole: bool, at: int) -> DataKey:
    """Wrap a data key by the current key."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    bound = _bound(number, keys.current, whole)
    sealed = _aead(keys.known[keys.current]).encrypt(nonce, secret, bound)
    return DataKey(number, keys.current, nonce + sealed, whole, at)


def unwrapped(keys: Keys | None, row: DataKey) -> bytes:
    """Unwrap a data key.

    Raises:
        KeyMissing: its key is not among those that were given.
        KeyWrong: a key of that name is, and is another one.
    """
    key = None if keys is None else keys.known.get(row.key_id)
    if key is None:
        raise KeyMissing(
            f"the store is encrypted, and its key {row.key_id!a} was not given",
            why="OUTLAST_KEYS_FILE, OUTLAST_KEYS_COMMAND and OUTLAST_KEYS name no such key",
            do="name the file with it: OUTLAST_KEYS_FILE=…",
        )
    from cryptography.exceptions import InvalidTag

    nonce, sealed = row.wrapped[:NONCE_BYTES], row.wrapped[NONCE_BYTES:]
    bound = _bound(row.number, row.key_id, row.whole)
    try:
        return _aead(key).decrypt(nonce, sealed, bound)
    except (InvalidTag, ValueError):
        raise KeyWrong(
            f"the key {row.key_id!a} is not the one that the store was encrypted with",
            why="it cannot open the store's data keys; nothing was written",
            do="give the right key under this name",
        ) from None


@dataclass(frozen=True, slots=True)
class Place:
    """What a payload belongs to; it is bound into the seal.

    Attributes:
        field: the table, and the name within it where there is one.
        tenant, id: whose it is.
        number: its place there.
    """

    field: str
    tenant: Any
    id: Any
    number: Any


class Vault:
    """Seals and opens payloads. Any thread may.

    Attributes:
        newest: the number of the data key that seals.
        whole: whether what is plain is refused.
    """

    def __init__(self, secrets_by_number: Mapping[int, bytes], *, whole: bool) -> None:
        self._secrets = dict(secrets_by_number)
        self.newest = max(self._secrets)
        self.whole = whole
        self._cipher = lru_cache(maxsize=4_096)(self._made)

    def learn(self, secrets_by_number: Mapping[int, bytes], *, whole: bool) -> None:
        """Take in data keys that another process has drawn."""
        self._secrets.update(secrets_by_number)
        self.newest = max(self._secrets)
        self.whole = whole

    def knows(self, data: bytes) -> bool:
        """Tell whether something sealed is by a data key that is known here."""
        return not is_sealed(data) or _number_of(data) in self._secrets

    def _made(self, number: int, tenant: Any, id: Any) -> AESGCM:
        """Make the cipher for one execution: of its own key."""
        text = f"outlast payload 1|{tenant}|{id}".encode(errors="surrogatepass")
        return _aead(hmac.new(self._secrets[number], text, hashlib.sha256).digest())

    def seal(self, data: bytes, place: Place, *, is_fixed: bool = False) -> bytes:
        """Seal a payload; the same in the same place the same way, where it is to be fixed."""
        if is_fixed:  # a nonce that no other text in any other place has
            said = _bound_to(place, self.newest) + b"\0" + data
            nonce = hmac.digest(self._secrets[self.newest], said, "sha256")[:NONCE_BYTES]
        else:
            nonce = secrets.token_bytes(NONCE_BYTES)
        cipher = self._cipher(self.newest, place.tenant, place.id)
        head = MARK + self.newest.to_bytes(4, "big") + nonce
        return head + cipher.encrypt(nonce, data, _bound_to(place, self.newest))

    def open(self, data: bytes, place: Place) -> bytes:
        """Open a payload; one that was written before there was a key is given as it is.

        Raises:
            StoreBroken: it was changed or moved, or put there in the clear.
        """
        if not is_sealed(data):
            if self.whole:
                raise _broken(place, "it is in the clear, and nothing here should be")
            return data
        from cryptography.exceptions import InvalidTag

        number = _number_of(data)
        if not data.startswith(MARK):
            raise _broken(place, "it is sealed in a way that is not known here")
        if number not in self._secrets:
            raise _broken(place, f"its data key {number} is not in the store")
        nonce = data[len(MARK) + 4 : HEAD_BYTES]
        try:
            cipher = self._cipher(number, place.tenant, place.id)
            return cipher.decrypt(nonce, data[HEAD_BYTES:], _bound_to(place, number))
        except (InvalidTag, ValueError):
            raise _broken(place, "it was changed, or moved from elsewhere") from None


def is_sealed(data: bytes) -> bool:
    """Tell whether bytes are sealed: what is plain is JSON, which never begins so."""
    return data[:1] == MARK[:1]


def _number_of(data: bytes) -> int:
    return int.from_bytes(data[len(MARK) : len(MARK) + 4], "big")


def _bound_to(place: Place, number: int) -> bytes:
    said = [place.field, place.tenant, place.id, place.number, number]
    text = "|".join(str(one).replace("\\", "\\\\").replace("|", "\\|") for one in said)
    return text.encode(errors="surrogatepass")


def _broken(place: Place, why: str) -> StoreBroken:
    return StoreBroken(
        "a payload cannot be opened",
        where=f"{place.field} {place.number} of {place.id}",
        why=why,
        do="outlast db verify, and restore a copy",
    )


__all__ = [
    "MARK",
    "DataKey",
    "Keys",
    "Place",
    "Vault",
    "drawn_line",
    "is_sealed",
    "keys_of",
    "parsed",
    "unwrapped",
    "wrapped",
]
