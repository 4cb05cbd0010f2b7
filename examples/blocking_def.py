"""No async at all: a def task runs in a thread and calls its steps plainly.

outlast run examples/blocking_def.py:thumbnails --count 3
"""

from __future__ import annotations

import hashlib

from outlast import step, task
from outlast.blocking import ask, sleep


@step(retries=2)
def render(number: int) -> str:
    return hashlib.sha256(f"image {number}".encode()).hexdigest()[:8]


@task
def thumbnails(count: int = 3, pause: str = "100ms") -> list[str]:
    made = []
    for number in range(count):
        made.append(render(number))  # one after another; each is recorded as it ends
        sleep(pause)
    if not ask("Keep them?", bool, timeout="500ms", default=True):
        return []
    return made
