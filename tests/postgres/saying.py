"""What a campaign, as a command of its own, says it did."""

from __future__ import annotations

import json
from typing import Any

from tests.crash.test_kill import command


def said_by(module: str, *arguments: object) -> dict[str, Any]:
    """Run a campaign; gives its counts, and the rules that were broken."""
    done = command(module, "--json", *arguments)
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said
