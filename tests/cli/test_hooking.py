"""The commands about webhooks, on a file and against a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outlast.cli.app import run
from tests.server.conftest import TOKEN, a_server

URL = "https://example.org/hook"
Call = Callable[..., Any]


@pytest.fixture
def outlast(capsys: pytest.CaptureFixture[str]) -> Call:
    def call(store: str, *words: str, code: int = 0, plain: bool = False) -> Any:
        more = () if plain else ("-o", "json")
        got = run(["--store", store, *words, *more])
        said = capsys.readouterr()
        assert got == code, (said.out, said.err)
        return said.out if plain else json.loads(said.out) if code == 0 else said.err

    return call


def story(store: str, outlast: Call) -> None:
    """What is done with a webhook, from its beginning to its end."""
    words = ("--task", "pay", "--state", "failed", "--label", "shop=1", "--description", "books")
    made = outlast(store, "webhook", "add", URL, *words)
    id = made["webhook"]["id"]
    assert made["secret"].startswith("whsec_")
    (row,) = outlast(store, "webhook", "ls")["items"]
    assert row == made["webhook"]
    filter = {"task": "pay", "prefix": None, "states": ["failed"], "transitions": []}
    assert row["filter"] == {**filter, "labels": {"shop": "1"}}
    assert "books" in outlast(store, "webhook", "ls", plain=True)
    assert outlast(store, "webhook", "pause", id, "--why", "later")["state"] == "paused"
    assert outlast(store, "webhook", "ping", id)["number"] == 1
    shown = outlast(store, "webhook", "show", id)
    assert (shown["reason"], shown["pending"]) == ("later", 1)
    assert [one["kind"] for one in shown["deliveries"]] == ["ping"]
    text = outlast(store, "webhook", "show", id, plain=True)
    assert "paused: later" in text and "1, the oldest for" in text
    assert outlast(store, "webhook", "redeliver", id, "1")["state"] == "pending"
    assert "no delivery 7" in outlast(store, "webhook", "redeliver", id, "7", code=4)
    again = outlast(store, "webhook", "rotate", id, "--overlap", "1h")
    assert again["secret"] != made["secret"]
    assert again["webhook"]["former_secret_until"] is not None
    assert outlast(store, "webhook", "rm", id)["removed"]
    assert "no webhook" in outlast(store, "webhook", "show", id, code=4)
    assert outlast(store, "webhook", "ls") == {"items": []}
    assert "cannot be called" in outlast(store, "webhook", "add", "http://example.org/", code=2)
    assert "odd" in outlast(store, "webhook", "add", URL, "--state", "odd", code=2)


def test_on_a_file(tmp_path: Path, outlast: Call) -> None:
    story(f"sqlite:///{tmp_path}/outlast.db", outlast)


def test_against_a_server(outlast: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAST_TOKEN", TOKEN)
    with a_server() as served:
        story(served.url, outlast)
