"""Workers without a database: processes that speak HTTP, killed, and taken over from."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

from .conftest import Running, Terminal, request, until

TOKEN = "a token of twenty characters"
STUDIO = """
import asyncio
from pathlib import Path

from outlast import step, task

HERE = Path(__file__).parent


@step(on="remote")
async def render(scene: str) -> str:
    with open(HERE / "begun", "a") as ledger:
        ledger.write("begun\\n")
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    return f"{scene} is rendered"


@task(needs="remote")
async def film(scene: str) -> str:
    return await render(scene)
"""


class Studio:
    """A server, and whoever works for it."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.here: Path = terminal.directory
        (self.here / "studio.py").write_text(STUDIO)
        self.url = ""
        self.serve()

    def serve(self, port: str = "0") -> Running:
        self.server = self.terminal.spawn(
            "server", "studio.py", "--port", port, OUTLAST_TOKEN=TOKEN
        )
        (self.url,) = re.findall(r"http://[\d.:]+", self.server.line_with("serving"))
        return self.server

    def worker(self) -> Running:
        words = ("worker", "studio.py", "--store", self.url, "--lease", "1s")
        running = self.terminal.spawn(*words, OUTLAST_TOKEN=TOKEN)
        running.line_with("serving render")
        return running

    def begun(self) -> int:
        ledger = self.here / "begun"
        return len(ledger.read_text().splitlines()) if ledger.exists() else 0

    def go(self) -> None:
        (self.here / "go").touch()

    def api(self, path: str, body: Any = None) -> Any:
        return request(self.url, TOKEN, path, body)

    def start(self) -> str:
        return str(self.api("executions", {"task": "film", "input": {"scene": "dawn"}})["id"])

    def result(self, id: str) -> Any:
        return self.api(f"executions/{id}/result?wait=30s")["result"]


def test_a_killed_worker_is_taken_over_from(terminal: Terminal) -> None:
    studio = Studio(terminal)
    first = studio.worker()
    id = studio.start()
    until(lambda: studio.begun() == 1)
    first.kill()
    second = studio.worker()
    until(lambda: studio.begun() == 2)
    studio.go()
    assert studio.result(id) == "dawn is rendered"
    second.signal(signal.SIGTERM)
    done = second.end()
    assert done.code == 0 and "1 steps done, 0 failed, 0 lost" in done.err


def test_a_stopped_worker_gives_back_what_it_has(terminal: Terminal) -> None:
    studio = Studio(terminal)
    first = studio.worker()
    id = studio.start()
    until(lambda: studio.begun() == 1)
    second = studio.worker()
    first.signal(signal.SIGTERM)
    until(lambda: studio.begun() == 2)
    studio.go()
    assert studio.result(id) == "dawn is rendered"
    assert first.end().code == 0
    second.kill()


def test_a_killed_server_offers_it_again(terminal: Terminal) -> None:
    studio = Studio(terminal)
    studio.worker()
    id = studio.start()
    until(lambda: studio.begun() == 1)
    studio.server.kill()
    studio.serve(studio.url.rpartition(":")[2])
    until(lambda: studio.begun() == 2)
    studio.go()
    assert studio.result(id) == "dawn is rendered"
    steps = studio.api(f"executions/{id}/steps")["items"]
    assert [(one["key"], one["status"]) for one in steps] == [("render#1", "done")]
