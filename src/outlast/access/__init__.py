"""Who may do what: permissions, roles and grants, as data. Pure: no clock, no I/O."""

from outlast.access.decide import (
    EVERYTHING,
    Grant,
    Rights,
    allows,
    checked_prefix,
    checked_role,
    covers,
)
from outlast.access.table import PERMISSIONS, ROLES, Permission, Role

__all__ = [
    "EVERYTHING",
    "PERMISSIONS",
    "ROLES",
    "Grant",
    "Permission",
    "Rights",
    "Role",
    "allows",
    "checked_prefix",
    "checked_role",
    "covers",
]
