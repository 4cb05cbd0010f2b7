"""The package says what it needs, and what it ships is there."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import outlast

from . import ROOT, SOURCES

PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
COMES_WITH: Final = {"referencing": "jsonschema"}
"""What a dependency of ours brings and we use with it."""
READ_AS_DATA: Final = {"tzdata"}
"""Never imported: its files are read."""


def imported_by(text: str) -> set[str]:
    """Give the packages that a module imports and neither Python nor this project has."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"outlast"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", one)[0] for one in requirements}


EXTRAS: Final = {
    "server": ("server", "accounts"),
    "client": ("client",),
    "postgres": ("store/postgres",),
    "metrics": ("observe",),
    "otel": ("observe/otel",),
}
"""Extras, and the rooms that they bring the packages for."""
ROOMS_OF_EXTRAS: Final = frozenset(room for rooms in EXTRAS.values() for room in rooms)
COMES_WITH_EXTRA: Final = {
    "server": {"httptools", "prometheus-client"},
    "client": set[str](),
    "postgres": set[str](),
    "metrics": set[str](),
    "otel": {
        "prometheus-client",
        "opentelemetry-api",
        "opentelemetry-exporter-otlp-proto-http",
    },
}
IMPORTED_AS: Final = {
    "argon2": "argon2-cffi",
    "jwt": "pyjwt",
    "opentelemetry": "opentelemetry-sdk",
    "prometheus_client": "prometheus-client",
}
BY_ANOTHER_EXTRA: Final = {"pyjwt": "oidc", "cryptography": "encryption"}
"""What is required and used by another package."""


def room_of(path: Path) -> str:
    parts = path.relative_to(SOURCES).parts
    return "/".join(parts[:2]) if "/".join(parts[:2]) in ROOMS_OF_EXTRAS else parts[0]


def test_what_is_imported_is_required_and_nothing_else() -> None:
    imported = set()
    for path in SOURCES.rglob("*.py"):
        if room_of(path) not in ROOMS_OF_EXTRAS:
            imported |= imported_by(path.read_text("utf-8"))
    assert "cryptography" in names(PROJECT["project"]["optional-dependencies"]["encryption"])
    imported -= BY_ANOTHER_EXTRA.keys()
    required = {COMES_WITH.get(name, name) for name in imported} | READ_AS_DATA
    assert required == names(PROJECT["project"]["dependencies"])
    assert imported_by("def f():\n    import yaml.nodes\n    import os") == {"yaml"}


def test_what_an_extra_brings_is_imported_in_its_room_and_nowhere_else() -> None:
    own = names(PROJECT["project"]["dependencies"])
    for extra, rooms in EXTRAS.items():
        imported = set()
        for path in (path for room in rooms for path in (SOURCES / room).rglob("*.py")):
            if room_of(path) in rooms:
                imported |= imported_by(path.read_text("utf-8"))
        brought = names(PROJECT["project"]["optional-dependencies"][extra])
        used = {IMPORTED_AS.get(name, name) for name in imported} - own
        for name in used & BY_ANOTHER_EXTRA.keys():
            other = PROJECT["project"]["optional-dependencies"][BY_ANOTHER_EXTRA[name]]
            assert name in names(other)
        used -= BY_ANOTHER_EXTRA.keys()
        assert used == brought - COMES_WITH_EXTRA[extra]


def test_everything_that_is_required_is_pinned() -> None:
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups()  # type: ignore[union-attr]
            pinned[re.sub(r"[-_.]+", "-", name).lower()] = version
    project = PROJECT["project"]
    wanted = names(project["dependencies"]) | names(PROJECT["build-system"]["requires"])
    for extra in project["optional-dependencies"].values():
        wanted |= names(extra)
    assert wanted <= pinned.keys()


def test_the_version_has_one_source() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", outlast.__version__)
    assert outlast.__version__ in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_types_are_shipped() -> None:
    assert (SOURCES / "py.typed").exists()
