"""The list of the commands."""

from __future__ import annotations

from typing import Final

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "run": ("running:run", "Start a task, or go on with it, and wait for its end."),
    "start": ("running:start", "Start a task and do not wait."),
    "worker": ("running:worker", "Run executions until SIGTERM or Ctrl-C."),
    "watch": ("watching:watch", "Look on while an execution runs."),
    "ls": ("looking:ls", "List executions, the newest first."),
    "show": ("looking:show", "Show one execution: state, steps, questions, result."),
    "events": ("looking:events", "Show the log of an execution, one line a transition."),
    "why": ("looking:why", "Say why an execution is not moving."),
    "inbox": ("inbox:inbox", "List the open questions of all executions."),
    "answer": ("deciding:answer", "Answer the question of an execution."),
    "signal": ("deciding:signal", "Send an execution a signal."),
    "cancel": ("deciding:cancel", "Ask executions to end."),
    "pause": ("deciding:pause", "Hold executions at their next safe point."),
    "resume": ("deciding:resume", "Let executions go on."),
    "schedule": ("scheduling:schedule", "Make executions by the clock, and ask why one did not."),
    "db": ("database:db", "Make, look at, check or upgrade the database file."),
    "explain": ("explaining:explain_code", "Explain an error code, offline."),
    "demo": ("demonstrating:demo", "See an execution survive kill -9, on real data, in seconds."),
}
"""Every command: where it is, and what it is for. A command is imported when it is called."""
