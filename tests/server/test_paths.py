"""Which endpoint a path leads to: by whole segments, and nothing in between."""

from __future__ import annotations

import pytest

from outlast.server.paths import Paths, path_of

PATHS = Paths({one: one for one in ("/a", "/a/{id}", "/a/{id}/b", "/a/x/{name}", "/a/{id}/c/{n}")})


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/a", ("/a", {})),
        ("/a/7", ("/a/{id}", {"id": "7"})),
        ("/a/7/b", ("/a/{id}/b", {"id": "7"})),
        ("/a/x", ("/a/{id}", {"id": "x"})),
        ("/a/x/y", ("/a/x/{name}", {"name": "y"})),
        ("/a/x/b", ("/a/x/{name}", {"name": "b"})),  # what is written out goes first
        ("/a/x/c/9", ("/a/{id}/c/{n}", {"id": "x", "n": "9"})),  # and back, where it leads nowhere
        ("/a/{id}", ("/a/{id}", {"id": "{id}"})),
        ("", None),
        ("a", None),
        ("/", None),
        ("/a/", None),
        ("//a", None),
        ("/a//b", None),
        ("/a/7/b/", None),
        ("/b", None),
    ],
)
def test_a_path_leads_to_one_endpoint(path: str, found: object) -> None:
    assert PATHS.find(path) == found


def test_it_can_be_mounted_below_another_app() -> None:
    assert path_of({"path": "/outlast/a", "root_path": "/outlast"}) == "/a"
    assert path_of({"path": "/outlasting/a", "root_path": "/outlast"}) == "/outlasting/a"
    assert path_of({"path": "/a"}) == "/a"
