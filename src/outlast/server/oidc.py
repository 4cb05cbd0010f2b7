"""Who an OpenID provider says somebody is: its tokens, verified with its published keys.

Only what the configuration names is believed: the algorithms, the issuer and the audience are fixed
here, and a token that brings its own keys is not asked for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from outlast.errors import CannotLoad, ServerUnreachable, Unauthenticated
from outlast.extras import needed

if TYPE_CHECKING:
    from jwt import PyJWKSet

ALGORITHMS: Final = ("RS256", "ES256", "PS256", "EdDSA")
LEEWAY_SECONDS: Final = 30
GROUPS_MAX: Final = 200
REFRESH_SECONDS: Final = 10.0
"""How often the keys are asked for again, at most, for one that is unknown (who names it has proved
nothing) or by a provider that did not answer."""


@dataclass(frozen=True, slots=True)
class OpenId:
    """A provider.

    Attributes:
        issuer: who it is, as its tokens say it.
        audience: for whom its tokens must be meant.
        keys: where its keys are: a file, or a URL of HTTPS.
        name: the claim that names somebody; it must never name another one later.
        groups: the claim that lists groups, which roles are granted to as ``group:NAME``.
    """

    issuer: str
    audience: str
    keys: str
    name: str = "sub"
    groups: str = "groups"

    def opened(self) -> OpenIdProvider:
        """Load what it needs.

        Raises:
            CannotLoad: PyJWT is not installed, or the keys cannot be read.
        """
        with needed("oidc", "an OpenID provider"):
            import jwt
        if self.keys.startswith("https://"):
            return OpenIdProvider(self, client=jwt.PyJWKClient(self.keys, timeout=5))
        try:
            return OpenIdProvider(self, keys=jwt.PyJWKSet.from_json(Path(self.keys).read_text()))
        except (OSError, ValueError, jwt.PyJWTError) as error:
            raise CannotLoad(
                "the provider's keys cannot be read",
                where=self.keys[:200],
                why=str(error),
                do="name a file of a JWK set, or its https:// address",
            ) from None


class OpenIdProvider:
    """Reads the tokens of a provider."""

    def __init__(
        self,
        config: OpenId,
        *,
        keys: PyJWKSet | None = None,
        client: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._keys, self._client = config, keys, client
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at = self._failed_at = float("-inf")
        self._last: Sequence[Any] = ()

    def read(self, text: str, now: int) -> tuple[str, tuple[str, ...]]:
        """Give the name and the groups of whom a token is.

        Raises:
            Unauthenticated: it is not the provider's, not meant for us, or over.
            ServerUnreachable: the provider's keys were never had, and it does not answer.
        """
        import jwt

        config = self._config
        try:
            header = jwt.get_unverified_header(text)
            if header.get("crit"):
                raise jwt.InvalidTokenError("it asks for what is not known here")
            key = self._key(str(header.get("kid", "")))
            claims = jwt.decode(
                text,
                key.key,
                algorithms=[key.algorithm_name],
                issuer=config.issuer,
                audience=config.audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", config.name]},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise Unauthenticated("the token of the provider does not count here") from error
        name, groups = claims[config.name], claims.get(config.groups, [])
        if not isinstance(name, str) or not name or len(name) > 200 or not name.isprintable():
            raise Unauthenticated("the token of the provider names nobody")
        if not isinstance(groups, list):
            groups = [groups]
        good = [one for one in groups[:GROUPS_MAX] if isinstance(one, str) and one.isprintable()]
        return name, tuple(good)

    def _key(self, id: str) -> Any:
        """Find the key by its id; its algorithm is the key's own, never the token's word."""
        import jwt

        if self._keys is not None:
            found = _named(id, self._keys.keys)
        else:
            found = _named(id, self._published())
            if found is None and self._may_ask():
                found = _named(id, self._published(refresh=True))
        if found is None or found.algorithm_name not in ALGORITHMS:
            raise jwt.InvalidTokenError("no key of the provider's has signed it")
        return found

    def _published(self, *, refresh: bool = False) -> Sequence[Any]:
        """Give the provider's keys: the last that were had, while it does not answer."""
        import jwt

        if self._clock() - self._failed_at >= REFRESH_SECONDS:
            try:
                self._last = self._client.get_signing_keys(refresh=refresh)
            except (jwt.PyJWKClientError, jwt.PyJWKSetError, ValueError):  # down, or it says none
                self._failed_at = self._clock()
        if not self._last:
            raise ServerUnreachable(
                "the OpenID provider's keys cannot be had",
                where=self._config.keys[:200],
                why="it does not answer",
                do="try again",
            )
        return self._last

    def _may_ask(self) -> bool:
        """Tell whether the provider may be asked again: its keys may have turned over."""
        with self._lock:
            if self._clock() - self._asked_at < REFRESH_SECONDS:
                return False
            self._asked_at = self._clock()
            return True


def _named(id: str, keys: Iterable[Any]) -> Any:
    """Find a key by its id."""
    return next((one for one in keys if one.key_id == id), None)


__all__ = ["OpenId", "OpenIdProvider"]
