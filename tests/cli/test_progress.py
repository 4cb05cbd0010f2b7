"""How far a step is: shown to whoever looks, and known to the attempt after a kill."""

from __future__ import annotations

from .conftest import Terminal, until

PROGRAM = """
import time
from outlast import heartbeat, step, task, this_step

@step(PLACE)
def copy() -> str:
    if this_step().last_heartbeat:
        return f"went on at {this_step().last_heartbeat}"
    heartbeat({"page": 3})
    while True:
        time.sleep(0.01)

@task
async def report() -> str:
    return await copy.aio()
"""


def tried(terminal: Terminal, place: str) -> None:
    """Kill an engine while a step says how far it is, and go on."""
    (terminal.directory / "copies.py").write_text(PROGRAM.replace("PLACE", place))
    killed = terminal.spawn("run", "copies.py:report")
    killed.line_with('copy#1 is under way, attempt 1: {"page":3}')
    said = terminal.here("show", "last")
    assert 'ago: {"page":3}' in said.out and "copy#1" in said.out
    (step,) = terminal.here("show", "last", "-o", "json").json["steps"]
    assert step["progress"] == {"page": 3} and step["beat_at"] is not None
    killed.kill()
    again = terminal.run("run", "copies.py:report", "-q")
    assert again.json == "went on at {'page': 3}", again
    assert "said" not in terminal.here("show", "last").out
    assert terminal.here("db", "verify").code == 0


def test_a_step_in_a_thread(terminal: Terminal) -> None:
    tried(terminal, 'heartbeat="1h"')


def test_a_step_in_a_process(terminal: Terminal) -> None:
    tried(terminal, 'on="process"')


def test_a_late_start_is_told(terminal: Terminal) -> None:
    """Nobody serves it; the next engine that looks finds that it is too late."""
    terminal.run("start", "tasks.py:hello", "Ada", "--queue-timeout", "1ms")
    (terminal.directory / "other.py").write_text(PROGRAM.replace("PLACE", ""))
    serving = terminal.spawn("worker", "other.py")
    until(lambda: terminal.here("ls", "--state", "timed_out", "-o", "ids").out)
    assert "had not begun in time" in terminal.here("show", "last").out
    assert "it had not begun in time: timed out" in terminal.here("events", "last").out
    serving.kill()
    watched = terminal.here("watch", "last")
    assert watched.code == 1 and "execution_not_started" in watched.err
