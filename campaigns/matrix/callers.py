"""Who calls: each role, for everything, for an area, under an owner; and nobody that is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from outlast.access import Grant, Rights, Role
from outlast.errors import Unauthenticated
from outlast.server.auth import Identity

TENANT: Final = 1
OTHER: Final = 2
AREAS: Final = ("billing", "shop")
ELSEWHERE: Final = "billingx"
"""An area whose name begins as another one's; it has nothing."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who calls.

    Attributes:
        name: by which the campaign tells of them; also the token that they bring.
        identity: who that is; None for nobody that is known.
        headers: what they bring along.
    """

    name: str
    identity: Identity | None
    headers: tuple[tuple[bytes, bytes], ...]


def _identity(name: str, *layers: tuple[Grant, ...], tenant: int = TENANT) -> Identity:
    return Identity(f"token:{name}", tenant, Rights(layers))


def _known() -> dict[str, Identity]:
    found: dict[str, Identity] = {}
    for role in Role:
        found[f"{role}"] = _identity(role, (Grant(role),))
        for area in AREAS:
            name = f"{role}@{area}"
            found[name] = _identity(name, (Grant(role, area),))
    more: dict[str, tuple[tuple[Grant, ...], ...]] = {
        "two-roles": ((Grant(Role.VIEWER), Grant(Role.AUTHOR, "shop")),),
        "bounded": ((Grant(Role.ADMIN),), (Grant(Role.VIEWER, "billing"),)),
        "crossed": ((Grant(Role.OPERATOR, "billing"),), (Grant(Role.ADMIN, "shop"),)),
        "halves": ((Grant(Role.PAYLOAD_READER),), (Grant(Role.OPERATOR),)),
        "elsewhere": ((Grant(Role.ADMIN, ELSEWHERE),),),
        "nothing": ((),),
        "no-layer": (),
        "of-another": ((Grant(Role.ADMIN, tenant=OTHER),),),
    }
    found |= {name: _identity(name, *layers) for name, layers in more.items()}
    for name, tenant in (("foreign", OTHER), ("confused", TENANT)):
        found[name] = _identity(name, (Grant(Role.ADMIN, tenant=tenant),), tenant=OTHER)
    return found


KNOWN: Final = _known()
"""Those who are known, by the token that they bring."""


def _bearer(token: str) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"authorization", b"Bearer " + token.encode()),)


CALLERS: Final = tuple(Caller(name, one, _bearer(name)) for name, one in KNOWN.items())
STRANGERS: Final = (
    Caller("without", None, ()),
    Caller("empty", None, ((b"authorization", b""),)),
    Caller("no-token", None, ((b"authorization", b"Bearer"),)),
    Caller("garbage", None, _bearer("garbage")),
    Caller("guess", None, _bearer("otk_abcdefghij." + "x" * 43)),
    Caller("longer", None, _bearer("admin" + "x")),
    Caller("other-case", None, _bearer("ADMIN")),
    Caller("basic", None, ((b"authorization", b"Basic YWRtaW46YWRtaW4="),)),
    Caller("cookie", None, ((b"cookie", b"outlast_session=ose_" + b"x" * 43),)),
    Caller("two", None, (*_bearer("admin"), *_bearer("admin"))),
    Caller("in-query", None, ((b"x-authorization", b"Bearer admin"),)),
)


class Table:
    """Says who calls, by the table above."""

    async def authenticate(self, headers: object) -> Identity:
        """See the seam."""
        assert isinstance(headers, dict)
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or token.strip() not in KNOWN:
            raise Unauthenticated("nobody that is known")
        return KNOWN[token.strip()]
