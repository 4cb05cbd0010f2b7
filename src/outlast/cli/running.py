"""The commands that run code: run, start, worker."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from outlast.cli.exits import BROKEN_PIPE, OK
from outlast.cli.logs import logged
from outlast.cli.outlet import Outlets
from outlast.cli.session import Session, instant_of, read_stdin, shared, span_of, typed
from outlast.cli.signals import Signals
from outlast.cli.telling import OTEL, told
from outlast.cli.words import one_line
from outlast.errors import OutlastError, SchemaMismatch, StoreOwned, UsageError
from outlast.extras import needed
from outlast.naming import checked_name

if TYPE_CHECKING:
    from outlast.cli.arguments import Call
    from outlast.engine.engine import Engine
    from outlast.engine.guest import Guest
    from outlast.engine.task.registry import Task
    from outlast.lifecycle import Execution

    Twin = tuple[Execution, int]

_TASK_WORDS = {"ignore_unknown_options": True, "allow_interspersed_args": True}
ORIGIN = "run"
"""What the executions are marked with that ``outlast run`` starts, and goes on with."""


@click.command(context_settings=_TASK_WORDS)
@click.argument("target", metavar="FILE:TASK")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--name VALUE]…")
@click.option(
    "--json",
    "document",
    metavar="JSON",
    help="All arguments in one object or array; - reads stdin.",
)
@click.option("--key", help="The same key and input: the same execution, also when it has ended.")
@click.option(
    "--new", is_flag=True, help="Start anew, also if one with the same input is under way."
)
@click.option(
    "--timeout", metavar="DURATION", help="How long to wait; the execution itself goes on."
)
@shared
@logged
def run(
    session: Session,
    target: str,
    words: Sequence[str],
    document: str | None,
    key: str | None,
    new: bool,
    timeout: str | None,
) -> int:
    """Start a task, or go on with it, and wait for its end.

    Kill it at any moment and type the same command again: it goes on from the last finished step.
    Arguments are given by name, or plainly in order; what stands after -- is never an option of
    outlast. Ctrl-C detaches: the execution is kept. On a server, the name of a task is enough,
    where its code is not at hand.
    """
    from outlast.cli.watching import Watch, conclude
    from outlast.engine.engine import Engine

    wait_us = span_of("--timeout", timeout)
    if key is not None:
        checked_name(key, "key")
    if session.is_remote:
        return _run_there(session, _called_there(session, target, words, document), key, wait_us)
    with Outlets() as outlets:
        task, call = called(target, words, document)
        twin = None if key is not None or new else _twin(session, task, call)
        engine = Engine(session.url, tenant=session.tenant)
        quieten(session)
        session.act()
        with Signals() as signals, _Opened(engine, target):
            from outlast.engine.guest import Guest

            _tell_of_failures(session, engine)
            guest = Guest(session.url, tenant=engine.tenant, opened=engine.store)
            record = _attach_or_start(session, engine, guest, task, call, key, twin)
            watch = Watch(session, guest, record.id, is_ours=True, peek=_peek(engine))
            ended = watch.follow(lambda: signals.came() or outlets.gone, wait_us)
            if ended is None:
                if signals.came():
                    session.say("stopping at a safe point; once more stops at once")
                engine.close()
                if outlets.gone:
                    return BROKEN_PIPE
                return watch.left_off(signals.came(), _again(session))
            code = conclude(session, ended, log=watch.rows)
            sys.stdout.flush()
            return BROKEN_PIPE if outlets.gone else code


def _run_there(
    session: Session, what: tuple[Task[Any, Any] | str, Call], key: str | None, wait_us: int | None
) -> int:
    """Start a task on the server that the store is behind, and look on."""
    from outlast.cli.watching import Watch, conclude
    from outlast.engine.task.registry import StartOptions

    task, (args, kwargs) = what
    with Signals() as signals, session.guest() as guest:
        record, is_new = guest.start(task, args, kwargs, StartOptions(key=key, origin=ORIGIN))
        said = "started" if is_new else "is there already"
        session.say(f"{session.paint_remark(record.id, 'bold')}  {one_line(record.task)} {said}")
        watch = Watch(session, guest, record.id, is_ours=False)
        ended = watch.follow(signals.came, wait_us)
        if ended is None:
            return watch.left_off(signals.came(), f"outlast watch {record.id}")
    return conclude(session, ended, log=watch.rows)


def called(target: str, words: Sequence[str], document: str | None) -> tuple[Task[Any, Any], Call]:
    """Load the task that a command names, and read its arguments."""
    from outlast.cli.arguments import read_call
    from outlast.cli.loading import load_task

    task = load_task(target)
    words, document = _said(words, document)
    return task, read_call(task, words, document, target=target)


def _called_there(
    session: Session, target: str, words: Sequence[str], document: str | None
) -> tuple[Task[Any, Any] | str, Call]:
    """Read a call for a server, which knows tasks by name whose code need not be here."""
    from outlast.cli.by_name import is_name, read_arguments
    from outlast.errors import CannotLoad, NotFound

    if not is_name(target):
        return called(target, words, document)
    with session.guest() as guest:
        from outlast.client.guest import RemoteGuest

        assert isinstance(guest, RemoteGuest)
        try:
            schema = guest.input_schema(target)
        except NotFound as unknown:
            try:
                return called(target, words, document)  # a module may be named like that as well
            except CannotLoad:
                raise unknown from None
    words, document = _said(words, document)
    return target, ((), read_arguments(target, schema, words, document))


def _said(words: Sequence[str], document: str | None) -> tuple[Sequence[str], str | None]:
    """Read the arguments that come by stdin."""
    if document is None and list(words) == ["-"]:
        words, document = (), "-"
    return words, read_stdin("--json -") if document == "-" else document


class _Opened:
    """An open engine; a store that another one owns is told with what can be done beside it."""

    def __init__(self, engine: Engine, target: str) -> None:
        self._engine, self._target = engine, target

    def __enter__(self) -> Engine:
        try:
            return self._engine.__enter__()
        except StoreOwned as owned:
            owned.do = (
                f"outlast start {self._target} …   that engine takes it, if it knows the task\n"
                "outlast watch last   look on\n"
                "or stop that engine, or use another file with --store"
            )
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._engine.__exit__(kind, error, traceback)


def _twin(session: Session, task: Task[Any, Any], call: Call) -> Twin | None:
    """Find the open execution of the same task and input, and how many of its steps are done.

    It is looked for before the engine opens: from then on it runs, and may end before it is found.
    """
    from outlast.codec import digest

    args, kwargs = call
    wanted = digest(task.input.bind(args, kwargs))
    try:
        with session.guest() as guest:
            record = guest.open_twin(task.name, wanted, ORIGIN)
            return None if record is None else (record, _done(guest, record))
    except SchemaMismatch:
        return None  # there is no file yet, or the engine says what is wrong with it


def _attach_or_start(
    session: Session,
    engine: Engine,
    guest: Guest,
    task: Task[Any, Any],
    call: Call,
    key: str | None,
    twin: Twin | None,
) -> Execution:
    """Go on with the open execution of the same task and input, or start one."""
    from outlast.engine.task.registry import StartOptions
    from outlast.lifecycle import State

    args, kwargs = call
    if twin is not None:
        record, done = twin
        _say_continuing(session, record, done)
        if record.state is State.SUSPENDED:  # typing the command again is asking for another try
            engine.execution(record.id).resume(actor=_actor())
        return record
    held = guest.store.with_key(key) if key is not None else None
    options = StartOptions(key=key, origin=ORIGIN, actor=_actor())
    handle = engine.start_with(options, task, args, kwargs)
    if held is not None and held.id == handle.id:
        _say_continuing(session, held, _done(guest, held))
    else:
        session.say(f"{session.paint_remark(handle.id, 'bold')}  {one_line(task.name)} started")
    return guest.record(handle.id)


def _done(guest: Guest, record: Execution) -> int:
    from outlast.story import story_of

    return story_of(record.id, guest.log(record.id)).done


def _say_continuing(session: Session, record: Execution, done: int) -> None:
    verb = "has ended before" if record.is_final else "continuing"
    said = f"{done} step{'s' if done != 1 else ''} already done"
    name = session.paint_remark(record.id, "bold")
    session.say(f"{name}  {verb}, {said}" if record.is_final else f"{verb} {name}, {said}")


def _peek(engine: Engine) -> Callable[[str], Mapping[str, tuple[int, int]]]:
    """Give a look at the bodies under way in this process: attempt and beginning, by key."""

    def peek(id: str) -> Mapping[str, tuple[int, int]]:
        driver = engine.worker.drivers.get(id)
        bodies = list(driver.bodies.items()) if driver is not None else []
        return {key: (body.attempt, body.started_at) for key, body in bodies}

    return peek


def _again(session: Session) -> str:
    """Write the command that goes on with what this one began: the same, without --new."""
    own = list(session.words)
    place = own.index("--") if "--" in own else len(own)
    return typed([word for word in own[:place] if word != "--new"] + own[place:])


def _tell_of_failures(session: Session, engine: Engine) -> None:
    """Say it when the store cannot be written: the engine goes on as soon as it can be."""
    throw_away = engine.journal.on_failure

    def told(error: OutlastError) -> None:
        why = f" ({one_line(error.why)})" if error.why else ""
        session.say(f"! {error.code}: {one_line(error.what)}{why}; goes on once that is mended")
        if throw_away is not None:
            throw_away(error)

    engine.journal.on_failure = told


def _actor() -> str:
    from outlast.cli.deciding import actor

    return actor()


@click.command(context_settings=_TASK_WORDS)
@click.argument("target", metavar="FILE:TASK")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--name VALUE]…")
@click.option(
    "--json",
    "document",
    metavar="JSON",
    help="All arguments in one object or array; - reads stdin.",
)
@click.option("--key", help="The same key and input: the same execution.")
@click.option("--delay", metavar="DURATION", help="Not before so long from now.")
@click.option("--at", metavar="TIME", help="Not before then, as in 2030-01-31T08:00+01:00.")
@click.option("--deadline", metavar="DURATION", help="How long it may take in all.")
@click.option("--queue-timeout", metavar="DURATION", help="How long it may wait to begin.")
@click.option("--attempt-timeout", metavar="DURATION", help="How long one attempt may take.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Find it by this.")
@click.option("--priority", type=int, help="Of those that are queued, the highest goes first.")
@shared
def start(
    session: Session,
    target: str,
    words: Sequence[str],
    document: str | None,
    key: str | None,
    delay: str | None,
    at: str | None,
    deadline: str | None,
    queue_timeout: str | None,
    attempt_timeout: str | None,
    labels: Sequence[str],
    priority: int | None,
) -> None:
    """Start a task and do not wait; the engine that runs takes it up, or the next one does.

    On a server, the name of a task is enough, where its code is not at hand.
    """
    from outlast.cli.looking import labels_of
    from outlast.engine.task.registry import StartOptions

    if at is not None and delay is not None:
        raise UsageError("--at and --delay say the same thing", do="give one of them")
    options = StartOptions(
        key=key,
        origin="start",
        actor=_actor(),
        delay_us=span_of("--delay", delay),
        start_at=instant_of("--at", at),
        deadline_us=span_of("--deadline", deadline),
        queue_timeout_us=span_of("--queue-timeout", queue_timeout),
        attempt_timeout_us=span_of("--attempt-timeout", attempt_timeout),
        labels=labels_of(labels) or None,
        priority=priority,
    )
    read = partial(_called_there, session) if session.is_remote else called
    task, call = read(target, words, document)
    with session.guest(make=True) as guest:
        record, is_new = guest.start(task, *call, options)
        owner = guest.owner()
    if session.as_json:
        from outlast.forms import execution_form

        session.json({**execution_form(record), "is_new": is_new})
        return
    said = "" if session.output == "ids" else f"  {one_line(record.task)}  {record.state}"
    session.out(record.id + said + ("" if is_new or not said else "  (there already)"))
    if owner is None and not record.is_final:
        source = target.rpartition(":")[0] or target
        session.say(f"kept for the next engine, as none runs now: outlast worker {source}")


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE…")
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1_000),
    help="Worker processes; more than one needs a store that many can share.",
)
@click.option(
    "--concurrency",
    "--slots",
    "slots",
    default=1_000,
    show_default=True,
    type=click.IntRange(1),
    help="Executions at once, in each process.",
)
@click.option(
    "--lease",
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="How long it may be silent before another worker takes over, on a shared store.",
)
@click.option(
    "--threads",
    default=64,
    show_default=True,
    type=click.IntRange(1),
    help="def steps, and def tasks, at once.",
)
@click.option(
    "--warm-copies",
    type=click.IntRange(0),
    help="Parked executions with long logs to keep in memory at most.  [default: 128]",
)
@click.option(
    "--step-processes",
    default=None,
    type=click.IntRange(1),
    help="Steps in processes at once.  [default: one a processor]",
)
@click.option(
    "--patience",
    default="5s",
    show_default=True,
    metavar="DURATION",
    help="How long a stop waits for steps under way.",
)
@click.option(
    "--queue",
    "--queues",
    "queues",
    multiple=True,
    metavar="NAME,…",
    help="Only these queues; repeatable. [all]",
)
@click.option(
    "--capability",
    "capabilities",
    multiple=True,
    metavar="NAME",
    help="What it offers to tasks with needs=, as in gpu; repeatable.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    help="Show metrics for Prometheus there; of several processes, each has the next port.",
)
@click.option(
    "--metrics-host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where the metrics are shown: whoever reaches it can read them.",
)
@OTEL
@shared
@logged
def worker(
    session: Session,
    sources: Sequence[str],
    processes: int,
    slots: int,
    lease: str,
    threads: int,
    warm_copies: int | None,
    step_processes: int | None,
    patience: str,
    queues: Sequence[str],
    capabilities: Sequence[str],
    metrics_port: int | None,
    metrics_host: str,
    otel: bool,
) -> int:
    """Run the executions of the tasks in FILE until SIGTERM or Ctrl-C; a second one stops at once.

    FILE may be a Python file or a module; what it imports is served as well. With --processes, this
    process runs nothing itself: it starts so many workers, and others in the place of those that
    die. So it does for several --tenant: each has processes of its own.
    """
    from outlast.cli.loading import load_module
    from outlast.cli.supervising import end_with_supervisor
    from outlast.engine.drive.warm import WARM_COPIES
    from outlast.engine.engine import Engine
    from outlast.engine.task.registry import TASKS

    span_of("--patience", patience)
    span_of("--lease", lease)
    if session.is_remote:
        return _serve_remotely(session, sources, min(slots, threads), lease, patience)
    if processes > 1 or len(session.tenants) > 1:
        return _supervise(session, processes)
    end_with_supervisor()
    with Outlets():
        for source in sources:
            file, _, name = source.rpartition(":")
            load_module(file if name.isidentifier() and file else source)
        if not TASKS:
            raise UsageError(
                "there is no task to serve",
                where=", ".join(sources),
                why="no function in it has @task",
                do="put @task before a function",
            )
        quieten(session)
        engine = Engine(
            session.url,
            tenant=session.tenant,
            slots=slots,
            threads=threads,
            processes=step_processes,
            warm_copies=WARM_COPIES if warm_copies is None else warm_copies,
            patience=patience,
            lease=lease,
            queues=[name for names in queues for name in names.split(",")] or None,
            capabilities=capabilities,
        )
        with _metrics(session, engine, metrics_host, metrics_port):
            return _serve(session, engine, otel=otel)


def _metrics(
    session: Session, engine: Engine, host: str, port: int | None
) -> AbstractContextManager[object]:
    """Show the engine's metrics, if that is wanted."""
    if port is None:
        return nullcontext()
    with needed("metrics", "metrics"):
        from outlast.observe.metrics import Metrics
    from outlast.cli.supervising import place_here
    from outlast.observe.port import Port

    shown = Port(Metrics(engine), host, port + place_here() - 1 if port else 0)
    session.say(f"metrics on {shown.url}")
    return shown


def _serve_remotely(
    session: Session, sources: Sequence[str], slots: int, lease: str, patience: str
) -> int:
    """Run steps for the server that the store is behind, until somebody wants it to stop."""
    import asyncio

    from outlast.cli.loading import load_module

    with needed("client", "a worker over HTTP"):
        from outlast.client.remote import RemoteWorker

    with Outlets():
        for source in sources:
            load_module(source)
        remote = RemoteWorker(session.url, concurrency=slots, lease=lease, patience=patience)

        async def serve() -> None:
            loop, until = asyncio.get_running_loop(), asyncio.Event()

            def stop() -> None:
                signals.wait()
                with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
                    loop.call_soon_threadsafe(until.set)

            threading.Thread(target=stop, daemon=True).start()
            await remote.run(
                until,
                lambda error: session.say(f"! {one_line(str(error))}"),
                lambda: _say_serving(session, sorted(remote.steps), os.getpid()),
            )

        with Signals() as signals:
            asyncio.run(serve())
    session.say(f"stopped; {remote.done} steps done, {remote.failed} failed, {remote.lost} lost")
    return OK


def _supervise(session: Session, processes: int) -> int:
    """Run several workers, each in a process of its own."""
    from outlast.cli.supervising import Supervisor, own_command
    from outlast.store import is_postgres

    if processes > 1 and not is_postgres(session.url):
        raise UsageError(
            f"{processes} worker processes cannot share this store",
            where=session.url,
            why="one process owns a SQLite file; it runs many executions at once by itself",
            do="leave --processes out, or use --store postgresql://…",
        )
    with Signals(keep=True) as signals:
        told = 0

        def stops() -> int:
            nonlocal told
            if signals.count() > told:
                told = signals.count()
                session.say(
                    "stopping all workers at a safe point; once more stops at once"
                    if told == 1
                    else "stopping all workers at once"
                )
            return signals.count()

        return Supervisor(
            own_command(session.words, several=len(session.tenants) > 1),
            processes,
            session.say,
            tenants=session.tenants,
        ).run(stops)


def _serve(session: Session, engine: Engine, *, otel: bool) -> int:
    """Keep an engine open until somebody wants it to stop."""
    from outlast.engine.primitives.publishing import OWN
    from outlast.engine.task.registry import TASKS

    own = sorted(one for one in TASKS if not one.startswith(OWN))
    with Signals() as signals, engine:
        with told(engine, wanted=otel):
            _tell_of_failures(session, engine)
            engine.on_lost = signals.end
            _say_serving(session, own, os.getpid())
            number = signals.wait()
            if engine.lost is not None:
                raise engine.lost
            session.say(
                f"{signal.Signals(number).name}: stopping at a safe point; once more stops at once"
            )
        handed = engine.close()
    many = "1 execution" if handed == 1 else f"{handed} executions"
    session.say("stopped" + (f"; {many} handed back for the next engine" if handed else ""))
    return OK


def _say_serving(session: Session, tasks: list[str], pid: int) -> None:
    if session.as_json:
        session.json(
            {"type": "worker", "store": session.shown, "pid": pid, "tasks": tasks}, indent=False
        )
    elif not session.quiet:
        few = ", ".join(tasks[:8]) + (f" and {len(tasks) - 8} more" if len(tasks) > 8 else "")
        session.out(f"serving {few} on {session.shown} · pid {pid} · Ctrl-C stops it gracefully")


class _OneLine(logging.Handler):
    """Tells what asyncio logs (an error that nobody took) in a line, not in a traceback of ours."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def emit(self, record: logging.LogRecord) -> None:
        """Tell one record."""
        said = record.getMessage().splitlines()[0]
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            said = f"{said}: {type(error).__name__}: {error}"
        self._session.say(f"! {one_line(said, 400)}  (--debug shows more)")


def quieten(session: Session) -> None:
    """Keep tracebacks out of the terminal, unless they are asked for or logging is set up."""
    logger = logging.getLogger("asyncio")
    if not session.debug and not logger.hasHandlers():
        logger.addHandler(_OneLine(session))
        logger.propagate = False
