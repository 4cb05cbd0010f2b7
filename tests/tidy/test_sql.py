"""Every named statement is used, and every one that is used exists."""

from __future__ import annotations

import ast
from typing import Final

from outlast.store.relational.secrecy import SEALED
from outlast.store.sql import load, parse

from . import SOURCES

BACKENDS: Final = {
    "sqlite": set(),
    # Locks, and positions after the commit, which one writer at a time
    # needs none of (docs/decisions/0023, 0044).
    "postgres": {
        *(
            "lock_executions",
            "lock_schedules",
            "lock_gates",
            "lock_audit",
            "lock_epoch",
            "lock_gates_shared",
            "lock_queues",
            "lock_queues_shared",
            "lock_sign_ins",
        ),
        *("lock_feed", "settle_feed", "note_settled"),
    },
}
"""The backends, and the statements that one has besides."""
BY_NAME: Final = {
    "_Walk",
    "_ask",
    "_page",
    "ask",
    "ask_all",
    "ask_rare",
    "beat",
    "read",
    "read_many",
    "run",
    "send",
    "send_counted",
    "sent",
}
"""The functions that are given a statement's name."""
LISTS: Final = {"STATEMENTS", "DERIVED"}
"""Tables of statements, which are asked one after another."""


def used_in(text: str) -> set[str]:
    """Give the names of the statements that a module asks for."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "SQL":
            place: list[ast.expr] = [node.slice]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in BY_NAME:
            place = node.args[:2]
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) in LISTS:
            keys = node.value.keys if isinstance(node.value, ast.Dict) else [node.value]
            place = [key for key in keys if key is not None]
        elif isinstance(node, ast.For) and ast.unparse(node.target) == "name":
            place = [node.iter]
        else:
            continue
        for expression in place:
            if not isinstance(expression, ast.Dict | ast.Call | ast.Subscript):
                found |= {
                    one.value
                    for one in ast.walk(expression)
                    if isinstance(one, ast.Constant) and isinstance(one.value, str)
                }
    return found


def test_statements_are_used_and_exist() -> None:
    for backend, besides in BACKENDS.items():
        # What is sealed anew is named by its column.
        asked = {name for one in SEALED for name in (one.stale, one.reseal)} | set(besides)
        for folder in ("relational", backend):
            for path in (SOURCES / "store" / folder).glob("*.py"):
                asked |= used_in(path.read_text("utf-8"))
        assert asked == load(f"outlast.store.{backend}").keys()


def test_faults_are_seen() -> None:
    assert used_in('SQL["a"]; self.send("b", []); reader.ask_all("c", {"id": 1})') == set("abc")
    assert used_in('self.ask("d" if x else "e", ids)') == set("de")
    assert used_in('for name in ("f", "g"):\n    ask(name)') == set("fg")
    assert used_in('DERIVED: Final = {"h": "said"}\nSTATEMENTS: Final = (*("i",), "j")') == set(
        "hij"
    )
    assert parse("-- name: one\nSELECT 1;\n-- name: two\nSELECT 2;\n").keys() == {"one", "two"}
