"""The commands about tenants, and --tenant with the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from outlast.cli.supervising import Supervisor, own_command
from outlast.store import open_store
from outlast.testing.conformance import T, born, one


def test_tenants_are_made_listed_closed_and_opened(outlast: Any) -> None:
    assert outlast("tenant", "add", "acme") == "tenant acme made\n"
    assert "name_taken" in outlast("tenant", "add", "acme", code=5)
    assert "no name of a tenant" in outlast("tenant", "add", "A", code=2)
    assert outlast("tenant", "ls", "-o", "ids") == "default\nacme\n"
    assert outlast("tenant", "close", "acme") == "tenant acme closed\n"
    assert outlast("tenant", "close", "acme") == "tenant acme is closed already\n"
    assert "closed since" in outlast("tenant", "ls")
    items = json.loads(outlast("tenant", "ls", "-o", "json"))["items"]
    assert [(item["name"], item["number"]) for item in items] == [("default", 1), ("acme", 2)]
    assert outlast("tenant", "open", "acme") == "tenant acme open\n"
    assert "unknown_tenant" in outlast("tenant", "close", "nobody", code=2)
    assert "never closed" in outlast("tenant", "close", "default", code=2)
    assert "only the default tenant" in outlast("tenant", "ls", "--tenant", "acme", code=2)
    said = outlast("audit", "ls")
    assert said.count("tenant:acme") == 3


def test_a_command_is_about_one_tenant(url: str, outlast: Any) -> None:
    outlast("tenant", "add", "acme")
    for name, id in (("default", "ex_mine"), ("acme", "ex_theirs")):
        store = open_store(url, owner=None, now=T, tenant=name)
        assert one(store, born(id, tenant=store.tenant)).refused is None
        store.close()
    assert outlast("ls", "-o", "ids").split() == ["ex_mine"]
    assert outlast("ls", "-o", "ids", "--tenant", "acme").split() == ["ex_theirs"]
    assert "not_found" in outlast("show", "ex_theirs", code=4)
    assert "not_found" in outlast("cancel", "ex_mine", "--tenant", "acme", code=4)
    assert "unknown_tenant" in outlast("ls", "--tenant", "nobody", code=2)
    assert "about one tenant" in outlast("ls", "--tenant", "acme", "--tenant", "default", code=2)


def test_verify_looks_through_all(url: str, outlast: Any) -> None:
    outlast("tenant", "add", "acme")
    store = open_store(url, owner="w1", now=T, tenant="acme")
    one(store, born("ex_1", tenant=store.tenant))
    store.file.writer.execute("DROP TRIGGER transition_kept; DELETE FROM transition")  # type: ignore[attr-defined]
    store.close()
    assert "tenant acme: ex_1" in outlast("db", "verify", code=7)
    assert "0 executions" in outlast("db", "verify", "--tenant", "default")


def test_a_backup_and_a_copy_have_all(url: str, outlast: Any, tmp_path: Path) -> None:
    outlast("tenant", "add", "acme")
    store = open_store(url, owner="w1", now=T, tenant="acme")
    one(store, born("ex_1", tenant=store.tenant))
    store.close()
    assert "1 executions" in outlast("db", "backup", str(tmp_path / "copy.db"))
    target = f"sqlite:///{tmp_path}/other.db"
    outlast("db", "copy", url, target)
    copy = open_store(target, owner=None, now=T, tenant="acme")
    assert [record and record.id for record in copy.get(["ex_1"])] == ["ex_1"]
    copy.close()


def test_what_lives_is_not_copied(url: str, outlast: Any, tmp_path: Path) -> None:
    outlast("tenant", "add", "acme")
    store = open_store(url, owner="w1", now=T, tenant="acme")
    said = outlast("db", "copy", url, f"sqlite:///{tmp_path}/other.db", code=5)
    assert "store_owned" in said
    store.close()


def test_each_tenant_has_processes_of_its_own() -> None:
    words = ["worker", "app.py", "--tenant", "a", "--tenant=b", "--processes", "2"]
    assert own_command(words, several=True)[3:] == ["worker", "app.py"]
    supervisor = Supervisor(["true"], 2, print, tenants=("a", "b"))
    assert [(place.number, place.tenant) for place in supervisor.places] == [
        (1, "a"),
        (2, "a"),
        (3, "b"),
        (4, "b"),
    ]
    assert [place.tenant for place in Supervisor(["true"], 1, print).places] == [None]


def test_keys_of_all_tenants_are_wrapped(
    outlast: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is taken out when everything is wrapped by the next one: nobody may be forgotten."""
    from outlast.store import new_key

    old, new = new_key("k1"), new_key("k2")
    monkeypatch.setenv("OUTLAST_KEYS", old)
    outlast("db", "init")
    outlast("db", "encrypt")
    outlast("tenant", "add", "acme")
    monkeypatch.setenv("OUTLAST_KEYS", f"{new}\n{old}")
    assert "2 data keys are wrapped by k2" in outlast("db", "rewrap")
    monkeypatch.setenv("OUTLAST_KEYS", new)
    outlast("ls", "--tenant", "acme")
    outlast("ls")
