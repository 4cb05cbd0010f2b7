"""Save the logs of executions, and replay them later against the code as it is then.

Nothing is simulated: the saved rows are put into a store in memory, an engine opens it, takes the
execution over as after a crash, and its driver brings the code back to where the log ends. But the
engine's journal answers nothing. As no body starts before what was delivered is durable, no body
ever starts; what the driver would write first is there to be compared with what was recorded. Of a
history that has ended, the last row is left out, for the code to come to it by itself.

A file is JSON lines: the first says what it is, each further one is a row of the log. Payloads
(inputs, results, answers) are in it as they were.
"""

from __future__ import annotations

import glob
import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from outlast.duration import instant
from outlast.engine.control.handle import Execution
from outlast.engine.engine import Engine
from outlast.engine.task.registry import TASKS, Task
from outlast.engine.write.journal import Journal
from outlast.engine.write.request import new_message
from outlast.errors import CannotLoad, NotFound, ReplayMismatch
from outlast.lifecycle import BrokenLog, Kind, MessageKind, State, Transition, fold
from outlast.lifecycle.reason import account
from outlast.lifecycle.record import TRANSITION_COLUMNS
from outlast.store import open_store
from outlast.store.protocol import Create, Deliver, Store
from outlast.testing.virtual import LoopJournal, VirtualEngine

FORMAT: Final = 1
_HEAD: Final = "outlast_history"
_COMPARED: Final = frozenset({Kind.FINISH, Kind.ERROR, Kind.RETRY})
"""The ends, of an execution or one try of it, that the code came to by itself."""
_DELIVERED: Final = frozenset(
    {Kind.STEP, Kind.TIMER_FIRED, Kind.INPUT_RECEIVED, Kind.SIGNAL_RECEIVED, Kind.CANCEL_REQUESTED}
)
_SPECIAL: Final = {"execution_id", "tenant"}


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of replaying one history.

    Attributes:
        path: the file.
        execution_id: whose history it is.
        task: the task.
        outcomes: how many recorded outcomes (results, timers, answers …) there were to deliver.
        mismatch: how today's code differs from what is recorded; None: it does not.
    """

    path: Path
    execution_id: str
    task: str
    outcomes: int
    mismatch: str | None


def save_history(
    source: Engine | Store | str, execution: Execution[Any] | str, path: str | Path
) -> Path:
    """Write the log of an execution into a file, for :func:`replay`.

    Args:
        source: an open engine, a store, or the address of one, as ``sqlite:///outlast.db``.
        execution: the execution or its id; it need not have ended.
        path: the file to write; by convention it ends in ``.jsonl``.

    Raises:
        NotFound: there is no such execution.
    """
    id = execution if isinstance(execution, str) else execution.id
    if isinstance(source, str):
        store = open_store(source, owner=None, now=0)
        try:
            rows = store.log(id)
        finally:
            store.close()
    else:
        rows = (source.store if isinstance(source, Engine) else source).log(id)
    if not rows:
        raise NotFound(f"there is no execution {id}", do="outlast ls")
    head = {_HEAD: FORMAT, "execution": id, "task": fold(rows).task}
    lines = [head, *(_as_line(row) for row in rows)]
    file = Path(path)
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return file


def _as_line(row: Transition) -> dict[str, object]:
    line: dict[str, object] = {}
    for name in TRANSITION_COLUMNS:
        value = getattr(row, name)
        if value is None or name in _SPECIAL:
            continue
        if name == "nonce":
            value = value.hex()
        elif name == "payload":
            value = value.decode()
        line[name] = value
    return line


def load_history(path: str | Path) -> list[Transition]:
    """Read a file that :func:`save_history` has written.

    Raises:
        CannotLoad: it is not there, or is not such a file.
    """
    try:
        head, *lines = [
            msgspec.json.decode(line) for line in Path(path).read_bytes().splitlines() if line
        ]
        if head[_HEAD] != FORMAT:
            raise ValueError(f"its format is {head[_HEAD]}, this version reads {FORMAT}")
        rows = [_row(head["execution"], line) for line in lines]
        fold(rows)
    except OSError as error:
        raise CannotLoad(f"no history can be read from {path}", why=str(error)) from None
    except (ValueError, KeyError, TypeError, BrokenLog, msgspec.DecodeError) as error:
        raise CannotLoad(
            f"{path} is no history, or a broken one",
            why=f"{type(error).__name__}: {error}",
            do="write it again: outlast.testing.save_history(…)",
        ) from None
    return rows


def _row(id: str, line: dict[str, Any]) -> Transition:
    return Transition(
        tenant=1,
        execution_id=id,
        seq=line["seq"],
        kind=Kind(line["kind"]),
        from_state=State(line["from_state"]) if "from_state" in line else None,
        to_state=State(line["to_state"]),
        fence=line["fence"],
        nonce=bytes.fromhex(line["nonce"]) if "nonce" in line else None,
        actor=line["actor"],
        at=line["at"],
        key=line.get("key"),
        digest=line.get("digest"),
        data=line.get("data"),
        payload=line["payload"].encode() if "payload" in line else None,
    )


def replay(
    paths: str | Path | Iterable[str | Path],
    *,
    module: str | None = None,
    tasks: Iterable[Task[Any, Any]] | None = None,
) -> list[Replayed]:
    """Replay histories against today's code; no body of any step runs.

    Args:
        paths: files, or patterns as ``tests/histories/*.jsonl``.
        module: a module to import first, as it defines the tasks.
        tasks: the tasks; by default every task defined in this process.

    Returns:
        One entry for each history.

    Raises:
        ReplayMismatch: for at least one, today's code does something else than is recorded.
        CannotLoad: there is no file at all, or one is no history.
    """
    if module is not None:
        importlib.import_module(module)
    known = TASKS if tasks is None else {task.name: task for task in tasks}
    patterns = [paths] if isinstance(paths, str | Path) else list(paths)
    files = [file for pattern in patterns for file in _files(pattern)]
    if not files:
        raise CannotLoad(
            "there is no history to replay",
            why=f"no file is called {', '.join(map(str, patterns))}",
            do="write one: outlast.testing.save_history(…)",
        )
    found = [_replay_one(file, load_history(file), known) for file in files]
    broken = [one for one in found if one.mismatch is not None]
    if broken:
        raise ReplayMismatch(
            f"{len(broken)} of {len(found)} histories do not replay against today's code",
            where="\n  ".join(
                ["", *(f"{one.path}, task {one.task}: {one.mismatch}" for one in broken)]
            )
            + "\n",
            why="an execution that goes on must ask for what it has recorded, in that order",
            do="bring the order, names and arguments of these calls back, or give the new code "
            "a task of another name and let the old executions end first",
        )
    return found


def _files(pattern: str | Path) -> list[Path]:
    if Path(pattern).is_file():
        return [Path(pattern)]  # whatever its name has in it
    return [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]


def _replay_one(path: Path, rows: Sequence[Transition], tasks: Any) -> Replayed:
    record = fold(rows)
    task = tasks.get(record.task)
    outcomes = sum(row.kind in _DELIVERED for row in rows)
    mismatch: str | None
    if task is None:
        mismatch = "no task of this name is defined (module=… imports it)"
    else:
        kept = list(rows)
        end = kept.pop() if record.is_final else None
        if kept[-1].kind is Kind.RETRY:
            end = kept.pop()
        engine = _ReplayingEngine(kept, task)
        with engine:
            mismatch = engine.mismatch(end)
    return Replayed(path, record.id, record.task, outcomes, mismatch)


class _ReplayingEngine(VirtualEngine):
    """An engine that takes one execution over and writes nothing."""

    def __init__(self, rows: Sequence[Transition], task: Task[Any, Any]) -> None:
        now = max(row.at for row in rows)
        super().__init__(tasks=[task], start_at=instant(now))
        record = fold(rows)
        self._id = record.id
        self._held: list[Transition] = []
        self._memory.commit([Create(record, list(rows))])
        if not record.is_leased:
            resume = new_message(MessageKind.RESUME, "replay")
            self._memory.commit([Deliver(record.id, resume, now)])
        self._memory._records[record.id].idle_claims = 0  # however often its workers died

    def _make_journal(self, store: Store) -> Journal:
        return _SilentJournal(store, self._virtual, self._held)

    def mismatch(self, end: Transition | None) -> str | None:
        """Let it come to rest and compare what it would write with how the history ends."""
        self._virtual.run_until_quiet()
        for row in self._held:
            if row.kind is Kind.SUSPEND:
                return _difference(row.data or {})
        if not self._held:
            return self._not_brought_back()
        if end is None or end.kind not in _COMPARED:
            return None
        mine = next((row for row in self._held if row.kind in _COMPARED), None)
        if mine is None:
            return f"row {end.seq} is its end ({_ending(end)}), but the code {self._wants()}"
        if _ending(mine) != _ending(end):
            return f"row {end.seq}: it ended so: {_ending(end)}; now it ends so: {_ending(mine)}"
        return None

    def _not_brought_back(self) -> str | None:
        """Say why the code was not run: a check that checks nothing must not pass."""
        if all(row.kind is not Kind.START for row in self.store.log(self._id)):
            return None  # it never was: whatever it does now is new
        (record,) = self.store.get([self._id])
        assert record is not None
        return f"it cannot be brought back to where it was: it stays {record.state}"

    def _wants(self) -> str:
        driver = self.worker.drivers.get(self._id)
        scope = None if driver is None else driver.playback.scope
        if scope is None:
            return "does not come to it"
        timer = scope.next_timer()
        keys = [*scope.open_calls, *([] if timer is None else ["a timer"])]
        return f"goes on and wants {', '.join(keys) or 'something that never comes'}"

    def _end(self) -> None:
        for driver in list(self.worker.drivers.values()):
            driver.drop()
        super()._end()

    def close(self) -> int:
        """Drop everything: there is nothing to hand back, as nothing is written."""
        for driver in list(self.worker.drivers.values()):
            driver.drop()
        return super().close()


class _SilentJournal(LoopJournal):
    """Keeps the rows that it is given, and answers nobody; claims and sweeps go through."""

    def __init__(self, store: Store, loop: Any, held: list[Transition]) -> None:
        self._held = held
        super().__init__(store, loop)

    def _one(self, post: Any) -> None:
        if not isinstance(post, list):
            super()._one(post)
            return
        for item, _ in post:
            self._held.extend(item.rows)
            self._pending -= 1


def _ending(row: Transition) -> str:
    if row.kind is Kind.FINISH:
        return f"result {(row.payload or b'null').decode()}"
    error: Any = (row.data or {}).get("error") or {}
    said = f"{error.get('type')}: {error.get('message')}"
    return f"{said}, to be tried again" if row.kind is Kind.RETRY else said


def _difference(data: Any) -> str:
    """Say what a suspension as ``code_mismatch`` is about."""
    recorded, wanted = data.get("recorded"), data.get("wanted")
    if recorded is None:
        return account(data)
    key = recorded["key"]
    for one in wanted:
        if one["key"] == key and str(key).startswith("timer#"):
            return f"row {data['seq']}: {key} is due at another instant than recorded"
        if one["key"] == key:
            return f"row {data['seq']}: {key} is called with other arguments than recorded"
    asked = ", ".join(str(one["key"]) for one in wanted) or "nothing (it has ended, or waits)"
    return f"row {data['seq']}: recorded is {key}, the code wants {asked}"
