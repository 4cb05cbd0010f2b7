"""Which endpoint a path leads to: its segments, compared one by one; nothing else decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

from outlast.server.guard import Scope

T = TypeVar("T")
_ANY: Final = ""
"""What stands for a segment with a name: no segment of a path is empty."""


class _Node(Generic[T]):
    __slots__ = ("endpoint", "names", "nodes")

    def __init__(self) -> None:
        self.nodes: dict[str, _Node[T]] = {}
        self.names: tuple[str, ...] = ()
        self.endpoint: T | None = None


class Paths(Generic[T]):
    """A tree of segments; a segment that is written out goes before one with a name.

    Args:
        endpoints: by path, in which ``{name}`` is one segment.
    """

    def __init__(self, endpoints: Mapping[str, T]) -> None:
        self._root: _Node[T] = _Node()
        for path, endpoint in endpoints.items():
            node, names = self._root, []
            for segment in path.split("/")[1:]:
                is_named = segment.startswith("{")
                if is_named:
                    names.append(segment[1:-1])
                node = node.nodes.setdefault(_ANY if is_named else segment, _Node())
            node.endpoint, node.names = endpoint, tuple(names)

    def find(self, path: str) -> tuple[T, dict[str, str]] | None:
        """Give the endpoint of a path, and its named segments."""
        segments = path.split("/")
        if segments[0]:
            return None
        return _find(self._root, segments, 1, ())


def _find(
    node: _Node[T], segments: list[str], place: int, taken: tuple[str, ...]
) -> tuple[T, dict[str, str]] | None:
    while place < len(segments):
        segment = segments[place]
        if not segment:
            return None
        place += 1
        written, named = node.nodes.get(segment), node.nodes.get(_ANY)
        if written is not None and named is not None:  # what is written out goes first
            found = _find(written, segments, place, taken)
            if found is not None:
                return found
            written = None
        if written is not None:
            node = written
        elif named is not None:
            node, taken = named, (*taken, segment)
        else:
            return None
    if node.endpoint is None:
        return None
    return node.endpoint, dict(zip(node.names, taken, strict=True))


def path_of(scope: Scope) -> str:
    """Give the path below the one that the app is mounted at."""
    path: str = scope["path"]
    root: Any = scope.get("root_path", "")
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :]
    return path


__all__ = ["Paths", "path_of"]
