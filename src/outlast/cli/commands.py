"""The list of the commands."""

from __future__ import annotations

from typing import Final

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "run": ("running:run", "Start a task, or go on with it, and wait for its end."),
    "start": ("running:start", "Start a task and do not wait."),
    "dev": ("serving:dev", "Engine, worker and server in one process, for this machine."),
    "server": ("serving:server", "Serve the engine over HTTP until SIGTERM or Ctrl-C."),
    "worker": ("running:worker", "Run executions until SIGTERM or Ctrl-C."),
    "workers": ("workers:workers", "List the workers: who lives, holds what, knows which tasks."),
    "watch": ("watching:watch", "Look on while an execution runs."),
    "ls": ("looking:ls", "List executions, the newest first."),
    "show": ("looking:show", "Show one execution: state, steps, questions, result."),
    "events": ("looking:events", "Show the log of an execution, one line a transition."),
    "tree": ("tree:tree", "Show an execution and its children of all levels."),
    "stream": ("streaming:stream", "Show what an execution said into a stream, live with -f."),
    "why": ("looking:why", "Say why an execution is not moving."),
    "inbox": ("inbox:inbox", "List the open questions of all executions."),
    "answer": ("deciding:answer", "Answer the question of an execution."),
    "signal": ("deciding:signal", "Send an execution a signal."),
    "publish": ("publishing:publish", "Send an event to every open execution."),
    "cancel": ("controlling:cancel", "Ask executions to end."),
    "pause": ("controlling:pause", "Hold executions at their next safe point."),
    "resume": ("controlling:resume", "Let executions go on."),
    "retry": ("controlling:retry", "Try executions again now: in a back-off, or failed."),
    "recover": ("controlling:recover", "Make another execution of a failed one; reuse its steps."),
    "rerun": ("controlling:rerun", "Start executions again from nothing, perhaps edited."),
    "fork": ("controlling:fork", "Make another execution that goes on anew from a step."),
    "label": ("controlling:label", "Set labels of executions, or take them away."),
    "priority": ("controlling:priority", "Give executions another priority."),
    "budget": ("budgeting:budget", "Limit what is spent: list budgets, set and raise them."),
    "schedule": ("scheduling:schedule", "Make executions by the clock, and ask why one did not."),
    "queue": ("queueing:queue", "Look at queues; pause, resume and limit them."),
    "limit": ("queueing:limit", "Look at limits and rates, and who holds them; set them."),
    "user": ("accounts:user", "Users of a server: add them, disable them, set passwords."),
    "token": ("accounts:token", "Tokens for programs: make, list and revoke them."),
    "tenant": ("tenancy:tenant", "Tenants, which share a store and see nothing of each other."),
    "role": ("accounts:role", "Who may do what: grant roles and take them back."),
    "audit": ("auditing:audit", "See who changed what, and that nothing of it was tampered with."),
    "check": ("checking:check", "Say which open executions would go on with today's code."),
    "db": ("database:db", "Make, look at, check or upgrade the database file."),
    "explain": ("explaining:explain_code", "Explain an error code, offline."),
    "demo": ("demonstrating:demo", "See an execution survive kill -9, on real data, in seconds."),
}
"""Every command: where it is, and what it is for. A command is imported when it is called."""
