"""Give a role what an engine needs, and nothing else; perhaps for some tenants only.

A role that is bound to tenants has a wall of its own besides the one that the setting makes: it
sees no others whatever it sets. Its policies are constants, which cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from outlast.errors import UnknownTenant, UsageError
from outlast.store.postgres.address import Address
from outlast.store.postgres.connect import connect, translated
from outlast.store.postgres.migrate import ready

READ_ONLY: Final = ("migration", "edge")
"""Tables that only a change of the schema changes."""


def grant(url: str, role: str, tenants: Sequence[str]) -> None:
    """Let a role be an engine's, a server's or a program's; of these tenants, or of all.

    Said again, it changes what is so to what is said.

    Raises:
        UsageError: there is no such role, or row-level security does not hold for it.
        UnknownTenant: there is no such tenant.
        StoreReadOnly: this is not the owner of the schema.
    """
    address = Address.of(url)
    ready(address, 0, owner=False, upgrade=False)
    with translated(address), connect(address) as connection, connection.transaction():
        _check(connection, address, role)
        numbers = [_number(connection, address, name) for name in tenants]
        for text in _texts(connection, address.schema, role, numbers):
            connection.execute(text)


def _check(connection: psycopg.Connection[Any], address: Address, role: str) -> None:
    found = connection.execute(
        "SELECT r.rolsuper OR r.rolbypassrls, pg_has_role(r.oid, n.nspowner, 'USAGE')"
        "  FROM pg_roles AS r, pg_namespace AS n WHERE r.rolname = %s AND n.nspname = %s",
        [role, address.schema],
    ).fetchone()
    if found is None:
        raise UsageError(
            f"the server has no role {role}", do=f"CREATE ROLE {role} LOGIN PASSWORD '…'"
        )
    if found[0] or found[1]:
        raise UsageError(
            f"row-level security does not hold for {role}",
            why="it is a superuser, may bypass it, or owns the schema",
            do="grant to another role, and run engines as that one",
        )


def _number(connection: psycopg.Connection[Any], address: Address, name: str) -> int:
    table = sql.Identifier(address.schema, "tenant")
    text = sql.SQL("SELECT number FROM {} WHERE name = %s").format(table)
    found = connection.execute(text, [name]).fetchone()
    if found is None:
        raise UnknownTenant(
            f"there is no tenant {name}", where=address.shown, do=f"outlast tenant add {name}"
        )
    return int(found[0])


def _texts(
    connection: psycopg.Connection[Any], schema: str, role: str, numbers: Sequence[int]
) -> list[sql.Composed]:
    named = {"s": sql.Identifier(schema), "r": sql.Identifier(role)}
    texts = [
        sql.SQL("GRANT USAGE ON SCHEMA {s} TO {r}").format(**named),
        sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {s} TO {r}").format(
            **named
        ),
        sql.SQL("GRANT USAGE ON ALL SEQUENCES IN SCHEMA {s} TO {r}").format(**named),
        *(
            sql.SQL("REVOKE INSERT, UPDATE, DELETE ON {t} FROM {r}").format(
                t=sql.Identifier(schema, table), **named
            )
            for table in (*READ_ONLY, *(("tenant", "meta") if numbers else ()))
        ),
    ]
    for partition in _partitions(connection, schema):  # whose guards are its whole table's
        on = sql.Identifier(schema, partition)
        texts.append(sql.SQL("REVOKE ALL ON {} FROM {}").format(on, sql.Identifier(role)))
    only = sql.Identifier(f"only {role}"[:63])
    listed = sql.SQL(", ").join(map(sql.Literal, numbers))
    for table, column in _kept(connection, schema):
        on = sql.Identifier(schema, table)
        texts.append(sql.SQL("DROP POLICY IF EXISTS {} ON {}").format(only, on))
        if numbers:
            texts.append(
                sql.SQL("CREATE POLICY {} ON {} AS RESTRICTIVE TO {} USING ({} IN ({}))").format(
                    only, on, sql.Identifier(role), sql.Identifier(column), listed
                )
            )
    return texts


def _partitions(connection: psycopg.Connection[Any], schema: str) -> list[str]:
    found = connection.execute(
        "SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relispartition AND c.relkind = 'r' ORDER BY c.relname",
        [schema],
    ).fetchall()
    return [str(name) for (name,) in found]


def _kept(connection: psycopg.Connection[Any], schema: str) -> list[tuple[str, str]]:
    """Give every table with a wall, and the column that says whose a row is."""
    found = connection.execute(
        "SELECT c.relname, CASE c.relname WHEN 'tenant' THEN 'number' ELSE 'tenant' END"
        "  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relrowsecurity ORDER BY c.relname",
        [schema],
    ).fetchall()
    return [(str(table), str(column)) for table, column in found]


__all__ = ["grant"]
