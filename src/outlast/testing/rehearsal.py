"""Replay what is recorded against today's code, and say which executions would not go on.

The driver is the engine's own; only what is around it writes nothing, starts nothing and lets no
time pass. It is told that no row of its is ever on the disk, so no step's body starts. Executions
are read and replayed one after another, so the memory that is used does not grow with their number.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from outlast.codec import PAYLOAD_BYTES_MAX
from outlast.duration import Duration, microseconds
from outlast.engine.drive.driver import Driver
from outlast.engine.engine import Engine
from outlast.engine.task.current import current_scope
from outlast.engine.task.registry import TASKS, VERSIONS, Task, code_for
from outlast.engine.write.purse import Ledger
from outlast.engine.write.tally import Tally
from outlast.errors import OutlastError, ReplayMismatch
from outlast.lifecycle import OPEN, BrokenLog, Execution, Kind, State, Transition, fold
from outlast.lifecycle.reason import account
from outlast.store import open_store
from outlast.store.protocol import Filter, Store, Write
from outlast.testing.history import _ending, load_history

PAGE: Final = 500
"""Executions that are looked up at once."""
_ENDS: Final = frozenset({Kind.FINISH, Kind.ERROR, Kind.RETRY})
_NONCE: Final = bytes(16)


@dataclass(frozen=True, slots=True)
class Checked:
    """What would become of one execution with today's code.

    Attributes:
        execution_id: the execution.
        task: its task.
        state: the state it is in.
        verdict: ``fits``, ``mismatch``, ``no_task``, or ``hangs``: its code did not come to rest.
        text: what is the matter; "" where it fits.
        facts: both sides, as :func:`outlast show` shows them; empty where it fits.
        source: the file of a history; None for an execution of a store.
    """

    execution_id: str
    task: str
    state: State
    verdict: str
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    source: Path | None = None

    @property
    def fits(self) -> bool:
        """Whether it would go on."""
        return self.verdict == "fits"


def check(
    source: Engine | Store | str | Path | Iterable[str | Path],
    *,
    tasks: Iterable[Task[Any, Any]] | None = None,
    task: str | None = None,
    limit: int | None = None,
    patience: Duration = "5s",
) -> list[Checked]:
    """Replay the open executions of a store, or saved histories, against today's code.

    Nothing is written and no body of a step runs.

    Args:
        source: an open engine, a store, the address of one (``sqlite:///outlast.db``); or files
            that :func:`save_history` has written.
        tasks: today's code; by default every task defined in this process.
        task: only executions of this task.
        limit: at most so many executions, the newest first.
        patience: how long the code of a ``def`` task may take to come to rest.

    Returns:
        One entry for each execution; see :func:`assert_fits` for tests.

    Raises:
        CannotLoad: a file is no history.
        SchemaMismatch, StoreBroken: the store cannot be read.
    """
    known = TASKS if tasks is None else {one.name: one for one in tasks}
    with Rehearsal(known, patience_us=microseconds(patience)) as rehearsal:
        return list(checks(source, rehearsal, task=task, limit=limit))


def assert_fits(found: Sequence[Checked]) -> None:
    """See that there was something to check, and that all of it would go on.

    Raises:
        ReplayMismatch: at least one would not.
    """
    broken = [one for one in found if not one.fits]
    if broken:
        raise ReplayMismatch(
            f"{len(broken)} of {len(found)} executions would not go on with today's code",
            where=", ".join(f"{one.execution_id}, task {one.task}" for one in broken[:5]),
            why=broken[0].text,
            do='put if changed("name"): around the edit, or bring the old code back',
        )


def checks(
    source: Engine | Store | str | Path | Iterable[str | Path],
    rehearsal: Rehearsal,
    *,
    task: str | None = None,
    limit: int | None = None,
) -> Iterator[Checked]:
    """Give what :func:`check` gives, one by one."""
    for state, rows, path in islice(_logs(source, task), limit):
        yield rehearsal.check(state, rows, path)


_Log = tuple[State, Sequence[Transition], Path | None]


def _logs(source: Any, task: str | None) -> Iterator[_Log]:
    if isinstance(source, Engine):
        source = source.store
    if isinstance(source, str) and (source == "memory:" or "://" in source):
        store = open_store(source, owner=None, now=0)
        try:
            yield from _open_logs(store, task)
        finally:
            store.close()
    elif isinstance(source, str | Path):
        yield from _saved_logs([source], task)
    elif hasattr(source, "page"):
        yield from _open_logs(source, task)
    else:
        yield from _saved_logs(source, task)


def _open_logs(store: Store, task: str | None) -> Iterator[_Log]:
    wanted = Filter(states=OPEN, task=task, limit=PAGE)
    while True:
        page = store.page(wanted)
        for record in page:
            rows = store.log(record.id)
            if rows and rows[-1].to_state in OPEN:  # else it has ended meanwhile
                yield rows[-1].to_state, rows, None
        if len(page) < PAGE:
            return
        wanted = replace(wanted, before_id=page[-1].id)


def _saved_logs(paths: Iterable[str | Path], task: str | None) -> Iterator[_Log]:
    for one in map(Path, paths):
        for file in sorted(one.glob("**/*.jsonl")) if one.is_dir() else [one]:
            rows = load_history(file)
            if task is None or (rows[0].data or {}).get("task") == task:
                yield rows[-1].to_state, rows, file


class Rehearsal:
    """A place for drivers where nothing is written; use it with ``with``.

    Args:
        tasks: today's code, by name.
        patience_us: how long the code of a ``def`` task may take to come to rest.
    """

    def __init__(
        self, tasks: Mapping[str, Task[Any, Any]], *, patience_us: int = 5_000_000
    ) -> None:
        self._tasks = tasks
        self._versions = {
            (one.name, one.version): one
            for one in (VERSIONS.values() if tasks is TASKS else tasks.values())
            if one.version is not None
        }
        self._patience_seconds = patience_us / 1e6
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Rehearsal:
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.close()

    def check(self, state: State, rows: Sequence[Transition], path: Path | None = None) -> Checked:
        """Say what would become of the execution with this log."""
        birth = rows[0]
        name = str((birth.data or {}).get("task"))

        def verdict(word: str, text: str = "", facts: Mapping[str, Any] | None = None) -> Checked:
            return Checked(birth.execution_id, name, state, word, text, facts or {}, path)

        try:
            record = fold(rows)
        except BrokenLog as error:
            return verdict("mismatch", f"its log is broken: {error}")
        task = code_for(record, self._tasks, self._versions)
        if task is None:
            pinned = "" if record.pin is None else f" of version {record.pin}"
            return verdict("no_task", f"today's code has no task {name}{pinned}")
        if all(row.kind is not Kind.START for row in rows):
            try:
                task.input.unbind(birth.payload or b"{}")
            except OutlastError as error:
                said = f"its input cannot be read by the task's parameters: {error.why}"
                return verdict("mismatch", said, {"where": task.where})
            return verdict("fits")
        kept = list(rows)
        end = kept.pop() if kept[-1].kind in _ENDS or kept[-1].to_state not in OPEN else None
        if end is not None and end.kind not in _ENDS:
            end = None  # it was ended from outside: where it stood is all there is to compare
        try:
            written, is_quiet = self._replay(task, kept)
        except BrokenLog as error:
            return verdict("mismatch", f"its log is broken: {error}")
        for row in written:
            if row.kind is Kind.SUSPEND:
                facts = row.data or {}
                return verdict("mismatch", account(facts), facts)
        if not is_quiet:
            return verdict(
                "hangs", f"its code did not come to rest in {self._patience_seconds:g} s"
            )
        said_end = _differing_end(end, written)
        return verdict("fits") if said_end is None else verdict("mismatch", said_end)

    def _replay(
        self, task: Task[Any, Any], rows: Sequence[Transition]
    ) -> tuple[list[Transition], bool]:
        """Bring an execution back to where its log ends; gives what its driver would write next."""
        home = _Home(self._loop, rows[-1].at)
        driver = _Rehearsed(home, task, _claimed(rows), rows[0])
        driver.stop = self._loop.stop
        failures: list[BaseException] = []

        def begin() -> None:
            try:
                driver.replay(rows, [])
            except Exception as error:  # noqa: BLE001 - told below, outside the loop's callback
                failures.append(error)
            if driver.is_at_rest:
                self._loop.stop()

        self._loop.call_soon(begin)
        alarm = self._loop.call_later(self._patience_seconds, self._loop.stop)
        self._loop.run_forever()
        alarm.cancel()
        is_quiet = driver.is_at_rest
        self._loop.call_soon(driver.drop)
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()
        if failures:
            raise failures[0]
        return home.written, is_quiet


def _claimed(rows: Sequence[Transition]) -> Execution:
    """Fold a log, as if somebody had just claimed the execution."""
    record = fold(rows)
    record.state, record.nonce, record.worker = State.STARTING, _NONCE, "check"
    record.fence += 1
    record.paused_from = record.pause_at = record.detail = None
    return record


def _differing_end(end: Transition | None, written: Sequence[Transition]) -> str | None:
    if end is None:
        return None
    mine = next((row for row in written if row.kind in _ENDS), None)
    if mine is None:
        return f"row {end.seq} is its end ({_ending(end)}), but today's code goes on"
    if _ending(mine) != _ending(end):
        return f"row {end.seq}: it ended so: {_ending(end)}; today it ends so: {_ending(mine)}"
    return None


class _Rehearsed(Driver):
    """A driver that says when the code of a ``def`` task has come to rest."""

    stop: Callable[[], None]

    @property
    def is_at_rest(self) -> bool:
        scope = self.playback.scope
        return scope is None or self.is_over or (scope.is_quiet and not self.playback.outcomes)

    def _thread_is_quiet(self) -> None:
        super()._thread_is_quiet()
        if self.is_at_rest:
            self.stop()


class _Home:
    """Around a driver: a clock that stands still, and a journal that answers nothing."""

    payload_bytes_max = PAYLOAD_BYTES_MAX
    cancel_grace_us = 30_000_000
    watched = 0
    processes = remote = None

    def __init__(self, loop: asyncio.AbstractEventLoop, now: int) -> None:
        self.journal: Any = self
        self.clock: Any = self
        self.loop: Any = self
        self.ledger = Ledger()
        self.tally = Tally()
        self.task_threads: Executor = _Threads()
        self.context = contextvars.copy_context()
        self.context.run(current_scope.set, None)
        self.written: list[Transition] = []
        self._now = now

    def now(self) -> int:
        return self._now

    def submit(self, item: Any, submitter: object) -> None:
        if isinstance(item, Write):
            self.written.extend(item.rows)

    def call_later(self, delay: float, callback: Any, *args: Any) -> _Home:
        return self  # its time never comes

    def cancel(self) -> None:
        """Cancel what never comes."""

    def in_thread(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a rehearsal starts no body")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _ignore  # what a worker would hear of its drivers


def _ignore(*args: object, **kwargs: object) -> None:
    """Nobody listens."""


class _Threads(Executor):
    """A thread for each function, which does not keep the process from ending."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        threading.Thread(target=fn, args=args, kwargs=kwargs, daemon=True).start()
        return Future()


__all__ = ["Checked", "Rehearsal", "assert_fits", "check", "checks"]
