"""No test sleeps to wait for something: that is slow where it works, and fails where it is slow.

The rule: a call of anything named ``sleep`` stands inside a function with ``@task`` or ``@step``,
whose sleep is the product's own; or it sleeps 0, which only gives way; or its file is in
``VIRTUAL``; or its line says ``# sleeps:`` and why.
"""

from __future__ import annotations

import ast
from typing import Final

from . import ROOT

VIRTUAL: Final = {
    "tests/engine/test_change.py",
    "tests/engine/test_loop.py",
    "tests/engine/test_scope.py",
    "tests/engine/test_scope_property.py",
}
"""Their code runs on a clock whose time the test sets: nothing waits."""


def faults(text: str) -> list[int]:
    """Give the lines of a file that sleep against the rule."""
    lines = text.splitlines()
    found: list[int] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            marks = {_name(mark) for mark in node.decorator_list}
            if marks & {"task", "step"}:
                return
        if isinstance(node, ast.Call) and _name(node.func) == "sleep":
            gives_way = [ast.unparse(one) for one in node.args] == ["0"]
            if not gives_way and "# sleeps: " not in lines[node.lineno - 1]:
                found.append(node.lineno)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(text))
    return found


def _name(node: ast.expr) -> str:
    """Give the last name of ``f``, ``a.f`` and ``a.f(…)``."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def test_no_test_sleeps() -> None:
    found = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name not in VIRTUAL and (lines := faults(path.read_text("utf-8"))):
            found[name] = lines
    assert found == {}


def test_faults_are_seen() -> None:
    assert faults("import time\ndef test_x():\n    time.sleep(1)") == [3]
    assert faults("async def f():\n    await asyncio.sleep(0.1)\n    await asyncio.sleep(0)") == [2]
    assert faults("time.sleep(1)  # sleeps: the clock of the file system is that coarse") == []
    inside = "@outlast.task(retries=1)\nasync def t():\n    def g():\n        sleep('1h')\n    g()"
    assert faults(inside) == []
    assert faults(inside.replace("task", "cache")) == [4]


def test_the_list_is_current() -> None:
    for name in VIRTUAL:
        assert faults((ROOT / name).read_text("utf-8")), f"{name} needs no exception"
