"""The one decision: whether grants allow something.

Theory of operation. A grant is a role for a tenant, for all tasks or for those under a prefix. A
caller has layers of grants: what a token was made for, and what its owner may do. All layers must
allow a thing, so a token never allows more than its owner has, whatever it was made for. What
belongs to no task, as a queue or a user, is allowed only by grants that hold for all tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from outlast.access.table import ROLES, Permission, Role
from outlast.errors import UsageError

PREFIX_LENGTH_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Grant:
    """A role that somebody has.

    Attributes:
        role: the role.
        task: the prefix of the tasks it holds for, whole segments between dots; "" is all.
        tenant: the tenant it holds for.
    """

    role: Role
    task: str = ""
    tenant: int = 1

    def __str__(self) -> str:
        return f"{self.role}@{self.task}" if self.task else str(self.role)


def covers(prefix: str, task: str | None) -> bool:
    """Tell whether a prefix holds for a task; for None, what belongs to no task.

    Segments are compared whole: ``billing`` covers ``billing`` and ``billing.charge``, and not
    ``billingx``.
    """
    if not prefix:
        return True
    return task is not None and (task == prefix or task.startswith(prefix + "."))


def allows(
    grants: Iterable[Grant], permission: Permission, tenant: int, task: str | None = None
) -> bool:
    """Tell whether grants allow a thing to be done for a task, or for what belongs to none.

    What anybody with a credential may do is allowed by any grant of the tenant.
    """
    if permission is Permission.ANYONE:
        return True
    for grant in grants:  # asked several times a request: a generator would take twice as long
        if (
            grant.tenant == tenant
            and permission in ROLES[grant.role][1]
            and (not grant.task or permission is Permission.SELF or covers(grant.task, task))
        ):
            return True
    return False


@dataclass(frozen=True, slots=True)
class Rights:
    """What a caller may do.

    Attributes:
        layers: of grants; every layer must allow a thing. No layer at all allows nothing.
    """

    layers: tuple[tuple[Grant, ...], ...] = ()

    def allow(self, permission: Permission, tenant: int, task: str | None = None) -> bool:
        """Tell whether a thing may be done for a task, or for what belongs to none."""
        if permission is Permission.ANYONE:
            return True
        for layer in self.layers:
            if not allows(layer, permission, tenant, task):
                return False
        return bool(self.layers)

    def allow_somewhere(self, permission: Permission, tenant: int) -> bool:
        """Tell whether a thing may be done for any task at all."""
        if permission in (Permission.ANYONE, Permission.SELF):
            return self.allow(permission, tenant)  # it is about no task
        if self.allow(permission, tenant):
            return True  # for all of them
        prefixes = [
            [one.task for one in layer if allows((one,), permission, tenant, one.task)]
            for layer in self.layers
        ]
        if not all(prefixes):
            return False
        # The tasks under two prefixes have one in common where one of them covers the other.
        found = set(prefixes[0]) if prefixes else set()
        for layer in prefixes[1:]:
            found = {
                max(one, other, key=len)
                for one in found
                for other in layer
                if covers(one, other) or covers(other, one)
            }
        return bool(found)

    def permissions(self, tenant: int) -> list[Permission]:
        """List what may be done for some task at least, in the order of the table."""
        return [
            one
            for one in Permission
            if one is not Permission.ANYONE and self.allow_somewhere(one, tenant)
        ]

    def see(self, tenant: int, task: str | None) -> bool:
        """Tell whether the caller may know that a thing of a task is there at all."""
        if self.allow(Permission.EXECUTIONS_READ, tenant, task):
            return True  # the commonest, asked first
        return any(
            self.allow(one, tenant, task)
            for one in Permission
            if one not in (Permission.ANYONE, Permission.SELF)
        )


EVERYTHING: Final = Rights(((Grant(Role.ADMIN),),))
"""The rights of whoever owns the machine, in the default tenant."""


def checked_role(name: str) -> Role:
    """Give a role by its name.

    Raises:
        UsageError: there is none.
    """
    try:
        return Role(name)
    except ValueError:
        raise UsageError(
            f'there is no role "{name[:80]}"', do="one of " + ", ".join(Role)
        ) from None


def checked_prefix(prefix: str) -> str:
    """Give a prefix of task names back, having seen that it is one: segments between dots.

    Raises:
        UsageError: it is none.
    """
    if prefix and (
        len(prefix) > PREFIX_LENGTH_MAX
        or not prefix.isprintable()
        or not all(part and part == part.strip() for part in prefix.split("."))
    ):
        raise UsageError(
            f"{prefix[:80]!a} is no prefix of tasks", do="write whole segments, as billing.charge"
        )
    return prefix


__all__ = [
    "EVERYTHING",
    "Grant",
    "Rights",
    "allows",
    "checked_prefix",
    "checked_role",
    "covers",
]
