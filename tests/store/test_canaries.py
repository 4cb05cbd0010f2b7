"""A thousand secrets, one in each thing that can be said: none of them in the files, nor in a log."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from campaigns.matrix.world import Canary, a_world
from outlast import task
from outlast.engine.control import token
from outlast.engine.read.doctor import examine
from outlast.engine.task.registry import TASKS
from outlast.engine.write.acting import acting
from outlast.observe.metrics import Metrics
from outlast.observe.otel import Telemetry
from outlast.observe.otel import export as exporting
from outlast.server import veil, webhook
from outlast.store import copy_store, open_store
from outlast.store.keys import drawn_line
from outlast.store.protocol import LOGS
from servers.postgres import Server

ROOTS: Final = (token.SECRET_NAME, webhook.SECRET, veil.SECRET)


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAST_KEYS", drawn_line("k1"))


async def sown(store: str, count: int, while_open: Any) -> dict[bytes, Canary]:
    """Sow so many canaries, and call something while the engine is open."""
    async with a_world(store, names=False, width=12) as world:
        round = 1
        while len(world.sower.sown) < count:
            await world.fill(round)
            round += 1
        await asyncio.to_thread(while_open)
        everything: list[bytes] = []
        for id in world.ids:  # all of it is there, for who has the keys
            record = await world.engine.read_one(id)
            everything.append(repr(record).encode())
            everything += [repr(row).encode() for row in await world.engine.read_log(id)]
            inbox = await world.engine.worker.read(lambda id=id: world.engine.store.inbox(id))
            everything.append(repr(inbox).encode())
            everything.append(repr(await world.engine.read_progress(id)).encode())
            items = await world.engine.read_stream(id, "said", 0, 100)
            everything.append(repr(items).encode())
        schedules = await world.engine.schedules.alist()
        whole = b" ".join([*everything, repr(schedules).encode()])
        seen = {one.text for one in world.sower.found_in(whole)}
        assert seen == world.sower.sown.keys(), "who has the keys reads all of it"
        for name in ROOTS:
            await world.engine.journal.call(
                lambda name=name: world.engine.store.secret(name, name.encode().ljust(32, b"*"))
            )
        return dict(world.sower.sown)


def hits(sown: dict[bytes, Canary], *directories: Path) -> list[str]:
    """Name the places whose canaries stand in some file; those of roots as well."""
    secret = {text: one.place for text, one in sown.items()}
    found: set[str] = set()
    size = 0
    for path in (one for where in directories for one in where.rglob("*") if one.is_file()):
        data = path.read_bytes()
        size += len(data)
        at = data.find(b"cnry")
        while at >= 0:
            if data[at : at + 20] in secret:
                found.add(f"{secret[data[at : at + 20]]} in {path.name}")
            at = data.find(b"cnry", at + 4)
        found |= {name for name in ROOTS if name.encode().ljust(32, b"*") in data}
    assert size > 100_000
    return sorted(found)


def test_no_secret_is_in_the_file_of_sqlite(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nor in its write-ahead log, in a copy, or in anything that was logged or printed."""
    caplog.set_level(logging.DEBUG)
    url, during = f"sqlite:///{tmp_path / 'outlast.db'}", tmp_path / "during"

    def copy() -> None:
        during.mkdir()
        for path in tmp_path.glob("outlast.db*"):
            (during / path.name).write_bytes(path.read_bytes())

    known = asyncio.run(sown(url, 1_000, copy))
    assert (during / "outlast.db-wal").stat().st_size > 0, "the log was looked at as well"
    assert hits(known, tmp_path) == []
    said = caplog.text + "".join(capfd.readouterr())
    assert "cnry" not in said
    store = open_store(url, owner="w2", now=2**60)
    assert store.verify().defects == []
    store.close()


def test_what_is_plain_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys each place shows: so many were looked at."""
    monkeypatch.delenv("OUTLAST_KEYS")
    url = f"sqlite:///{tmp_path / 'outlast.db'}"
    known = asyncio.run(sown(url, 100, lambda: None))
    found = {one.partition(" in ")[0] for one in hits(known, tmp_path)}
    assert {one.place for one in known.values()} | set(ROOTS) == found


def test_no_secret_is_in_a_data_directory_of_postgresql(postgres: Server) -> None:
    url = postgres.database()
    known = asyncio.run(sown(url, 1_000, lambda: None))
    postgres.execute("CHECKPOINT")
    assert hits(known, postgres.directory / "data") == []


@task(name="billing.aloud")
async def aloud(text: str) -> None:
    """Say something into the log, which is kept with the execution."""
    logging.getLogger("canaries").warning("%s", text)


TASKS.pop(aloud.name)


@pytest.mark.parametrize("is_sealed", [True, False])
def test_no_secret_is_in_what_is_shown_and_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_sealed: bool
) -> None:
    """Metrics, traces, the doctor, the audit: keys or none. A backup and a copy: with keys."""
    if not is_sealed:
        monkeypatch.delenv("OUTLAST_KEYS")
    url, copy = (f"sqlite:///{tmp_path / name}.db" for name in ("own", "copy"))
    monkeypatch.setattr(exporting, "PAUSE_SECONDS", 0.02)
    spans = InMemorySpanExporter()

    async def story() -> tuple[dict[bytes, Canary], bytes]:
        async with (
            a_world(url, names=False) as world,
            Telemetry(world.engine, exporter=spans, reader=False, records=False) as telemetry,
        ):
            engine = world.engine
            while not engine.store.feed.head():
                await asyncio.sleep(0.02)  # sleeps: it looks again
            await world.fill(1)
            engine.adopt(aloud)
            said = world.sower.draw("billing", "payload", "line of a log")
            with acting("user:ada", "api", "test"):
                handle = await engine.astart(aloud, said)
            await handle.aresult()
            while said not in repr(await engine.read_stream(handle.id, LOGS, 0, 10)):
                await asyncio.sleep(0.02)  # sleeps: it looks again; who has the keys reads it
            while telemetry.exported < 5:
                await asyncio.sleep(0.02)  # sleeps: it looks again
            read = engine.worker.read
            shown: list[Any] = [await read(Metrics(engine).text)]
            shown.append(await read(lambda: examine(engine.store, engine.clock.now(), None)))
            shown.append(await read(lambda: engine.store.access.audit(None, 500)))
            shown += [span.to_json() for span in spans.get_finished_spans()]
            await read(lambda: engine.store.backup(tmp_path / "backup.db"))
            return dict(world.sower.sown), b" ".join(repr(one).encode() for one in shown)

    known, shown = asyncio.run(story())
    assert len(shown) > 20_000 and b"outlast_transitions" in shown and b"user:ada" in shown
    assert b"cnry" not in shown
    assert copy_store(url, copy, 2**60).defects == []
    for name in ("backup", "copy"):
        directory = tmp_path / f"in-{name}"
        directory.mkdir()
        (tmp_path / f"{name}.db").rename(directory / f"{name}.db")
        found = hits(known, directory)
        assert found == [] if is_sealed else len(found) > 10, name
