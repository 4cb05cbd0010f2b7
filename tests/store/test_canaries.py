"""A thousand secrets, one in each thing that can be said: none of them in the files, nor in a log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import apsw
import httpx
import psycopg
import pytest
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from campaigns.matrix.world import Canary, Sower, a_world
from outlast import Engine, task
from outlast.engine.control import token
from outlast.engine.read.doctor import examine
from outlast.engine.task.registry import TASKS
from outlast.engine.write.acting import acting
from outlast.observe.metrics import Metrics
from outlast.observe.otel import Telemetry
from outlast.observe.otel import export as exporting
from outlast.server import veil, webhook
from outlast.server.app import create_app
from outlast.server.auth import FirstToken
from outlast.store import copy_store, open_store
from outlast.store.keys import drawn_line
from outlast.store.protocol import LOGS, Filter
from outlast.store.relational.database import Database
from outlast.store.relational.sealed import SealedDatabase
from outlast.store.relational.secrecy import SEALED, Way
from outlast.store.relational.skeleton import skeleton
from outlast.store.relational.store import RelationalStore
from outlast.store.relational.tables import tables
from outlast.testing.conformance_access import deed
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
        await world.hook()
        await asyncio.to_thread(while_open)
        seen = {one.text for one in world.sower.found_in(await read_all(world.engine, world.ids))}
        assert seen == world.sower.sown.keys(), "who has the keys reads all of it"
        for name in ROOTS:
            await world.engine.journal.call(
                lambda name=name: world.engine.store.secret(name, name.encode().ljust(32, b"*"))
            )
        return dict(world.sower.sown)


async def read_all(engine: Engine, ids: Iterable[str]) -> bytes:
    """Read whatever was sown, as who has the keys may."""
    everything: list[Any] = []
    for id in ids:
        everything += [await engine.read_one(id), *await engine.read_log(id)]
        everything.append(await engine.worker.read(lambda id=id: engine.store.inbox(id)))
        everything.append(await engine.read_progress(id))
        everything.append(await engine.read_stream(id, "said", 0, 100))
    everything += [await engine.schedules.alist(), await engine.webhooks.alist()]
    return b" ".join(repr(one).encode() for one in everything)


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
    """In one of its own, which has stopped: another has the databases of hundreds of tests."""
    with Server(postgres.installation) as own:
        known = asyncio.run(sown(own.database(), 1_000, lambda: None))
        own.execute("CHECKPOINT")
        own.stop()
        assert hits(known, own.directory / "data") == []


def _in_log(sown: dict[bytes, Canary], log: bytes) -> set[str]:
    """Name the places whose canaries stand in a log, as text or as hexadecimal digits."""
    return {one.place for text, one in sown.items() if text in log or text.hex().encode() in log}


@pytest.mark.parametrize("is_sealed", [True, False])
def test_no_secret_is_in_the_log_of_postgresqls_server(
    postgres: Server, monkeypatch: pytest.MonkeyPatch, is_sealed: bool
) -> None:
    """As it comes: keys or none, also of what fails. With all statements logged: with keys."""
    if not is_sealed:
        monkeypatch.delenv("OUTLAST_KEYS")
    path, url = postgres.directory / "log", postgres.database()

    def told(begin: int) -> bytes:
        return path.read_bytes()[begin:]

    begin = path.stat().st_size
    known = asyncio.run(sown(url, 60, lambda: None))
    with pytest.raises(psycopg.Error, match="append-only"), psycopg.connect(url) as line:
        line.execute("UPDATE transition SET actor = 'eve', payload = %s", [next(iter(known))])
    log = told(begin)
    assert b"append-only" in log and _in_log(known, log) == set()

    begin = path.stat().st_size
    postgres.execute("ALTER SYSTEM SET log_statement = 'all'")
    postgres.execute("SELECT pg_reload_conf()")
    try:
        known = asyncio.run(sown(postgres.database(), 60, lambda: None))
    finally:
        postgres.execute("ALTER SYSTEM RESET log_statement")
        postgres.execute("SELECT pg_reload_conf()")
    log = told(begin)
    assert log.count(b"arameters: ") > 100
    found = _in_log(known, log)
    assert found == set() if is_sealed else len(found) > 10


def killed_at(database: Database, count: int) -> None:
    """Have a process die before its so manieth statement, or after the last one was committed."""
    left = iter(range(count))

    def dying(verb: Any) -> Any:
        def tried(*given: Any) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return verb(*given)

        return tried

    def write(act: Any, own: Any = database.write) -> Any:
        result = own(act)
        if next(left, None) is None:
            raise KeyboardInterrupt
        return result

    for name in ("run", "ask_all", "send"):
        setattr(database, name, dying(getattr(database, name)))
    database.write = write  # type: ignore[method-assign]


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_all_that_was_plain_is_sealed_anew_through_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, backend: str
) -> None:
    """Killed before each statement and behind the commit; then again by another data key."""
    is_sqlite = backend == "sqlite"
    url = f"sqlite:///{tmp_path / 'outlast.db'}"
    if not is_sqlite:
        url = request.getfixturevalue("postgres_url")
    monkeypatch.delenv("OUTLAST_KEYS")
    known = asyncio.run(sown(url, 60, lambda: None))
    monkeypatch.setenv("OUTLAST_KEYS", drawn_line("k1"))

    def opened() -> tuple[RelationalStore, SealedDatabase]:
        store = open_store(url, owner="w2", now=2**60)
        assert isinstance(store, RelationalStore)
        assert isinstance(store.database, SealedDatabase)
        return store, store.database

    def plain() -> dict[str, int]:
        """Count what the newest data key has not sealed, by column."""
        store, database = opened()
        head = database.vault.newest
        found = {}
        for one in SEALED:
            keys = tables()[one.table].key[1:]
            bounds = dict.fromkeys(keys, "") | {key: 0 for key in ("seq", "number") if key in keys}
            bounds |= {"head": one.way.head(head), "limit": 10**6}
            rows = database.inner.ask_all(one.stale, bounds)
            if one.way is Way.FACTS:
                rows = [
                    row
                    for row in rows
                    if skeleton(json.loads(str(row[-1]))) != json.loads(str(row[-1]))
                ]
            found[one.name] = len(rows)
        store.close()
        return found

    def seal(database: SealedDatabase) -> int:
        sealed = 0
        while (some := database.seal_anew(50)).looked:
            sealed += some.sealed
        return sealed

    def reseal(kills: Iterable[int]) -> int:
        for count in kills:
            store, database = opened()
            before = dict(vars(database.inner))
            killed_at(database.inner, count)
            with pytest.raises(KeyboardInterrupt):
                seal(database)
            vars(database.inner).clear()
            vars(database.inner).update(before)
            store.close()
        store, database = opened()
        sealed = seal(database)
        database.finish(deed())
        assert database.vault.whole and store.verify().defects == []
        store.close()
        return sealed

    before = plain()
    assert min(before.values()) > 0, before
    assert 0 < reseal(range(0, 30, 1 if is_sqlite else 4)) < sum(before.values()), (
        "also what was killed has gone on"
    )
    assert plain() == dict.fromkeys(before, 0)
    store, database = opened()
    assert database.draw_anew(2**60, deed()) == 2
    store.close()
    assert plain() == before, "the older data key has sealed the same"
    reseal([5])
    assert plain() == dict.fromkeys(before, 0)

    async def read() -> bytes:
        async with Engine(url) as engine:
            return await read_all(
                engine, [one.id for one in await engine.read_page(Filter(limit=500))]
            )

    seen = Sower(known).found_in(asyncio.run(read()))
    assert {one.text for one in seen} == known.keys()
    if is_sqlite:
        shell = apsw.Connection(str(tmp_path / "outlast.db"))
        shell.execute("VACUUM")
        shell.close()
        assert hits(known, tmp_path) == []


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
    spans, measures = InMemorySpanExporter(), InMemoryMetricReader()
    records = InMemoryLogRecordExporter()

    async def story() -> tuple[dict[bytes, Canary], bytes]:
        async with (
            a_world(url, names=False) as world,
            Telemetry(world.engine, exporter=spans, reader=measures, records=records) as telemetry,
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
            measured = measures.get_metrics_data()
            assert measured is not None
            shown.append(measured.to_json())
            await read(lambda: engine.store.backup(tmp_path / "backup.db"))
            return dict(world.sower.sown), b" ".join(repr(one).encode() for one in shown)

    known, shown = asyncio.run(story())
    assert len(shown) > 20_000 and b"outlast_transitions" in shown and b"user:ada" in shown
    assert b"cnry" not in shown
    # What task code itself logs goes where logs go: that, and nothing else that was sown.
    told = [one.to_json() for one in records.get_finished_logs()]
    logged = Sower(known).found_in("".join(told).encode())
    assert {one.place for one in logged} == {"line of a log"} and len(told) > 3
    assert copy_store(url, copy, 2**60).defects == []
    for name in ("backup", "copy"):
        directory = tmp_path / f"in-{name}"
        directory.mkdir()
        (tmp_path / f"{name}.db").rename(directory / f"{name}.db")
        found = hits(known, directory)
        assert found == [] if is_sealed else len(found) > 10, name


def _refusals(id: str, secret: str) -> list[tuple[str, str, Any]]:
    """Requests that are refused, each with something secret in it."""
    home = "/api/v1/executions"
    return [
        ("POST", home, {"task": "billing.total", "input": {"a": {"x": secret}}}),
        ("POST", home, {"task": "billing.total", "input": {"a": "x", "b": secret}}),
        ("POST", home, {"task": "billing.total", "input": [secret]}),
        ("POST", home, {"workflow_id": "billing.total", "input_data": secret}),
        ("POST", home, {"task": "billing.total", "input": {"a": "x"}, "priority": secret}),
        ("POST", f"{home}/{id}/answer", {"value": secret}),
        ("POST", f"{home}/{id}/rerun", {"input": {"b": secret}}),
        ("POST", f"{home}/{id}/budget", {"usd": secret}),
        ("POST", "/api/v1/webhooks", {"url": f"https://[{secret}", "prefix": "x"}),
        ("POST", "/api/v1/webhooks", {"url": f"http://127.0.0.1/{secret}"}),
        ("POST", "/api/v1/answers", {"token": secret, "value": secret}),
        ("POST", "/api/v1/session", {"name": "ada", "password": secret}),
    ]


def test_no_refusal_repeats_what_was_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Problems end in the logs of those who call; nor is it in ours, nor the text of an error."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.delenv("OUTLAST_KEYS")
    secret = f"cnry{'0123456789abcdef'}"

    async def story() -> list[httpx.Response]:
        async with a_world(f"sqlite:///{tmp_path / 'o.db'}", names=False) as world:
            app = create_app(world.engine, FirstToken.of("t" * 40), hosts=("test",))
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url="http://test",
                headers={"authorization": f"Bearer {'t' * 40}"},
            )
            async with client:
                await world.fill(1)
                waiting = await world.engine.aquestions(limit=1)
                id = waiting.items[0].execution_id
                answers = [
                    await client.request(method, path, json=body)
                    for method, path, body in _refusals(id, secret)
                ]

                assert secret not in caplog.text

                def broken(*given: Any) -> Any:
                    raise RuntimeError(secret)

                with monkeypatch.context() as patch:
                    patch.setattr(veil, "page", broken)
                    answers.append(await client.get("/api/v1/executions"))
            return answers

    answers = asyncio.run(story())
    assert {one.status_code for one in answers} >= {400, 422, 500}
    assert all(one.status_code >= 400 for one in answers), [one.text for one in answers]
    assert [one.text for one in answers if secret in one.text] == []
