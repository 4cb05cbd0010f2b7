"""Imports point down (``docs/architecture.md``, 1), those for types and in functions as well."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from . import SOURCES

FLOORS: Final = (
    {"errors", "lifecycle"},
    {"codec", "failure", "duration", "naming", "dialects", "access"},
    {"retention", "budget", "schedule", "extras"},
    {"store"},
    {"engine", "accounts"},
    {"blocking", "testing", "client"},
    {"outlast"},  # the package itself: the public names
    {"demo", "story"},
    {"forms"},
    {"observe"},
    {"server"},
    {"cli"},
)
"""From the ground up; a room sees the floors below its own, and nobody on its own."""
FLOOR_OF: Final = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

ENGINE_FLOORS: Final = (
    {"task"},
    {"replay"},
    {"read"},
    {"write"},
    {"steps"},
    {"drive", "primitives", "cluster", "control"},
    {"background", "engine", "guest"},
)
"""The engine's own floors. A room sees nothing beside it or above; for types alone, all."""
ENGINE_FLOOR_OF: Final = {
    room: floor for floor, rooms in enumerate(ENGINE_FLOORS) for room in rooms
}
UP_THE_STAIRS: Final = {("outlast.engine.task.registry", "outlast.engine.control.within")}
"""``task.start`` is said of a task, and starts it where that happens: loaded as it is called."""

MAY_SEE_THE_PACKAGE: Final = {"__version__", "__file__"}
"""What lower floors may take from ``outlast`` itself."""

IMPURE: Final = {
    "time", "random", "os", "logging", "asyncio", "threading", "datetime", "socket", "secrets",
    "uuid", "io", "tempfile", "subprocess", "sqlite3",
}  # fmt: skip
PURE: Final = {"lifecycle", "dialects", "access"}
RECORDS: Final = {"lifecycle": "msgspec"}
"""What a pure room makes its records of; it is as pure as the room (decision 0027)."""
RENDERERS: Final = {
    "outlast.lifecycle.render",
    "outlast.dialects.render",
    "outlast.access.render",
}
"""The modules of the pure rooms that are programs: each writes a page."""

SEAM: Final = {
    "outlast.store", "outlast.store.protocol", "outlast.store.epoch", "outlast.store.webhooks",
}  # fmt: skip
"""What the floors above may see of the store."""


def module_of(path: Path) -> str:
    """Give the dotted name of a file of the package."""
    parts = ("outlast", *path.relative_to(SOURCES).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES: Final = {module_of(path): path for path in sorted(SOURCES.rglob("*.py"))}


def imports_of(module: str, text: str, known: frozenset[str]) -> Iterator[str]:
    """Give every module that a text imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            assert node.module is not None
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & known
            yield from inside
            names = {alias.name for alias in node.names}
            if any(f"{node.module}.{name}" not in inside for name in names):
                own = node.module == "outlast" and names <= MAY_SEE_THE_PACKAGE
                if not own:
                    yield node.module


def room_of(module: str) -> str:
    """Give the room a module stands in: its folder or file right under the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def faults(sources: dict[str, str]) -> list[str]:
    """Give every import that points up, sideways out of its room, or past the seam."""
    known = frozenset(sources)
    found = []
    for module, text in sources.items():
        room = room_of(module)
        for imported in imports_of(module, text, known):
            top = imported.split(".")[0]
            pure = room in PURE and top != "outlast" and module not in RENDERERS
            allowed = top in sys.stdlib_module_names or imported == RECORDS.get(room)
            if pure and (not allowed or top in IMPURE):
                found.append(f"{module} is to be pure and imports {imported}")
            if top != "outlast":
                continue
            target = room_of(imported)
            if target != room and FLOOR_OF[target] >= FLOOR_OF[room]:
                found.append(f"{module} imports {imported}: up, or sideways")
            if target == "store" != room and imported not in SEAM and room != "testing":
                found.append(f"{module} imports {imported}: a backend")
    return found


def engine_faults(sources: dict[str, str]) -> list[str]:
    """Give every import of one of the engine's packages that points up or sideways."""
    known = frozenset(sources)
    found = []
    for module, text in sources.items():
        if room_of(module) != "engine" or module == "outlast.engine":
            continue
        tree = ast.parse(text)
        tree.body = [node for node in tree.body if not _is_for_types(node)]
        own = module.split(".")[2]
        for imported in imports_of(module, ast.unparse(tree), known):
            if not imported.startswith("outlast.engine.") or (module, imported) in UP_THE_STAIRS:
                continue
            target = imported.split(".")[2]
            # the files right under the engine are the top floor, and see each other
            top = ENGINE_FLOOR_OF[own] == ENGINE_FLOOR_OF[target] == len(ENGINE_FLOORS) - 1
            if target != own and not top and ENGINE_FLOOR_OF[target] >= ENGINE_FLOOR_OF[own]:
                found.append(f"{module} imports {imported}: up, or sideways")
    return found


def cycle(sources: dict[str, str]) -> list[str]:
    """Give a cycle of imports that happen when a module is loaded, or nothing."""
    known = frozenset(sources)
    graph: dict[str, set[str]] = {}
    for module, text in sources.items():
        tree = ast.parse(text)
        top = ast.Module([node for node in tree.body if not _is_for_types(node)], [])
        for node in ast.walk(top):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = [ast.Pass()]
        loaded = set(imports_of(module, ast.unparse(top), known)) & known
        graph[module] = loaded - {module}
    path: list[str] = []
    done: set[str] = set()

    def visit(module: str) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        path.append(module)
        for imported in sorted(graph[module]):
            if found := visit(imported):
                return found
        path.pop()
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module))), [])


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def texts() -> dict[str, str]:
    return {module: path.read_text("utf-8") for module, path in MODULES.items()}


def test_imports_point_down() -> None:
    assert faults(texts()) == []


def test_the_engines_imports_point_down() -> None:
    assert engine_faults(texts()) == []


def test_no_import_is_circular() -> None:
    assert cycle(texts()) == []


def test_every_room_has_a_floor() -> None:
    assert {room_of(module) for module in MODULES} == FLOOR_OF.keys()
    rooms = {module.split(".")[2] for module in MODULES if module.startswith("outlast.engine.")}
    assert rooms == ENGINE_FLOOR_OF.keys()


def test_faults_are_seen() -> None:
    planted = {
        "outlast.lifecycle.table": "import time",
        "outlast.lifecycle.decide": "import msgspec.json",
        "outlast.lifecycle.record": "from msgspec import Struct",  # legal
        "outlast.dialects.julep": "import datetime",
        "outlast.access.roles": "from msgspec import Struct",
        "outlast.store.protocol": "if TYPE_CHECKING:\n    from outlast.engine.engine import Engine",
        "outlast.engine.engine": "def f():\n    from outlast.store.sqlite import SqliteStore",
        "outlast.engine.drive.driver": "from outlast import failure",  # legal
        "outlast.failure": "from outlast.codec import codec_for",
        "outlast.store.sqlite": "",
        "outlast.codec": "",
    }
    seen = faults(planted)
    for module in planted:
        legal = not planted[module] or module in (
            "outlast.engine.drive.driver",
            "outlast.lifecycle.record",
        )
        assert any(fault.startswith(module + " ") for fault in seen) != legal, (module, seen)
    rooms = {
        "outlast.engine.task.gate": "def f():\n    from outlast.engine.write.purse import Purse",
        "outlast.engine.drive.driver": "from outlast.engine.control.bulk import Bulk",
        "outlast.engine.write.purse": (
            "if TYPE_CHECKING:\n    from outlast.engine.drive.driver import Driver"  # legal
        ),
        "outlast.engine.control.bulk": "from outlast.engine.write.purse import Purse",  # legal
    }
    blamed = {fault.split()[0] for fault in engine_faults(rooms)}
    assert blamed == {"outlast.engine.task.gate", "outlast.engine.drive.driver"}
    circle = {"outlast.a": "import outlast.b", "outlast.b": "from outlast.a import x"}
    assert cycle(circle) == ["outlast.a", "outlast.b", "outlast.a"]
    assert cycle({**circle, "outlast.b": "def f():\n    import outlast.a"}) == []
