"""A request as its handler sees it, and the answer it gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from outlast.access import Permission
from outlast.errors import BadRequest, InternalError, NotFound, OutlastError, Unauthenticated
from outlast.lifecycle import Execution as Record
from outlast.naming import checked_name
from outlast.server.auth import Authenticator, Identity, authorize, may
from outlast.server.route import Route
from outlast.server.strict import unfit

if TYPE_CHECKING:
    from outlast.engine.control.handle import Execution
    from outlast.engine.engine import Engine
    from outlast.store.protocol import Store

T = TypeVar("T")
ID_LENGTH_MAX: Final = 64
KEY_LENGTH_MAX: Final = 255
WORD_LENGTH_MAX: Final = 200
KEY_PREFIX: Final = "http:"
"""What an Idempotency-Key begins with, in the store: then whose it is."""
"""Characters of a name in a path."""


@dataclass(slots=True)
class Reply:
    """An answer, where it is more than a body with the route's own status."""

    value: Any = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Live:
    """An answer that goes on: texts of server-sent events, as they come.

    Attributes:
        events: the texts.
        counts_still: whether the caller may have them still; asked now and then.
    """

    events: AsyncIterator[str]
    counts_still: Callable[[], Awaitable[bool]] | None = None


@dataclass(slots=True)
class Call:
    """A request that has been let in.

    Attributes:
        engine: the engine.
        route: the line of the table.
        identity: who calls.
        path: the segments of the path, by their names in the table.
        query, body: as the route's forms say.
        headers: by name in lower case.
        record: the row of the execution that the path names, where the scope is an execution.
        asked: whether a permission was asked for already.
        source_of: finds out the address that it comes from, as far as that is known.
        authenticator: who has said who calls; asked again where a caller waits.
    """

    engine: Engine
    route: Route
    identity: Identity
    path: Mapping[str, str]
    headers: Mapping[str, str]
    query: Any = None
    body: Any = None
    record: Record | None = None
    asked: bool = False
    source_of: Callable[[], str] = str
    authenticator: Authenticator | None = None

    @property
    def actor(self) -> str:
        """Who does it, for the log."""
        return self.identity.name

    @property
    def tenant(self) -> int:
        """The tenant whose things this engine has; callers of another one see none of them."""
        return self.engine.store.tenant

    @property
    def execution(self) -> Execution[Any]:
        """The handle of the execution that the path names."""
        return self.engine.execution(self.row.id)

    @property
    def row(self) -> Record:
        """The row of the execution that the path names."""
        assert self.record is not None
        return self.record

    @property
    def sees_payloads(self) -> bool:
        """Whether inputs, results and the texts of errors may be shown."""
        task = None if self.record is None else self.record.task
        return self.may(Permission.PAYLOADS_READ, task)

    @property
    def key(self) -> str | None:
        """The Idempotency-Key, made the caller's own; None where there is none.

        Raises:
            BadRequest: it is too long.
        """
        said = self.headers.get("idempotency-key")
        if said is None:
            return None
        is_plain = said.isascii() and said.isprintable() and " " not in said
        if not 0 < len(said) <= KEY_LENGTH_MAX or not is_plain:
            raise BadRequest(
                "the Idempotency-Key is none",
                why=f"1 to {KEY_LENGTH_MAX} printable characters of ASCII, without spaces",
            )
        whose = self.identity.name.replace("%", "%25").replace(":", "%3A")
        return f"{KEY_PREFIX}{whose}:{said}"

    def may(self, permission: Permission, task: str | None) -> bool:
        """Tell whether the caller may do something to a task's executions, or to the tenant."""
        return may(self.identity, permission, self.tenant, task)

    def allow(self, task: str | None, permission: Permission | None = None) -> None:
        """See that the caller may do this route's thing, or another, to a task's executions.

        Raises:
            Forbidden: it may not.
        """
        wanted = permission or self.route.permission
        assert wanted is not None
        authorize(self.identity, wanted, self.tenant, task)
        self.asked = True

    def listed(self, task: str) -> bool:
        """Tell whether the caller may see a thing of this task in a list."""
        self.asked = True
        assert self.route.permission is not None
        return self.may(self.route.permission, task)

    async def see_still(self) -> None:
        """See that the caller counts still, where it was waited for something.

        Raises:
            Unauthenticated: what they came with was taken back meanwhile.
        """
        if not await self.counts_still():
            raise Unauthenticated("this credential counts no more")

    async def counts_still(self) -> bool:
        """Tell whether the caller is known still, and may do what they might when they came."""
        if self.authenticator is None:
            return True
        try:
            return await self.authenticator.authenticate(self.headers) == self.identity
        except OutlastError:
            return False

    async def find(self) -> None:
        """Read the row of the execution that the path names, if the caller may do this to it.

        Raises:
            NotFound: there is none that the caller may even see.
            Forbidden: it may see it, and not do this.
        """
        id = checked_id(self.path["id"])
        try:
            self.record = await self.engine.read_one(id)
        except NotFound:
            raise no_execution(id) from None  # in the words of one that must not be seen
        task = self.record.task
        foreign = self.record.tenant != self.identity.tenant
        if foreign or not self.identity.rights.see(self.record.tenant, task):
            raise no_execution(id)
        self.allow(task)

    async def read(self, look: Callable[[Store], T]) -> T:
        """Read something from the store, off the loop."""
        return await self.engine.worker.read(lambda: look(self.engine.store))

    def see_asked(self) -> None:
        """See that no answer leaves that nobody was asked about.

        Raises:
            InternalError: the handler forgot; the answer is thrown away.
        """
        if not self.asked:
            raise InternalError("a handler answered without asking for its permission")


def checked_id(id: str) -> str:
    """Give an id back, having seen that it can be looked up.

    Raises:
        NotFound: no execution has such an id.
    """
    if not _is_id(id):
        raise no_execution(ascii(id[:80]))
    return id


def asked_id(id: str | None, name: str) -> str | None:
    """Give an id of a query or body back, having seen that it can be looked up.

    Raises:
        BadPayload: no execution has such an id.
    """
    if id is not None and not _is_id(id):
        raise unfit(f"$.{name}", "it is no id of an execution", "query")
    return id


def _is_id(id: str) -> bool:
    return id.isascii() and id.isprintable() and len(id) <= ID_LENGTH_MAX


def checked_word(word: str, what: str) -> str:
    """Give a name of the path back, having seen that it can be looked up.

    Raises:
        NotFound: nothing has such a name.
    """
    if not word.isprintable() or len(word) > WORD_LENGTH_MAX:
        raise NotFound(f"there is no {what} {word[:80]!a}")
    return checked_name(word, what)


def no_execution(id: str) -> NotFound:
    """Say that there is no such execution; the same to whoever may not see it."""
    return NotFound(f"there is no execution {id}")


__all__ = ["Call", "Live", "Reply", "asked_id", "checked_id", "checked_word", "no_execution"]
