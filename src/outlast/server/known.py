"""Who calls, by what the store knows: tokens, sessions, and what an OpenID provider says.

Theory of operation. What was found is remembered for half a second, by the digest of what was
shown; so a busy caller costs two reads a second, and one whose token is revoked is out within that.
What was not found is not remembered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from outlast.access import Rights
from outlast.accounts.desk import Caller, Desk, unknown
from outlast.accounts.secret import TOKEN_PREFIX, digest_of, form_secret
from outlast.errors import Unauthenticated
from outlast.server.auth import TOKEN_LENGTH_MAX, Authenticator, Identity, cookie_of

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

KEPT_SECONDS: Final = 0.5
KEPT_MAX: Final = 10_000


class Provider(Protocol):
    """Says who somebody is by a token that it has signed."""

    def read(self, text: str, now: int) -> tuple[str, tuple[str, ...]]:
        """Give a name and the groups.

        Raises:
            Unauthenticated: it says nothing that counts.
        """


class StoreAuthenticator:
    """Knows callers by the engine's store.

    Args:
        engine: the engine; it is open when somebody calls.
        first: knows what the store does not, as the token of the first start.
        provider: says who somebody is that has its token.
    """

    def __init__(
        self, engine: Engine, first: Authenticator | None = None, provider: Provider | None = None
    ) -> None:
        self._engine, self._first, self._provider = engine, first, provider
        self._kept: dict[bytes, tuple[float, Identity]] = {}

    async def authenticate(self, headers: Mapping[str, str]) -> Identity:
        """Say who calls.

        Raises:
            Unauthenticated: nobody that is known.
        """
        kind, _, token = headers.get("authorization", "").partition(" ")
        token = token.strip()
        if not kind:
            text = cookie_of(headers)
            if text is None:
                raise Unauthenticated("the request brings no token")
            return await self._found(text, is_session=True)
        if kind.lower() != "bearer" or not 0 < len(token) <= TOKEN_LENGTH_MAX:
            raise unknown()
        if token.startswith(TOKEN_PREFIX) and "." in token:
            return await self._found(token)
        if self._provider is not None and token.count(".") == 2:
            return await self._told(self._provider, token)
        if self._first is None:
            raise unknown()
        return await self._first.authenticate(headers)

    async def _found(self, text: str, *, is_session: bool = False) -> Identity:
        """Find who shows a token or a session, in the store or in what it said just now."""
        digest, at = digest_of(text), time.monotonic()
        kept = self._kept.get(digest)
        if kept is not None and at - kept[0] < KEPT_SECONDS:
            return kept[1]
        if not self._engine.is_open:
            raise unknown()
        now, desk = self._engine.clock.now(), Desk(self._engine.store.access)
        look = desk.by_session if is_session else desk.by_token
        caller = await self._engine.worker.read(lambda: look(text, now))
        form = form_secret(text) if is_session else None
        identity = Identity(caller.name, self._engine.store.tenant, caller.rights, form)
        await self._note(desk, caller, now)
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[digest] = at, identity
        return identity

    async def _note(self, desk: Desk, caller: Caller, now: int) -> None:
        """Note the use, which is a write only once a minute."""
        from outlast.accounts.desk import NOTED_US

        if now - caller.used_at >= NOTED_US:
            await self._engine.journal.call(lambda: desk.note_use(caller, now))

    async def _told(self, provider: Provider, token: str) -> Identity:
        """Take the word of a provider; its groups hold the grants."""
        now = self._engine.clock.now()
        name, groups = await asyncio.to_thread(lambda: provider.read(token, now))
        subjects = [f"group:{group}" for group in groups]
        access = self._engine.store.access
        held = await self._engine.worker.read(lambda: access.held(subjects))
        rights = Rights((tuple(one.grant for one in held),))
        return Identity(f"oidc:{name}", self._engine.store.tenant, rights)

    def forget(self) -> None:
        """Ask the store again for everybody."""
        self._kept.clear()


__all__ = ["KEPT_SECONDS", "Provider", "StoreAuthenticator"]
