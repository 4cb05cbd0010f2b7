"""Several processes on one store, of which one has no keys."""

from __future__ import annotations

import pytest

from outlast.errors import KeyMissing
from outlast.lifecycle import MessageKind
from outlast.store import open_store
from outlast.store.keys import drawn_line
from outlast.store.protocol import Deliver
from outlast.testing.conformance import T, born, codes, message


def test_who_has_no_keys_writes_nothing_once_somebody_has(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had opened the store before: what it writes would be in the clear."""
    before = open_store(postgres_url, owner="w1", now=1)
    guest = open_store(postgres_url, owner=None, now=1)
    monkeypatch.setenv("OUTLAST_KEYS", drawn_line("k1"))
    sealed = open_store(postgres_url, owner="w2", now=2)
    monkeypatch.delenv("OUTLAST_KEYS")
    assert sealed.sealing is not None and before.sealing is None
    assert codes(sealed.commit([born("ex_1", payload=b'"mine"')])) == [None]
    signal = message("m", MessageKind.SIGNAL, payload=b'"secret"', key="paid")
    for store in (before, guest):
        for item in (born("ex_2", payload=b'"secret"'), Deliver("ex_1", signal, T)):
            with pytest.raises(KeyMissing):
                store.commit([item])
    assert sealed.get(["ex_2"]) == [None] and sealed.inbox("ex_1") == []
    assert sealed.verify().defects == []
    for store in (before, guest, sealed):
        store.close()


def test_what_was_plain_before_goes_on(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(postgres_url, owner="w1", now=1)
    assert codes(store.commit([born("ex_1", payload=b'"plain"')])) == [None]
    monkeypatch.setenv("OUTLAST_KEYS", drawn_line("k1"))
    sealed = open_store(postgres_url, owner="w2", now=2)
    assert codes(sealed.commit([born("ex_2", payload=b'"sealed"')])) == [None]
    assert [sealed.log(id)[0].payload for id in ("ex_1", "ex_2")] == [b'"plain"', b'"sealed"']
    with pytest.raises(KeyMissing):
        store.commit([born("ex_3", payload=b'"plain"')])
    store.close()
    sealed.close()
