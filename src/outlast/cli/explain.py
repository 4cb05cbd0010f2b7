"""What each error code means and what to do about it; ``docs/errors.md`` is made from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from outlast import errors
from outlast.cli.exits import exit_of


@dataclass(frozen=True, slots=True)
class Explanation:
    """One code.

    Attributes:
        code: the stable word.
        name: the class that has it.
        meaning: what happened, from the class itself.
        why: what usually leads to it.
        do: what to do about it, one remedy a line.
        exit_code: what a command ends with that meets it.
    """

    code: str
    name: str
    meaning: str
    why: str
    do: tuple[str, ...]
    exit_code: int


_TEXTS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "error": (
        "the common ancestor of all errors; you never meet it itself",
        ("catch it to catch every error of Outlast",),
    ),
    "usage": (
        "an option, an argument or a value is not one that is taken here",
        ("outlast COMMAND --help", "look at what the message names, and call it again"),
    ),
    "unknown_task": (
        "the name is misspelt, the @task is missing, or the file that defines it was not imported",
        ("name a task that the message lists", "put @task before the function"),
    ),
    "wrong_arguments": (
        "an argument is missing, is one too many, or has another name than the parameter",
        ("give each parameter once: --name VALUE, or --json '{\"name\": …}'",),
    ),
    "wrong_colour": (
        "async def code waits with await, def code blocks; a step is called in the way of its task",
        (
            "in an async def task: await step.aio(…) for a def step",
            "in a def task: use def steps, and sleep, ask, wait_for of outlast.blocking",
        ),
    ),
    "not_durable": (
        "a replay could not repeat it: sockets, subprocesses, threads and the like",
        ("put it into a @step and call that",),
    ),
    "outside_execution": (
        "sleep, ask, wait_for, now, random, uuid4 belong to a task's own code",
        ("call it in a task, not in a step, and start the task with an engine",),
    ),
    "no_engine": (
        "start needs an engine that is open in this process",
        ('with Engine("sqlite:///outlast.db"): …', "outlast start FILE:TASK, from a terminal"),
    ),
    "bad_payload": (
        "inputs, results and answers are stored as JSON by their annotated types, never pickled",
        (
            "return or pass what the annotation says",
            "return a path or an id instead of the thing itself",
        ),
    ),
    "payload_too_large": (
        "a value is kept with every copy of the log, so its size has a limit",
        ("store the thing in a file or bucket, and return where it is",),
    ),
    "bad_schedule": (
        "the cron expression, the time zone, a span or a policy is none that is known",
        (
            "cron is minute hour day month weekday; seconds may stand before",
            "time zones are named as Europe/Berlin, spans as 5m or 1h30m",
            "outlast schedule create --help",
        ),
    ),
    "bad_request": (
        "a header, the form or the length of an HTTP request is not one that the server takes",
        (
            "send JSON (content-type: application/json), and only what /openapi.json names",
            "call the server by a name it knows: outlast server --allow-host NAME",
        ),
    ),
    "key_missing": (
        "neither OUTLAST_KEYS_FILE nor OUTLAST_KEYS_COMMAND nor OUTLAST_KEYS names the key",
        ("OUTLAST_KEYS_FILE=PATH, with the key in that file",),
    ),
    "key_wrong": (
        "another key has the same name, or the store is a copy of another one",
        ("give the key that the store was encrypted with; without it nobody reads its payloads",),
    ),
    "cannot_load": (
        "the path or address is wrong, or the file raises an error while it is imported",
        ("correct the path; run it with python alone to see whether it imports",),
    ),
    "not_found": (
        "the id belongs to another store, or the question has been answered or given up",
        ("outlast ls", "check --store and OUTLAST_STORE"),
    ),
    "unknown_step": (
        "a fork begins at a step that the log of its source knows, by its key or its place",
        ("outlast show ID, which names the steps", "outlast rerun ID, to begin with the first"),
    ),
    "refused": (
        "the request is legal, but not now",
        ("outlast show ID, to see the state it is in",),
    ),
    "transition_refused": (
        "the lifecycle has no such step from the state it is in; ended executions never change",
        ("outlast show ID, to see the state it is in", "docs/lifecycle.md has the whole table"),
    ),
    "lease_lost": (
        "the process was taken for dead, or the execution was ended by force",
        ("nothing: the new owner goes on from the log",),
    ),
    "misdirected": (
        "several servers share an address, and a worker came to another one than gave the claim",
        (
            "try again over a new connection, as outlast worker does: it comes to the right one",
            "give each server an address, and each its workers",
        ),
    ),
    "key_conflict": (
        "a key means one execution: the same task with the same input",
        ("use another key, or the same input",),
    ),
    "feed_gap": (
        "the cursor is older than a day, or nobody has followed the feed for so long",
        (
            "go on without a cursor: what happens from now on",
            "outlast ls --since 2d, for what you may have missed",
        ),
    ),
    "schedule_refused": (
        "a schedule that has ended or is paused already, or a name that is taken",
        ("outlast schedule show NAME", "create one under another name"),
    ),
    "already_answered": (
        "somebody else, or the same person twice; the first answer wins",
        ("outlast show ID, to see the answer",),
    ),
    "over_budget": (
        "what is spent and set aside already, and this, would be more than the limit",
        (
            "catch it in the step's body, and do with less",
            "outlast budget raise SCOPE METER=AMOUNT, so that what is suspended goes on by itself",
        ),
    ),
    "not_recoverable": (
        "a recovery tries again what failed; this execution goes on, or has succeeded",
        (
            "outlast rerun ID, to start it again from nothing",
            "outlast fork ID --from STEP, to go on anew from a step",
        ),
    ),
    "stale": (
        "somebody changed the execution between your GET and your PATCH",
        (
            "GET it again, and send its new ETag as If-Match",
            "leave If-Match out, to change it anyway",
        ),
    ),
    "name_taken": (
        "names of users are taken once",
        ("take another name", "outlast user password NAME, for another password"),
    ),
    "token_used": (
        "a token permits one answer, and the question has it",
        ("outlast show ID, to see the answer",),
    ),
    "token_refused": (
        "a token permits one answer to one question, for a time, in the store that made it",
        ("outlast answer ID --give-token, for a new one",),
    ),
    "token_invalid": (
        "a part of it was lost or changed on the way, or somebody made it up",
        ("copy the whole token", "outlast answer ID --give-token, for a new one"),
    ),
    "token_foreign": (
        "the store that made it is another file than the one asked, or a new one of the same name",
        ("check --store and OUTLAST_STORE",),
    ),
    "token_expired": (
        "a token is for 7 days, if whoever made it said nothing else",
        ("outlast answer ID --give-token --expires 7d, for a new one",),
    ),
    "access_refused": (
        "the common ancestor of what is refused for want of a right",
        ("ask whoever runs the server",),
    ),
    "unauthenticated": (
        "the server knows callers by a token, and this request brought none that it knows",
        (
            "authorization: Bearer TOKEN; the first start of the server printed one",
            "OUTLAST_TOKEN=TOKEN, for the command line",
        ),
    ),
    "too_many_attempts": (
        "somebody guesses, or a program has an old password; each failure doubles the wait",
        (
            "wait as long as it says, then sign in once",
            "outlast user password NAME, for another one",
        ),
    ),
    "forbidden": (
        "the token is known, and is not for this",
        ("ask whoever runs the server for a token with this permission",),
    ),
    "store_owned": (
        "one engine at a time runs the executions of a file",
        (
            "outlast start, watch, answer, cancel: they work beside it",
            "stop that engine, or use another file with --store",
        ),
    ),
    "execution_ended": (
        "it failed, was cancelled or ran out of time",
        ("outlast show ID",),
    ),
    "execution_failed": (
        "its code raised an error, and no attempt was left",
        (
            "outlast show ID, for the steps and the traceback",
            "correct the cause, and start it anew",
        ),
    ),
    "execution_cancelled": ("somebody asked for it", ("outlast show ID, to see who and why",)),
    "execution_timed_out": (
        "its deadline counts from its creation, waiting included",
        ("give the task a longer timeout, and start it anew",),
    ),
    "execution_not_started": (
        "no engine took it within its queue_timeout: none runs, knows the task, or has room",
        ("start an engine that knows the task, or more of them", "allow a longer queue_timeout"),
    ),
    "wait_timeout": (
        "only the wait is over: the execution, or the question's asker, goes on",
        ("wait again: outlast watch ID", "in task code: give ask a default"),
    ),
    "step_failed": (
        "the class of the original error is not importable here, so this stands for it",
        ("look at its type, message and traceback: outlast show ID",),
    ),
    "step_timeout": (
        "the body was slower than @step(timeout=…) allows; a thread cannot be stopped and runs on",
        ("give it more time, or retries", 'run it where it can be stopped: @step(on="process")'),
    ),
    "step_queue_timeout": (
        "all threads, or all processes, of the engine were busy for longer than queue_timeout",
        ("Engine(threads=…) or Engine(processes=…): allow more at once", "allow a longer wait"),
    ),
    "step_deadline": (
        "attempts and back-offs together were longer than @step(deadline=…) allows",
        ("look at the failed attempts: outlast show ID", "allow a longer deadline"),
    ),
    "heartbeat_lost": (
        "the body called heartbeat() less often than @step(heartbeat=…) asks for, or hangs",
        ("call outlast.heartbeat() more often", "allow a longer silence"),
    ),
    "process_died": (
        "the body crashed its process (C code, os._exit), or the kernel killed it for its memory",
        (
            "look at what the process wrote to stderr, and at the kernel's log",
            "let it use less memory; allow retries where that helps",
        ),
    ),
    "attempt_timeout": (
        "one try of the task took longer than attempt_timeout, its waits and restarts included",
        ("allow a longer attempt_timeout, or retries", "give what waits for people a timeout"),
    ),
    "undo_failed": (
        "steps that undo others have failed themselves, also after their retries",
        (
            "outlast show ID names them; undo by hand what they left behind",
            "give steps that undo more retries than those that do",
        ),
    ),
    "deadlock": (
        "no step is under way, no timer is set, nothing from outside is awaited",
        ("set the event, fill the queue or release the lock that the message names",),
    ),
    "code_mismatch": (
        "the function was edited under an open execution; a replay must find the same calls",
        (
            "see both sides and all choices: outlast why ID",
            "bring the old code back, then: outlast resume ID",
            "leave it to code of its version: outlast resume ID --pin VERSION",
            "mark the edit with changed(), deploy it, then: outlast resume ID",
            "start afresh with the new code: outlast run FILE:TASK --new",
            "give it up: outlast cancel ID",
        ),
    ),
    "unknown_tenant": (
        "the name is misspelt, the tenant was never made, or the store is another one",
        ("outlast tenant ls", "outlast tenant add NAME"),
    ),
    "tenant_closed": (
        "somebody has closed it: what is there can be read, and nothing is started or run",
        ("outlast tenant open NAME",),
    ),
    "store_unavailable": (
        "the disk or file system did not do what was asked; what was acknowledged is safe",
        ("look at the disk, then try again",),
    ),
    "store_busy": (
        "another process holds the write lock, for instance a backup or an SQL shell",
        ("close it, then try again",),
    ),
    "store_full": ("no room is left", ("free some room; what was acknowledged is safe",)),
    "store_failed_over": (
        "a standby was promoted, or a backup restored; what was acknowledged last may be lost",
        (
            "nothing for the engines: they drop what they have in memory and read again",
            "outlast db check says when, why, and what was lost as far as anybody knows",
            "start again, with its key, what was acknowledged and is not there",
            "set synchronous_standby_names, so that nothing is lost the next time",
        ),
    ),
    "store_read_only": (
        "the file or its directory belongs to somebody else, or the disk is mounted read-only",
        ("give this user the right, or name another file with --store",),
    ),
    "overloaded": (
        "the disk, or the process, is behind with what came before",
        ("ask again after the seconds that Retry-After says", "start with an Idempotency-Key"),
    ),
    "server_unreachable": (
        "the address is wrong, the server is down, or the connection broke on the way",
        (
            "outlast server APP, on the machine that shall answer",
            "do the same again with the same key: it happens once",
        ),
    ),
    "store_broken": (
        "the path names something else, or the disk has lost data",
        ("check --store and OUTLAST_STORE", "restore a backup; the file was left as it is"),
    ),
    "schema_mismatch": (
        "the file was not made yet, or by another version of Outlast",
        ("outlast db init, for a new file", "outlast db upgrade, for an older one, after a copy"),
    ),
    "internal_error": (
        "an invariant of ours broke; nothing was written past it",
        ("outlast db verify", "report it, with the output of the same command and --debug"),
    ),
}


def explain(code: str) -> Explanation:
    """Explain a code.

    Raises:
        NotFound: there is no such code.
    """
    code = code.lower()
    for explanation in explanations():
        if explanation.code == code:
            return explanation
    import difflib

    near = difflib.get_close_matches(code, _TEXTS, 1)
    raise errors.NotFound(
        f'there is no error code "{code}"',
        why=f"did you mean {near[0]}?" if near else "no error of this version has it",
        do="outlast explain, for the list of all codes",
    )


def explanations() -> Iterator[Explanation]:
    """Explain every code, in the order of the tree of errors."""
    for kind in classes(errors.OutlastError):
        why, do = _TEXTS[kind.code]
        meaning = (kind.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")
        yield Explanation(kind.code, kind.__name__, meaning, why, do, exit_of(kind("")))


def classes(kind: type[errors.OutlastError]) -> Iterator[type[errors.OutlastError]]:
    """Walk the errors of Outlast, each before its heirs."""
    if kind.__module__ == errors.__name__:
        yield kind
    for heir in kind.__subclasses__():
        yield from classes(heir)


def texts_of(code: str) -> tuple[str, tuple[str, ...]]:
    """Give the usual cause of a code and its remedies."""
    return _TEXTS.get(code, _TEXTS["internal_error"])
