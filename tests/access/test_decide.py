"""The decision, tried over the whole table: what no row allows is refused."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.access import (
    EVERYTHING,
    PERMISSIONS,
    ROLES,
    Grant,
    Permission,
    Rights,
    Role,
    allows,
    checked_prefix,
    checked_role,
    covers,
)
from outlast.errors import UsageError

TASKS = [None, "", "billing", "billing.charge", "billing.charge.card", "billingx", "Billing", "b"]
PREFIXES = ["", "billing", "billing.charge", "b"]
SEGMENTS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3)


@pytest.mark.parametrize("role", Role)
def test_a_role_allows_its_permissions_and_no_other(role: Role) -> None:
    """Role × permission × prefix × task × tenant."""
    tried = 0
    for permission, prefix, task, tenant in product(Permission, PREFIXES, TASKS, (1, 2)):
        said = allows([Grant(role, prefix, 1)], permission, tenant, task)
        if permission is Permission.ANYONE:
            assert said
            continue
        under = prefix == "" or (
            task is not None and task.split(".")[: len(prefix.split("."))] == prefix.split(".")
        )
        wanted = permission in ROLES[role][1] and tenant == 1
        assert said == (wanted and (under or permission is Permission.SELF))
        tried += 1
    assert tried > 1_000


def test_nothing_is_allowed_without_a_grant() -> None:
    for permission in set(Permission) - {Permission.ANYONE}:
        assert not allows([], permission, 1)
        assert not Rights().allow(permission, 1) and not Rights(((),)).allow(permission, 1)
        assert not Rights().allow_somewhere(permission, 1)
        assert EVERYTHING.allow(permission, 1) and not EVERYTHING.allow(permission, 2)
    assert not Rights().see(1, "t")


def test_the_tables_are_whole() -> None:
    assert set(PERMISSIONS) == set(Permission) and set(ROLES) == set(Role)
    assert ROLES[Role.ADMIN][1] == set(Permission)
    everybody = set.intersection(*(set(has) for _, has in ROLES.values()))
    assert everybody == {Permission.ANYONE, Permission.SELF}
    readers = {role for role, (_, has) in ROLES.items() if Permission.PAYLOADS_READ in has}
    assert readers == {Role.PAYLOAD_READER, Role.AUTHOR, Role.ADMIN}
    assert {role for role, (_, has) in ROLES.items() if Permission.ACCESS_WRITE in has} == {"admin"}
    writes = {one for one in Permission if one.endswith((":write", ":start", ":operate", ":send"))}
    for quiet in (Role.VIEWER, Role.PAYLOAD_READER, Role.AUDITOR):
        assert not ROLES[quiet][1] & writes


@given(SEGMENTS, SEGMENTS)
def test_segments_are_compared_whole(prefix: list[str], task: list[str]) -> None:
    assert covers(".".join(prefix), ".".join(task)) == (task[: len(prefix)] == prefix)


GRANTS = st.lists(
    st.builds(Grant, st.sampled_from(Role), SEGMENTS.map(".".join) | st.just("")), max_size=3
).map(tuple)


@given(GRANTS, GRANTS, st.sampled_from(Permission), SEGMENTS.map(".".join))
def test_every_layer_must_allow(
    own: tuple[Grant, ...], owner: tuple[Grant, ...], permission: Permission, task: str
) -> None:
    """A token never allows more than its owner, nor more than it was made for."""
    both = Rights((own, owner))
    allowed = both.allow(permission, 1, task)
    assert allowed == (allows(own, permission, 1, task) and allows(owner, permission, 1, task))
    if allowed:
        assert both.allow_somewhere(permission, 1)
    if not both.allow_somewhere(permission, 1):
        assert not any(both.allow(permission, 1, f"{one}.x") for one in ("a", "b", "ab", task))


def test_somewhere_is_where_the_layers_meet() -> None:
    read = Permission.EXECUTIONS_READ
    apart = Rights(((Grant(Role.VIEWER, "a"),), (Grant(Role.VIEWER, "b"),)))
    assert not apart.allow_somewhere(read, 1)
    assert apart.allow_somewhere(Permission.SELF, 1) and not apart.allow_somewhere(
        Permission.SELF, 2
    )
    within = Rights(((Grant(Role.VIEWER, "a"),), (Grant(Role.VIEWER, "a.b"),)))
    assert within.allow_somewhere(read, 1) and not within.allow_somewhere(read, 2)
    assert within.see(1, "a.b.c") and not within.see(1, "a") and not within.see(2, "a.b.c")


def test_what_is_no_role_or_prefix_is_refused() -> None:
    assert checked_role("viewer") is Role.VIEWER and checked_prefix("a.b") == "a.b"
    for name in ("root", "Viewer", "", "viewer "):
        with pytest.raises(UsageError):
            checked_role(name)
    for prefix in (".", "a.", ".a", "a..b", " a", "a .b", "a\n", "x" * 201):
        with pytest.raises(UsageError):
            checked_prefix(prefix)
    assert str(Grant(Role.VIEWER, "a")) == "viewer@a" and str(Grant(Role.ADMIN)) == "admin"
